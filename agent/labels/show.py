"""`labels show`: what features stand for, each label beside what it was tried on."""

from dataclasses import asdict
from typing import Any

from ft_audit.agent.find import find_evidence
from ft_audit.agent.label_words import label_words, trust_words
from ft_audit.agent.labels.job import asked_features
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.views import FeatureLabel, TokenPush
from ft_audit.engine.config import AuditConfig

LABEL_CHARACTERS, TOKEN_CHARACTERS = 200, 24
NUM_NEIGHBORS, NUM_TOKENS = 3, 6
UNLABELLED = "no label"


def wanted_labels(
    config: AuditConfig, diff: str | None, sae: str | None, features: str | None
) -> list[FeatureLabel]:
    """What is known of the features asked for, of one dictionary or of all."""
    evidence = find_evidence(config, diff).evidence
    names = [name for hook in evidence.hooks for name in hook.saes] if sae is None else [sae]
    return [evidence.label(name, f) for name in names for f in asked_features(evidence, name, features)]


def labels_json(found: list[FeatureLabel]) -> dict[str, Any]:
    """The features as JSON values; quoted text is whole here, and escaped by JSON alone."""
    return {"features": [asdict(label) for label in found]}


def labels_text(found: list[FeatureLabel]) -> str:
    """The features one after another, for a terminal."""
    return "\n\n".join(_feature(label) for label in found) or "no feature to show"


def _feature(found: FeatureLabel) -> str:
    lines = [f"feature {found.feature} of {found.sae}"]
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
