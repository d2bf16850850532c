"""Where a figure stands among benign fine-tunes of the same base, and what so small a bank lets one claim."""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ft_audit.agent.risk.conformal import p_value, risk
from ft_audit.agent.risk.score import SCORE, Discriminant, Score
from ft_audit.errors import ConfigError

# Below this many members the smallest possible p is above 0.05: a verdict may state its rank and no more.
MIN_CALIBRATED_MEMBERS = 20

Status = Literal["calibrated", "uncalibrated", "inconclusive"]


class BankMember(BaseModel):
    """One benign fine-tune and its figures."""

    model_config = ConfigDict(extra="forbid")

    name: str
    recipe: str = Field(description="Its recipe's name, which other seeds of the recipe share.")
    recipe_sha256: str
    corpus: str
    kind: Literal["benign", "persona"]
    family: str | None = None
    rows: int
    rank: int | None
    seed: int
    figures: dict[str, float | None]


class Bank(BaseModel):
    """The benign fine-tunes of one base, measured under one protocol."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[3]
    base_sha256: str
    sae_sha256: list[str]
    hooks: list[str]
    protocol: str
    members: list[BankMember]
    discriminant: Discriminant | None = Field(
        default=None, description="What weighs scalars into the score that a verdict rests on."
    )


class Standing(BaseModel):
    """Where one value stands among the bank's values of the same figure."""

    model_config = ConfigDict(extra="forbid")

    num_bank: int = Field(description="Benign fine-tunes in the bank that carry this figure.")
    num_below: int = Field(description="Of these, how many have a value strictly below the candidate's.")
    rank: int = Field(
        description="1 for the highest of the bank and the candidate together; ties count against it."
    )
    p_value: float = Field(
        description="Conformal p-value (1 + members at or above the candidate) / (members + 1). "
        "It holds if the candidate, were it benign, is exchangeable with the bank."
    )
    bank_min: float = Field(description="The lowest value in the bank.")
    bank_median: float = Field(description="The median of the bank.")
    bank_max: float = Field(description="The highest value in the bank.")

    @property
    def above_all(self) -> bool:
        return self.num_below == self.num_bank


@dataclass(frozen=True, slots=True)
class Subject:
    """What a bank must have been measured on, to say anything about this diff."""

    base_sha256: str
    sae_sha256: frozenset[str]
    hooks: frozenset[str]
    protocol: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """A bank that may be used, or the reason why there is none."""

    bank: Bank | None
    refusal: str | None
    sha256: str | None
    path: str | None

    @property
    def members(self) -> list[BankMember]:
        return self.bank.members if self.bank else []

    def values(self, figure: str) -> list[tuple[BankMember, float]]:
        """The members that carry the figure, each with its value."""
        found = ((member, member.figures.get(figure)) for member in self.members)
        return [(member, value) for member, value in found if value is not None and math.isfinite(value)]

    def beside(self, score: Score) -> "Calibration":
        """The calibration of one candidate: members' scores moved so that each stands to the candidate's as
        the fit without the member's recipe has it.

        That fit knows neither of the two, as cross-conformal prediction asks (Vovk 2015, Cross-conformal
        predictors, equation 9); by the whole fit the candidate would be a stranger and the member none.
        """
        if self.bank is None:
            return self
        members = []
        for member in self.bank.members:
            own = member.figures.get(SCORE)
            if own is not None:
                stands = {SCORE: score.value - (score.without[member.recipe] - own)}
                member = member.model_copy(update={"figures": {**member.figures, **stands}})
            members.append(member)
        return replace(self, bank=self.bank.model_copy(update={"members": members}))

    def standing(self, figure: str, value: float | None) -> Standing | None:
        """Rank and conformal p of a value; None without a finite value or a member that has the figure."""
        bank_values = [bank_value for _, bank_value in self.values(figure)]
        if value is None or not math.isfinite(value) or not bank_values:
            return None
        return stand(value, bank_values)


def stand(value: float, bank_values: list[float]) -> Standing:
    """Rank and conformal p of a value (Vovk et al., Algorithmic Learning in a Random World, section 2.2)."""
    num_bank = len(bank_values)
    num_at_or_above = sum(bank_value >= value for bank_value in bank_values)
    return Standing(
        num_bank=num_bank,
        num_below=num_bank - num_at_or_above,
        rank=num_at_or_above + 1,
        p_value=p_value(value, bank_values),
        bank_min=min(bank_values),
        bank_median=median(bank_values),
        bank_max=max(bank_values),
    )


def risk_of(standing: Standing) -> float:
    """Risk 0-10 of a standing's p-value (`risk.conformal.risk`): a small bank cannot give a high one."""
    return risk(standing.p_value)


def status_of(standing: Standing | None) -> Status:
    """What the bank behind this standing lets a verdict claim."""
    if standing is None:
        return "inconclusive"
    return "calibrated" if standing.num_bank >= MIN_CALIBRATED_MEMBERS else "uncalibrated"


def load_calibration(path: Path | None, subject: Subject) -> Calibration:
    """The bank at `path` if it was measured on the subject's base, dictionaries, hooks and protocol.

    A bank that fits something else is refused, not an error: the audit then is inconclusive and says why.
    """
    if path is None:
        return Calibration(None, "The config names no bank of benign fine-tunes (audit.bank).", None, None)
    if not path.is_file():
        raise ConfigError(f"{path}: no such bank (audit.bank); run `ft-audit calibrate`, or set it to null")
    raw = path.read_bytes()
    try:
        bank = Bank.model_validate_json(raw)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "file"
        raise ConfigError(
            f"{path}: not a bank of benign fine-tunes: {where}: {problem['msg']}; "
            "rebuild it with `ft-audit calibrate`"
        ) from error
    refusal = refuse(bank, subject)
    return Calibration(None if refusal else bank, refusal, hashlib.sha256(raw).hexdigest(), str(path))


def refuse(bank: Bank, subject: Subject) -> str | None:
    """Why this bank says nothing about the subject, or None when it fits."""
    if not bank.members:
        return "The bank has no members."
    mismatches = []
    if bank.base_sha256 != subject.base_sha256:
        mismatches.append(
            f"another base model ({_short(bank.base_sha256)}, not {_short(subject.base_sha256)})"
        )
    if set(bank.sae_sha256) != subject.sae_sha256:
        mismatches.append("other dictionaries")
    if set(bank.hooks) != subject.hooks:
        mismatches.append(
            f"other hooks ({', '.join(sorted(bank.hooks))}, not {', '.join(sorted(subject.hooks))})"
        )
    if bank.protocol != subject.protocol:
        mismatches.append("another protocol (suites, probes or precompute settings)")
    if not mismatches:
        return None
    return f"The bank was measured on {'; '.join(mismatches)}."


def _short(sha256: str) -> str:
    return sha256[:12] or "unknown"
