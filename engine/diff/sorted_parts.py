"""Segments sorted by feature, in files of one folder, from which ranges of features are read across segments.

Legend: F features, N non-zeros.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.errors import StoreError
from ft_audit.kernels.feature_index import FeatureMajor


@dataclass(frozen=True, slots=True)
class SortedParts:
    """Part n of the folder is three plain files: reading some of one is an open, a seek and a read."""

    folder: Path
    token_dtype: np.dtype[np.unsignedinteger[Any]]

    def write(self, number: int, part: FeatureMajor) -> None:
        """Write one part; StoreError says what to do when the disk will not take it."""
        try:
            for name, array in part._asdict().items():
                # Not array.tofile: it loses the error of a disk that fills up as the file is closed.
                self._path(number, name).write_bytes(np.ascontiguousarray(array).data)
        except OSError as error:
            raise StoreError(
                f"sorting by feature needs {self.token_dtype.itemsize + 2} bytes of scratch a firing, and "
                f"{self.folder} does not take them ({error}): point TMPDIR at a disk with more room, or set "
                "`precompute.feature_index: false`; the runs are whole, and the same command reuses them"
            ) from None

    def indptr(self, number: int) -> NDArray[np.int64]:
        """One part's pointers [F + 1]."""
        return np.fromfile(self._path(number, "indptr_F1"), dtype=np.int64)

    def read(self, number: int, first: int, last: int) -> FeatureMajor:
        """The features [first, last) of one part."""
        indptr_F1 = self._some(number, "indptr_F1", np.dtype(np.int64), first, last + 1)
        start, stop = int(indptr_F1[0]), int(indptr_F1[-1])
        return FeatureMajor(
            indptr_F1 - start,
            self._some(number, "token_N", self.token_dtype, start, stop),
            self._some(number, "value_N", np.dtype(np.uint16), start, stop),
        )

    def _some(self, number: int, name: str, dtype: np.dtype[Any], start: int, stop: int) -> NDArray[Any]:
        path = self._path(number, name)
        return np.fromfile(path, dtype=dtype, count=stop - start, offset=start * dtype.itemsize)

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number}.{name}"
