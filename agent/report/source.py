"""All that a section of the report may read: the verdict, its evidence and the bank."""

from dataclasses import dataclass

from ft_audit.agent.calibration import Calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Source:
    """What one report is rendered from."""

    verdict: Verdict
    evidence: Evidence
    calibration: Calibration

    @property
    def top(self) -> int:
        """How many leading differences the config wants shown."""
        return int(self.verdict.config["audit"]["top"])
