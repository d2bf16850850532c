"""One segment as a sealed zarr folder: written in one go, read whole or in part."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.store.arrays import read_array, read_attributes, safe_path, write_group
from ft_audit.engine.store.rows import decode_row_delta, encode_row_delta
from ft_audit.engine.store.seal import TreeWriter
from ft_audit.engine.store.sealed_tree import SealedTree
from ft_audit.engine.store.segment import FeatureRows, SegmentData

# The kinds of named arrays, each a group of the segment.
DENSE, TOKENS, STATS = "dense", "tokens", "stats"
FEATURES = "features"


def write_segment(tree: TreeWriter, data: SegmentData) -> None:
    """Put the segment's files into the tree; sealing it is the caller's."""
    data.check()
    named = {DENSE: data.dense, TOKENS: data.tokens, STATS: data.stats}
    attributes = {FEATURES: sorted(data.features), **{kind: sorted(named[kind]) for kind in named}}
    arrays: dict[str, NDArray[Any]] = {
        "prompts/index_P": data.prompt_P.astype(np.int64, copy=False),
        "prompts/indptr_P1": data.prompt_indptr_P1.astype(np.int64, copy=False),
        "ids/id_T": data.token_T.astype(np.int32, copy=False),
        "ids/role_T": data.role_T.astype(np.uint8, copy=False),
        "ids/mask_T": data.mask_T.astype(np.bool_, copy=False),
    }
    for name in attributes[FEATURES]:
        arrays |= _feature_arrays(name, data.features[name])
    for kind, found in named.items():
        arrays |= {f"{kind}/{safe_path(name)}": found[name] for name in attributes[kind]}
    write_group(tree, attributes, arrays)


def _feature_arrays(name: str, rows: FeatureRows) -> dict[str, NDArray[Any]]:
    indptr_T1, index_N, value_N = rows
    base = f"{FEATURES}/{safe_path(name)}"
    # Row pointers of a segment fit in 32 bits: 2^18 tokens with a few hundred features each.
    assert index_N.shape[0] < 1 << 32, f"features of {name}: too many for one segment"
    return {
        f"{base}/indptr_T1": indptr_T1.astype(np.uint32),
        f"{base}/delta_N": encode_row_delta(indptr_T1, index_N),
        f"{base}/value_N": value_N,
    }


def read_segment(
    tree: SealedTree,
    saes: Collection[str] | None = None,
    dense: Collection[str] | None = None,
    tokens: Collection[str] | None = (),
    stats: Collection[str] | None = (),
) -> SegmentData:
    """Return the segment with the named dictionaries' rows and arrays only; None means all of a kind."""
    stored = read_attributes(tree)
    wanted = {DENSE: dense, TOKENS: tokens, STATS: stats}
    named = {
        kind: {name: read_named(tree, kind, name) for name in stored[kind] if names is None or name in names}
        for kind, names in wanted.items()
    }
    return SegmentData(
        prompt_P=read_prompts(tree),
        prompt_indptr_P1=read_array(tree, "prompts/indptr_P1"),
        token_T=read_array(tree, "ids/id_T"),
        role_T=read_array(tree, "ids/role_T"),
        mask_T=read_array(tree, "ids/mask_T"),
        features={name: _read_rows(tree, name) for name in stored[FEATURES] if saes is None or name in saes},
        dense=named[DENSE],
        tokens=named[TOKENS],
        stats=named[STATS],
    )


def read_prompts(tree: SealedTree) -> NDArray[np.int64]:
    """Return only the suite indices of the segment's prompts."""
    return read_array(tree, "prompts/index_P")


def read_named(tree: SealedTree, kind: str, name: str) -> NDArray[Any]:
    """Return one array of a kind: "dense", "tokens" or "stats"."""
    return read_array(tree, f"{kind}/{safe_path(name)}")


def _read_rows(tree: SealedTree, name: str) -> FeatureRows:
    base = f"{FEATURES}/{safe_path(name)}"
    indptr_T1 = read_array(tree, f"{base}/indptr_T1").astype(np.int64)
    index_N = decode_row_delta(indptr_T1, read_array(tree, f"{base}/delta_N"))
    return indptr_T1, index_N, read_array(tree, f"{base}/value_N")
