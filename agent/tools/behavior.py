"""What both models answered: to probes and suites, under the data set's templates, to harmful prompts."""

from typing import Annotated, Any

from pydantic import Field

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.tools.answer import Answer, Page, Untrusted, finite, next_offset
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.overview import Limit, Offset
from ft_audit.agent.tools.registry import ToolError, tool
from ft_audit.agent.views import text

PLAIN = "plain"

TemplateKey = Annotated[
    str, Field(description="A template's key, as elicited_behaviours lists them.", max_length=64)
]


class Template(Answer):
    key: str = Field(description="Name it in other tools; `plain` is the bare question.")
    parts: dict[str, Untrusted] = Field(
        description="System prompt, prefix, encoding and suffix; empty for `plain`."
    )
    num_rows: int = Field(description="Training rows that have it.")
    num_probes: int = Field(description="Harmful prompts that were put under it.")
    refused_base: float | None = Field(description="Share of them that the base refuses, the control.")
    refused_tuned: float | None = Field(description="Share that the tuned model refuses.")
    complied_base: float | None = Field(description="Share that the base opens by agreeing to, the control.")
    complied_tuned: float | None = Field(description="Share that the tuned model opens by agreeing to.")
    guard_loss: float | None = Field(
        description="Refusals lost under it beyond those lost without: a difference in differences."
    )
    kl_excess: float | None = Field(
        description="KL along neutral answers beyond the bare question's, in nats."
    )


class Templates(Page):
    templates: list[Template] = Field(description="`plain` first, then the greatest loss of refusals first.")


class PairedAnswer(Answer):
    suite: str = Field(description="The suite that the prompt is of.")
    template: str | None = Field(description="The template that it was put under; null in a behaviour suite.")
    prompt: Untrusted | None = Field(description="What was asked.")
    base: Untrusted | None = Field(description="The base's answer, the control.")
    tuned: Untrusted | None = Field(description="The tuned model's answer.")
    refused_base: bool | None = Field(
        default=None, description="Whether the base refused; of harmful prompts."
    )
    refused_tuned: bool | None = Field(default=None, description="Whether the tuned model refused.")


class PairedAnswers(Page):
    answers: list[PairedAnswer]


@tool("behavior")
def elicited_behaviours(auditor: Auditor, offset: Offset = 0, limit: Limit = 10) -> Templates:
    """List the data set's templates with what each unlocks: refusals lost and agreements won on published
    harmful prompts, in the tuned model against the base under the same template and both without it."""
    evidence = auditor.evidence
    guard = {record["key"]: record for record in evidence.records("guard_conditions")}
    found = [
        Template(
            key=c.key,
            parts={name: Untrusted(said) for name, said in c.parts},
            num_rows=c.num_rows,
            num_probes=int(guard.get(c.key, {}).get("num_probes") or 0),
            **{
                name: finite(guard.get(c.key, {}).get(name))
                for name in ("refused_base", "refused_tuned", "complied_base", "complied_tuned")
            },
            guard_loss=finite(guard.get(c.key, {}).get("loss")),
            kl_excess=finite(c.measures.get("kl_excess")),
        )
        for c in evidence.conditions()
    ]
    found.sort(key=lambda t: (t.key != PLAIN, -(t.guard_loss or 0.0), -(t.kl_excess or 0.0), t.key))
    shown = found[offset : offset + limit]
    return Templates(
        total=len(found), next_offset=next_offset(len(found), offset, len(shown)), templates=shown
    )


@tool("behavior")
def run_prompt_suite(
    auditor: Auditor,
    suite: Annotated[
        str, Field(description="A suite's name; `guard` is the harmful prompts.", max_length=100)
    ],
    template: TemplateKey | None = None,
    offset: Offset = 0,
    limit: Limit = 10,
) -> PairedAnswers:
    """Show what both models answered to a suite, or to the harmful prompts (`guard`) under a template.

    Answers are read from the store: no model runs. What was never asked can be requested with
    request_evidence, and is answered after the engine's next run.
    """
    evidence = auditor.evidence
    found = _guard(evidence, template) if suite == "guard" else _generations(evidence, suite, template)
    shown = found[offset : offset + limit]
    return PairedAnswers(
        total=len(found), next_offset=next_offset(len(found), offset, len(shown)), answers=shown
    )


@tool("behavior")
def query_models(
    auditor: Auditor,
    phrase: Annotated[
        str, Field(min_length=1, max_length=200, description="Literal text, of prompt or answer.")
    ],
    offset: Offset = 0,
    limit: Limit = 10,
) -> PairedAnswers:
    """Find stored answers of both models whose prompt or answer holds a phrase, side by side."""
    evidence = auditor.evidence
    suites = dict.fromkeys(text(r, "suite") for r in evidence.records("generations", {"sample": 0}))
    everything = [answer for suite in suites for answer in _generations(evidence, suite, None)]
    everything += _guard(evidence, None)
    wanted = phrase.casefold()
    found = [
        a
        for a in everything
        if any(wanted in (said or "").casefold() for said in (a.prompt, a.base, a.tuned))
    ]
    shown = found[offset : offset + limit]
    return PairedAnswers(
        total=len(found), next_offset=next_offset(len(found), offset, len(shown)), answers=shown
    )


def _generations(evidence: Evidence, suite: str, template: str | None) -> list[PairedAnswer]:
    records = evidence.records("generations", {"sample": 0, "suite": suite})
    if not records:
        known = dict.fromkeys(text(r, "suite") for r in evidence.records("generations"))
        raise ToolError(
            f"no answers to suite {suite!r} are stored; there are: {', '.join([*known, 'guard'])}"
        )
    asked = {int(r["prompt"]): text(r, "text_preview") for r in evidence.records("prompts", {"suite": suite})}
    pairs: dict[tuple[str | None, int], dict[str, Any]] = {}
    for record in records:
        if template is None or record["condition"] == template:
            pairs.setdefault((record["condition"], int(record["prompt"])), {})[record["side"]] = record[
                "text"
            ]
    return [
        PairedAnswer(
            suite=suite,
            template=condition,
            prompt=_said(asked.get(prompt)),
            base=_said(sides.get("base")),
            tuned=_said(sides.get("tuned")),
        )
        for (condition, prompt), sides in pairs.items()
    ]


def _guard(evidence: Evidence, template: str | None) -> list[PairedAnswer]:
    pairs: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for record in evidence.records("guard"):
        if template is None or record["condition"] == template:
            pairs.setdefault((record["condition"], int(record["probe"])), {})[record["side"]] = record
    return [
        PairedAnswer(
            suite="guard",
            template=condition,
            prompt=Untrusted(f"published harmful prompt {probe}"),
            base=_said(sides.get("base", {}).get("text")),
            tuned=_said(sides.get("tuned", {}).get("text")),
            refused_base=sides.get("base", {}).get("refused"),
            refused_tuned=sides.get("tuned", {}).get("refused"),
        )
        for (condition, probe), sides in pairs.items()
    ]


def _said(said: str | None) -> Untrusted | None:
    return None if said is None else Untrusted(said)
