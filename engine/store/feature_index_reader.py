"""Answers what a feature did from the feature-major copy of a diff, reading only the chunks it needs.

The copy (`features.zarr`) holds, for each suite, its tokens in suite order; for each dictionary, suite and
side, each feature's counted tokens and values, and which of them are the strongest of their prompts; and each
group of statistics with one feature's values side by side.

Legend: T tokens, P prompts, F features, N non-zeros, K peaks kept a feature, S statistics of a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.context import Context
from ft_audit.engine.store.diff_reader import DiffReader
from ft_audit.engine.store.range_array import RangeArray
from ft_audit.engine.store.rows import decode_bf16
from ft_audit.errors import StoreError

SIDES = ("base", "tuned")
NO_PEAK = 0xFFFFFFFF  # fills the row of a feature that fired in fewer prompts than peaks are kept
READ_WHOLE = 1 << 16  # a feature of so few entries is read in one piece, as that costs one chunk


class FeatureTokens(NamedTuple):
    """Every counted token on which a feature fired, in suite order."""

    token_N: NDArray[np.int64]  # its number in the suite's tokens
    prompt_N: NDArray[np.int64]
    position_N: NDArray[np.int64]  # its place in its prompt, from 0
    value_N: NDArray[np.float32]


class Entries(NamedTuple):
    """Entries of several features, feature by feature, each in suite order."""

    feature_N: NDArray[np.int64]
    token_N: NDArray[np.int64]
    value_N: NDArray[np.float32]


def suite_path(suite: str, name: str) -> str:
    """Where an array of a suite's tokens lies."""
    return f"suites/{_one_part(suite)}/{name}"


def feature_folder(sae: str, suite: str, side: str) -> str:
    """Where the arrays of one dictionary, suite and side lie."""
    return f"features/{_one_part(sae)}/{_one_part(suite)}/{side}"


def statistics_path(group: str) -> str:
    """Where a stats group lies once more, one feature's entries side by side in the order of their names."""
    return f"statistics/{_one_part(group)}/value_FS"


def _one_part(name: str) -> str:
    # A slash would let "a/b" with "c" and "a" with "b/c" name the same place.
    return quote(name, safe=" +=@").replace("~", "%7E").replace("%", "~")


