"""One segment of one pass: both models over its batches, and what each of its runs keeps.

Shapes: T tokens, D width of the residual stream, W width of a hook.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.models.load import DTYPES
from ft_audit.engine.precompute.clock import Clock
from ft_audit.engine.precompute.observe import (
    FINAL,
    BatchView,
    Reader,
    SegmentBuilder,
    SideBatch,
    observe,
    view_batch,
)
from ft_audit.engine.precompute.pair import PairBuilder, PairSettings
from ft_audit.engine.precompute.passes import Pass, Side
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.precompute.runners import PairRunners, open_pair_runners
from ft_audit.engine.runners.forward import Forward, HookPoint
from ft_audit.engine.store import RunReader, SegmentData
from ft_audit.engine.tokens.batches import Batch
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.kernels.sparse_rows import SparseRows

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")


class BatchTooLargeError(Exception):
    """A batch did not fit into memory; the job goes on with smaller ones."""

    def __init__(self, pass_name: str, reason: str) -> None:
        super().__init__(pass_name, reason)
        self.pass_name = pass_name
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SegmentWork:
    """One segment of one pass and which of its runs still lack it."""

    pass_name: str
    number: int
    sides: frozenset[Side]


@dataclass(frozen=True, slots=True)
class SegmentDone:
    """What a segment's work gave; `num_tokens` counts a token once for each model that read it."""

    work: SegmentWork
    data: dict[Side, SegmentData]
    num_tokens: int
    seconds: float
    clock: Clock


@dataclass(slots=True)
class Workshop:
    """The models, encoders and dictionaries of a job, loaded once and used for segment after segment."""

    job: Job
    passes: Sequence[Pass]
    prefetch: Executor
    _readers: list[Reader] | None = None
    _runners: PairRunners | None = None
    _stored: dict[str, RunReader] = field(default_factory=dict)

    @property
    def readers(self) -> list[Reader]:
        """The job's dictionaries with their encoders, on the device."""
        if self._readers is None:
            job, device = self.job, self.job.models.device
            self._readers = [Reader(s.to(device), Encoder(s.weights(device), job.backend)) for s in job.saes]
        return self._readers

    @property
    def runners(self) -> PairRunners:
        """Both models, ready to read batches."""
        if self._runners is None:
            hooks = tuple(HookPoint(hook.layer, hook.site) for hook in self.job.hooks)
            longest = max(int(suite.tokens.length_P.max()) for suite in self.job.suites.suites)
            settings = self.job.config.precompute
            self._runners = open_pair_runners(self.job.models, hooks, settings, longest)
        return self._runners

    def close(self) -> None:
        """Stop what the runners have started beside this process."""
        if self._runners is not None:
            self._runners.close()

    def do(self, work: SegmentWork, on_tokens: Callable[[int], object] = lambda _: None) -> SegmentDone:
        """Return what every wanted run keeps of the segment; `on_tokens` hears of each batch.

        Raises:
            BatchTooLargeError: a batch of several prompts did not fit into memory.
            ModelError: activations that are NaN or infinite.
        """
        planned = next(p for p in self.passes if p.name == work.pass_name)
        started = time.perf_counter()
        try:
            data, num_tokens, clock = self._work(planned, work, on_tokens)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error) or planned.tokens_per_batch <= 1:
                raise
            raise BatchTooLargeError(work.pass_name, str(error).splitlines()[0]) from error
        return SegmentDone(work, data, num_tokens, time.perf_counter() - started, clock)

    @torch.inference_mode()
    def _work(
        self, planned: Pass, work: SegmentWork, on_tokens: Callable[[int], object]
    ) -> tuple[dict[Side, SegmentData], int, Clock]:
        suite, clock, num_tokens = planned.suite.tokens, Clock(), 0
        builders: dict[Side, SegmentBuilder] = {
            side: SegmentBuilder(planned.runs[side].keep_features, planned.runs[side].keep_tokens)
            for side in sorted(work.sides)
        }
        pair = self._pair_builder(planned) if "pair" in work.sides else None
        stored = self._stored_base(planned, work, clock)
        for view in self._views(planned, work.number, clock):
            sides = self._read(planned, work, view, stored, builders, clock)
            if pair is not None:
                with clock.time("pair", view.last_P.device):
                    mask_T = pair.add(view, sides["base"], sides["tuned"])
                    builders["pair"].add_batch(view, mask_T)
            read_back = {"base"} if stored is not None and stored.has_activations else set()
            num_tokens += len(view.token_T) * len(sides.keys() - read_back)
            on_tokens(len(view.token_T))
        if pair is not None:
            builders["pair"].stats = pair.finish()
            builders["pair"].dense = {name: [rows] for name, rows in pair.dense().items()}
        return {side: builder.finish(suite) for side, builder in builders.items()}, num_tokens, clock

    def _views(self, planned: Pass, number: int, clock: Clock) -> Iterator[BatchView]:
        """Yield the segment's batches, each padded and moved while the one before is computed."""
        pad, device = self.job.models.base_tokenizer.pad_token_id or 0, self.job.models.device

        def view(batch: Batch) -> BatchView:
            return view_batch(planned.suite.tokens, batch, int(pad), device)

        batches = planned.plan.segments[number]
        coming = self.prefetch.submit(view, batches[0])
        for following in (*batches[1:], None):
            with clock.time("wait"):
                ready = coming.result()
            if following is not None:
                coming = self.prefetch.submit(view, following)
            yield ready

    def _read(
        self,
        planned: Pass,
        work: SegmentWork,
        view: BatchView,
        stored: "_Stored | None",
        builders: dict[Side, SegmentBuilder],
        clock: Clock,
    ) -> dict[Side, SideBatch]:
        """Return what each model makes of the batch, as far as this work needs it."""
        paired = "pair" in work.sides
        read_back = stored is not None and stored.has_activations
        found: dict[Side, SideBatch] = {}
        forwards: dict[Side, Forward] = {}
        with clock.time("forward", view.last_P.device):
            if work.sides & {"base", "control"} or (paired and not read_back):
                side: Side = "control" if planned.is_control else "base"
                forwards[side] = self.runners.base(view, final=planned.final, shared=paired)
            if paired or "tuned" in work.sides:
                forwards["tuned"] = self.runners.tuned(view, final=planned.final, base=forwards.get("base"))
        if paired and "base" not in forwards:
            assert stored is not None, "the base has run unless it is stored"
            with clock.time("read"):
                forwards["base"] = stored.forward(view, self.job.models.device)
        known = None
        if stored is not None:
            with clock.time("read"):
                known = stored.features(view, self.readers, self.job.models.device)
        for side, forward in forwards.items():
            builder = builders.get(side)
            found[side] = observe(
                forward,
                view,
                self.readers,
                builder,
                clock,
                final=planned.suite.to_the_end,
                known=known if side == "base" else None,
            )
        return found

    def _pair_builder(self, planned: Pass) -> PairBuilder:
        settings = PairSettings(
            logits=(self.job.models.base_logits, self.job.models.tuned_logits) if planned.logits else None,
            readers=self.readers,
            num_features={r.name: r.sae.spec.width for r in self.readers} if planned.moments else {},
            groups=planned.groups,
            backend=self.job.backend,
            prompt_features=planned.prompt_features,
        )
        return PairBuilder(planned.suite.tokens, settings, self.job.models.device)

    def _stored_base(self, planned: Pass, work: SegmentWork, clock: Clock) -> "_Stored | None":
        """Return what the base's run keeps of the segment, where the pair needs it and it is committed."""
        if "pair" not in work.sides or "base" in work.sides:
            return None
        base = planned.runs["base"]
        if not (base.keep_features or base.keep_tokens):
            return None
        names = [hook.name for hook in self.job.hooks] + ([FINAL] if planned.final else [])
        with clock.time("read"):
            if base.run_id not in self._stored:
                self._stored[base.run_id] = self.job.store.open_run(base.run_id, allow_incomplete=True)
            data = self._stored[base.run_id].segment(
                work.number,
                saes=[reader.name for reader in self.readers] if base.keep_features else (),
                dense=(),
                tokens=names if base.keep_tokens else (),
            )
        return _Stored(data, DTYPES[self.job.config.models.dtype])


