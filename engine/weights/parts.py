"""Which matrix of the base stands beside which of the fine-tune's, whatever the two files call them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ft_audit.engine.weights.adapter import Adapter, Maker
from ft_audit.engine.weights.change import Change, Replaced
from ft_audit.engine.weights.names import canonical, kind_of
from ft_audit.engine.weights.tensors import Matrix, Tensors
from ft_audit.errors import ModelError

HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Part:
    """One matrix of the pair, nothing of it read yet."""

    name: str
    """As the base's file calls it, or the fine-tune's where the base has none."""
    base: Matrix | None
    make: Callable[[], Change] | None
    """What the fine-tune does to it; None where it leaves it as it is, or has none."""
    missing: bool = False
    """Whether the fine-tune lacks it."""
    unread: bool = False
    """Whether the fine-tune may change it in a way that is not measured here."""

    @property
    def kind(self) -> str:
        return kind_of(self.name)


def pair_checkpoints(base: Tensors, tuned: Tensors) -> list[Part]:
    """Return the parts of two full checkpoints, in the order of canonical names.

    A head that one side keeps and the other ties to its embedding is compared with that embedding.

    Raises:
        ModelError: a tensor that holds another number of experts.
    """
    ours, theirs = _with_tied_head(base, tuned), _with_tied_head(tuned, base)
    parts: list[Part] = []
    for short in sorted(ours.keys() | theirs.keys()):
        if short not in theirs:
            parts += [Part(matrix.name, matrix, None, missing=True) for matrix in base.matrices(ours[short])]
            continue
        brought = tuned.matrices(theirs[short])
        makers: list[Maker] = [partial(Replaced, matrix, tuned.ref) for matrix in brought]
        parts += _zip(base, ours.get(short), short, [m.name for m in brought], makers, tuned.ref)
    return parts


def pair_adapter(base: Tensors, adapter: Adapter) -> list[Part]:
    """Return the parts of a base and an adapter on it, in the order of canonical names.

    Raises:
        ModelError: two changes of one tensor, or another number of experts.
    """
    ours = base.by_canonical()
    if HEAD in adapter.touched():
        ours.setdefault(HEAD, _embedding(ours) or HEAD)

    def find(short: str) -> Matrix | None:
        return base.matrices(ours[short])[0] if short in ours and ours[short] in base.names() else None

    changes = adapter.changes(find)
    parts: list[Part] = []
    for short in sorted(ours.keys() | changes.keys()):
        if short in changes:
            labels = [
                f"{short}[{e}]" if len(changes[short]) > 1 else short for e in range(len(changes[short]))
            ]
            parts += _zip(base, ours.get(short), short, labels, changes[short], adapter.ref)
        else:
            unread = _may_be_experts(short, adapter.unread)
            parts += [Part(matrix.name, matrix, None, unread=unread) for matrix in base.matrices(ours[short])]
    return parts


def _zip(
    base: Tensors, ours: str | None, short: str, labels: list[str], makers: list[Maker], ref: str
) -> list[Part]:
    if ours is None:
        return [Part(label, None, make) for label, make in zip(labels, makers, strict=True)]
    matrices = base.matrices(ours)
    if len(matrices) != len(makers):
        raise ModelError(
            f"model {ref!r}: {short} holds {len(makers)} matrices and the base's {len(matrices)}; give the "
            "base that it was trained from"
        )
    # A head that one side ties is not called after the embedding that stands for it.
    return [
        Part(matrix.name if canonical(ours) in (short, ours) else label, matrix, make)
        for label, matrix, make in zip(labels, matrices, makers, strict=True)
    ]


def _with_tied_head(one: Tensors, other: Tensors) -> dict[str, str]:
    names = one.by_canonical()
    embedding = _embedding(names)
    if HEAD not in names and HEAD in other.by_canonical() and embedding is not None:
        names[HEAD] = embedding
    return names


def _embedding(names: dict[str, str]) -> str | None:
    return next((name for short, name in names.items() if kind_of(short) == "embed"), None)


def _may_be_experts(short: str, unread: list[str]) -> bool:
    """Return whether a LoRA of stacked experts may change this tensor, under whatever name it is stored."""
    blocks = {canonical(module).partition(".mlp.")[0].partition(".experts")[0] for module in unread}
    return "experts" in short and any(short.startswith(f"{block}.") for block in blocks)
