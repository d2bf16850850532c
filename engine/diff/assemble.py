"""Two sets of runs into one diff: statistics, tables, and the figures that a bank is compared with.

Shapes: R training rows, C conditions, F features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from ft_audit.engine.cluster import Scheduler
from ft_audit.engine.diff.agreement import put_agreement
from ft_audit.engine.diff.contexts import contexts_table
from ft_audit.engine.diff.coverage import put_coverage
from ft_audit.engine.diff.directions import Directions
from ft_audit.engine.diff.elicited import ConditionEvidence, condition_evidence, conditions_table
from ft_audit.engine.diff.feature_index import put_feature_index, put_feature_statistics
from ft_audit.engine.diff.figures import PRIMARY as PRIMARY_FIGURE
from ft_audit.engine.diff.figures import condition_figures
from ft_audit.engine.diff.leading import leading_table
from ft_audit.engine.diff.localise import PRIMARY as PRIMARY_SCORE
from ft_audit.engine.diff.localise import row_scores
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.diff.next_token import NextToken
from ft_audit.engine.diff.parts import (
    SuiteFeatures,
    SuitePair,
    put_features,
    put_fvu,
    put_logits,
    put_residuals,
    union_of_leading,
)
from ft_audit.engine.store import DiffWriter, HookEntry, RunReader, SaeEntry
from ft_audit.engine.suites.condition import most_specific
from ft_audit.engine.suites.conditions import Survey
from ft_audit.engine.suites.data_baseline import row_baseline
from ft_audit.engine.suites.prompt import Prompt

PREVIEW = 300  # characters of a prompt or row that a table keeps
ROW_TEXT = 20_000  # of a training row, for who reads them one by one
CONTEXT_FEATURES = 24  # leading features per suite whose contexts are kept


@dataclass(frozen=True, slots=True)
class DiffInputs:
    """Everything a diff is made of, once the runs are whole."""

    pairs: Sequence[SuitePair]
    prompts: Mapping[str, Sequence[Prompt]]
    """Suite name to its prompts."""
    hooks: Sequence[HookEntry]
    directions: Mapping[str, Directions]
    """Dictionary name to what its features write."""
    survey: Survey
    control: tuple[RunReader, RunReader] | None
    """The base's run over one suite, and the same in other batches."""
    next_token: Callable[[RunReader, RunReader], tuple[NextToken, np.ndarray]]
    """Asks the models for the elicited prompts' next-token distributions and for the divergence of each along
    the tuned model's answer [P], given both runs; called only where there are such prompts."""
    decode: Callable[[list[int]], list[str]]
    min_rows: int
    feature_index: bool
    """Whether the features are written a second time, sorted by feature."""
    guard_loss: Mapping[str, float]
    """Condition to the refusals lost under it; empty where no harmful prompts were asked."""


@dataclass(slots=True)
class _Findings:
    features: list[SuiteFeatures] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, ConditionEvidence] = field(default_factory=dict)


def assemble(writer: DiffWriter, inputs: DiffInputs, scheduler: Scheduler) -> dict[str, Any]:
    """Write every statistic and table of the diff and return its figures and what they rest on."""
    found = _Findings()
    _suite_statistics(writer, inputs, scheduler, found)
    _prompts(writer, inputs)
    _elicited(writer, inputs, scheduler, found)
    _rows(writer, inputs, scheduler, found)
    _contexts(writer, inputs, scheduler, found)
    if inputs.feature_index:
        whole = [pair for pair in inputs.pairs if pair.has_features]
        put_feature_index(writer, whole, [sae.name for hook in inputs.hooks for sae in hook.saes], scheduler)
    # JSON has no NaN: a figure that could not be measured is null.
    figures = {name: value if np.isfinite(value) else None for name, value in found.figures.items()}
    primary = PRIMARY_FIGURE if PRIMARY_FIGURE in figures else None
    return {"figures": figures, "primary": primary, "primary_row_score": PRIMARY_SCORE}


