"""The per-suite parts of a diff: which features lead, residual summaries, explained variance."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff.assemble import labels
from ft_audit.engine.diff.groups import Groups
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.diff.pair_sums import FROM_END, POSITION_EDGES, SKETCH_COLUMNS
from ft_audit.engine.diff.parts import (
    SuiteFeatures,
    SuitePair,
    fvu,
    put_features,
    put_fvu,
    put_residuals,
    union_of_leading,
)
from ft_audit.engine.store import HookEntry, RunReader, Store

SAE = "demo/width_30"
HOOK = HookEntry(name="resid_post/3", layer=3, site="resid_post")


def features(z: list[float], q: list[float], percentile: list[float]) -> SuiteFeatures:
    arrays = {"z": np.array(z), "q": np.array(q), "aa_percentile": np.array(percentile)}
    return SuiteFeatures(SAE, "chat", arrays)


def test_leading_features_pass_both_tests_largest_z_first() -> None:
    nan = float("nan")
    found = features(
        [3, -9, 5, 7, nan, 8], [0.01, 0.01, 0.2, 0.04, nan, 0.05], [100, 99.9, 100, 99, nan, 100]
    )
    assert found.leading(10) == [1, 0]
    assert found.leading(1) == [1] and found.num_passing == 2


def test_without_a_control_q_alone_decides() -> None:
    nan = float("nan")
    found = features([3, -9, 5], [0.01, 0.01, 0.2], [nan, nan, nan])
    assert found.leading(10) == [1, 0]
    other = features([-4, 1, 30], [0.01, 0.9, 0.01], [nan, nan, nan])
    assert union_of_leading([found, other], 2) == [1, 0, 2]


def test_suites_of_one_role_get_labels_of_their_own() -> None:
    roles = ["chat", "train", "chat", "elicited", "chat"]
    pairs = [SimpleNamespace(role=role) for role in roles]
    assert list(labels(pairs)) == ["chat", "train", "chat-2", "elicited", "chat-3"]


@pytest.fixture(scope="module")
def together(make_run: Any, corpus: Any, two_segments: Any) -> RunReader:
    """A pair's run whose differences have half of the base's norm at every token."""
    buckets = {
        "start_BW": (len(POSITION_EDGES), 8),
        "end_BW": (FROM_END, 8),
        "sketch_WR": (8, SKETCH_COLUMNS),
    }
    stats = {f"pair/resid_post/3/{name}": np.zeros(shape) for name, shape in buckets.items()}
    stats |= {"pair/start_B": np.ones(len(POSITION_EDGES)), "pair/end_B": np.ones(FROM_END)}
    stats |= {"pair/resid_post/3/shift_W": np.full(8, 20.0)}
    stats |= {"pair/resid_post/3/scalars": np.array([10.0, 40.0, 44.0, 20.0, 160.0, 40.0, 9.0])}
    moved = {f"pair/resid_post/3/{name}": np.ones(corpus.num_prompts) for name in ("moved_P", "moved_max_P")}
    return make_run("together", corpus, corpus.base_TF, two_segments, moved, stats=stats)


def groups_of(corpus: Any, *names: str) -> Groups:
    """Everything, and for each further name a random half of the prompts."""
    rng = np.random.default_rng(0)
    member_GP = np.ones((1 + len(names), corpus.num_prompts), dtype=np.bool_)
    member_GP[1:] = rng.random((len(names), corpus.num_prompts)) < 0.5
    return Groups(("all", *names), member_GP, ())


@pytest.fixture
def residual_pair(
    make_run: Any, corpus: Any, two_segments: Any, resid: Any, together: RunReader
) -> SuitePair:
    """Runs with the residual evidence of both sides; the tuned one has three massive tokens more."""
    massive_P = np.zeros(corpus.num_prompts, dtype=np.int64)
    massive_P[[2, 7]] = 1
    ours = {**resid["base"], "massive_P": massive_P}
    theirs = {**resid["tuned"], "massive_P": massive_P + (np.arange(corpus.num_prompts) < 3)}
    base = make_run("residual base", corpus, corpus.base_TF, two_segments, ours)
    tuned = make_run("residual tuned", corpus, corpus.tuned_TF, two_segments, theirs)
    return SuitePair("chat", "chat", base, tuned, together, groups_of(corpus))


def test_residual_summaries_are_means_over_prompts_with_counted_tokens(
    residual_pair: Any, resid: Any, tmp_path: Path
) -> None:
    # Prompt 5 has no counted token, and its mean vector is NaN: no warning, and no part in the mean.
    with Store(tmp_path).diff_writer({"test": "residuals"}) as writer:
        found = put_residuals(writer, residual_pair, HOOK)
        writer.finish({})
    ours, theirs = resid["base"], resid["tuned"]
    num_prompts = len(ours["resid_post/3/norm_P"])
    counted = np.arange(num_prompts) != 5
    moved_P = np.linalg.norm(
        ours["resid_post/3/mean_PD"].astype(float) - theirs["resid_post/3/mean_PD"], axis=1
    )
    expected = (moved_P / ours["resid_post/3/norm_P"])[counted].mean()
    np.testing.assert_allclose(found["residual_shift"], expected, rtol=1e-6)
    ratio_P = theirs["resid_post/3/norm_P"].astype(float) / ours["resid_post/3/norm_P"]
    np.testing.assert_allclose(found["residual_norm_ratio"], ratio_P.mean(), rtol=1e-6)
    assert found["massive_tokens_added"] == 3 / num_prompts
    assert found["token_change"] == 0.5


def test_prompts_without_counted_tokens_have_no_residual_summary(
    make_run: Any, corpus: Any, two_segments: Any, resid: Any, together: RunReader, tmp_path: Path
) -> None:
    # Precompute writes zeros for them; a suite of nothing else has no mean, and gives no warning.
    zeros = {name: np.zeros_like(array) for name, array in resid["base"].items()}
    zeros["massive_P"] = np.ones(corpus.num_prompts, dtype=np.int64)
    run = make_run("nothing counted", corpus, corpus.base_TF, two_segments, zeros)
    with Store(tmp_path).diff_writer({"test": "empty"}) as writer:
        found = put_residuals(writer, SuitePair("chat", "chat", run, run, together, groups_of(corpus)), HOOK)
        writer.finish({})
    assert (found.pop("massive_tokens_added"), found.pop("token_change")) == (0.0, 0.5)
    assert np.isnan(list(found.values())).all()


def test_features_are_stored_with_their_moments(
    base: RunReader, make_run: Any, corpus: Any, two_segments: Any, together: RunReader, tmp_path: Path
) -> None:
    groups = groups_of(corpus, "tag=half")
    doubled = make_run("doubled", corpus, 2 * corpus.base_TF, two_segments)
    store = Store(tmp_path)
    with open_scheduler() as scheduler, store.diff_writer({"test": "features"}) as writer:
        control = pair_moments(base, base, SAE, scheduler=scheduler)
        pair = SuitePair("chat", "chat", base, doubled, together, groups)
        found = put_features(writer, pair, SAE, control, scheduler)
        manifest = writer.finish({})
    stored = store.open_diff(manifest.diff_id).stats(f"features/{SAE}/chat")
    assert {"z", "q", "effect", "aa_percentile", "fired_base", "prompts_either", "sum_d"} <= set(stored)
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(stored[name], array)
    half = store.open_diff(manifest.diff_id).stats(f"groups/{SAE}/chat/tag=half")
    assert half.keys() == stored.keys() and 0 < half["fired_base"].sum() < stored["fired_base"].sum()
    often = np.flatnonzero(stored["prompts_either"] >= 15)
    assert len(often) > 10 and set(often.tolist()) <= set(found.leading(30))


@pytest.fixture
def fvu_run(make_run: Any, corpus: Any, two_segments: Any) -> tuple[RunReader, float]:
    """A run with residuals and reconstructions known token by token, and its FVU by the formula."""
    rng = np.random.default_rng(7)
    x_TD = rng.normal(size=(len(corpus.token_T), 8)) + 2
    error_T = rng.exponential(0.5, len(x_TD))
    sums = ("sq_error_P", "sq_total_P", "error_norm_P")
    names = ("counted_P", "resid_post/3/mean_PD", *(f"sae/{SAE}/{name}" for name in sums))
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for p in range(corpus.num_prompts):
        counted_T = np.flatnonzero(corpus.mask_T[corpus.prompt(p)]) + corpus.indptr_P1[p]
        x_KD = x_TD[counted_T]
        mean_D = x_KD.mean(0) if len(x_KD) else np.zeros(8)
        errors = error_T[counted_T]
        values = (len(x_KD), mean_D, errors.sum(), (x_KD**2).sum(), np.sqrt(errors).sum())
        for name, value in zip(names, values, strict=True):
            rows[name].append(np.asarray(value))
    dense = {name: np.stack(values).astype(np.float32) for name, values in rows.items()}
    dense["counted_P"] = dense["counted_P"].astype(np.int64)
    counted_TD = x_TD[corpus.mask_T]
    spread = ((counted_TD - counted_TD.mean(0)) ** 2).sum()
    return make_run("fvu", corpus, corpus.base_TF, two_segments, dense), error_T[corpus.mask_T].sum() / spread


def test_fvu_is_the_error_over_the_spread_of_counted_tokens(
    fvu_run: Any, corpus: Any, together: RunReader, tmp_path: Path
) -> None:
    run, expected = fvu_run
    np.testing.assert_allclose(fvu(run, SAE, [HOOK.name]), expected, rtol=1e-5)
    store = Store(tmp_path)
    with store.diff_writer({"test": "fvu"}) as writer:
        pair = SuitePair("chat", "chat", run, run, together, groups_of(corpus))
        change = put_fvu(writer, pair, SAE, [HOOK.name])
        assert change == {"fvu_change": 0.0, "error_norm_change": 0.0}
        manifest = writer.finish({})
    stored = store.open_diff(manifest.diff_id).stats(f"fvu/{SAE}/chat")
    assert stored["base"].shape == stored["tuned"].shape == (1,)
    np.testing.assert_allclose(stored["base"], expected, rtol=1e-5)


def test_fvu_of_tokens_without_spread_is_nan(make_run: Any, corpus: Any, two_segments: Any) -> None:
    ones = np.ones(corpus.num_prompts, dtype=np.float32)
    dense = {
        "counted_P": np.ones(corpus.num_prompts, dtype=np.int64),
        "resid_post/3/mean_PD": np.ones((corpus.num_prompts, 8), dtype=np.float32),
        f"sae/{SAE}/sq_error_P": ones,
        f"sae/{SAE}/sq_total_P": 8 * ones,
    }
    assert np.isnan(fvu(make_run("no spread", corpus, corpus.base_TF, two_segments, dense), SAE, [HOOK.name]))
