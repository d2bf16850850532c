"""Parts of the report for a notebook, each in a frame of its own."""

import html
from dataclasses import dataclass

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.report.dictionaries import dictionaries
from ft_audit.agent.report.document import document
from ft_audit.agent.report.feature_card import feature_card
from ft_audit.agent.report.markup import tag
from ft_audit.agent.views import Feature


@dataclass(frozen=True, slots=True)
class Cell:
    """What a notebook shows of a page."""

    page: str
    height: int  # in pixels; what is longer can be scrolled

    def _repr_html_(self) -> str:
        # In a sandbox: text of the candidate must reach neither the notebook's page nor its kernel.
        return (
            f'<iframe sandbox srcdoc="{html.escape(self.page, quote=True)}" '
            f'style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def feature_cell(evidence: Evidence, feature: Feature, height: int = 480) -> Cell:
    """One feature's card, as the report has it."""
    page = document(f"feature {feature.feature}", tag("main", feature_card(evidence, feature)))
    return Cell(page, height)


def dictionaries_cell(evidence: Evidence, height: int = 900) -> Cell:
    """What the dictionaries see and where they agree, as the report has it."""
    return Cell(document("dictionaries", tag("main", dictionaries(evidence))), height)
