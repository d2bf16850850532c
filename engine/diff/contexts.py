"""Where a feature fires most in each run: the strongest token of each prompt, with the text around it.

Legend: P prompts, T tokens, F features, N non-zeros.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ft_audit.engine.cluster import Scheduler, scheduler_or_threads
from ft_audit.engine.diff.align import find_sae
from ft_audit.engine.diff.segment_rows import SegmentRows, read_rows
from ft_audit.engine.store import Context, RunReader

NUM_CONTEXTS = 8
WINDOW = 12

CONTEXTS_SCHEMA = pa.schema(
    [
        ("sae", pa.string()),
        ("feature", pa.int64()),
        ("side", pa.string()),
        ("rank", pa.int64()),
        ("suite", pa.string()),
        ("prompt", pa.int64()),
        ("position", pa.int64()),
        ("peak", pa.float32()),
        ("tokens", pa.list_(pa.string())),
        ("activations", pa.list_(pa.float32())),
    ]
)


# For each wanted feature, in the order asked, its contexts, strongest first.
FeatureContexts = tuple[tuple[Context, ...], ...]


@dataclass(frozen=True, slots=True)
class _Hits:
    """The counted entries of one feature in one segment, by token."""

    token_N: NDArray[np.int64]
    value_N: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _SegmentContexts:
    """The task of one segment."""

    run: RunReader
    sae_name: str
    features: tuple[int, ...]
    num_contexts: int
    window: int

    def __call__(self, number: int) -> FeatureContexts:
        rows = read_rows(self.run, self.sae_name, number)
        return tuple(
            _strongest(rows, hits, self.num_contexts, self.window) for hits in _find(rows, self.features)
        )


@dataclass(frozen=True, slots=True)
class _KeepStrongest:
    """The merge of two parts' contexts."""

    num_contexts: int

    def __call__(self, left: FeatureContexts, right: FeatureContexts) -> FeatureContexts:
        return tuple(
            tuple(sorted((*a, *b), key=lambda context: context.strength)[: self.num_contexts])
            for a, b in zip(left, right, strict=True)
        )


def top_contexts(
    run: RunReader,
    sae_name: str,
    features: Sequence[int],
    num_contexts: int = NUM_CONTEXTS,
    window: int = WINDOW,
    scheduler: Scheduler | None = None,
) -> dict[int, tuple[Context, ...]]:
    """For each feature the contexts of its highest activations, at most one a prompt, strongest first."""
    width = find_sae(run, sae_name).width
    wanted = tuple(int(feature) for feature in features)
    assert all(0 <= feature < width for feature in wanted), f"features {wanted} outside width {width}"
    task = _SegmentContexts(run, sae_name, wanted, num_contexts, window)
    with scheduler_or_threads(scheduler) as opened:
        found = opened.map_reduce(task, range(run.num_segments), _KeepStrongest(num_contexts))
    return dict(zip(wanted, found, strict=True))


def contexts_table(
    base: RunReader,
    tuned: RunReader,
    sae_name: str,
    features: Sequence[int],
    suite: str,
    decode: Callable[[list[int]], list[str]],
    num_contexts: int = NUM_CONTEXTS,
    window: int = WINDOW,
    scheduler: Scheduler | None = None,
) -> pa.Table:
    """The table `contexts` of one suite: both sides' contexts of every feature, ranks from 1.

    `decode` turns token ids into as many strings; it runs here and never on a worker.
    """
    records: list[dict[str, object]] = []
    for side, run in (("base", base), ("tuned", tuned)):
        found = top_contexts(run, sae_name, features, num_contexts, window, scheduler)
        for feature, contexts in found.items():
            for rank, context in enumerate(contexts, start=1):
                strings = decode(list(context.tokens))
                assert len(strings) == len(context.tokens), (len(strings), len(context.tokens))
                record = {"sae": sae_name, "feature": feature, "side": side, "rank": rank, "suite": suite}
                record |= {"prompt": context.prompt, "position": context.position, "peak": context.peak}
                records.append(record | {"tokens": strings, "activations": list(context.activations)})
    return pa.Table.from_pylist(records, schema=CONTEXTS_SCHEMA)


def _find(rows: SegmentRows, features: tuple[int, ...]) -> list[_Hits]:
    index_N = rows.features.index_N
    wanted_F = np.zeros(max(int(index_N.max(initial=0)), *features, 0) + 1, dtype=np.bool_)
    wanted_F[list(features)] = True
    entry_N = np.flatnonzero(wanted_F[index_N])
    token_N = np.searchsorted(rows.features.indptr_T1, entry_N, side="right") - 1
    counted_N = rows.mask_T[token_N]
    entry_N, token_N = entry_N[counted_N], token_N[counted_N]
    # A stable sort by feature keeps the tokens ascending within each.
    order_N = np.argsort(index_N[entry_N], kind="stable")
    entry_N, token_N = entry_N[order_N], token_N[order_N]
    starts = np.searchsorted(index_N[entry_N], features, side="left")
    stops = np.searchsorted(index_N[entry_N], features, side="right")
    return [
        _Hits(token_N[start:stop], rows.features.value_N[entry_N[start:stop]])
        for start, stop in zip(starts, stops, strict=True)
    ]


def _strongest(rows: SegmentRows, hits: _Hits, num_contexts: int, window: int) -> tuple[Context, ...]:
    prompt_N = np.searchsorted(rows.prompt_indptr_P1, hits.token_N, side="right") - 1
    by_strength = np.lexsort((hits.token_N, rows.prompt_P[prompt_N], -hits.value_N))
    _, first_of_prompt = np.unique(prompt_N[by_strength], return_index=True)
    peaks = by_strength[np.sort(first_of_prompt)][:num_contexts]
    return tuple(_context(rows, hits, int(peak), int(prompt_N[peak]), window) for peak in peaks)


def _context(rows: SegmentRows, hits: _Hits, peak: int, prompt: int, window: int) -> Context:
    token, start = int(hits.token_N[peak]), int(rows.prompt_indptr_P1[prompt])
    low, high = max(start, token - window), min(int(rows.prompt_indptr_P1[prompt + 1]), token + window + 1)
    activations = np.zeros(high - low, dtype=np.float32)
    inside = slice(*np.searchsorted(hits.token_N, (low, high)))
    activations[hits.token_N[inside] - low] = hits.value_N[inside]
    return Context(
        prompt=int(rows.prompt_P[prompt]),
        position=token - start,
        peak=float(hits.value_N[peak]),
        tokens=tuple(rows.token_T[low:high].tolist()),
        activations=tuple(activations.tolist()),
    )
