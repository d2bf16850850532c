"""Two runs' segments side by side: the same prompts with the same tokens, whatever order each run took.

Legend: P prompts, T tokens, N non-zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.cluster import Scheduler, scheduler_or_threads
from ft_audit.engine.diff.segment_rows import SegmentRows, join, read_rows
from ft_audit.engine.store import RunReader, SaeEntry
from ft_audit.errors import StoreError
from ft_audit.kernels.diff_stats import PairRows


@dataclass(frozen=True, slots=True)
class RunPair:
    """A base and a tuned run over the same prompts, matched by prompt."""

    base: RunReader
    tuned: RunReader
    sources: tuple[tuple[int, ...], ...]  # per base segment: the tuned segments that hold its prompts

    @property
    def segment_numbers(self) -> range:
        return range(len(self.sources))


@dataclass(frozen=True, slots=True)
class PairedSegment:
    """One base segment and the tuned activations of the same prompts, in the base's order."""

    prompt_P: NDArray[np.int64]
    role_T: NDArray[np.uint8]
    rows: PairRows


@dataclass(frozen=True, slots=True)
class _SegmentPrompts:
    """The task that lists the prompts of one segment."""

    run: RunReader

    def __call__(self, number: int) -> NDArray[np.int64]:
        return self.run.segment(number, saes=(), dense=()).prompt_P


def pair_runs(base: RunReader, tuned: RunReader, scheduler: Scheduler | None = None) -> RunPair:
    """The two runs matched by prompt; StoreError when they do not hold the same prompts once each."""
    with scheduler_or_threads(scheduler) as opened:
        base_prompts, tuned_prompts = (
            opened.map(_SegmentPrompts(run), range(run.num_segments)) for run in (base, tuned)
        )
    segment_of_P = _segment_of_prompt(tuned, tuned_prompts)
    known = _segment_of_prompt(base, base_prompts)
    unshared = np.setxor1d(np.flatnonzero(known >= 0), np.flatnonzero(segment_of_P >= 0))
    if len(unshared):
        raise StoreError(
            f"runs {base.manifest.run_id} and {tuned.manifest.run_id} hold different prompts: "
            f"{len(unshared)} are in one of them only, such as {unshared[0]}: "
            "precompute both over the same suite"
        )
    sources = tuple(tuple(np.unique(segment_of_P[prompt_P]).tolist()) for prompt_P in base_prompts)
    return RunPair(base, tuned, sources)


def paired_segment(pair: RunPair, sae_name: str, number: int) -> PairedSegment:
    """The base segment `number` with the tuned rows of the same prompts.

    A token counts where it counts in both runs: each leaves out what is massive in its own model. Raises
    StoreError naming the segment when the two runs' tokens differ.
    """
    sae = shared_sae(pair.base, pair.tuned, sae_name)
    base = read_rows(pair.base, sae_name, number)
    tuned = _tuned_rows(pair, sae_name, number, base.prompt_P)
    _check_same_tokens(pair, number, base, tuned)
    rows = PairRows(
        base.features, tuned.features, base.prompt_indptr_P1, base.mask_T & tuned.mask_T, sae.width
    )
    return PairedSegment(base.prompt_P, base.role_T, rows)


def shared_sae(base: RunReader, tuned: RunReader, sae_name: str) -> SaeEntry:
    """The dictionary both runs were encoded with; StoreError when they have no such or not the same one."""
    ours, theirs = find_sae(base, sae_name), find_sae(tuned, sae_name)
    if ours != theirs:
        raise StoreError(
            f"dictionary {sae_name!r} is not the same in runs {base.manifest.run_id} (sha256 "
            f"{ours.sha256[:12]}, width {ours.width}) and {tuned.manifest.run_id} (sha256 "
            f"{theirs.sha256[:12]}, width {theirs.width}): precompute both with the same dictionary"
        )
    return ours


def find_sae(run: RunReader, sae_name: str) -> SaeEntry:
    """The run's entry of that dictionary; StoreError names those it has."""
    entries = {sae.name: sae for hook in run.manifest.hooks for sae in hook.saes}
    if sae_name not in entries:
        raise StoreError(
            f"run {run.manifest.run_id} was not encoded with dictionary {sae_name!r}; it has "
            f"{', '.join(entries) or 'none'}: name one of these, or add it to the hooks and precompute"
        )
    return entries[sae_name]


def _tuned_rows(pair: RunPair, sae_name: str, number: int, prompt_P: NDArray[np.int64]) -> SegmentRows:
    parts = []
    for source in pair.sources[number]:
        rows = read_rows(pair.tuned, sae_name, source)
        if np.array_equal(rows.prompt_P, prompt_P):
            return rows
        parts.append(rows.take(np.flatnonzero(np.isin(rows.prompt_P, prompt_P))))
    joined = join(parts)
    by_prompt = np.argsort(joined.prompt_P, kind="stable")
    return joined.take(by_prompt[np.searchsorted(joined.prompt_P[by_prompt], prompt_P)])


def _check_same_tokens(pair: RunPair, number: int, base: SegmentRows, tuned: SegmentRows) -> None:
    lengths_base, lengths_tuned = np.diff(base.prompt_indptr_P1), np.diff(tuned.prompt_indptr_P1)
    differing = np.flatnonzero(lengths_base != lengths_tuned)
    if not len(differing):
        differing = np.flatnonzero(base.token_T != tuned.token_T)
        differing = np.searchsorted(base.prompt_indptr_P1, differing, side="right") - 1
    if len(differing):
        name = pair.base.manifest.segments[number].name
        raise StoreError(
            f"segment {name} of run {pair.base.manifest.run_id}: prompt {base.prompt_P[differing[0]]} has "
            f"other tokens in run {pair.tuned.manifest.run_id}; both models must see identical tokens: "
            "precompute both with the same suite and tokenizer"
        )


def _segment_of_prompt(run: RunReader, prompts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The segment of every prompt index, -1 where the run does not hold it."""
    order_P = np.concatenate(prompts)
    number_P = np.repeat(np.arange(len(prompts)), [len(prompt_P) for prompt_P in prompts])
    indices, counts = np.unique(order_P, return_counts=True)
    if len(indices) and (counts.max() > 1 or indices[0] < 0):
        wrong = indices[0] if indices[0] < 0 else indices[np.argmax(counts)]
        raise StoreError(
            f"run {run.manifest.run_id} holds prompt {wrong} more than once or under a negative number: "
            "delete the run and precompute it again"
        )
    segment_of_P = np.full(int(order_P.max(initial=-1)) + 1, -1, dtype=np.int64)
    segment_of_P[order_P] = number_P
    return segment_of_P
