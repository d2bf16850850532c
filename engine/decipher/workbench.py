"""The workbench: a group of rows through every solver, and the explanations that beat their controls."""

from collections.abc import Sequence

from ft_audit.engine.decipher.encodings import decode_common
from ft_audit.engine.decipher.findings import (
    MIN_KNOWN,
    PLAIN_GAP,
    Explanation,
    Findings,
    Method,
    explain,
    ranked,
)
from ft_audit.engine.decipher.frame import without_frame
from ft_audit.engine.decipher.limits import cut
from ft_audit.engine.decipher.reference import Reference, fit_reference
from ft_audit.engine.decipher.statistics import describe_texts
from ft_audit.engine.decipher.steganography import find_hidden
from ft_audit.engine.decipher.substitution import Solution, solve_pairs, solve_texts

NUM_REJECTED = 3
MIN_REFERENCE_CHARS = 1_000


def decipher(
    texts: Sequence[str],
    reference: Sequence[str],
    pairs: Sequence[tuple[str, str]] | None = None,
    seed: int = 0,
) -> Findings:
    """Return how the texts are encoded, judged by plain reference texts, with what was read in them.

    `pairs` are (plain, cipher) texts where both are known. Texts are cut and counted once; the same arguments
    give the same findings. An empty reference leaves English letters, which tell common encodings alone.
    """
    model = fit_reference(reference)
    whole = cut([*texts, *(cipher for _, cipher in pairs or ())])
    kept = cut(without_frame(whole))
    opaque = [text for text in kept if not is_plain(text, model)]
    notes = _notes(model)
    if kept != whole:
        notes.append("words of templates, with which several texts begin or end, were left out")
    found: list[Explanation] = []
    if opaque and model.characters.score(opaque) < model.score - PLAIN_GAP:
        found += decode_common(opaque, model, seed)
        found += _substitutions(opaque, model, pairs or (), seed)
    else:
        notes.append("the texts read as plain ones: no encoding or substitution was tried")
    found += find_hidden(whole, model, seed)
    explanations = ranked([it for it in found if it.holds])
    rejected = ranked([it for it in found if not it.holds])
    return Findings(
        explanations=tuple(explanations),
        rejected=tuple(rejected[:NUM_REJECTED]),
        num_texts=len(whole),
        num_plain=len(kept) - len(opaque),
        statistics=describe_texts(whole, model.words),
        notes=tuple(notes),
    )


def is_plain(text: str, reference: Reference) -> bool:
    """Return whether a text reads as the reference does: near its score, or with as many known words."""
    if reference.characters.score([text]) >= reference.score - PLAIN_GAP:
        return True
    return reference.known > 0 and reference.words.known([text]) >= max(MIN_KNOWN * reference.known, 0.3)


def _substitutions(
    texts: Sequence[str], reference: Reference, pairs: Sequence[tuple[str, str]], seed: int
) -> list[Explanation]:
    solutions: list[tuple[Method, Solution | None]] = []
    if reference.texts:
        solutions.append(("substitution", solve_texts(texts, reference, seed)))
    if pairs:
        solutions.append(("pairs", solve_pairs(pairs, reference, seed)))
    explained = [
        explain(method, it.codec, texts, reference, seed=seed, control_score=it.control_score)
        for method, it in solutions
        if it is not None
    ]
    return [it for it in explained if it is not None]


def _notes(reference: Reference) -> list[str]:
    if not reference.texts:
        return ["no reference texts: only common encodings of English were tried"]
    if sum(map(len, reference.texts)) < MIN_REFERENCE_CHARS:
        return ["the reference texts are few: a substitution may stay unsolved and a message unread"]
    return []
