"""`labels score`: tries every label of the features asked for, and stores how far it can be trusted."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ft_audit.agent.client import ChatClient
from ft_audit.agent.labels.job import Committing, LabelJob, open_job
from ft_audit.agent.labels.reliability import Outcome, detection_score, fuzzing_score, lexical_score
from ft_audit.agent.labels.snippets import Snippets, draw_snippets
from ft_audit.agent.progress import counted
from ft_audit.engine.config import AuditConfig, ScoringConfig
from ft_audit.engine.store import DictionaryLabels, LabelScore, LabelText

Method = Callable[[str, Snippets], Outcome | None]


def run_labels_score(
    config: AuditConfig,
    diff: str | None = None,
    features: str | None = None,
    *,
    judge: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Store the scores that are missing and return what was done, with each source's mean score.

    Without a judge in the config, or with `judge` off, labels are scored by their letters alone. A label that
    has a score by the same method and judge is not scored again; a changed text is another label.
    """
    job = open_job(config, diff, features)
    scoring = config.labels.scoring
    client = ChatClient(config.labels.judge) if judge and config.labels.judge is not None else None
    try:
        done = {
            sae: _score(
                job, sae, _methods(client, scoring), client.model if client else "", scoring, progress
            )
            for sae in job.saes
        }
    finally:
        if client is not None:
            client.close()
    return {
        "diff": job.evidence.diff_id,
        "store": job.evidence.store,
        "judge": client.model if client else None,
        "dictionaries": done,
    }


def scores_text(result: dict[str, Any]) -> str:
    """What was done, a line for each dictionary and one for each source and method, for a terminal."""
    lines = []
    for name, counts in result["dictionaries"].items():
        done = {what: number for what, number in counts.items() if what != "means"}
        lines.append(f"{name}: " + ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in done.items()))
        lines += [
            f"  {method}: mean {found['mean']:.2f} of {found['labels']}, {found['above_chance']} above chance"
            for method, found in counts["means"].items()
        ]
    return "\n".join(lines)


def _methods(client: ChatClient | None, scoring: ScoringConfig) -> dict[str, Method]:
    methods: dict[str, Method] = {"lexical": lexical_score}
    if client is not None:
        methods["detection"] = partial(detection_score, client, scoring)
        methods["fuzzing"] = partial(fuzzing_score, client, scoring)
    return methods


def _score(
    job: LabelJob,
    sae: str,
    methods: dict[str, Method],
    judge: str,
    scoring: ScoringConfig,
    progress: bool,
) -> dict[str, Any]:
    labels, asked = job.evidence.labels_of(sae), job.features(sae)
    counts = {"features": len(asked), "labels": 0, "scores": 0, "too_few_contexts": 0}
    with Committing(labels) as committing:
        for feature in counted(asked, len(asked), f"scores of {sae}", shown=progress):
            counts["labels"] += len(labels.of(LabelText, feature))
            todo = list(_missing(labels, feature, methods, judge))
            if not todo:
                continue
            snippets = draw_snippets(
                job.activity(sae, feature), job.neighbors(sae, feature), job.vocabulary, scoring
            )
            for text, method in todo:
                outcome = methods[method](text.text, snippets)
                if outcome is None:
                    counts["too_few_contexts"] += 1
                else:
                    committing.add(_row(text, method, judge, outcome, job.evidence.diff_id))
        counts["scores"] = committing.num
    return {**counts, "means": _means(labels, asked)}


def _missing(
    labels: DictionaryLabels, feature: int, methods: dict[str, Method], judge: str
) -> Iterator[tuple[LabelText, str]]:
    known = {(score.label_id, score.method, score.judge) for score in labels.of(LabelScore, feature)}
    for text in labels.of(LabelText, feature):
        for method in methods:
            if (text.label_id, method, _judge_of(method, judge)) not in known:
                yield text, method


def _judge_of(method: str, judge: str) -> str:
    return "" if method == "lexical" else judge


def _row(text: LabelText, method: str, judge: str, outcome: Outcome, diff_id: str) -> LabelScore:
    return LabelScore(
        feature=text.feature,
        label_id=text.label_id,
        method=method,
        judge=_judge_of(method, judge),
        **outcome.scored._asdict(),
        num_firing=outcome.num_firing,
        num_silent=outcome.num_silent,
        num_near_miss=outcome.num_near_miss,
        num_unanswered=outcome.num_unanswered,
        made_from=diff_id,
    )


def _means(labels: DictionaryLabels, features: list[int]) -> dict[str, dict[str, float]]:
    """For each source and method: the mean score, how many labels it is of, and how many are above chance."""
    found: dict[str, list[LabelScore]] = {}
    for feature in features:
        sources = {text.label_id: text.source for text in labels.of(LabelText, feature)}
        for score in labels.of(LabelScore, feature):
            if score.label_id in sources:
                found.setdefault(f"{sources[score.label_id]}/{score.method}", []).append(score)
    return {
        name: {
            "mean": sum(score.score for score in scores) / len(scores),
            "labels": len(scores),
            "above_chance": sum(score.low > 0.5 for score in scores),
        }
        for name, scores in sorted(found.items())
    }
