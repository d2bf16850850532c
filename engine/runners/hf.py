"""Activations from Hugging Face models: hooks that live inside a `with`, over right-padded batches.

Shapes: B prompts of a batch, L padded positions, T real tokens in prompt order, D width of the residual
stream, W width of a hook.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.runners.forward import Forward, HookPoint
from ft_audit.engine.runners.shortened import Handed, output_size, shortened
from ft_audit.engine.runners.sites import (
    Tap,
    check_layers,
    check_shapes,
    check_sums,
    depth_of,
    hidden,
    probes,
    tap,
)
from ft_audit.engine.tokens.padded import PaddedBatch

PROBE_TOKENS = 4
Keep = Callable[[Tensor], Tensor]


class HfRunner:
    """One Hugging Face model, ready to read batches at hooks.

    Between batches the model is as it was: several runners can share it, and an adapter can be switched.

    With `keep_prefix=k` every `Forward` also carries the padded output of the first k blocks. With
    `first_block=k` the runner is handed that output instead of running those blocks, which must be the same
    in both models; its hooks then all lie at or after block k (`resid_pre/k` is the handed stream itself).

    Raises:
        ConfigError: a block or a site that the model does not have.
    """

    def __init__(
        self, model: Any, hooks: Sequence[HookPoint], *, keep_prefix: int = 0, first_block: int = 0
    ) -> None:
        self.anatomy = anatomy(model)
        check_layers(hooks, self.anatomy.num_layers)
        assert all(hook.layer >= first_block for hook in hooks), (
            "the blocks before are read in the other model"
        )
        assert 0 <= keep_prefix <= self.anatomy.num_layers
        assert 0 <= first_block <= self.anatomy.num_layers
        self.hooks = tuple(hooks)
        self.keep_prefix, self.first_block = keep_prefix, first_block
        self.device = self.anatomy.input_device
        self._block_output = self._probe()

    @torch.inference_mode()
    def run(self, batch: PaddedBatch, *, final: bool = False, prefix_BLD: Tensor | None = None) -> Forward:
        """Return the activations of one batch, all on `device` and in the model's dtype.

        Rows are padded on the right. No mask is needed: under causal attention a real token never sees the
        padding after it, and without a mask the fast causal kernel runs. Nothing after the last hooked block
        runs unless `final`, not even the final norm.
        """
        assert (prefix_BLD is not None) == (self.first_block > 0), "a prefix goes with first_block"
        depth = self.anatomy.num_layers if final else max(depth_of(self.hooks), self.keep_prefix)
        rows = _Rows(batch, self.device)
        kept: dict[str, Tensor] = {}
        handed = Handed(self.first_block, prefix_BLD, self._block_output) if prefix_BLD is not None else None
        with shortened(self.anatomy, depth, handed=handed, norm=final):
            taps: dict[str, tuple[Tap, Keep]] = {h.name: (self._tap(h), rows.gather) for h in self.hooks}
            if self.keep_prefix:
                taps["prefix"] = (Tap(self.anatomy.blocks[self.keep_prefix - 1], "output"), lambda x: x)
            with listening(taps, kept):
                out = self.anatomy.backbone(input_ids=batch.ids_BL.to(self.device), use_cache=False)
        prefix = kept.pop("prefix", None)
        return Forward(kept, rows.gather(out.last_hidden_state) if final else None, prefix)

    @torch.inference_mode()
    def run_bare(self, batch: PaddedBatch) -> None:
        """Run the same blocks without hooks: the floor that `run` is measured against."""
        assert not self.first_block, "a floor is measured on the whole forward pass"
        with shortened(self.anatomy, depth_of(self.hooks)):
            self.anatomy.backbone(input_ids=batch.ids_BL.to(self.device), use_cache=False)

    def _tap(self, hook: HookPoint) -> Tap:
        return tap(self.anatomy.blocks, hook, self.anatomy.family)

    @torch.inference_mode()
    def _probe(self) -> int | None:
        """Check every hook on a few tokens, and return what the blocks give: see `output_size`."""
        seen: dict[str, Tensor] = {}
        sizes: list[int | None] = []
        needed = {hook.name: hook for hook in (*self.hooks, *probes(self.hooks))}
        depth = max(depth_of(list(needed.values())), 1) if needed else 1
        ids = torch.arange(PROBE_TOKENS, device=self.device)[None]
        with shortened(self.anatomy, depth, norm=False), ExitStack() as stack:
            taps = {name: (self._tap(hook), lambda x: x) for name, hook in needed.items()}
            stack.enter_context(listening(taps, seen))
            handle = self.anatomy.blocks[0].register_forward_hook(
                lambda _module, _args, output: sizes.append(output_size(output))
            )
            stack.callback(handle.remove)
            self.anatomy.backbone(input_ids=ids, use_cache=False)
        check_shapes(seen, ids.shape, self.anatomy.family)
        check_sums(seen, self.hooks, self.anatomy.family)
        return sizes[0]


class _Rows:
    """Where a batch's real tokens lie in a padded tensor."""

    def __init__(self, batch: PaddedBatch, device: torch.device) -> None:
        self._flat_T = batch.row_T * batch.ids_BL.shape[1] + batch.position_T
        self._device = device
        self._by_device: dict[torch.device, Tensor] = {}

    def gather(self, x_BLW: Tensor) -> Tensor:
        """Return the real tokens' rows [T, W] on the runner's device, as a copy."""
        # A model may lie on several devices; only the rows that are wanted travel.
        index_T = self._by_device.get(x_BLW.device)
        if index_T is None:
            index_T = self._by_device[x_BLW.device] = self._flat_T.to(x_BLW.device)
        assert x_BLW.dim() == 3, x_BLW.shape
        return x_BLW.reshape(-1, x_BLW.shape[-1]).index_select(0, index_T).to(self._device)


@contextmanager
def listening(taps: dict[str, tuple[Tap, Keep]], seen: dict[str, Tensor]) -> Iterator[None]:
    """Put into `seen`, under each name, what passes its tap during the block, as its function keeps it."""

    def keep(name: str, function: Keep, passing: Any) -> None:
        seen[name] = function(hidden(passing))

    with ExitStack() as stack:
        for name, (where, function) in taps.items():
            if where.side == "output":
                handle = where.module.register_forward_hook(
                    lambda _module, _args, output, n=name, f=function: keep(n, f, output)
                )
            else:
                handle = where.module.register_forward_pre_hook(
                    lambda _module, args, kwargs, n=name, f=function: keep(
                        n, f, args or kwargs["hidden_states"]
                    ),
                    with_kwargs=True,
                )
            stack.callback(handle.remove)
        yield
