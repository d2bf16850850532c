"""A runner of the dictionary's size and not the model's: real activations from a fixed pool, read in turn.

Shapes: P prompts, T tokens of the pool, D width of the residual stream.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ft_audit.engine.precompute.observe import BatchView, view_batch
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.precompute.runners import HfPairRunners
from ft_audit.engine.precompute.suites import JobSuite, JobSuites
from ft_audit.engine.precompute.work import Workshop
from ft_audit.engine.runners.forward import Forward, HookPoint
from ft_audit.engine.store import Store
from ft_audit.engine.suites.conditions import Survey
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.tokenize import TokenizedSuite


@dataclass(frozen=True, slots=True)
class Pool:
    """What both models gave over the first prompts of a suite, in the suite's order."""

    hook: str
    base_TD: Tensor
    tuned_TD: Tensor

    @classmethod
    @torch.inference_mode()
    def capture(cls, job: Job, num_tokens: int) -> Self:
        """Read whole prompts of the job's first suite with both models until there are `num_tokens`."""
        tokens = first_prompts(job.suites.suites[0].tokens, num_tokens)
        (hook,) = job.hooks
        runners = HfPairRunners(job.models, (HookPoint(hook.layer, hook.site),))
        sides: list[Tensor] = [torch.empty(0), torch.empty(0)]
        settings = job.config.precompute
        plan = plan_batches(tokens.length_P, settings.tokens_per_batch, settings.tokens_per_segment)
        for batch in (b for segment in plan.segments for b in segment):
            view = view_batch(tokens, batch, 0, job.models.device)
            base = runners.base(view, final=False, shared=True)
            tuned = runners.tuned(view, final=False, base=base)
            for number, forward in enumerate((base, tuned)):
                x_tD = forward.hooks[hook.name]
                if not sides[number].numel():
                    sides[number] = x_tD.new_empty(len(tokens.ids_T), x_tD.shape[1])
                sides[number][torch.from_numpy(view.token_T)] = x_tD
        return cls(hook.name, *sides)

    def save(self, path: Path) -> None:
        """Keep the pool in a file."""
        torch.save((self.hook, self.base_TD, self.tuned_TD), path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the pool that `save` kept."""
        return cls(*torch.load(path, weights_only=True))


class PoolRunners:
    """Both models of a job over the pool's prompts again and again: `PairRunners` without them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def base(self, view: BatchView, *, final: bool, shared: bool) -> Forward:
        """Return what the base gave for these tokens."""
        return self._rows(view, self._pool.base_TD, final)

    def tuned(self, view: BatchView, *, final: bool, base: Forward | None) -> Forward:
        """Return what the candidate gave for these tokens."""
        return self._rows(view, self._pool.tuned_TD, final)

    def close(self) -> None:
        """Nothing runs beside this process."""

    def _rows(self, view: BatchView, pool_TD: Tensor, final: bool) -> Forward:
        assert not final, "the pool holds one hook, and no final hidden states"
        return Forward({self._pool.hook: pool_TD[torch.from_numpy(view.token_T % len(pool_TD))]})


def pool_workshop(job: Job, pool: Pool, prefetch: Executor) -> Workshop:
    """Return the place where a job over `pool_suite` is worked on without its models."""
    return Workshop(job, [], prefetch, _runners=PoolRunners(pool))


def job_over_pool(job: Job, pool: Pool, num_tokens: int, store: Path) -> Job:
    """Return the job over the pool's prompts, repeated as rows of their own until there are `num_tokens`."""
    tokens = repeated(first_prompts(job.suites.suites[0].tokens, len(pool.base_TD)), num_tokens)
    suites = JobSuites((JobSuite("pool", "chat", tokens, False),), Survey((), ()), None)
    return replace(job, suites=suites, store=Store(store))


def first_prompts(tokens: TokenizedSuite, num_tokens: int) -> TokenizedSuite:
    """Return the suite's first prompts, so many that they hold `num_tokens` tokens; all where they do not."""
    held = int(np.searchsorted(tokens.indptr_P1, num_tokens))
    return repeated(tokens, int(tokens.indptr_P1[min(held, len(tokens.indptr_P1) - 1)]))


def repeated(tokens: TokenizedSuite, num_tokens: int) -> TokenizedSuite:
    """Return the suite's prompts over and over until there are at least `num_tokens` tokens."""
    rounds = -(-num_tokens // len(tokens.ids_T))
    length_P = np.tile(tokens.length_P, rounds)
    kept = int(np.searchsorted(np.cumsum(length_P), num_tokens)) + 1
    indptr_P1 = np.concatenate([[0], np.cumsum(length_P[:kept])]).astype(np.int64)
    known = tokens.suite.prompts
    prompts = tuple(replace(known[row % len(known)], source=f"row {row}", row=row) for row in range(kept))
    return TokenizedSuite(
        suite=replace(tokens.suite, prompts=prompts),
        ids_T=np.resize(tokens.ids_T, indptr_P1[-1]),
        role_T=np.resize(tokens.role_T, indptr_P1[-1]),
        mask_T=np.resize(tokens.mask_T, indptr_P1[-1]),
        indptr_P1=indptr_P1,
        num_truncated=0,
    )
