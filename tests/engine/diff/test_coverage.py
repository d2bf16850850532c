"""What a dictionary sees of a planted change: one of its own directions, or one outside of all of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.engine.diff.coverage import coverage_group, put_coverage, seen_share
from ft_audit.engine.diff.directions import Directions
from ft_audit.engine.diff.pair_sums import SCALARS, sketch_matrix
from ft_audit.engine.diff.parts import SuiteFeatures
from ft_audit.engine.store import Store

WIDTH, NUM, NUM_PROMPTS, HOOK = 64, 200, 12, "resid_post/3"
PLANTED = 7


@pytest.fixture(scope="module")
def decoder() -> np.ndarray:
    """A dictionary whose directions leave the last sixteen dimensions out."""
    decoder_FW = np.random.default_rng(4).normal(size=(NUM, WIDTH)).astype(np.float32)
    decoder_FW[:, 48:] = 0.0
    return decoder_FW


def stored(folder: Path, d_TW: np.ndarray, missed: float, leading: list[int], decoder: np.ndarray) -> Any:
    """The stored coverage of a pair that moved by `d_TW`, of which the reconstructions miss a share."""
    sq_P = np.square(d_TW).sum(1).reshape(NUM_PROMPTS, -1).sum(1)
    scalars = np.zeros(len(SCALARS))
    scalars[SCALARS.index("sq_moved")] = np.square(d_TW).sum()
    sketch_WR = d_TW.T @ (d_TW @ sketch_matrix(WIDTH))
    sums = {f"pair/{HOOK}/sketch_WR": sketch_WR, f"pair/{HOOK}/scalars": scalars}
    dense = {"missed/sae/sq_moved_P": sq_P, "missed/sae/sq_missed_P": missed * sq_P}
    together = SimpleNamespace(
        dense=dense.__getitem__, segments=lambda **_: iter([SimpleNamespace(stats=sums)])
    )
    effect = np.zeros(NUM)
    effect[leading] = np.linspace(3, 2, len(leading))
    q = np.where(effect != 0, 0.001, 0.9)
    features = SuiteFeatures("sae", "chat", {"z": effect, "q": q, "aa_percentile": np.full(NUM, np.nan)})
    pair: Any = SimpleNamespace(name="chat", together=together)
    store = Store(folder)
    with store.diff_writer({"test": "coverage"}) as writer:
        put_coverage(writer, pair, features, Directions((HOOK,), decoder))
        diff = store.open_diff(writer.finish({}).diff_id)
    return diff.stats(coverage_group("sae", "chat"))


def measured(*case: Any) -> Any:
    """The same of a change that is one: every share lies between nothing and the best possible."""
    found = stored(*case)
    for name in ("leading_M", "strongest_M", "random_M", "best_M"):
        assert found[name].shape == (16,)
        assert (found[name] <= found["best_M"] + 1e-12).all() and (found[name] >= 0).all()
    return found


def noise(scale: float) -> np.ndarray:
    return scale * np.random.default_rng(1).normal(size=(NUM_PROMPTS * 40, WIDTH))


def test_a_change_along_one_of_its_directions_is_seen(decoder: np.ndarray, tmp_path: Path) -> None:
    strength = np.random.default_rng(2).uniform(1, 3, size=(NUM_PROMPTS * 40, 1))
    d_TW = strength * decoder[PLANTED] + noise(0.1)
    found = measured(tmp_path, d_TW, 0.1, [PLANTED], decoder)
    assert found["seen"][0] == pytest.approx(0.9)
    assert found["strongest_feature_M"][0] == PLANTED
    assert found["strongest_M"][0] > 0.95 * found["best_M"][0] > 0.9
    assert found["leading_M"][0] == found["leading_M"][-1] == pytest.approx(found["strongest_M"][0])
    assert found["random_M"][0] < 0.3


def test_a_change_outside_of_all_its_directions_is_not(decoder: np.ndarray, tmp_path: Path) -> None:
    d_TW = noise(0.1)
    d_TW[:, 60] += 5.0
    found = measured(tmp_path, d_TW, 1.0, [PLANTED], decoder)
    assert found["seen"][0] == 0.0
    # No more than the control, whose directions are drawn without looking; the best one sees all of it.
    assert (found["strongest_M"] <= found["random_M"]).all()
    assert found["strongest_M"][-1] < 0.05 and found["leading_M"][-1] < 0.01 and found["best_M"][0] > 0.95


def test_without_a_leading_feature_nothing_is_seen_of_leading_ones(
    decoder: np.ndarray, tmp_path: Path
) -> None:
    found = measured(tmp_path, noise(1.0), 1.3, [], decoder)
    assert (found["leading_M"] == 0).all()
    assert found["seen"][0] == 0.0, "an account further off than none is none"


def test_nothing_moved(decoder: np.ndarray, tmp_path: Path) -> None:
    found = stored(tmp_path, np.zeros((NUM_PROMPTS * 40, WIDTH)), 0.0, [], decoder)
    assert np.isnan(found["seen"]).all() and np.isnan(found["seen_low"]).all()
    assert np.isnan(found["best_M"]).all() and np.isnan(found["strongest_M"]).all()


@pytest.mark.parametrize(("missed", "seen"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (2.0, 0.0)])
def test_the_seen_share_is_one_minus_what_is_missed(missed: float, seen: float) -> None:
    moved_P = np.array([1.0, 3.0, 0.0, 4.0])
    share, low, high = seen_share(moved_P, missed * moved_P)
    assert share == pytest.approx(seen) and 0 <= low <= share <= high <= 1


def test_its_interval_holds_the_true_share_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(600):
        moved_P = rng.gamma(2.0, 1.0, 40)
        share, low, high = seen_share(moved_P, moved_P * rng.beta(4, 4, 40))
        assert low <= share <= high
        held += low <= 0.5 <= high
    assert 0.92 < held / 600 < 0.98


def test_one_prompt_has_no_interval() -> None:
    share, low, high = seen_share(np.array([2.0, 0.0]), np.array([1.0, 0.0]))
    assert share == 0.5 and np.isnan([low, high]).all()
