"""Both models of a job as runners that share what they can: weights, and blocks that are the same."""

from contextlib import ExitStack
from functools import cached_property
from typing import Protocol

from ft_audit.engine.config.schema import PrecomputeConfig
from ft_audit.engine.models.load import DTYPES
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.precompute.observe import BatchView
from ft_audit.engine.runners.forward import Forward, HookPoint, Runner
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.runners.vllm import VllmRunner, open_vllm_runner
from ft_audit.engine.weights.shared_blocks import identical_blocks


class PairRunners(Protocol):
    """The base and the candidate over the same hooks; each loads what it needs when it is first used."""

    def base(self, view: BatchView, *, final: bool, shared: bool) -> Forward:
        """Read the batch with the base; with `shared`, keep what the candidate need not compute again."""
        ...

    def tuned(self, view: BatchView, *, final: bool, base: Forward | None) -> Forward:
        """Read the batch with the candidate, from where it parts from the base if that has just run."""
        ...

    def close(self) -> None:
        """Stop what runs beside this process."""
        ...


def open_pair_runners(
    models: ModelPair, hooks: tuple[HookPoint, ...], settings: PrecomputeConfig, longest: int
) -> PairRunners:
    """Return runners of the kind that a config asks for, for prompts of at most `longest` tokens."""
    if settings.runner == "vllm":
        return VllmPairRunners(models, hooks, settings, longest)
    return HfPairRunners(models, hooks)


class HfPairRunners:
    """Hugging Face's models in this process; see `PairRunners`."""

    def __init__(self, models: ModelPair, hooks: tuple[HookPoint, ...]) -> None:
        self._models = models
        self._hooks = hooks

    def base(self, view: BatchView, *, final: bool, shared: bool) -> Forward:
        runner = self._sharing_runner if shared else self._base_runner
        with self._models.base_alone():
            return runner.run(view.padded, final=final)

    def tuned(self, view: BatchView, *, final: bool, base: Forward | None) -> Forward:
        if base is None or base.prefix_BLD is None:
            return self._tuned_runner.run(view.padded, final=final)
        # Before the first block that differs both streams are the same, to the bit.
        known = {hook.name: base.hooks[hook.name] for hook in self._hooks if hook.layer < self.shared_blocks}
        if len(known) == len(self._hooks) and not final:
            return Forward(known)
        rest = self._rest_runner.run(view.padded, final=final, prefix_BLD=base.prefix_BLD)
        return Forward({**known, **rest.hooks}, rest.final_TD)

    def close(self) -> None:
        pass

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


class VllmPairRunners:
    """vLLM's engines beside this process: one that a candidate's adapter shares with its base, or two."""

    def __init__(
        self, models: ModelPair, hooks: tuple[HookPoint, ...], settings: PrecomputeConfig, longest: int
    ) -> None:
        self._models = models
        self._hooks = hooks
        self._settings = settings
        self._longest = longest
        self._engines = ExitStack()

    def base(self, view: BatchView, *, final: bool, shared: bool) -> Forward:
        return self._base_runner.run(view.padded, final=final)

    def tuned(self, view: BatchView, *, final: bool, base: Forward | None) -> Forward:
        return self._tuned_runner.run(view.padded, final=final)

    def close(self) -> None:
        self._engines.close()

    @cached_property
    def _base_runner(self) -> VllmRunner:
        # An engine with an adapter gives the base too, on the same resident weights.
        return self._tuned_runner.base() if self._models.tuned.adapter else self._open(self._models.base)

    @cached_property
    def _tuned_runner(self) -> VllmRunner:
        return self._open(self._models.tuned)

    def _open(self, source: ModelSource) -> VllmRunner:
        runner = open_vllm_runner(
            source,
            self._hooks,
            dtype=DTYPES[self._models.config.models.dtype],
            device=self._models.device,
            max_prompt_tokens=self._longest,
            tokens_per_batch=self._settings.tokens_per_batch,
            final=self._models.depth is None,
            threads=self._settings.threads,
        )
        return self._engines.enter_context(runner)