@dataclass(slots=True)
class _Stored:
    """The base's activations and features over one segment, as far as its run keeps them."""

    data: SegmentData
    dtype: torch.dtype

    @property
    def has_activations(self) -> bool:
        """Whether the base need not run again."""
        return bool(self.data.tokens)

    def forward(self, view: BatchView, device: torch.device) -> Forward:
        """Return what the base's forward pass over the batch gave."""
        token_T = self._place(view)
        hooks = {name: self._tensor(rows[token_T]).to(device) for name, rows in self.data.tokens.items()}
        return Forward(hooks, hooks.pop(FINAL, None))

    def features(
        self, view: BatchView, readers: Sequence[Reader], device: torch.device
    ) -> dict[str, SparseRows] | None:
        """Return every dictionary's features at the batch's tokens; None where the run keeps none."""
        if not self.data.features:
            return None
        token_T = torch.from_numpy(self._place(view))
        found = {}
        for reader in readers:
            indptr_T1, index_N, bits_N = (torch.from_numpy(part) for part in self.data.features[reader.name])
            rows = SparseRows(indptr_T1, index_N, bits_N.view(torch.bfloat16), reader.sae.spec.width)
            found[reader.name] = rows.take(token_T).to(device)
        return found

    def _place(self, view: BatchView) -> NDArray[np.int64]:
        """Return where each of the batch's tokens lies in the segment [T]."""
        order = np.argsort(self.data.prompt_P, kind="stable")
        prompts = np.array(view.batch.prompts)
        place_P = order[np.searchsorted(self.data.prompt_P[order], prompts)]
        assert np.array_equal(self.data.prompt_P[place_P], prompts), "a segment holds the same prompts always"
        starts_P = self.data.prompt_indptr_P1[place_P]
        return np.repeat(starts_P - view.indptr_P1[:-1], view.length_P) + np.arange(len(view.token_T))

    def _tensor(self, rows_TW: NDArray[Any]) -> Tensor:
        if rows_TW.dtype == np.uint16:
            return torch.from_numpy(rows_TW).view(torch.bfloat16)
        return torch.from_numpy(rows_TW).to(self.dtype)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)
