"""Running only some of a model's blocks: none after the last that is read, none that another model ran.

Shapes: B prompts of a batch, L padded positions, D width of the residual stream.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from ft_audit.engine.models.anatomy import Anatomy

NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


class Handed(NamedTuple):
    """What stands for the first blocks: how many, and the padded stream that they gave."""

    num_blocks: int
    stream_BLD: Tensor
    output_size: int | None
    """What the family's blocks give; see `output_size`."""


def output_size(output: Any) -> int | None:
    """Return how many values a block gave beside each other, or None where it gave a plain tensor."""
    return None if isinstance(output, Tensor) else len(output)


@contextmanager
def shortened(
    found: Anatomy, depth: int, *, handed: Handed | None = None, norm: bool = True
) -> Iterator[None]:
    """Let the backbone run only its first `depth` blocks, and the final norm if `norm`; restore it after.

    With `handed` the first of those are left out as well.
    """
    blocks, parent = found.blocks, found.parent
    name = next((name for name in NORMS if isinstance(getattr(parent, name, None), nn.Module)), None)
    last = getattr(parent, name) if name is not None else None
    try:
        setattr(parent, found.attribute, _run_only(blocks, depth, handed))
        if name is not None and not norm:
            setattr(parent, name, nn.Identity())
        yield
    finally:
        setattr(parent, found.attribute, blocks)
        if name is not None:
            setattr(parent, name, last)


def _run_only(blocks: nn.ModuleList, depth: int, handed: Handed | None) -> nn.ModuleList:
    if handed is None:
        return nn.ModuleList(blocks[:depth])
    skipped = [_Skipped(block, handed) for block in blocks[: handed.num_blocks]]
    return nn.ModuleList([*skipped, *blocks[handed.num_blocks : depth]])


class _Skipped(nn.Module):
    """Stands for a block that ran elsewhere: gives its stream, and has whatever attribute the block has.

    Families choose a block's mask by its attributes or its number, so none can be taken out of the list.
    """

    def __init__(self, block: nn.Module, handed: Handed) -> None:
        super().__init__()
        # Not registered as parts: this is no module of the model's own.
        self.__dict__["block"], self.__dict__["handed"] = block, handed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        # Each of them gives the stream after the last, which no block between them reads.
        stream_BLD, size = self.handed.stream_BLD, self.handed.output_size
        return stream_BLD if size is None else (stream_BLD, *[None] * (size - 1))
