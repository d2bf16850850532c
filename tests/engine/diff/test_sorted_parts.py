"""Parts sorted by feature, kept in files: any range of features comes back, and a full disk is said."""

from pathlib import Path

import numpy as np
import pytest

from ft_audit.engine.diff.sorted_parts import SortedParts
from ft_audit.errors import StoreError
from ft_audit.kernels.feature_index import FeatureMajor

PART = FeatureMajor(
    np.array([0, 2, 2, 5], dtype=np.int64),
    np.array([3, 8, 0, 1, 8], dtype=np.uint32),
    np.array([10, 20, 30, 40, 50], dtype=np.uint16),
)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (0, 1), (1, 2), (1, 3), (2, 2)])
def test_a_range_of_features_is_that_slice_of_the_part(tmp_path, first, last):
    parts = SortedParts(tmp_path, PART.token_N.dtype)
    parts.write(4, PART)
    assert np.array_equal(parts.indptr(4), PART.indptr_F1)
    for found, expected in zip(parts.read(4, first, last), PART.slice(first, last), strict=True):
        assert found.dtype == expected.dtype and np.array_equal(found, expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_with_the_remedy(tmp_path):
    (tmp_path / "0.token_N").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"6 bytes of scratch a firing.*TMPDIR"):
        SortedParts(tmp_path, PART.token_N.dtype).write(0, PART)
