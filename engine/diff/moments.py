"""The feature moments of a pair of runs, reduced segment by segment.

Legend: P prompts, G groups.
"""

from dataclasses import dataclass, replace

import numpy as np

from ft_audit.engine.cluster import Scheduler, scheduler_or_threads
from ft_audit.engine.diff.align import RunPair, pair_runs, paired_segment, shared_sae
from ft_audit.engine.diff.groups import EVERYTHING, Groups, role_label
from ft_audit.engine.diff.pair_sums import read_moments
from ft_audit.engine.store import RunReader
from ft_audit.kernels import diff_stats

Moments = dict[str, diff_stats.PairMoments]


@dataclass(frozen=True, slots=True)
class _SegmentMoments:
    """The task of one segment; carries the open runs, so that a worker elsewhere can read them itself."""

    pair: RunPair
    sae_name: str
    groups: Groups | None

    def __call__(self, number: int) -> Moments:
        segment = paired_segment(self.pair, self.sae_name, number)
        rows = segment.rows
        if self.groups is None:
            return {EVERYTHING: diff_stats.pair_moments(rows)}
        member_GP = np.ascontiguousarray(self.groups.member_GP[:, segment.prompt_P])
        found = dict(zip(self.groups.names, diff_stats.group_moments(rows, member_GP), strict=True))
        for role in self.groups.roles:
            said = replace(rows, mask_T=rows.mask_T & (segment.role_T == role))
            found[role_label(role)] = diff_stats.pair_moments(said)
        return found


def _merge(left: Moments, right: Moments) -> Moments:
    return {label: diff_stats.merge(left[label], right[label]) for label in left}


def pair_moments(
    base: RunReader, tuned: RunReader, sae_name: str, scheduler: Scheduler | None = None
) -> diff_stats.PairMoments:
    """The moments of every feature of the dictionary over the prompts that both runs hold.

    The runs may have different segments: they are matched by prompt. The result is the same to the bit on
    every scheduler. Raises StoreError when prompts, tokens or dictionaries differ between the runs.
    """
    return _reduce(base, tuned, sae_name, None, scheduler)[EVERYTHING]


def group_moments(
    base: RunReader, tuned: RunReader, sae_name: str, groups: Groups, scheduler: Scheduler | None = None
) -> Moments:
    """The same for each group of prompts and for each role's tokens, in one reading of the runs."""
    return _reduce(base, tuned, sae_name, groups, scheduler)


def _reduce(
    base: RunReader, tuned: RunReader, sae_name: str, groups: Groups | None, scheduler: Scheduler | None
) -> Moments:
    shared_sae(base, tuned, sae_name)
    with scheduler_or_threads(scheduler) as opened:
        pair = pair_runs(base, tuned, opened)
        task = _SegmentMoments(pair, sae_name, groups)
        return opened.map_reduce(task, pair.segment_numbers, _merge)


@dataclass(frozen=True, slots=True)
class _StoredMoments:
    """The task of one segment whose moments were taken while the models ran."""

    pair: RunReader
    sae_name: str
    labels: tuple[str, ...]

    def __call__(self, number: int) -> Moments:
        names = [name for name in self.pair.stats_names() if name.startswith(f"moments/{self.sae_name}/")]
        stats = self.pair.segment(number, saes=(), dense=(), stats=names).stats
        return {label: read_moments(stats, f"moments/{self.sae_name}/{label}") for label in self.labels}


def stored_moments(
    pair: RunReader, sae_name: str, groups: Groups, scheduler: Scheduler | None = None
) -> Moments:
    """The same from a pair's run that kept them instead of the features: the same to the bit, too."""
    with scheduler_or_threads(scheduler) as opened:
        task = _StoredMoments(pair, sae_name, groups.labels)
        return opened.map_reduce(task, range(pair.num_segments), _merge)
