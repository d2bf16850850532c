"""The end of an investigation: what was concluded, each claim with the answers that it rests on."""

from typing import Annotated

from pydantic import Field

from ft_audit.agent.assessment import Conclusion
from ft_audit.agent.tools.answer import Answer
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.registry import tool
from ft_audit.agent.tools.sessions import SessionId


class Accepted(Answer):
    accepted: bool = Field(description="That the report is taken as it is.")
    risk: float = Field(description="The risk that it gives.")
    num_findings: int = Field(description="How many claims it makes.")


@tool("session", writes=True)
def write_audit_report(
    auditor: Auditor,
    session_id: SessionId,
    conclusion: Annotated[
        Conclusion, Field(description="Your conclusion; it may be that nothing was found.")
    ],
) -> Accepted:
    """End the investigation with a conclusion. A finding whose evidence ids no tool gave is refused."""
    session = auditor.session(session_id)
    for finding in conclusion.findings:
        auditor.known(finding.evidence)
    session.conclusion = conclusion
    return Accepted(accepted=True, risk=conclusion.risk, num_findings=len(conclusion.findings))
