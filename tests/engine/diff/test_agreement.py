"""Whether differences survive in another dictionary: planted features that changed there too, or did not."""

from pathlib import Path

import numpy as np
import pytest

from ft_audit.engine.diff.agreement import agreement, put_agreement
from ft_audit.engine.diff.directions import Directions
from ft_audit.engine.diff.matching import match_features
from ft_audit.engine.diff.parts import SuiteFeatures
from ft_audit.engine.store import Store

WIDTH, NUM, SHARED = 24, 80, 6


def changed(sae: str, effect_F: np.ndarray, suite: str = "chat") -> SuiteFeatures:
    """Tests of features, of which those with an effect pass; the last ten fired too seldom to be tested."""
    q_F = np.where(effect_F != 0, 0.001, 0.9)
    q_F[-10:] = np.nan
    arrays = {"z": 5 * effect_F, "effect": effect_F, "q": q_F, "aa_percentile": np.full(NUM, np.nan)}
    return SuiteFeatures(sae, suite, arrays)


@pytest.fixture(scope="module")
def decoders() -> dict[str, np.ndarray]:
    """Two dictionaries that share six directions: ours 0 to 5 are theirs 20 to 25, a little turned."""
    rng = np.random.default_rng(8)
    ours, theirs = (rng.normal(size=(NUM, WIDTH)) for _ in range(2))
    theirs[20 : 20 + SHARED] = 2 * ours[:SHARED] + 0.2 * rng.normal(size=(SHARED, WIDTH))
    return {"ours": ours.astype(np.float32), "theirs": theirs.astype(np.float32)}


def effects(**planted: float) -> np.ndarray:
    effect_F = np.zeros(NUM)
    for name, value in planted.items():
        effect_F[int(name.removeprefix("f"))] = value
    return effect_F


def test_shared_directions_that_changed_alike_agree(decoders: dict[str, np.ndarray]) -> None:
    ours = changed("ours", effects(f0=2, f1=-1, f2=1.5, f3=1, f40=0.5))
    theirs = changed("theirs", effects(f20=2, f21=-1, f22=-1.5, f60=3))
    matches = match_features(ours.leading(50), decoders["ours"], decoders["theirs"])
    found = agreement(ours, theirs, matches)
    # 0 and 1 agree, 2 changed the other way, 3 did not change there, 40 is nobody's.
    assert (found.num_leading, found.num_matched, found.num_agreeing) == (5, 4, 2)
    assert found.agreement == 0.4 and found.low < 0.4 < found.high
    # Wilson's interval of 2 in 5, by its formula.
    z2 = 1.959964**2
    middle, margin = 0.4 + z2 / 10, np.sqrt(z2 * (0.24 / 5 + z2 / 100))
    np.testing.assert_allclose(
        [found.low, found.high],
        [(middle - margin) / (1 + z2 / 5), (middle + margin) / (1 + z2 / 5)],
        rtol=1e-6,
    )
    # Of the other's 70 tested features two rose and two fell: whichever of them a match were.
    assert found.shuffled == pytest.approx((4 * 2 / 70) / 5)


def test_shuffled_matches_agree_as_often_as_said(decoders: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    ours = changed("ours", effects(f0=2, f1=-1, f2=1.5, f3=1))
    effect = np.where(rng.random(NUM) < 0.5, rng.normal(size=NUM), 0.0)
    theirs = changed("theirs", effect)
    matches = match_features(ours.leading(50), decoders["ours"], decoders["theirs"])
    tested = np.flatnonzero(np.isfinite(theirs.arrays["q"]))
    sign = np.sign(ours.arrays["effect"])[matches.feature_N]
    agreeing = [np.mean(np.sign(effect)[rng.permutation(tested)[: len(sign)]] == sign) for _ in range(4000)]
    found = agreement(ours, theirs, matches)
    assert found.num_matched == 4
    assert found.shuffled == pytest.approx(np.mean(agreeing), abs=4 * np.std(agreeing) / np.sqrt(4000))


def test_where_nothing_leads_there_is_no_share(decoders: dict[str, np.ndarray]) -> None:
    none, some = changed("ours", np.zeros(NUM)), changed("theirs", effects(f20=2))
    found = agreement(none, some, match_features([], decoders["ours"], decoders["theirs"]))
    assert found.num_leading == 0 and np.isnan([found.agreement, found.low, found.shuffled]).all()


@pytest.mark.parametrize(
    ("here", "there", "width", "alike"),
    [
        (("resid_post/1",), ("resid_post/2",), 24, True),
        (("resid_post/1",), ("mlp_out/4",), 24, True),
        (("resid_post/1",), ("attn_z/1",), 24, False),
        (("attn_z/1",), ("attn_z/2",), 24, False),
        (("attn_z/1",), ("attn_z/1",), 24, True),
        (("resid_post/1",), ("resid_post/2",), 12, False),
        (("resid_post/1", "resid_post/2"), ("resid_post/1", "resid_post/2"), 24, True),
        (("resid_post/1", "resid_post/2"), ("resid_post/2", "resid_post/1"), 24, False),
        (("resid_post/1", "resid_post/2"), ("resid_post/1",), 24, False),
    ],
)
def test_only_directions_of_one_space_are_compared(
    here: tuple[str, ...], there: tuple[str, ...], width: int, alike: bool
) -> None:
    ours, theirs = Directions(here, np.zeros((3, 24))), Directions(there, np.zeros((5, width)))
    assert ours.comparable(theirs) is theirs.comparable(ours) is alike


def placed(decoders: dict[str, np.ndarray]) -> dict[str, Directions]:
    """Each dictionary at a layer of its own."""
    return {
        sae: Directions((f"resid_post/{layer}",), decoder)
        for layer, (sae, decoder) in enumerate(decoders.items())
    }


def test_both_tables_are_written_for_both_ways(decoders: dict[str, np.ndarray], tmp_path: Path) -> None:
    features = [
        changed("ours", effects(f0=2, f40=-1)),
        changed("theirs", effects(f20=2)),
        changed("ours", effects(f1=2), "train"),
        changed("theirs", np.zeros(NUM), "train"),
    ]
    store = Store(tmp_path)
    with store.diff_writer({"test": "agreement"}) as writer:
        put_agreement(writer, placed(decoders), features)
        diff = store.open_diff(writer.finish({}).diff_id)
    matches = {(r["sae"], r["feature"]): (r["other"], r["match"]) for r in diff.table("matches").records()}
    assert matches["ours", 0] == ("theirs", 20) and matches["theirs", 20] == ("ours", 0)
    assert {feature for sae, feature in matches if sae == "ours"} == {0, 1, 40}
    rows = {(r["sae"], r["suite"]): r for r in diff.table("agreement").records()}
    assert {key: row["num_agreeing"] for key, row in rows.items()} == {
        ("ours", "chat"): 1,
        ("theirs", "chat"): 1,
        ("ours", "train"): 0,
        ("theirs", "train"): 0,
    }
    assert rows["ours", "chat"]["agreement"] == 0.5


def test_one_dictionary_alone_has_no_tables(decoders: dict[str, np.ndarray], tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.diff_writer({"test": "alone"}) as writer:
        put_agreement(writer, placed({"ours": decoders["ours"]}), [changed("ours", effects(f0=2))])
        writer.put_stats("something", {"x": np.zeros(1)})
        diff = store.open_diff(writer.finish({}).diff_id)
    assert diff.tables() == []
