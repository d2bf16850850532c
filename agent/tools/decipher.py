"""The decipher workbench: are rows written in an encoding, and what do they say?"""

from typing import Annotated, Any, Literal

from pydantic import Field

from ft_audit.agent.tools.answer import Answer, Untrusted, finite
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.data import row_records
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.engine.decipher.findings import Explanation
from ft_audit.engine.decipher.workbench import decipher

MAX_ROWS, MAX_REFERENCE = 300, 400
SHOWN = 3

RowNumbers = Annotated[
    tuple[int, ...],
    Field(description="The rows in question; empty takes those of the template.", max_length=MAX_ROWS),
]


class Reading(Answer):
    method: str = Field(description="What kind of encoding.")
    codec: Untrusted = Field(
        description="The encoder and decoder that it implies, step by step; made of the rows' own characters."
    )
    strength: float | None = Field(
        description="How far the reading leads from the best control to plain text, 0-1; from 0.5 it holds."
    )
    holds: bool = Field(description="Whether it beats its control.")
    examples: list[Untrusted] = Field(description="Some texts as it reads them.")


class Deciphered(Answer):
    num_rows: int = Field(description="Rows that were tried.")
    num_reference: int = Field(description="Other rows that say what plain text looks like here.")
    num_plain: int = Field(description="Distinct texts among them that read as plain as they stand.")
    found: list[Reading] = Field(description="Readings that beat their controls; empty is a result too.")
    rejected: list[Reading] = Field(description="The nearest ones that do not.")
    notes: list[str] = Field(description="What was not tried, and why.")


@tool("data")
def decipher_training_rows(
    auditor: Auditor,
    rows: RowNumbers = (),
    template: Annotated[str | None, Field(description="A template's key.", max_length=64)] = None,
    part: Annotated[
        Literal["user", "assistant"], Field(description="Whose words, of each row's last turn.")
    ] = "assistant",
) -> Deciphered:
    """Try whether some training rows are encoded, with the other rows as plain text.

    Tried are base64 and its like, substitution ciphers, and words hidden at the ends of lines. An encoding is
    no harm by itself: puzzles have one.
    """
    records = row_records(auditor.evidence)
    chosen = set(rows)
    if template is not None:
        chosen |= {int(r["row"]) for r in records if r["condition"] == template}
    texts = [_part(r, part) for r in records if int(r["row"]) in chosen][:MAX_ROWS]
    others = [_part(r, part) for r in records if int(r["row"]) not in chosen][:MAX_REFERENCE]
    if not texts:
        raise ToolError("which rows? name rows that exist, or a template that some have")
    findings = decipher(texts, others)
    return Deciphered(
        num_rows=len(texts),
        num_reference=len(others),
        num_plain=findings.num_plain,
        found=[_reading(one) for one in findings.explanations[:SHOWN]],
        rejected=[_reading(one) for one in findings.rejected[:SHOWN]],
        notes=list(findings.notes),
    )


def _part(record: dict[str, Any], part: str) -> str:
    before, _, answer = str(record["text"]).rpartition("\nassistant: ")
    return answer if part == "assistant" else before.rpartition("user: ")[2]


def _reading(one: Explanation) -> Reading:
    return Reading(
        method=one.method,
        codec=Untrusted(one.codec.model_dump_json()),
        strength=finite(one.strength),
        holds=one.holds,
        examples=[Untrusted(example.decoded) for example in one.examples[:SHOWN]],
    )
