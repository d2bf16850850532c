"""One audit as an investigator meets it: the evidence, the bank, and what has been asked so far."""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ft_audit.agent.addressed import Addressed
from ft_audit.agent.assessment import Citation, Conclusion
from ft_audit.agent.calibration import Calibration
from ft_audit.agent.data_tree import DataTree
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.tools.answer import Untrusted, fingerprint, rendered
from ft_audit.agent.tools.registry import Tool, ToolError
from ft_audit.engine.config import AuditConfig, Profile

ID_LENGTH = 10
MAX_ANSWER_CHARACTERS = 60_000
MAX_SESSIONS = 256
SHOWN_IDS = 8
"""Evidence ids that an error names, the latest."""


class Reply(NamedTuple):
    """What a call gave."""

    citation: Citation
    """Enough to ask again; only what is `citable` has its evidence id in the content."""
    content: dict[str, Any]
    seconds: float
    citable: bool


class Hypothesis(BaseModel):
    """One idea of what the fine-tune does, and what has become of it."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="Its name in this session.")
    statement: str = Field(description="What would be true, in a sentence that evidence can speak against.")
    status: Literal["open", "supported", "rejected"] = Field(description="What has become of it.")
    evidence: list[str] = Field(description="Evidence ids that speak for or against it.")
    alternative: str = Field(description="The innocent explanation that was weighed against it.")


@dataclass(slots=True)
class AuditSession:
    """What one investigator has done so far."""

    id: str
    label: str
    run: str = ""
    closed: bool = False
    conclusion: Conclusion | None = None
    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turns:
    """One call at a time, and one at a time of those that wait for something else than the store."""

    call: threading.RLock = field(default_factory=threading.RLock)
    wait: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Auditor:
    """Answers tool calls about one diff. Safe to share between threads: one call at a time, but for what a
    call waits for outside the store."""

    config: AuditConfig
    evidence: Evidence
    calibration: Calibration
    by_name: Mapping[str, Tool]
    """The tools that the profile has."""
    profile: Profile = "full"
    absent: Mapping[str, str] = field(default_factory=dict)
    """Tools that the profile would have on another machine, and why not here."""
    sessions: dict[str, AuditSession] = field(default_factory=dict)
    cited: dict[str, Citation] = field(default_factory=dict)
    """Every answer that was given, by its evidence id."""
    data_tree: DataTree | None = None
    """The data set's, once it was asked for."""
    addressed: list[Addressed] | None = None
    """The rows that speak to an auditor, once they were looked for."""
    folded_rows: list[str] | None = None
    """The rows' texts without case, once they were searched."""
    turns: Turns = field(default_factory=Turns)
    """Whose turn it is; auditors over one evidence share them."""

    @property
    def declared_purpose(self) -> Untrusted | None:
        """What the job's owner says it is for."""
        said = self.config.declared_purpose
        return None if said is None else Untrusted(said)

    @property
    def tools(self) -> list[Tool]:
        """The profile's tools, in the order in which an investigator would meet them."""
        return list(self.by_name.values())

    def call(self, name: str, arguments: dict[str, Any]) -> Reply:
        """Return what a tool answers, ready to be shown.

        Raises:
            ToolError: there is no such tool in this profile, or the call is wrong.
            UserError: the evidence has no such thing, or is damaged.
        """
        with self.turns.call:
            started = time.perf_counter()
            if name not in self.by_name:
                raise ToolError(f"no tool {name!r} in profile {self.profile!r}: {', '.join(self.by_name)}")
            asked, answer = self.by_name[name].call(self, arguments)
            shown = rendered(answer)
            if (size := len(json.dumps(shown))) > MAX_ANSWER_CHARACTERS:
                raise ToolError(f"{name}: the answer would have {size:,} characters; ask for fewer at a time")
            citation = Citation(
                evidence_id=self.evidence_id(name, asked),
                tool=name,
                arguments=asked,
                sha256=fingerprint(answer),
            )
            # Notes are no evidence, nor is what may be another answer tomorrow: they have no id to cite.
            citable = answer.citable and not self.by_name[name].writes
            if citable:
                self.cited[citation.evidence_id] = citation
                shown = {"evidence_id": citation.evidence_id, **shown}
            return Reply(citation, shown, time.perf_counter() - started, citable)

    @contextmanager
    def others_may_ask(self) -> Iterator[None]:
        """Let other calls go on during the block, which touches nothing of the auditor's; such blocks run one
        at a time. A call that was made within another's keeps the others waiting."""
        self.turns.call.release()
        try:
            with self.turns.wait:
                yield
        finally:
            self.turns.call.acquire()

    def evidence_id(self, name: str, arguments: dict[str, Any]) -> str:
        """Return the id under which this call's answer is cited: the same for the same question."""
        said = json.dumps([self.evidence.diff_id, name, arguments], sort_keys=True)
        return f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:ID_LENGTH]}"

    def open_session(self, label: str) -> AuditSession:
        """Begin a session; the oldest closed one is forgotten where there are too many.

        Raises:
            ToolError: too many are open.
        """
        if len(self.sessions) >= MAX_SESSIONS:
            closed = next((key for key, one in self.sessions.items() if one.closed), None)
            if closed is None:
                raise ToolError(f"{MAX_SESSIONS} sessions are open: close one with close_audit_session")
            del self.sessions[closed]
        session = AuditSession(secrets.token_hex(8), label)
        self.sessions[session.id] = session
        return session

    def session(self, session_id: str) -> AuditSession:
        """Return an open session; ToolError where there is none of that id."""
        found = self.sessions.get(session_id)
        if found is None or found.closed:
            raise ToolError(f"no open session {session_id!r}: begin one with create_audit_session")
        return found

    def known(self, evidence_ids: list[str]) -> None:
        """ToolError unless every id is of an answer that was given and can be cited."""
        for one in evidence_ids:
            if one not in self.cited:
                listed = ", ".join(list(self.cited)[-SHOWN_IDS:]) or "none yet"
                raise ToolError(
                    f"no answer has the evidence id {one!r}: cite what a tool gave back ({listed})"
                )
