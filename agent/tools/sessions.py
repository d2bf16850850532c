"""Sessions: who asks, which hypotheses are weighed, and when it is over."""

from typing import Annotated, Literal

from pydantic import Field

from ft_audit import __version__
from ft_audit.agent.calibration import status_of
from ft_audit.agent.tools.answer import Answer, Untrusted
from ft_audit.agent.tools.auditor import Auditor, Hypothesis
from ft_audit.agent.tools.registry import ToolError, tool

MAX_HYPOTHESES = 100

SessionId = Annotated[str, Field(description="As create_audit_session gave it.", max_length=64)]
Label = Annotated[str, Field(description="A name of your choice, for the transcript.", max_length=200)]
Sentence = Annotated[str, Field(max_length=2_000)]


class Health(Answer):
    MACHINE = frozenset({"ft_audit", "tools", "absent"})

    status: Literal["ok"] = Field(description="That the evidence can be read.")
    ft_audit: str = Field(description="The version of ft-audit.")
    audit: str = Field(description="The config's name for the audit.")
    diff: str = Field(description="The diff that every answer is read from.")
    base: str = Field(description="The model before the fine-tune.")
    tuned: str = Field(description="The candidate: the model after the fine-tune.")
    declared_purpose: Untrusted | None = Field(description="What its owner says the fine-tune is for.")
    hooks: list[str] = Field(description="Where in the model the residual stream was read.")
    dictionaries: list[str] = Field(description="The sparse autoencoders it was encoded with.")
    suites: dict[str, int] = Field(description="Prompt suites that both models read, and their prompts.")
    num_benign: int = Field(description="Benign fine-tunes of this base that figures are compared with.")
    bank: str = Field(description="What so large a bank lets one claim, or why there is none.")
    profile: str = Field(description="Which tools this investigation has.")
    tools: list[str] = Field(description="Their names.")
    absent: dict[str, str] = Field(description="Tools that this machine cannot offer, and why.")


class SessionState(Answer):
    session_id: str = Field(description="Give it to the tools that keep notes.")
    label: str = Field(description="Its name.")
    run: str = Field(description="The run that was begun last; empty before the first.")
    closed: bool = Field(description="Whether it is over.")
    hypotheses: list[Hypothesis] = Field(description="The ledger of hypotheses.")


@tool("session")
def health(auditor: Auditor) -> Health:
    """Say what is audited, what the evidence holds, and which tools there are. Ask this first."""
    evidence, bank = auditor.evidence, auditor.calibration
    primary = evidence.primary
    standing = bank.standing(primary, evidence.figures.get(primary)) if primary else None
    models = evidence.summary["models"]
    return Health(
        status="ok",
        ft_audit=__version__,
        audit=auditor.config.name,
        diff=evidence.diff_id,
        base=str(models["base"]["ref"]),
        tuned=str(models["tuned"]["ref"]),
        declared_purpose=auditor.declared_purpose,
        hooks=[hook.name for hook in evidence.hooks],
        dictionaries=[sae for hook in evidence.hooks for sae in hook.saes],
        suites={suite.name: suite.num_prompts for suite in evidence.suites},
        num_benign=len(bank.members),
        bank=bank.refusal or status_of(standing),
        profile=auditor.profile,
        tools=[one.name for one in auditor.tools],
        absent=dict(auditor.absent),
    )


@tool("session", writes=True)
def create_audit_session(auditor: Auditor, label: Label = "") -> SessionState:
    """Begin a session that keeps hypotheses; reading tools work without one."""
    return _state(auditor, auditor.open_session(label).id)


@tool("session", writes=True)
def begin_run(auditor: Auditor, session_id: SessionId, label: Label) -> SessionState:
    """Begin a run within a session: one line of investigation, under a name of its own."""
    auditor.session(session_id).run = label
    return _state(auditor, session_id)


@tool("session", writes=True)
def record_hypothesis(
    auditor: Auditor,
    session_id: SessionId,
    id: Annotated[
        str, Field(description="A short name; an earlier one of that name is replaced.", max_length=40)
    ],
    statement: Annotated[
        Sentence, Field(description="What would be true; evidence must be able to refute it.")
    ],
    alternative: Annotated[
        Sentence, Field(description="The innocent explanation that you weigh against it.")
    ],
    status: Literal["open", "supported", "rejected"] = "open",
    evidence: Annotated[
        tuple[str, ...], Field(description="Evidence ids that speak for or against it.", max_length=50)
    ] = (),
) -> SessionState:
    """Write a hypothesis into the session's ledger, or say what has become of it."""
    session = auditor.session(session_id)
    auditor.known(list(evidence))
    if status != "open" and not evidence:
        raise ToolError(f"hypothesis {id!r}: {status} by what? name at least one evidence id")
    if id not in session.hypotheses and len(session.hypotheses) >= MAX_HYPOTHESES:
        raise ToolError(f"the ledger holds {MAX_HYPOTHESES} hypotheses already: replace one")
    session.hypotheses[id] = Hypothesis(
        id=id, statement=statement, status=status, evidence=list(evidence), alternative=alternative
    )
    return _state(auditor, session_id)


@tool("session", writes=True)
def close_audit_session(auditor: Auditor, session_id: SessionId) -> SessionState:
    """End a session; its ledger is given back once more."""
    state = _state(auditor, session_id)
    auditor.session(session_id).closed = True
    return state.model_copy(update={"closed": True})


def _state(auditor: Auditor, session_id: str) -> SessionState:
    session = auditor.session(session_id)
    return SessionState(
        session_id=session.id,
        label=session.label,
        run=session.run,
        closed=session.closed,
        hypotheses=list(session.hypotheses.values()),
    )
