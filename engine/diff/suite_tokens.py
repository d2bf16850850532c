"""Which number each token of a suite has: the suite's prompts in suite order, whatever order the runs took.

Legend: P prompts, T tokens.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.cluster import Scheduler
from ft_audit.engine.store import DiffWriter, RunReader, SegmentData
from ft_audit.engine.store.feature_index_reader import suite_path
from ft_audit.errors import StoreError

BLOCK = 1 << 20
TOKEN_CHUNK = 1 << 14  # a context needs some tens of tokens, and each from another place


class SuiteRuns(Protocol):
    """Both models' runs over one suite."""

    @property
    def name(self) -> str: ...
    @property
    def base(self) -> RunReader: ...
    @property
    def tuned(self) -> RunReader: ...


@dataclass(frozen=True, slots=True)
class SuiteTokens:
    """Prompt p of the suite has the tokens [indptr[p], indptr[p + 1]); one that no run holds has none."""

    prompt_indptr_P1: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        return int(self.prompt_indptr_P1[-1])

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The narrowest type that holds every token's number."""
        return np.dtype(np.uint32 if self.num_tokens <= 1 << 32 else np.uint64)

    def numbers(self, data: SegmentData) -> NDArray[np.unsignedinteger[Any]]:
        """The number of every token of the segment, in the segment's order."""
        starts_P, lengths_P = data.prompt_indptr_P1[:-1], np.diff(data.prompt_indptr_P1)
        expected_P = np.diff(self.prompt_indptr_P1)[data.prompt_P]
        assert np.array_equal(lengths_P, expected_P), "the runs' prompts differ in length"
        shift_P = self.prompt_indptr_P1[data.prompt_P] - starts_P
        number_T = np.arange(data.num_tokens, dtype=np.int64) + np.repeat(shift_P, lengths_P)
        return number_T.astype(self.dtype)


class _Lengths(NamedTuple):
    prompt_P: NDArray[np.int64]
    length_P: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _SegmentLengths:
    """The task that lists how long the prompts of one segment are."""

    run: RunReader

    def __call__(self, number: int) -> _Lengths:
        data = self.run.segment(number, saes=(), dense=())
        return _Lengths(data.prompt_P, np.diff(data.prompt_indptr_P1))


def suite_tokens(pair: SuiteRuns, scheduler: Scheduler) -> SuiteTokens:
    """How the suite's tokens are numbered; StoreError when the two runs do not hold the same prompts."""
    base, tuned = (_length_of_prompt(run, scheduler) for run in (pair.base, pair.tuned))
    if not np.array_equal(base, tuned):
        raise StoreError(
            f"runs {pair.base.manifest.run_id} and {pair.tuned.manifest.run_id} do not hold the same prompts "
            f"with the same numbers of tokens of suite {pair.name!r}: precompute both over the same suite"
        )
    return SuiteTokens(np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(base)]))


def _length_of_prompt(run: RunReader, scheduler: Scheduler) -> NDArray[np.int64]:
    parts = scheduler.map(_SegmentLengths(run), range(run.num_segments))
    prompt_P = np.concatenate([part.prompt_P for part in parts])
    length_P = np.zeros(int(prompt_P.max(initial=-1)) + 1, dtype=np.int64)
    length_P[prompt_P] = np.concatenate([part.length_P for part in parts])
    return length_P


def put_suite_tokens(writer: DiffWriter, pair: SuiteRuns, tokens: SuiteTokens, scratch: Path) -> None:
    """Write the suite's tokens, their roles, what each run counts, and where prompts begin.

    Tokens are put in order in files under `scratch`, so that memory holds one segment whatever the suite.
    Raises StoreError when the two runs' tokens differ.
    """
    base, tuned = (
        _in_order(run, tokens, scratch / side) for side, run in (("base", pair.base), ("tuned", pair.tuned))
    )
    _check_same_tokens(pair, tokens, base.id_T, tuned.id_T)
    _put(writer, suite_path(pair.name, "prompt_indptr_P1"), tokens.prompt_indptr_P1)
    _put(writer, suite_path(pair.name, "token_id_T"), base.id_T)
    _put(writer, suite_path(pair.name, "role_T"), base.role_T)
    _put(writer, suite_path(pair.name, "mask_base_T"), base.mask_T)
    _put(writer, suite_path(pair.name, "mask_tuned_T"), tuned.mask_T)


class _Ordered(NamedTuple):
    id_T: NDArray[np.int32]
    role_T: NDArray[np.uint8]
    mask_T: NDArray[np.uint8]


def _in_order(run: RunReader, tokens: SuiteTokens, folder: Path) -> _Ordered:
    """A run's tokens in the order of the suite, in files that the system may page out."""
    folder.mkdir()
    types = {"id": np.int32, "role": np.uint8, "mask": np.uint8}
    # A file cannot be mapped at length 0; a token too many is never read.
    shape = (tokens.num_tokens + 1,)
    files = (np.memmap(folder / name, dtype, "w+", shape=shape)[:-1] for name, dtype in types.items())
    found = _Ordered(*files)
    for data in run.segments(saes=(), dense=()):
        number_T = tokens.numbers(data)
        found.id_T[number_T] = data.token_T
        found.role_T[number_T] = data.role_T
        found.mask_T[number_T] = data.mask_T
    return found


def _check_same_tokens(
    pair: SuiteRuns, tokens: SuiteTokens, base_T: NDArray[np.int32], tuned_T: NDArray[np.int32]
) -> None:
    for start in range(0, tokens.num_tokens, BLOCK):
        block = slice(start, start + BLOCK)
        differing = np.flatnonzero(base_T[block] != tuned_T[block])
        if len(differing):
            at = start + int(differing[0])
            prompt = int(np.searchsorted(tokens.prompt_indptr_P1, at, side="right")) - 1
            raise StoreError(
                f"prompt {prompt} of suite {pair.name!r} has other tokens in run "
                f"{pair.base.manifest.run_id} than in run {pair.tuned.manifest.run_id}; both models must see "
                "identical tokens: precompute both with the same suite and tokenizer"
            )


def _put(writer: DiffWriter, path: str, array: NDArray[Any]) -> None:
    sink = writer.array_sink(path, array.dtype, TOKEN_CHUNK)
    for start in range(0, len(array), BLOCK):
        sink.append(np.asarray(array[start : start + BLOCK]))
    sink.close()
