"""One segment as a zarr folder: written in one go, read whole or in part."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ft_audit.engine.store.arrays import create_group, open_group, read_array, safe_path, write_array
from ft_audit.engine.store.rows import decode_row_delta, encode_row_delta
from ft_audit.engine.store.segment import FeatureRows, SegmentData


def write_segment_folder(folder: Path, data: SegmentData) -> None:
    """Write the segment to the folder, which must not exist; nothing is synced or renamed here."""
    data.check()
    names = {"features": sorted(data.features), "dense": sorted(data.dense)}
    group = create_group(folder, names)
    write_array(group, "prompts/index_P", data.prompt_P.astype(np.int64))
    write_array(group, "prompts/indptr_P1", data.prompt_indptr_P1.astype(np.int64))
    write_array(group, "tokens/id_T", data.token_T.astype(np.int32))
    write_array(group, "tokens/role_T", data.role_T.astype(np.uint8))
    write_array(group, "tokens/mask_T", data.mask_T.astype(np.bool_))
    for name in names["features"]:
        indptr_T1, index_N, value_N = data.features[name]
        base = f"features/{safe_path(name)}"
        # Row pointers of a segment fit in 32 bits: 2^18 tokens with a few hundred features each.
        assert index_N.shape[0] < 1 << 32, f"features of {name}: too many for one segment"
        write_array(group, f"{base}/indptr_T1", indptr_T1.astype(np.uint32))
        write_array(group, f"{base}/delta_N", encode_row_delta(indptr_T1, index_N))
        write_array(group, f"{base}/value_N", value_N)
    for name in names["dense"]:
        write_array(group, f"dense/{safe_path(name)}", data.dense[name])


def read_segment_folder(
    folder: Path, saes: Collection[str] | None = None, dense: Collection[str] | None = None
) -> SegmentData:
    """Return the segment with the named dictionaries' rows and dense arrays only; None means all of them."""
    group = open_group(folder)
    return SegmentData(
        prompt_P=_read(group, "prompts/index_P"),
        prompt_indptr_P1=_read(group, "prompts/indptr_P1"),
        token_T=_read(group, "tokens/id_T"),
        role_T=_read(group, "tokens/role_T"),
        mask_T=_read(group, "tokens/mask_T"),
        features={name: _read_rows(group, name) for name in _wanted(group, "features", saes)},
        dense={name: _read(group, f"dense/{safe_path(name)}") for name in _wanted(group, "dense", dense)},
    )


def stored_names(folder: Path, kind: str) -> list[str]:
    """Return the names of the segment's dictionaries ("features") or dense arrays ("dense")."""
    names = open_group(folder).attrs[kind]
    assert isinstance(names, list)
    return [str(name) for name in names]


def read_prompts(folder: Path) -> NDArray[np.int64]:
    """Return only the suite indices of the segment's prompts."""
    return _read(open_group(folder), "prompts/index_P")


def read_dense(folder: Path, name: str) -> NDArray[Any]:
    """Return one dense array of the segment."""
    return _read(open_group(folder), f"dense/{safe_path(name)}")


def _wanted(group: zarr.Group, kind: str, names: Collection[str] | None) -> list[str]:
    stored = group.attrs[kind]
    assert isinstance(stored, list)
    return [str(name) for name in stored if names is None or name in names]


def _read_rows(group: zarr.Group, name: str) -> FeatureRows:
    base = f"features/{safe_path(name)}"
    indptr_T1 = _read(group, f"{base}/indptr_T1").astype(np.int64)
    index_N = decode_row_delta(indptr_T1, _read(group, f"{base}/delta_N"))
    return indptr_T1, index_N, _read(group, f"{base}/value_N")


def _read(group: zarr.Group, path: str) -> NDArray[Any]:
    return read_array(group, path)
