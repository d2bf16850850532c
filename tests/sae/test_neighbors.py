"""Decoder neighbours: the ones that all pairs would give, whatever the size of a chunk."""

import pytest
import torch

from ft_audit.sae import neighbors
from ft_audit.sae.neighbors import nearest_neighbors


def brute_force(w_dec_FO: torch.Tensor, feature: int, k: int, min_cos: float) -> list[int]:
    unit_FO = torch.nn.functional.normalize(w_dec_FO.double(), dim=1)
    cosine_F = unit_FO @ unit_FO[feature]
    cosine_F[feature] = -2
    best = sorted(range(len(cosine_F)), key=lambda index: (-float(cosine_F[index]), index))[:k]
    return [index for index in best if float(cosine_F[index]) >= min_cos]


@pytest.mark.parametrize("chunk", [1, 7, 63, 200, 1000])
@pytest.mark.parametrize(("k", "min_cos"), [(5, 0.0), (200, 0.15), (1000, -1.0)])
def test_chunks_change_nothing(chunk: int, k: int, min_cos: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "ASKED_AT_ONCE", 4)
    w_dec_FO = torch.randn(200, 12, generator=torch.Generator().manual_seed(1)) * 3
    asked = [0, 199, 63, 64, 7, 100]
    found = list(nearest_neighbors(w_dec_FO, asked, k, min_cos, chunk))
    assert [near.feature for near in found] == asked
    for near in found:
        expected = brute_force(w_dec_FO, near.feature, k, min_cos)
        assert near.index_K.tolist() == expected
        assert near.cosine_K.tolist() == sorted(near.cosine_K.tolist(), reverse=True)


def test_planted_neighbours_lead_whatever_their_length() -> None:
    w_dec_FO = torch.eye(40, 40)
    w_dec_FO[7] = 100 * (w_dec_FO[3] + 0.1 * w_dec_FO[9])
    w_dec_FO[20] = -w_dec_FO[3]
    w_dec_FO[30] = 0
    (near,) = nearest_neighbors(w_dec_FO, [3])
    assert near.index_K.tolist() == [7]
    assert near.cosine_K[0].item() == pytest.approx(1 / 1.01**0.5)
    (none,) = nearest_neighbors(w_dec_FO, [30])
    assert none.index_K.tolist() == []


def test_equal_cosines_come_by_index() -> None:
    w_dec_FO = torch.ones(9, 4)
    (near,) = nearest_neighbors(w_dec_FO, [4], search_k=3, chunk_features=2)
    assert near.index_K.tolist() == [0, 1, 2]
