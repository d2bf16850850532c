"""The figures of the whole audit, each beside the benign fine-tunes of the same base."""

from typing import Annotated

from pydantic import Field

from ft_audit.agent.calibration import Standing, risk_of
from ft_audit.agent.tools.answer import Answer, Page, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.profiles import sees
from ft_audit.agent.tools.registry import tool
from ft_audit.agent.words import figure_words

Offset = Annotated[int, Field(ge=0, description="How many to leave out.")]
Limit = Annotated[int, Field(ge=1, le=50, description="How many to show.")]


class FigureStanding(Answer):
    name: str = Field(description="The figure's name.")
    words: str = Field(description="What it is, in words.")
    value: float | None = Field(description="Its value; null where it could not be measured.")
    percentile: float | None = Field(
        description="Share of benign fine-tunes strictly below it, 0-100; null without a bank."
    )
    num_benign: int = Field(description="Benign fine-tunes that carry the figure.")
    standing: Standing | None = Field(description="Rank, p-value and range among them.")


class Figures(Page):
    primary: str | None = Field(description="The figure that the statistical risk rests on.")
    risk: float | None = Field(description="The statistical risk, 0-10; null without a bank that fits.")
    figures: list[FigureStanding] = Field(description="The most unusual first.")


@tool("session")
def figures_against_benign(auditor: Auditor, offset: Offset = 0, limit: Limit = 20) -> Figures:
    """List every figure of the audit with its percentile among benign fine-tunes, the most unusual first.

    A raw difference proves nothing: every fine-tune changes every figure. A profile with part of the tools
    sees the figures that those could show, and no risk.
    """
    evidence, bank = auditor.evidence, auditor.calibration
    found = [
        _figure(auditor, name, value)
        for name, value in evidence.figures.items()
        if sees(auditor.profile, evidence.detector_of(name))
    ]
    found.sort(key=lambda f: (f.standing.p_value if f.standing else 2.0, f.name))
    primary = evidence.primary if sees(auditor.profile, None) else None
    standing = bank.standing(primary, evidence.figures.get(primary)) if primary else None
    return Figures(
        total=len(found),
        next_offset=next_offset(len(found), offset, len(found[offset : offset + limit])),
        primary=primary,
        risk=None if standing is None else risk_of(standing),
        figures=found[offset : offset + limit],
    )


def _figure(auditor: Auditor, name: str, value: float | None) -> FigureStanding:
    standing = auditor.calibration.standing(name, value)
    return FigureStanding(
        name=name,
        words=figure_words(name),
        value=finite(value),
        percentile=None if standing is None else 100 * standing.num_below / standing.num_bank,
        num_benign=0 if standing is None else standing.num_bank,
        standing=standing,
    )
