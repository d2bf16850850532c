"""The feature moments of a pair of runs, reduced segment by segment.

Legend: P prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.cluster import Scheduler, scheduler_or_threads
from ft_audit.engine.diff.align import RunPair, pair_runs, paired_segment, shared_sae
from ft_audit.engine.store import RunReader
from ft_audit.kernels import diff_stats

SelectPrompts = Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class _SegmentMoments:
    """The task of one segment; carries the open runs, so that a worker elsewhere can read them itself."""

    pair: RunPair
    sae_name: str
    select: SelectPrompts | None

    def __call__(self, number: int) -> diff_stats.PairMoments:
        segment = paired_segment(self.pair, self.sae_name, number)
        rows = segment.rows
        if self.select is not None:
            selected_P = np.asarray(self.select(segment.prompt_P), dtype=np.bool_)
            assert selected_P.shape == segment.prompt_P.shape, (selected_P.shape, segment.prompt_P.shape)
            selected_T = np.repeat(selected_P, np.diff(rows.prompt_indptr_P1))
            rows = replace(rows, mask_T=rows.mask_T & selected_T)
        return diff_stats.pair_moments(rows)


def pair_moments(
    base: RunReader,
    tuned: RunReader,
    sae_name: str,
    select: SelectPrompts | None = None,
    scheduler: Scheduler | None = None,
) -> diff_stats.PairMoments:
    """The moments of every feature of the dictionary over the prompts that both runs hold.

    `select` is given suite indices [P] and returns which of them count; None counts all. The runs may have
    different segments: they are matched by prompt. The result is the same to the bit on every scheduler.
    Raises StoreError when prompts, tokens or dictionaries differ between the runs.
    """
    shared_sae(base, tuned, sae_name)
    with scheduler_or_threads(scheduler) as opened:
        pair = pair_runs(base, tuned, opened)
        task = _SegmentMoments(pair, sae_name, select)
        return opened.map_reduce(task, pair.segment_numbers, diff_stats.merge)
