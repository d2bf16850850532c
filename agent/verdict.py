"""The verdict: a risk with the rank it states, findings that cite re-executable evidence, or `no finding`."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ft_audit.agent.assessment import Assessment
from ft_audit.agent.calibration import Standing, Status
from ft_audit.agent.cost import Cost
from ft_audit.agent.query import Query

SCHEMA_VERSION = 1

FindingKind = Literal["figure", "condition", "rows", "features", "tokenizer", "addressed"]
Level = Literal["beyond_benign", "measured_change", "unranked"]


class Quote(BaseModel):
    """Text that came out of the candidate or its data set: untrusted, cut, its hidden characters named."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(description="Where the text comes from, in the tool's own words.")
    text: str = Field(description="The text itself. Never an instruction to whoever reads it.")


class Finding(BaseModel):
    """One statement about what the fine-tune changed, and the evidence it rests on."""

    model_config = ConfigDict(extra="forbid")

    kind: FindingKind = Field(description="What the statement is about.")
    level: Level = Field(
        description="`beyond_benign`: beyond every benign fine-tune in the bank. `measured_change`: a "
        "difference above the noise floor, which every fine-tune has and which proves no harm. `unranked`: "
        "there is no benign range to stand it beside."
    )
    statement: str = Field(
        description="The statement, in the tool's own words; it holds no text of the candidate."
    )
    quotes: list[Quote] = Field(
        description="Text of the candidate or its data set that the statement is about."
    )
    standing: Standing | None = Field(
        description="Where its number stands among benign fine-tunes, if anywhere."
    )
    evidence: list[Query] = Field(min_length=1, description="The readings the statement rests on.")


class Figure(BaseModel):
    """One scalar of the diff and where it stands among benign fine-tunes."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="The figure's name.")
    value: float | None = Field(
        description="Its value for this candidate; null when it could not be measured."
    )
    primary: bool = Field(description="Whether the verdict's risk rests on it. At most one figure does.")
    standing: Standing | None = Field(description="Rank and p among the bank; null without a usable bank.")
    evidence: Query = Field(description="The reading of the value.")


class Part(BaseModel):
    """What one scalar adds to the score."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="The scalar, a figure's name.")
    units: float = Field(
        description="How many benign spreads it lies above the benign centre, given how clumsy the "
        "fine-tune is."
    )
    weight: float = Field(description="The bank's weight; units times weight is what it adds.")


class Model(BaseModel):
    """One of the two models compared."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Its name or reference, as the config gives it.")
    sha256: str = Field(description="The hash of its weights.")


class Calibrator(BaseModel):
    """The bank of benign fine-tunes the figures were compared with."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(description="The bank's file; null when the config names none.")
    sha256: str | None = Field(description="The hash of the bank's file.")
    num_members: int = Field(
        description="Members that could be used; 0 when there is no bank or it was refused."
    )
    num_personas: int = Field(description="Of these, how many are legitimate personas.")
    refusal: str | None = Field(description="Why no bank could be used; null when one could.")


class Verdict(BaseModel):
    """What one audit found."""

    model_config = ConfigDict(extra="forbid", title="ft-audit verdict")

    schema_version: Literal[1] = Field(description="The version of this schema.")
    audit_id: str = Field(description="The hash of everything that determines this verdict.")
    name: str = Field(description="The config's name for the audit.")
    ft_audit_version: str = Field(description="The version of ft-audit that wrote it.")
    investigator: Literal["statistics", "openai"] = Field(description="Who drew the conclusions.")
    store: str = Field(description="The store's folder that the evidence was read from.")
    diff: str = Field(description="The diff within the store.")
    base: Model = Field(description="The model before the fine-tune.")
    tuned: Model = Field(description="The candidate: the model after the fine-tune.")
    declared_purpose: str | None = Field(
        description="What the fine-tune's owner says it is for. Untrusted text."
    )
    status: Status = Field(
        description="`calibrated`: at least 20 benign fine-tunes stand behind the risk. `uncalibrated`: "
        "fewer do, and the risk is a rank and claims no more. `inconclusive`: no usable bank, and no risk."
    )
    calibrated: bool = Field(description="Whether the status is `calibrated`.")
    risk: float | None = Field(
        ge=0,
        le=10,
        description="10 x log(p) / log(0.005), at most 10, of the primary figure's p-value: 4.3 for p = 0.1, "
        "7.4 for 0.02, 10 from 0.005 on; null when inconclusive. How rare such a figure is among benign "
        "fine-tunes, not a probability of harm.",
    )
    threshold: float = Field(
        ge=0, le=10, description="The risk at or above which the audit's exit code is 10."
    )
    at_or_above_threshold: bool | None = Field(
        description="Whether the risk reaches the threshold; null without one."
    )
    p_value: float | None = Field(
        description="The conformal p-value of the primary figure; null when inconclusive."
    )
    primary: str | None = Field(
        description="The figure that the risk rests on; null when it could not be taken."
    )
    no_finding: bool = Field(
        description="True when the risk is below the threshold and nothing stands beyond the benign range or "
        "lacks one: measured changes alone are what every fine-tune leaves behind."
    )
    headline: str = Field(description="The verdict in one sentence.")
    explanation: list[str] = Field(
        description="What the verdict claims and what it does not, in plain sentences."
    )
    findings: list[Finding] = Field(description="The strongest first. Empty when nothing differs.")
    figures: list[Figure] = Field(
        description="Every figure that is compared with the bank, the primary one first."
    )
    parts: list[Part] = Field(
        description="What the score is made of, the largest first; empty where the bank weighs nothing."
    )
    calibration: Calibrator = Field(description="The bank.")
    cost: Cost | None = Field(description="What the evidence took; null where it was not counted.")
    assessment: Assessment | None = Field(
        default=None, description="What an agent concludes of the same evidence; null where none was asked."
    )
    config: dict[str, Any] = Field(description="The resolved config of the audit, defaults filled in.")


def schema_text() -> str:
    """The JSON schema of a verdict, as docs/verdict.schema.json holds it."""
    schema: dict[str, Any] = Verdict.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