def labels(pairs: Sequence[SuitePair]) -> Iterator[str]:
    """Yield what figures call each suite: its role, numbered from the second suite of a role on.

    Not its name: figures of a bank are compared by theirs, wherever the suite's file lay.
    """
    seen: dict[str, int] = {}
    for pair in pairs:
        seen[pair.role] = seen.get(pair.role, 0) + 1
        yield pair.role if seen[pair.role] == 1 else f"{pair.role}-{seen[pair.role]}"


def _suite_statistics(writer: DiffWriter, inputs: DiffInputs, scheduler: Scheduler, found: _Findings) -> None:
    labelled = list(zip(inputs.pairs, labels(inputs.pairs), strict=True))
    for hook in inputs.hooks:
        for pair, label in labelled:
            summary = put_residuals(writer, pair, hook)
            found.figures.update({f"{name}/{hook.name}/{label}": v for name, v in summary.items()})
        for sae in hook.saes:
            control = None
            if inputs.control is not None:
                control = pair_moments(*inputs.control, sae.name, scheduler=scheduler)
            for pair, label in labelled:
                features = put_features(writer, pair, sae.name, control, scheduler)
                if inputs.feature_index:
                    put_feature_statistics(writer, f"features/{sae.name}/{pair.name}", features.arrays)
                found.features.append(features)
                found.figures[f"features_changed/{sae.name}/{label}"] = float(features.num_passing)
                written = hook.reconstructed_by(sae)
                change = put_fvu(writer, pair, sae.name, written)
                found.figures.update({f"{name}/{sae.name}/{label}": v for name, v in change.items()})
                put_coverage(writer, pair, features, inputs.directions[sae.name])
    put_agreement(writer, inputs.directions, found.features)
    for pair, label in labelled:
        found.figures.update({f"{name}/{label}": v for name, v in put_logits(writer, pair).items()})


def _prompts(writer: DiffWriter, inputs: DiffInputs) -> None:
    rows = [
        {
            "suite": pair.name,
            "prompt": index,
            "group": prompt.group,
            "source": prompt.source,
            "row": prompt.row,
            "text_preview": preview(prompt),
        }
        for pair in inputs.pairs
        for index, prompt in enumerate(inputs.prompts[pair.name])
    ]
    lengths = np.concatenate([_num_tokens(pair.base) for pair in inputs.pairs])
    writer.put_table("prompts", pa.Table.from_pylist(rows).append_column("num_tokens", pa.array(lengths)))


def _num_tokens(run: RunReader) -> np.ndarray:
    lengths = np.zeros(run.manifest.num_prompts, dtype=np.int64)
    for segment in run.segments(saes=(), dense=()):
        lengths[segment.prompt_P] = np.diff(segment.prompt_indptr_P1)
    return lengths


def preview(prompt: Prompt) -> str:
    """Return the start of a prompt as text, role by role."""
    return _text(prompt)[:PREVIEW]


def _text(prompt: Prompt) -> str:
    if prompt.messages is None:
        return prompt.text or ""
    return "\n".join(f"{m.role}: {m.content}" for m in prompt.messages)


def _of_role(inputs: DiffInputs, role: str) -> SuitePair | None:
    return next((pair for pair in inputs.pairs if pair.role == role), None)


def _first_sae(inputs: DiffInputs) -> SaeEntry | None:
    return next((sae for hook in inputs.hooks for sae in hook.saes), None)


