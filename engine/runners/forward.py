"""What every runner gives for one batch of prompts, whatever runs the model underneath.

Shapes: B prompts of the batch, L padded positions, T real tokens of the batch in prompt order, D width of the
residual stream, W width of a hook (D, or all heads side by side).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ft_audit.engine.tokens.padded import PaddedBatch


@dataclass(frozen=True, slots=True)
class HookPoint:
    """One place in the model: a block, counted from 0, and a site in it (see `HookConfig.site`)."""

    layer: int
    site: str = "resid_post"

    @property
    def name(self) -> str:
        """The hook's name everywhere: in the config's errors, the store and the statistics."""
        return f"{self.site}/{self.layer}"


@dataclass(frozen=True, slots=True)
class Forward:
    """One batch's activations, on the runner's device and in the model's dtype."""

    hooks: Mapping[str, Tensor]
    """Hook name to its activations at the real tokens [T, W]."""
    final_TD: Tensor | None = None
    """What the output head reads, after the final norm, at the real tokens [T, D]; None unless asked for."""
    prefix_BLD: Tensor | None = None
    """The padded stream after the blocks that two models share; None unless the runner keeps it."""


class Runner(Protocol):
    """One model, ready to read batches at the hooks it was made for."""

    @property
    def hooks(self) -> Sequence[HookPoint]:
        """Where it reads."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its activations lie."""
        ...

    def run(self, batch: PaddedBatch, *, final: bool = False, prefix_BLD: Tensor | None = None) -> Forward:
        """Read one batch; nothing after the last hooked block runs unless `final`.

        A runner that begins after the blocks it shares with another model is handed their output.
        """
        ...
