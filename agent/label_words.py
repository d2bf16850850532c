"""What is said beside a label, so that nobody reads one without what it was tried on."""

from ft_audit.agent.report.numbers import fixed
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.views import Label, NeighborLabel

AUTHOR_CHARACTERS = 60
SOURCE_WORDS = {
    "neuronpedia": "from Neuronpedia",
    "described": "described by a model",
    "contexts": "made of its own contexts",
}
METHOD_WORDS = {"detection": "detection", "fuzzing": "fuzzing", "lexical": "by its words alone"}


def label_words(label: Label) -> str:
    """Where a label comes from and how well it tells where its feature fires, on one line."""
    source = SOURCE_WORDS.get(label.source, reveal(label.source, AUTHOR_CHARACTERS))
    if label.author:
        source += f" ({reveal(label.author, AUTHOR_CHARACTERS)})"
    return f"{source}; {reliability_words(label)}"


def reliability_words(label: Label) -> str:
    """The most telling score of a label, with its interval and on how many contexts; 0.5 is chance."""
    if not label.reliability:
        return "reliability not measured"
    first = label.reliability[0]
    method = METHOD_WORDS.get(first.method, first.method)
    interval = f"{fixed(first.low, 2)} to {fixed(first.high, 2)}"
    return f"reliability {fixed(first.score, 2)} ({interval}, {method}, n = {first.num}; 0.5 is chance)"


def trust_words(neighbor: NeighborLabel) -> str:
    """How far a label that was given to another feature is trusted here."""
    if neighbor.low_similarity:
        return "low similarity"
    return "not measured" if neighbor.trust is None else fixed(neighbor.trust, 2)
