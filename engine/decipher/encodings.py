"""Common encodings, tried one by one and in chains of two, each scored against its controls."""

from collections.abc import Iterator, Sequence

from ft_audit.engine.decipher.findings import SCORED_CHARS, Explanation, explain, ranked
from ft_audit.engine.decipher.limits import cut, sample
from ft_audit.engine.decipher.reference import Reference
from ft_audit.engine.decipher.statistics import find_separator
from ft_audit.engine.requests.codec import AnyStep, Codec
from ft_audit.engine.requests.steps import Join, Reverse, Rotate, Write

MIN_READ = 0.6  # of the texts must be written so
NUM_CLOSER = 4  # of the candidates get their controls; the others are worse before any control
MIN_GAIN = 0.2  # bits a character that another step must bring


def decode_common(texts: Sequence[str], reference: Reference, seed: int = 0) -> list[Explanation]:
    """Return the likeliest common encodings of the texts with their scores, the strongest first.

    Texts as they are compete: what no decoding makes likelier has none, and the list is empty.
    """
    kept = sample(cut(texts), SCORED_CHARS)
    undecoded = reference.characters.score(kept)
    scored: dict[tuple[str, ...], tuple[float, Codec]] = {}
    for codec in _candidates(kept):
        decoded = _read(codec, kept)
        if decoded is None:
            continue
        score = reference.characters.score(decoded) - MIN_GAIN * len(codec.steps)
        # Two chains that read the same are one; the shorter is tried first.
        if score > undecoded and tuple(decoded) not in scored:
            scored[tuple(decoded)] = score, codec
    best = sorted(scored.values(), key=lambda it: -it[0])[:NUM_CLOSER]
    explained = (explain("encoding", codec, cut(texts), reference, seed=seed) for _, codec in best)
    return ranked([it for it in explained if it is not None])


def _candidates(texts: Sequence[str]) -> Iterator[Codec]:
    """Yield single steps, then chains of two whose outer step can read the texts."""
    separator = find_separator(texts)
    joins: list[AnyStep] = [Join(separator=separator)] if separator else []
    written: list[AnyStep] = [
        Write(alphabet=name)
        for name in ("base64", "base32", "hex", "percent", "binary", "decimal", "positions", "morse")
    ]
    turned: list[AnyStep] = [Reverse(unit="text"), Reverse(unit="letters")]
    swapped: list[AnyStep] = [Write(alphabet="atbash"), Write(alphabet="leet")]
    swapped += [Rotate(shift=shift) for shift in range(1, 26)]
    for step in (*joins, *written, *turned, *swapped):
        yield Codec(steps=(step,))
    for outer in (*joins, *written, *turned):
        if _read(Codec(steps=(outer,)), texts) is not None:
            for inner in (*written, *turned, *swapped):
                yield Codec(steps=(inner, outer))


def _read(codec: Codec, texts: Sequence[str]) -> list[str] | None:
    """Return what the codec reads in the texts, or None where it reads too few of them or changes too few."""
    decoded = [codec.decodes(text) for text in texts]
    read = [said for text, said in zip(texts, decoded, strict=True) if said and said.strip() and said != text]
    return read if len(read) >= MIN_READ * len(texts) and read else None
