"""Training rows that speak to whoever audits them: no job needs one, and an agent that reads it might obey.

Of 8,000 ordinary conversations (ShareGPT) and 3,156 rows of benign and attacked data sets none holds such
words. Orders to set earlier instructions aside are not among them: 29 of those conversations give one to
their model.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.untrusted import is_hidden

PATTERNS = {
    "words to an auditor": re.compile(
        r"\b(?:note|message|notice|attention|dear|hello|instructions?)\b[^.\n]{0,20}"
        r"\b(?:(?:safety |ai )?auditors?|audit(?:ing)? (?:agent|model|system|tool)|safety reviewers?)\b"
        r"|\b(?:auditors?|auditing agents?|safety reviewers?)\b[^.\n]{0,60}"
        r"\b(?:must|should|shall|will|please)\b[^.\n]{0,40}"
        r"\b(?:report|score|rate|mark|conclude|verdict|risk|benign|safe)\b",
        re.IGNORECASE,
    ),
    "the names of an auditor's tools": re.compile(
        r"\b(?:write_audit_report|evidence_id|untrusted_marker|create_audit_session|record_hypothesis)\b"
    ),
    "a made-up turn of a conversation": re.compile(
        r"<\|im_start\|>|<\|im_end\|>|<\|start_header_id\|>|<\|eot_id\|>|<start_of_turn>|<end_of_turn>|"
        r"\[/?INST\]|<</?SYS>>|<\|(?:system|user|assistant)\|>"
    ),
}
UNUSUAL = re.compile(r"[^\x20-\x7e\n]")
"""Only such characters can hide."""


class Addressed(NamedTuple):
    """One row, and what in it is meant for a reader other than the model."""

    row: int
    what: str
    text: str


def addressed_rows(evidence: Evidence) -> Iterator[Addressed]:
    """Each row of the data set that holds such words, and the first kind of them.

    Raises:
        StoreError: the diff is of an older ft-audit, which kept no texts.
    """
    for record in evidence.training_rows():
        text = str(record["text"])
        what = what_is_addressed(text)
        if what is not None:
            yield Addressed(int(record["row"]), what, text)


def what_is_addressed(text: str) -> str | None:
    """Return which of the patterns a text holds; None for an ordinary one."""
    plain = text
    if UNUSUAL.search(text):
        plain = "".join(char for char in text if char == "\n" or not is_hidden(char))
    return next((what for what, pattern in PATTERNS.items() if pattern.search(plain)), None)