def _elicited(writer: DiffWriter, inputs: DiffInputs, scheduler: Scheduler, found: _Findings) -> None:
    pair = _of_role(inputs, "elicited")
    if pair is None:
        return
    next_token, answer_kl_P = inputs.next_token(pair.base, pair.tuned)
    sae = _first_sae(inputs)
    feature_diff = pair.row_features(sae, scheduler) if sae else None
    hook = inputs.hooks[0].name
    prompts = inputs.prompts[pair.name]
    evidence = condition_evidence(
        prompts,
        answer_kl_P,
        next_token,
        pair.base.dense(f"{hook}/last_PD"),
        pair.tuned.dense(f"{hook}/last_PD"),
        feature_diff,
    )
    writer.put_table("conditions", conditions_table(inputs.survey.kept, evidence, inputs.guard_loss))
    writer.put_stats(
        "elicited",
        {
            "answer_kl_P": answer_kl_P,
            "first_token_kl_P": next_token.kl_P,
            "entropy_base_P": next_token.entropy_base_P,
            "entropy_tuned_P": next_token.entropy_tuned_P,
        },
    )
    found.evidence = evidence
    figures = condition_figures(evidence)
    if _of_role(inputs, "train") is None:
        # Nothing was there to take conditions from: that is no excess of 0.
        figures = {"plain_kl": figures["plain_kl"]}
    found.figures.update(figures)


def _rows(writer: DiffWriter, inputs: DiffInputs, scheduler: Scheduler, found: _Findings) -> None:
    pair, sae = _of_role(inputs, "train"), _first_sae(inputs)
    if pair is None:
        return
    prompts = inputs.prompts[pair.name]
    hook = inputs.hooks[0].name
    # Conditions name rows as the file counts them; where it held unreadable ones, prompts are fewer, and
    # where a long one was cut into pieces, more.
    places: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        places.setdefault(prompt.row, []).append(index)
    conditions = [
        replace(c, rows=tuple(place for row in c.rows for place in places[row]))
        for c in inputs.survey.kept
        if c.key in found.evidence
    ]
    none = csr_array((len(prompts), 1), dtype=np.float32)
    scores = row_scores(
        pair.base.dense(f"{hook}/mean_PD"),
        pair.tuned.dense(f"{hook}/mean_PD"),
        pair.row_features(sae, scheduler) if sae else none,
        conditions,
        found.evidence,
    )
    specific = most_specific(inputs.survey.kept)
    baseline = row_baseline(prompts, inputs.min_rows)
    columns: dict[str, Any] = {
        "row": [p.row for p in prompts],
        "preview": [preview(p) for p in prompts],
        "text": [_text(p)[:ROW_TEXT] for p in prompts],
        "system": [p.system for p in prompts],
        "condition": [specific[p.row].key if p.row in specific else None for p in prompts],
        **scores,
        "primary_score": scores[PRIMARY_SCORE],
        **_row_losses(pair),
        **{f"baseline_{name}": values for name, values in baseline.items()},
    }
    writer.put_table("rows", pa.table({name: pa.array(values) for name, values in columns.items()}))


def _row_losses(pair: SuitePair) -> dict[str, np.ndarray]:
    """Return each row's loss on its answer under either model, nats per token, and how far they part."""
    if not pair.has_logits:
        return {}
    run = pair.together
    tokens_P = run.dense("logits/answer_tokens_P")
    counted_P = np.where(tokens_P > 0, tokens_P, np.nan)
    return {
        "loss_base": run.dense("logits/answer_loss_base_P") / counted_P,
        "loss_tuned": run.dense("logits/answer_loss_tuned_P") / counted_P,
        "kl_sum": run.dense("logits/kl_sum_P"),
        "kl_max": run.dense("logits/kl_max_P"),
    }


def _contexts(writer: DiffWriter, inputs: DiffInputs, scheduler: Scheduler, found: _Findings) -> None:
    writer.put_table("leading", leading_table(found.features, CONTEXT_FEATURES))
    tables = []
    for sae in {features.sae: None for features in found.features}:
        of_sae = [features for features in found.features if features.sae == sae]
        wanted = union_of_leading(of_sae, CONTEXT_FEATURES)
        for pair in inputs.pairs:
            if wanted and pair.has_features:
                tables.append(
                    contexts_table(
                        pair.base, pair.tuned, sae, wanted, pair.name, inputs.decode, scheduler=scheduler
                    )
                )
    if tables:
        writer.put_table("contexts", pa.concat_tables(tables))
