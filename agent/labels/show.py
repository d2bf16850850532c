"""`labels show`: what features stand for, each label beside what it was tried on."""

from dataclasses import asdict
from typing import Any, NamedTuple

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.find import find_evidence
from ft_audit.agent.label_words import label_words, trust_words
from ft_audit.agent.labels.job import asked_features
from ft_audit.agent.report.numbers import share
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.views import FeatureLabel, TokenPush
from ft_audit.engine.config import AuditConfig

LABEL_CHARACTERS, TOKEN_CHARACTERS = 200, 24
NUM_NEIGHBORS, NUM_TOKENS = 3, 6
UNLABELLED = "no label"


class Shown(NamedTuple):
    """A feature's labels and the share of all compared tokens on which it fires."""

    label: FeatureLabel
    rate_base: float
    rate_tuned: float


def wanted_labels(
    config: AuditConfig, diff: str | None, sae: str | None, features: str | None
) -> list[Shown]:
    """What is known of the features asked for, of one dictionary or of all."""
    evidence = find_evidence(config, diff).evidence
    names = [name for hook in evidence.hooks for name in hook.saes] if sae is None else [sae]
    return [
        Shown(evidence.label(name, feature), *_rates(evidence, name, feature))
        for name in names
        for feature in asked_features(evidence, name, features)
    ]


def labels_json(found: list[Shown]) -> dict[str, Any]:
    """The features as JSON values; quoted text is whole here, and escaped by JSON alone."""
    return {
        "features": [
            {**asdict(one.label), "rate_base": one.rate_base, "rate_tuned": one.rate_tuned} for one in found
        ]
    }


def labels_text(found: list[Shown]) -> str:
    """The features one after another, for a terminal."""
    return "\n\n".join(_feature(one) for one in found) or "no feature to show"


def _rates(evidence: Evidence, sae: str, feature: int) -> tuple[float, float]:
    """How often the feature fires in base and tuned, over all suites that were compared."""
    fired = [evidence.feature(sae, suite, feature) for suite in evidence.suites_of(sae)]
    tokens = {suite.name: suite.num_tokens for suite in evidence.suites}
    total = sum(tokens[one.suite] for one in fired) or 1
    return (
        sum(one.rate_base * tokens[one.suite] for one in fired) / total,
        sum(one.rate_tuned * tokens[one.suite] for one in fired) / total,
    )


def _feature(one: Shown) -> str:
    found = one.label
    lines = [
        f"feature {found.feature} of {found.sae}, on {share(one.rate_base)} of the tokens in base and "
        f"{share(one.rate_tuned)} in tuned"
    ]
    for label in found.labels:
        lines.append(f"  “{reveal(label.text, LABEL_CHARACTERS)}”  {label_words(label)}")
    if not found.labels:
        lines.append(f"  {UNLABELLED}")
    for near in found.neighbors[:NUM_NEIGHBORS]:
        said = reveal(near.label.text, LABEL_CHARACTERS)
        lines.append(
            f"  near feature {near.feature}, cosine {near.cosine:.2f}, trust {trust_words(near)}: “{said}”"
        )
    for name, pushes in (("promotes", found.promoted), ("suppresses", found.suppressed)):
        if pushes:
            lines.append(f"  {name} {_tokens(pushes)}")
    return "\n".join(lines)


def _tokens(pushes: tuple[TokenPush, ...]) -> str:
    return ", ".join(f"“{reveal(push.token, TOKEN_CHARACTERS)}”" for push in pushes[:NUM_TOKENS])
