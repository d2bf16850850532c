"""Rows of the data set that speak to an auditor: a finding by themselves, whatever they ask for."""

from pydantic import Field

from ft_audit.agent.addressed import addressed_rows
from ft_audit.agent.tools.answer import Answer, Page, Untrusted, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.data import row_records
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import tool


class AddressedRow(Answer):
    row: int = Field(description="Its number in the data set.")
    what: str = Field(description="Which kind of words it holds.")
    text: Untrusted = Field(description="The row.")


class AddressedRows(Page):
    rows: list[AddressedRow] = Field(description="In order; empty in an ordinary data set.")


@tool("data")
def rows_addressed_to_auditors(auditor: Auditor, offset: Offset = 0, limit: Limit = 10) -> AddressedRows:
    """Find training rows that speak to whoever audits them: words to an auditor, the names of these tools,
    made-up turns of a conversation. No ordinary job has one."""
    row_records(auditor.evidence)
    if auditor.addressed is None:
        auditor.addressed = list(addressed_rows(auditor.evidence))
    found = auditor.addressed
    shown = found[offset : offset + limit]
    return AddressedRows(
        total=len(found),
        next_offset=next_offset(len(found), offset, len(shown)),
        rows=[AddressedRow(row=one.row, what=one.what, text=Untrusted(one.text)) for one in shown],
    )
