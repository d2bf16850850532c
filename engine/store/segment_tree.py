"""One segment as a sealed zarr folder: written in one go, read whole or in part."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.arrays import (
    Sliceable,
    read_array,
    read_arrays,
    read_attributes,
    safe_path,
    write_group,
)
from ft_audit.engine.store.rows import RowDelta, decode_row_delta
from ft_audit.engine.store.seal import TreeWriter
from ft_audit.engine.store.sealed_tree import SealedTree
from ft_audit.engine.store.segment import FeatureRows, SegmentData

# The kinds of named arrays, each a group of the segment.
DENSE, TOKENS, STATS = "dense", "tokens", "stats"
FEATURES = "features"
PROMPTS, PROMPT_INDPTR = "prompts/index_P", "prompts/indptr_P1"
IDS, ROLES, MASK = "ids/id_T", "ids/role_T", "ids/mask_T"


def write_segment(tree: TreeWriter, data: SegmentData) -> None:
    """Put the segment's files into the tree; sealing it is the caller's."""
    data.check()
    named = {DENSE: data.dense, TOKENS: data.tokens, STATS: data.stats}
    attributes = {FEATURES: sorted(data.features), **{kind: sorted(named[kind]) for kind in named}}
    arrays: dict[str, Sliceable] = {
        PROMPTS: data.prompt_P.astype(np.int64, copy=False),
        PROMPT_INDPTR: data.prompt_indptr_P1.astype(np.int64, copy=False),
        IDS: data.token_T.astype(np.int32, copy=False),
        ROLES: data.role_T.astype(np.uint8, copy=False),
        MASK: data.mask_T.astype(np.bool_, copy=False),
    }
    for name in attributes[FEATURES]:
        indptr, delta, value = _row_paths(name)
        indptr_T1, index_N, value_N = data.features[name]
        # Row pointers of a segment fit in 32 bits: 2^18 tokens with a few hundred features each.
        assert index_N.shape[0] < 1 << 32, f"features of {name}: too many for one segment"
        arrays |= {indptr: indptr_T1.astype(np.uint32), delta: RowDelta(indptr_T1, index_N), value: value_N}
    for kind, found in named.items():
        arrays |= {f"{kind}/{safe_path(name)}": found[name] for name in attributes[kind]}
    write_group(tree, attributes, arrays)


def read_segment(
    tree: SealedTree,
    saes: Collection[str] | None = None,
    dense: Collection[str] | None = None,
    tokens: Collection[str] | None = (),
    stats: Collection[str] | None = (),
) -> SegmentData:
    """Return the segment with the named dictionaries' rows and arrays only; None means all of a kind."""
    stored, asked = read_attributes(tree), {FEATURES: saes, DENSE: dense, TOKENS: tokens, STATS: stats}
    wanted = {
        kind: [name for name in stored[kind] if names is None or name in names]
        for kind, names in asked.items()
    }
    paths = [PROMPTS, PROMPT_INDPTR, IDS, ROLES, MASK]
    paths += [path for name in wanted[FEATURES] for path in _row_paths(name)]
    paths += [f"{kind}/{safe_path(name)}" for kind in (DENSE, TOKENS, STATS) for name in wanted[kind]]
    arrays = read_arrays(tree, paths)

    def named(kind: str) -> dict[str, NDArray[Any]]:
        return {name: arrays[f"{kind}/{safe_path(name)}"] for name in wanted[kind]}

    return SegmentData(
        prompt_P=arrays[PROMPTS],
        prompt_indptr_P1=arrays[PROMPT_INDPTR],
        token_T=arrays[IDS],
        role_T=arrays[ROLES],
        mask_T=arrays[MASK],
        features={name: _rows(*(arrays[path] for path in _row_paths(name))) for name in wanted[FEATURES]},
        dense=named(DENSE),
        tokens=named(TOKENS),
        stats=named(STATS),
    )


def read_prompts(tree: SealedTree) -> NDArray[np.int64]:
    """Return only the suite indices of the segment's prompts."""
    return read_array(tree, PROMPTS)


def read_named(tree: SealedTree, kind: str, name: str) -> NDArray[Any]:
    """Return one array of a kind: "dense", "tokens" or "stats"."""
    return read_array(tree, f"{kind}/{safe_path(name)}")


def _row_paths(name: str) -> tuple[str, str, str]:
    base = f"{FEATURES}/{safe_path(name)}"
    return f"{base}/indptr_T1", f"{base}/delta_N", f"{base}/value_N"


def _rows(
    indptr: NDArray[np.uint32], delta_N: NDArray[np.uint32], value_N: NDArray[np.uint16]
) -> FeatureRows:
    indptr_T1 = indptr.astype(np.int64)
    return indptr_T1, decode_row_delta(indptr_T1, delta_N), value_N