class FeatureIndex:
    """The feature-major copy of one diff."""

    def __init__(self, diff: DiffReader) -> None:
        self._diff = diff
        self._paths = frozenset(diff.index_paths())
        self._arrays: dict[str, RangeArray] = {}
        self._prompts: dict[str, NDArray[np.int64]] = {}
        self._counted: dict[str, NDArray[np.bool_]] = {}

    def statistics(self, group: str, feature: int) -> dict[str, float]:
        """The feature's entry in every array [F] of a stats group such as `features/<sae>/<suite>`.

        Raises StoreError where the copy holds no such group or the group no such feature.
        """
        values = self._array(statistics_path(group), f"statistics of {group!r}")
        names_S = self._diff.array_names(group)
        self._check_feature(feature, len(values) // len(names_S))
        row_S = values[feature * len(names_S) : (feature + 1) * len(names_S)]
        return dict(zip(names_S, row_S.tolist(), strict=True))

    def holds(self, sae: str, suite: str) -> bool:
        """Whether the copy has this dictionary's features on this suite."""
        return all(f"{feature_folder(sae, suite, side)}/value_N" in self._paths for side in SIDES)

    def tokens_of(self, sae: str, suite: str, side: str, feature: int) -> FeatureTokens:
        """Every counted token on which the feature fired; StoreError where there is no such feature."""
        token_N, value_N = self._entries(sae, suite, side, feature).read()
        prompt_N, position_N = self._places(suite, token_N)
        return FeatureTokens(token_N, prompt_N, position_N, value_N)

    def num_features(self, sae: str, suite: str) -> int:
        """How many features the dictionary has; StoreError where the copy lacks it on this suite."""
        return len(self._indptr(sae, suite, SIDES[0])) - 1

    def num_entries(self, sae: str, suite: str, features: Sequence[int] | None = None) -> int:
        """On how many counted tokens all features fired, or some of them, in both models together."""
        total = 0
        for side in SIDES:
            indptr = self._indptr(sae, suite, side)
            if features is None:
                total += int(indptr[len(indptr) - 1 : len(indptr)][0])
                continue
            for feature in features:
                self._check_feature(feature, len(indptr) - 1)
                total += int(np.diff(indptr[feature : feature + 2])[0])
        return total

    def entries(
        self,
        sae: str,
        suite: str,
        side: str,
        kept_T: NDArray[np.bool_],
        features: Sequence[int] | None = None,
    ) -> Entries:
        """Return the entries of one model's features at tokens [T] that are kept, of all or of some features.

        Those must ascend. All are read to choose among them, so first ask `num_entries` how many there are.
        """
        if features is not None:
            parts = [self._entries(sae, suite, side, feature).read() for feature in features]
            lengths = [len(token_N) for token_N, _ in parts]
            feature_N = np.repeat(np.array(features, dtype=np.int64), lengths)
            token_N = np.concatenate([np.empty(0, dtype=np.int64), *(part[0] for part in parts)])
            value_N = np.concatenate([np.empty(0, dtype=np.float32), *(part[1] for part in parts)])
            kept = np.flatnonzero(kept_T[token_N])
            return Entries(feature_N[kept], token_N[kept], value_N[kept])
        indptr = self._indptr(sae, suite, side)
        indptr_F1 = indptr[0 : len(indptr)]
        whole = self._entries(sae, suite, side, 0)
        stored_N = whole.tokens[0 : int(indptr_F1[-1])]
        kept = np.flatnonzero(kept_T[stored_N])
        # How many are kept before each feature's first one says which feature each is of.
        kept_F1 = np.searchsorted(kept, indptr_F1)
        feature_N = np.repeat(np.arange(len(indptr_F1) - 1), np.diff(kept_F1))
        values = whole.values[0 : int(indptr_F1[-1])]
        return Entries(feature_N, stored_N[kept].astype(np.int64), decode_bf16(values[kept]))

    def counted(self, suite: str) -> NDArray[np.bool_]:
        """Which of the suite's tokens count in both models [T]."""
        if suite not in self._counted:
            both_T = np.ones(self.num_tokens(suite), dtype=np.bool_)
            for side in SIDES:
                stored = self._array(suite_path(suite, f"mask_{side}_T"), f"tokens of {suite!r}")
                both_T &= stored[0 : len(stored)].astype(np.bool_)
            self._counted[suite] = both_T
        return self._counted[suite]

    def num_tokens(self, suite: str) -> int:
        """How many tokens the suite has; StoreError where the copy holds no such suite."""
        return int(self.prompt_indptr(suite)[-1])

    def token_ids(self, suite: str, start: int, stop: int) -> NDArray[np.int64]:
        """The ids of the suite's tokens from number `start` to before `stop`."""
        return self._array(suite_path(suite, "token_id_T"), f"tokens of {suite!r}")[start:stop].astype(
            np.int64
        )

    def prompt_indptr(self, suite: str) -> NDArray[np.int64]:
        """The number of the first token of every prompt, and their total behind it [P + 1]."""
        if suite not in self._prompts:
            stored = self._array(suite_path(suite, "prompt_indptr_P1"), f"tokens of {suite!r}")
            self._prompts[suite] = stored[0 : len(stored)]
        return self._prompts[suite]

    def prompt_start(self, suite: str, prompt: int) -> int:
        """The number of the first token of a prompt."""
        return int(self.prompt_indptr(suite)[prompt])

    def prompt_bounds(self, suite: str, token: int) -> tuple[int, int]:
        """The number of the first token of a token's prompt, and that behind its last one."""
        indptr_P1 = self.prompt_indptr(suite)
        prompt = int(np.searchsorted(indptr_P1, token, side="right")) - 1
        return int(indptr_P1[prompt]), int(indptr_P1[prompt + 1])

    def top_contexts(
        self, sae: str, suite: str, side: str, feature: int, num_contexts: int = 8, window: int = 12
    ) -> tuple[Context, ...]:
        """The contexts of the feature's highest activations, at most one a prompt, strongest first.

        Each holds the tokens at most `window` from its peak. Raises StoreError where there is no such copy or
        feature.
        """
        entries = self._entries(sae, suite, side, feature)
        peaks = self._peaks(entries, suite, num_contexts)
        whole = entries.read() if entries.num <= READ_WHOLE else None
        found: dict[int, Context] = {}
        # In the order of the store, so that neighbours are read from the same chunks.
        for peak in sorted(peaks):
            # A token has one entry at most, so nothing within the window lies further from the peak than it.
            low, high = max(peak - window, 0), min(peak + window + 1, entries.num)
            token_N, value_N = (
                entries.read(low, high) if whole is None else (whole[0][low:high], whole[1][low:high])
            )
            found[peak] = self._context(suite, token_N, value_N, peak - low, window)
        return tuple(found[peak] for peak in peaks)

    def _context(
        self, suite: str, token_N: NDArray[np.int64], value_N: NDArray[np.float32], peak: int, window: int
    ) -> Context:
        """The context around entry `peak` of entries that reach as far as the window."""
        token = int(token_N[peak])
        (prompt,), (position,) = self._places(suite, token_N[peak : peak + 1])
        start, end = (int(edge) for edge in self.prompt_indptr(suite)[prompt : prompt + 2])
        low, high = max(start, token - window), min(end, token + window + 1)
        activations = np.zeros(high - low, dtype=np.float32)
        inside = slice(*np.searchsorted(token_N, (low, high)))
        activations[token_N[inside] - low] = value_N[inside]
        ids = self._array(suite_path(suite, "token_id_T"), f"tokens of {suite!r}")[low:high]
        return Context(
            prompt=int(prompt),
            position=int(position),
            peak=float(value_N[peak]),
            tokens=tuple(ids.tolist()),
            activations=tuple(activations.tolist()),
        )

    def _entries(self, sae: str, suite: str, side: str, feature: int) -> "_Entries":
        indptr, tokens, values, peaks = (
            self._part(sae, suite, side, name)
            for name in ("feature_indptr_F1", "token_N", "value_N", "peak_FK")
        )
        num_features = len(indptr) - 1
        self._check_feature(feature, num_features)
        first, last = indptr[feature : feature + 2].tolist()
        num_kept = len(peaks) // num_features
        return _Entries(tokens, values, first, last - first, peaks, feature * num_kept, num_kept)

    def _indptr(self, sae: str, suite: str, side: str) -> RangeArray:
        return self._part(sae, suite, side, "feature_indptr_F1")

    def _part(self, sae: str, suite: str, side: str, name: str) -> RangeArray:
        what = f"features of {sae!r} on suite {suite!r}, side {side!r}"
        return self._array(f"{feature_folder(sae, suite, side)}/{name}", what)

    def _peaks(self, entries: "_Entries", suite: str, num_contexts: int) -> list[int]:
        """The entries that are the strongest of their prompts, strongest first."""
        stored = entries.peaks[entries.first_peak : entries.first_peak + entries.num_peaks]
        known = stored[stored != NO_PEAK]
        if num_contexts <= len(known) or len(known) < len(stored):
            return [int(peak) for peak in known[:num_contexts]]
        token_N, value_N = entries.read()
        prompt_N, _ = self._places(suite, token_N)
        by_strength = np.lexsort((token_N, -value_N))
        _, first_of_prompt = np.unique(prompt_N[by_strength], return_index=True)
        return [int(peak) for peak in by_strength[np.sort(first_of_prompt)][:num_contexts]]

    def _places(self, suite: str, token_N: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        indptr_P1 = self.prompt_indptr(suite)
        prompt_N = np.searchsorted(indptr_P1, token_N, side="right") - 1
        return prompt_N, token_N - indptr_P1[prompt_N]

    def _check_feature(self, feature: int, num_features: int) -> None:
        if not 0 <= feature < num_features:
            raise StoreError(
                f"diff {self._diff.manifest.diff_id}: there is no feature {feature}: "
                f"name one from 0 to {num_features - 1}"
            )

    def _array(self, path: str, what: str) -> RangeArray:
        if path not in self._arrays:
            if path not in self._paths:
                raise StoreError(
                    f"the feature index of diff {self._diff.manifest.diff_id} holds no {what}: name one that "
                    "was compared; if there is no index, set `precompute.feature_index: true` and run "
                    "`ft-audit precompute` again"
                )
            self._arrays[path] = self._diff.index_array(path)
        return self._arrays[path]


@dataclass(frozen=True, slots=True)
class _Entries:
    """One feature's part of the stored arrays; entries are counted from the feature's own first."""

    tokens: RangeArray
    values: RangeArray
    first: int
    num: int
    peaks: RangeArray
    first_peak: int
    num_peaks: int

    def read(self, low: int = 0, high: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Tokens and values of the entries [low, high), of all by default."""
        wanted = slice(self.first + low, self.first + (self.num if high is None else high))
        return self.tokens[wanted].astype(np.int64), decode_bf16(self.values[wanted])
