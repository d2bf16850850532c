"""Residual streams of a causal language model: hooks that live inside a `with`, over right-padded batches.

Shapes: B rows of a batch, L padded positions, D width of the residual stream.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ft_audit.engine.models.anatomy import Anatomy, anatomy
from ft_audit.errors import ConfigError


def check_layers(layers: Sequence[int], found: Anatomy) -> None:
    """Raise ConfigError for a hook layer that the model does not have."""
    for layer in layers:
        if not 0 <= layer < found.num_layers:
            raise ConfigError(
                f"hooks: layer {layer} does not exist; this model has blocks 0 to {found.num_layers - 1}"
            )


@contextmanager
def truncated(found: Anatomy, num_layers: int) -> Iterator[None]:
    """Let the backbone run only its first `num_layers` blocks inside the block, and restore it after."""
    blocks: nn.ModuleList = getattr(found.parent, found.attribute)
    config: Any = found.parent.config
    try:
        setattr(found.parent, found.attribute, blocks[:num_layers])
        config.num_hidden_layers = num_layers
        yield
    finally:
        setattr(found.parent, found.attribute, blocks)
        config.num_hidden_layers = len(blocks)


@contextmanager
def residual_hooks(found: Anatomy, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the output of each block in `layers`: after a forward, the dict holds layer -> [B, L, D].

    Hook `l` is the output of block `l`: Hugging Face's `hidden_states[l + 1]`, except for the last block,
    whose entry there has passed the final norm.
    """
    seen: dict[int, Tensor] = {}
    blocks: nn.ModuleList = getattr(found.parent, found.attribute)

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            seen[layer] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class ResidualRunner:
    """One model, ready to give the residual stream after chosen blocks for batches of token ids."""

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        self.anatomy = anatomy(model)
        check_layers(layers, self.anatomy)
        self.layers = tuple(sorted(set(layers)))
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def run(self, ids_BL: Tensor, *, to_the_end: bool = False) -> tuple[dict[int, Tensor], Tensor | None]:
        """Return layer -> residual [B, L, D], and the final-normed hidden states [B, L, D] if asked for.

        Rows are padded on the right. No mask is needed: under causal attention a real token never sees the
        padding after it, and without a mask the fast causal kernel runs. Nothing after the last hooked block
        runs unless `to_the_end`.
        """
        depth = self.anatomy.num_layers if to_the_end else self.layers[-1] + 1
        with truncated(self.anatomy, depth), residual_hooks(self.anatomy, self.layers) as seen:
            out = self.anatomy.backbone(input_ids=ids_BL.to(self.device), use_cache=False)
        return dict(seen), out.last_hidden_state if to_the_end else None

    @torch.inference_mode()
    def run_bare(self, ids_BL: Tensor) -> None:
        """Run the truncated backbone without hooks: the floor that `run` is measured against."""
        with truncated(self.anatomy, self.layers[-1] + 1):
            self.anatomy.backbone(input_ids=ids_BL.to(self.device), use_cache=False)
