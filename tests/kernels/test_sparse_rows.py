"""SparseRows: the CSR form that encoders write and everything else reads."""

import pytest
import torch

from ft_audit.kernels.sparse_rows import SparseRows


def make_rows(rows: list[dict[int, float]], num_features: int = 5) -> SparseRows:
    return SparseRows(
        torch.tensor([0, *torch.tensor([len(row) for row in rows]).cumsum(0).tolist()], dtype=torch.int64),
        torch.tensor([f for row in rows for f in row], dtype=torch.int32),
        torch.tensor([v for row in rows for v in row.values()], dtype=torch.bfloat16),
        num_features,
    )


def test_rows_and_dense_say_the_same() -> None:
    rows = make_rows([{1: 2.0, 4: 1.0}, {}, {0: 3.0}])
    assert rows.dense().tolist() == [[0, 2, 0, 0, 1], [0, 0, 0, 0, 0], [3, 0, 0, 0, 0]]
    index_n, value_n = rows.row(0)
    assert index_n.tolist() == [1, 4]
    assert value_n.tolist() == [2.0, 1.0]
    assert rows.row(1)[0].numel() == 0
    assert (rows.num_rows, rows.num_nonzeros, rows.l0) == (3, 3, 1.0)


def test_concatenating_keeps_the_order_of_rows() -> None:
    parts = [make_rows([{1: 2.0}, {}]), make_rows([]), make_rows([{0: 1.0, 2: 4.0}])]
    joined = SparseRows.concatenate(parts)
    assert joined.indptr_T1.tolist() == [0, 1, 1, 3]
    assert torch.equal(joined.dense(), torch.cat([part.dense() for part in parts]))


@pytest.mark.parametrize("order", [[2, 0], [1, 1, 3], [], [0, 1, 2, 3]])
def test_taking_rows_is_indexing_the_dense_ones(order: list[int]) -> None:
    rows = make_rows([{1: 2.0, 4: 1.0}, {}, {0: 3.0}, {2: 1.0, 3: 5.0, 4: 0.5}])
    taken = rows.take(torch.tensor(order, dtype=torch.int64))
    assert torch.equal(taken.dense(), rows.dense()[order])
    assert taken.num_rows == len(order)


def test_no_rows_have_no_l0() -> None:
    assert make_rows([]).l0 == 0.0


def test_dictionaries_of_two_widths_do_not_mix() -> None:
    with pytest.raises(AssertionError):
        SparseRows.concatenate([make_rows([{}], 5), make_rows([{}], 6)])
