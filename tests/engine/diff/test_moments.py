"""Moments of two stored runs against brute force over the dense activations, on every scheduler."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from distributed import LocalCluster

from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff.align import pair_runs, paired_segment
from ft_audit.engine.diff.groups import Groups
from ft_audit.engine.diff.moments import group_moments, pair_moments
from ft_audit.engine.store import RunReader, SaeEntry
from ft_audit.engine.tokens.role import Role
from ft_audit.errors import StoreError
from ft_audit.kernels.diff_stats import PairMoments, merge
from ft_audit.kernels.diff_stats import pair_moments as segment_moments

SAE = "demo/width_30"


def brute_force(corpus, selected_P: np.ndarray | None = None) -> dict[str, np.ndarray]:
    counted_T = corpus.mask_T.copy()
    if selected_P is not None:
        counted_T &= np.repeat(selected_P, np.diff(corpus.indptr_P1))
    b_TF = corpus.base_TF[counted_T].astype(np.float64)
    t_TF = corpus.tuned_TF[counted_T].astype(np.float64)
    prompt_T = np.repeat(np.arange(corpus.num_prompts), np.diff(corpus.indptr_P1))[counted_T]
    means = [(b_TF[prompt_T == p], t_TF[prompt_T == p]) for p in np.unique(prompt_T)]
    d_PF = np.array([t.mean(0) - b.mean(0) for b, t in means])
    r_PF = np.array([(t > 0).mean(0) - (b > 0).mean(0) for b, t in means])
    return {
        "num_tokens": np.array(counted_T.sum()),
        "num_prompts": np.array(len(means)),
        "fired_base": (b_TF > 0).sum(0),
        "fired_tuned": (t_TF > 0).sum(0),
        "fired_both": ((b_TF > 0) & (t_TF > 0)).sum(0),
        "sum_base": b_TF.sum(0),
        "sum_tuned": t_TF.sum(0),
        "sumsq_base": (b_TF**2).sum(0),
        "sumsq_tuned": (t_TF**2).sum(0),
        "cross": (b_TF * t_TF).sum(0),
        "max_base": b_TF.max(0),
        "max_tuned": t_TF.max(0),
        "prompts_base": sum((b > 0).any(0).astype(int) for b, _ in means),
        "prompts_tuned": sum((t > 0).any(0).astype(int) for _, t in means),
        "prompts_either": sum(((b > 0) | (t > 0)).any(0).astype(int) for b, t in means),
        "sum_d": d_PF.sum(0),
        "sumsq_d": (d_PF**2).sum(0),
        "sum_r": r_PF.sum(0),
        "sumsq_r": (r_PF**2).sum(0),
    }


def assert_close(moments: PairMoments, expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(getattr(moments, name), array, rtol=1e-10, atol=1e-12, err_msg=name)


def assert_identical(got: PairMoments, expected: PairMoments) -> None:
    assert (got.num_tokens, got.num_prompts) == (expected.num_tokens, expected.num_prompts)
    for name, array in expected.arrays().items():
        assert got.arrays()[name].tobytes() == array.tobytes(), name


def serial(base: RunReader, tuned: RunReader) -> PairMoments:
    """The same reduction without dask, the tree for five segments written out."""
    pair = pair_runs(base, tuned)
    a, b, c, d, e = (segment_moments(paired_segment(pair, SAE, n).rows) for n in pair.segment_numbers)
    return merge(merge(merge(a, b), merge(c, d)), e)


@pytest.fixture(scope="module", params=["threads of this process", "two worker processes"])
def cluster_address(request: pytest.FixtureRequest) -> Iterator[str]:
    processes = request.param == "two worker processes"
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def test_moments_equal_brute_force(corpus, base, tuned):
    assert_close(pair_moments(base, tuned, SAE), brute_force(corpus))


def test_runs_with_other_segments_are_matched_by_prompt(corpus, base, tuned, tuned_elsewhere):
    expected = brute_force(corpus)
    assert_close(pair_moments(base, tuned_elsewhere, SAE), expected)
    assert_close(pair_moments(tuned_elsewhere, tuned_elsewhere, SAE), expected | {
        "fired_base": expected["fired_tuned"], "fired_both": expected["fired_tuned"],
        "sum_base": expected["sum_tuned"], "sumsq_base": expected["sumsq_tuned"],
        "cross": expected["sumsq_tuned"], "max_base": expected["max_tuned"],
        "prompts_base": expected["prompts_tuned"], "prompts_either": expected["prompts_tuned"],
        "sum_d": np.zeros(30), "sumsq_d": np.zeros(30), "sum_r": np.zeros(30), "sumsq_r": np.zeros(30),
    })  # fmt: skip
    # Matched by prompt, the base's segments decide the order of every sum.
    assert_identical(pair_moments(base, tuned_elsewhere, SAE), pair_moments(base, tuned, SAE))


def test_one_segment_in_another_order_is_matched_by_prompt(corpus, make_run):
    order = np.random.default_rng(3).permutation(corpus.num_prompts).tolist()
    base = make_run("one base", corpus, corpus.base_TF, [order])
    tuned = make_run("one tuned", corpus, corpus.tuned_TF, [order[::-1]])
    assert_close(pair_moments(base, tuned, SAE), brute_force(corpus))


def test_groups_hold_their_prompts_and_roles_their_tokens(corpus, base, tuned, tuned_elsewhere):
    member_GP = np.ones((2, corpus.num_prompts), dtype=np.bool_)
    member_GP[1] = np.arange(corpus.num_prompts) % 3 == 0
    groups = Groups(("all", "tag=third"), member_GP, (Role.USER, Role.ASSISTANT))
    for run in (tuned, tuned_elsewhere):
        found = group_moments(base, run, SAE, groups)
        assert tuple(found) == groups.labels == ("all", "tag=third", "role=user", "role=assistant")
        assert_identical(found["all"], pair_moments(base, tuned, SAE))
        assert_close(found["tag=third"], brute_force(corpus, member_GP[1]))
        for role in groups.roles:
            # The corpus gives its tokens the roles in turn.
            said = replace(corpus, mask_T=corpus.mask_T & (np.arange(len(corpus.mask_T)) % 3 == role))
            assert_close(found[f"role={role.name.lower()}"], brute_force(said))


def test_threads_give_the_serial_result_to_the_bit(base, tuned):
    expected = serial(base, tuned)
    for num_threads in (1, 2, 5):
        with open_scheduler(num_threads=num_threads) as scheduler:
            assert_identical(pair_moments(base, tuned, SAE, scheduler=scheduler), expected)


def test_a_distributed_cluster_gives_the_serial_result_to_the_bit(
    cluster_address, base, tuned, tuned_elsewhere
):
    expected = serial(base, tuned)
    with open_scheduler(cluster_address) as scheduler:
        assert_identical(pair_moments(base, tuned, SAE, scheduler=scheduler), expected)
        assert_identical(pair_moments(base, tuned_elsewhere, SAE, scheduler=scheduler), expected)


def test_a_worker_process_reports_a_users_mistake_as_such(cluster_address, corpus, make_run, segments, base):
    token_T = corpus.token_T.copy()
    token_T[corpus.indptr_P1[segments[2][1]]] += 1
    other = type(corpus)(corpus.indptr_P1, token_T, corpus.mask_T, corpus.base_TF, corpus.tuned_TF)
    run = make_run(f"other tokens {cluster_address}", other, other.tuned_TF, segments)
    with open_scheduler(cluster_address) as scheduler, pytest.raises(StoreError, match="segment 00002"):
        pair_moments(base, run, SAE, scheduler=scheduler)


@pytest.mark.parametrize("what", ["tokens", "lengths"])
def test_differing_tokens_are_refused_with_the_segment_and_the_prompt(
    what, corpus, make_run, segments, other_segments, base
):
    prompt = segments[3][2]
    indptr_P1, token_T, mask_T = corpus.indptr_P1.copy(), corpus.token_T.copy(), corpus.mask_T.copy()
    x_TF = corpus.tuned_TF
    last = indptr_P1[prompt + 1] - 1
    if what == "tokens":
        token_T[last] += 1
    else:
        token_T, mask_T, x_TF = (np.insert(a, last, a[last], axis=0) for a in (token_T, mask_T, x_TF))
        indptr_P1[prompt + 1 :] += 1
    changed = type(corpus)(indptr_P1, token_T, mask_T, x_TF, x_TF)
    plans = {"the same plan": segments} | ({"another plan": other_segments} if what == "tokens" else {})
    for tag, plan in plans.items():
        run = make_run(f"other {what}, {tag}", changed, x_TF, plan)
        with pytest.raises(StoreError, match=rf"segment 00003 .*prompt {prompt} has other tokens"):
            pair_moments(base, run, SAE)


def test_a_token_counts_where_it_counts_in_both_runs(corpus, make_run, segments, base):
    left_out = np.flatnonzero(corpus.mask_T)[::7]
    mask_T = corpus.mask_T.copy()
    mask_T[left_out] = False
    fewer = type(corpus)(corpus.indptr_P1, corpus.token_T, mask_T, corpus.base_TF, corpus.tuned_TF)
    tuned = make_run("tuned, fewer counted", fewer, corpus.tuned_TF, segments)
    expected = pair_moments(make_run("base, fewer counted", fewer, corpus.base_TF, segments), tuned, SAE)
    found = pair_moments(base, tuned, SAE)
    assert found.num_tokens == int(mask_T.sum())
    assert_identical(found, expected)


def test_runs_over_different_prompts_are_refused(corpus, make_run, segments, base):
    run = make_run("fewer", corpus, corpus.tuned_TF, segments[:-1])
    first = min(segments[-1])
    for pair in ((base, run), (run, base)):
        with pytest.raises(StoreError, match=rf"different prompts: {len(segments[-1])} .*such as {first}:"):
            pair_moments(*pair, SAE)


def test_a_run_that_holds_a_prompt_twice_is_refused(corpus, make_run, segments, base):
    run = make_run("twice", corpus, corpus.tuned_TF, [*segments, segments[1]])
    with pytest.raises(StoreError, match=rf"holds prompt {segments[1][0]} more than once"):
        pair_moments(base, run, SAE)


def test_another_dictionary_is_refused(corpus, make_run, two_segments, base):
    sae = SaeEntry(name=SAE, width=30, sha256="ef" * 32)
    run = make_run("other dictionary", corpus, corpus.tuned_TF, two_segments, sae=sae)
    with pytest.raises(StoreError, match="is not the same in runs"):
        pair_moments(base, run, SAE)
    with pytest.raises(StoreError, match="not encoded with dictionary 'none'; it has demo/width_30"):
        pair_moments(base, run, "none")
