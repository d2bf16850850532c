"""How far to trust a label: does it predict where its feature fires, on contexts that did not make it?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ft_audit.agent.client import ChatClient
from ft_audit.agent.labels.activity import Snippet
from ft_audit.agent.labels.intervals import Scored, balanced_accuracy, roc_area
from ft_audit.agent.labels.judge import (
    DETECTION,
    FUZZING,
    judge_texts,
    marked_text,
    plain_text,
    right_marks,
)
from ft_audit.agent.labels.lexical import similarities
from ft_audit.agent.labels.snippets import Snippets
from ft_audit.engine.config import ScoringConfig

# With fewer on either side, an interval reaches over most of the scale.
MIN_CONTEXTS = 4


class Outcome(NamedTuple):
    """A score and the contexts that it rests on."""

    scored: Scored
    num_firing: int
    num_silent: int
    num_near_miss: int
    num_unanswered: int = 0


class _Shown(NamedTuple):
    """A context as a judge sees it, and the right answer."""

    text: str
    truth: bool
    near_miss: bool


def lexical_score(label: str, snippets: Snippets) -> Outcome | None:
    """The area under the ROC curve of the label's likeness to each context; None of too few contexts."""
    num_firing, num_silent = len(snippets.firing), len(snippets.silent)
    if min(num_firing, num_silent) < MIN_CONTEXTS:
        return None
    likeness = similarities(label, [snippet.text for snippet in (*snippets.firing, *snippets.silent)])
    area = roc_area(likeness[:num_firing], likeness[num_firing:])
    return Outcome(area, num_firing, num_silent, sum(snippet.near_miss for snippet in snippets.silent))


def detection_score(
    client: ChatClient, scoring: ScoringConfig, label: str, snippets: Snippets
) -> Outcome | None:
    """The judge's balanced accuracy in telling which contexts the feature fires in; None of too few."""
    shown = [_Shown(plain_text(snippet), True, False) for snippet in snippets.firing]
    shown += [_Shown(plain_text(snippet), False, snippet.near_miss) for snippet in snippets.silent]
    return _judged(client, DETECTION, label, shown, scoring)


def fuzzing_score(
    client: ChatClient, scoring: ScoringConfig, label: str, snippets: Snippets
) -> Outcome | None:
    """The judge's balanced accuracy in telling rightly from wrongly marked tokens; None of too few contexts.

    All contexts are firing ones. In every other one as many tokens are marked, of those on which the feature
    is silent; where there are not so many, the context is left out.
    """
    random = np.random.default_rng(scoring.seed)
    shown = []
    for place, snippet in enumerate(snippets.firing):
        marks = right_marks(snippet)
        if place % 2:
            wrong = _wrong_marks(snippet, sum(marks), random)
            if wrong is not None:
                shown.append(_Shown(marked_text(snippet, wrong), False, True))
        else:
            shown.append(_Shown(marked_text(snippet, marks), True, False))
    return _judged(client, FUZZING, label, shown, scoring)


def _wrong_marks(snippet: Snippet, num: int, random: np.random.Generator) -> list[bool] | None:
    silent = [i for i, value in enumerate(snippet.activations) if value == 0 and snippet.tokens[i].strip()]
    if len(silent) < num:
        return None
    chosen = set(random.permutation(silent)[:num].tolist())
    return [i in chosen for i in range(len(snippet.tokens))]


def _judged(
    client: ChatClient, task: str, label: str, shown: Sequence[_Shown], scoring: ScoringConfig
) -> Outcome | None:
    if min(sum(one.truth for one in shown), sum(not one.truth for one in shown)) < MIN_CONTEXTS:
        return None
    # Mixed, so that no question holds one kind alone by its place.
    order = np.random.default_rng(scoring.seed).permutation(len(shown))
    mixed = [shown[i] for i in order]
    answers = judge_texts(client, task, label, [one.text for one in mixed], scoring.per_question)
    valid = [(one, answer) for one, answer in zip(mixed, answers, strict=True) if answer is not None]
    firing = [answer for one, answer in valid if one.truth]
    silent = [answer for one, answer in valid if not one.truth]
    if min(len(firing), len(silent)) < MIN_CONTEXTS:
        return None
    scored = balanced_accuracy(sum(firing), len(firing), sum(not answer for answer in silent), len(silent))
    num_near_miss = sum(one.near_miss for one, _ in valid)
    return Outcome(scored, len(firing), len(silent), num_near_miss, len(mixed) - len(valid))
