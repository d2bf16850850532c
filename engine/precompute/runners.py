"""Both models of a job as runners that share what they can: weights, and blocks that are the same."""

from functools import cached_property

from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.observe import BatchView
from ft_audit.engine.runners.forward import Forward, HookPoint, Runner
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.weights.shared_blocks import identical_blocks


class PairRunners:
    """The base and the candidate over the same hooks; each loads what it needs when it is first used."""

    def __init__(self, models: ModelPair, hooks: tuple[HookPoint, ...]) -> None:
        self._models = models
        self._hooks = hooks

    def base(self, view: BatchView, *, final: bool, shared: bool) -> Forward:
        """Read the batch with the base; with `shared`, keep what the candidate need not compute again."""
        runner = self._sharing_runner if shared else self._base_runner
        with self._models.base_alone():
            return runner.run(view.padded, final=final)

    def tuned(self, view: BatchView, *, final: bool, base: Forward | None) -> Forward:
        """Read the batch with the candidate, from where it parts from the base if that has just run."""
        if base is None or base.prefix_BLD is None:
            return self._tuned_runner.run(view.padded, final=final)
        # Before the first block that differs both streams are the same, to the bit.
        known = {hook.name: base.hooks[hook.name] for hook in self._hooks if hook.layer < self.shared_blocks}
        if len(known) == len(self._hooks) and not final:
            return Forward(known)
        rest = self._rest_runner.run(view.padded, final=final, prefix_BLD=base.prefix_BLD)
        return Forward({**known, **rest.hooks}, rest.final_TD)

    @cached_property
    def shared_blocks(self) -> int:
        """How many leading blocks up to the last hook the two models have in common, embedding and all."""
        same = identical_blocks(self._models.base, self._models.tuned)
        return min(same, 1 + max(hook.layer for hook in self._hooks))

    @cached_property
    def _base_runner(self) -> Runner:
        return HfRunner(self._models.base_model, self._hooks)

    @cached_property
    def _sharing_runner(self) -> Runner:
        return HfRunner(self._models.base_model, self._hooks, keep_prefix=self.shared_blocks)

    @cached_property
    def _tuned_runner(self) -> Runner:
        return HfRunner(self._models.tuned_model, self._hooks)

    @cached_property
    def _rest_runner(self) -> Runner:
        rest = [hook for hook in self._hooks if hook.layer >= self.shared_blocks]
        return HfRunner(self._models.tuned_model, rest, first_block=self.shared_blocks)
