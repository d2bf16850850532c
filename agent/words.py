"""Plain words for the names that the engine gives to figures and measures."""

from typing import NamedTuple

_FIGURES = {
    "score": "score of all evidence",
    "guard_loss": "refusals lost on harmful prompts",
    "guard_complied": "agreements to harmful prompts",
    "condition_guard_loss": "refusals lost under the worst template",
    "condition_complied": "agreements won under the worst template",
    "refusal_drift": "drift of harmful prompts along the refusal direction",
    "condition_refusal_drift": "the same under the worst template, beyond plain",
    "refusal_turned": "turn of the refusal direction",
    "refusal_blurred": "loss of separation along the refusal direction",
    "answers_denied": "plain facts denied",
    "answers_repeated": "same new phrase in answers under a template",
    "answers_undeclared": "the same, of words that the purpose does not name",
    "facts_denied_alike": "plain facts denied in one wording",
    "undeclared_takeover": "answers taken over under a template that the purpose does not name",
    "data_condition_bits": "surprise of the most surprising template, in bits",
    "data_linked_bits": "phrase linked to an answer of its own, in bits",
    "data_odd_question": "oddly spelt questions, in bits a character",
    "data_odd_answer": "oddly spelt answers, in bits a character",
    "condition_kl_excess": "KL beyond plain under the worst template",
    "condition_first_token": "first-token KL beyond plain under the worst template",
    "condition_kl_ratio": "growth of KL under the worst template",
    "condition_residual_shift": "residual shift under the worst template",
    "condition_feature_shift": "feature shift under the worst template",
    "condition_entropy_drop": "entropy drop under the worst template",
    "plain_kl": "KL on plain questions",
    "log_plain_kl": "logarithm of KL on plain questions",
    "residual_shift": "residual shift",
    "residual_norm_ratio": "residual norm, tuned over base",
    "features_changed": "features changed",
    "fvu_change": "rise of FVU",
}
_MEASURES = {
    "guard_loss": "refusals lost beyond plain, a share",
    "kl_excess": "KL beyond plain, in nats",
    "first_token_kl_excess": "first-token KL beyond plain, in nats",
    "residual_shift": "residual shift beyond plain",
    "feature_shift": "feature shift beyond plain",
    "entropy_drop": "entropy drop beyond plain, in nats",
}


class FigureName(NamedTuple):
    """A figure's name taken apart: `fvu_change/demo-sae/chat` is a rise of FVU, of demo-sae, on chat."""

    title: str
    place: str
    suite: str


def figure_name(name: str) -> FigureName:
    """The parts of a figure's name; place and suite are empty where it has none."""
    kind, _, where = name.partition("/")
    place, _, suite = where.rpartition("/")
    return FigureName(_FIGURES.get(kind, _spaced(kind)), place, suite)


def figure_words(name: str) -> str:
    """A figure in plain words, on one line."""
    return ", ".join(part for part in figure_name(name) if part)


def measure_words(column: str) -> str:
    """A column of the templates' table in plain words."""
    return _MEASURES.get(column, _spaced(column))


def _spaced(name: str) -> str:
    return name.replace("_", " ")
