"""One model over one suite into the store, segment by segment, resuming where a killed job stopped."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from ft_audit.engine.precompute.observe import Clock, Reader, SegmentBuilder, observe_batch
from ft_audit.engine.runners.residuals import ResidualRunner
from ft_audit.engine.store import RunWriter
from ft_audit.engine.tokens.batches import BatchPlan
from ft_audit.engine.tokens.tokenize import TokenizedSuite


@dataclass(frozen=True, slots=True)
class RunSpeed:
    """What one run cost; `num_tokens` counts only tokens that were run now, not those resumed from."""

    num_tokens: int
    seconds: float
    clock: Clock


def run_suite(
    writer: RunWriter,
    model: PreTrainedModel,
    layers: Sequence[int],
    readers: Sequence[Reader],
    tokens: TokenizedSuite,
    plan: BatchPlan,
    pad_id: int,
    *,
    to_the_end: bool,
    on_tokens: Callable[[int], object],
) -> RunSpeed:
    """Write every segment of `plan` that `writer` does not hold yet, then mark the run complete.

    `on_tokens` hears how many real tokens each finished (or already stored) batch held.
    """
    runner = ResidualRunner(model, layers)
    clock, done, started = Clock(), 0, time.perf_counter()
    lengths = tokens.indptr_P1[1:] - tokens.indptr_P1[:-1]
    for number, batches in enumerate(plan.segments):
        sizes = [int(lengths[list(batch.prompts)].sum()) for batch in batches]
        if number in writer.committed:
            on_tokens(sum(sizes))
            continue
        builder = SegmentBuilder()
        for batch, size in zip(batches, sizes, strict=True):
            observe_batch(runner, readers, tokens, batch, pad_id, builder, clock, to_the_end=to_the_end)
            done += size
            on_tokens(size)
        written = time.perf_counter()
        writer.write_segment(number, builder.finish(tokens))
        clock.write += time.perf_counter() - written
    writer.finish()
    return RunSpeed(done, time.perf_counter() - started, clock)
