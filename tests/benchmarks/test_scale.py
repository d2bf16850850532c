"""The scale benchmark: a pool in its models' place, runs read again as others, every part with its checks."""

from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from ft_audit.benchmarks.corpus_job import job_over
from ft_audit.benchmarks.harness import load_asked
from ft_audit.benchmarks.scale import measure
from ft_audit.benchmarks.scaling.reduction import SAE, Size, open_runs, verify, write_runs
from ft_audit.benchmarks.scaling.synthetic import Pool, first_prompts, job_over_pool, pool_workshop, repeated
from ft_audit.benchmarks.scaling.workers import check
from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.precompute.execute import LocalPlace
from ft_audit.engine.precompute.job import run_missing
from ft_audit.engine.precompute.passes import plan_passes
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.precompute.report import Speeds
from ft_audit.engine.store import SegmentData
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.tokenize import TokenizedSuite

SMALL = Size(num_features=512, tokens_per_segment=600, num_segments=2, times=3)


def suite(lengths: list[int]) -> TokenizedSuite:
    total = sum(lengths)
    prompts = tuple(Prompt(None, f"text {i}", "s", f"g{i}", str(i), i) for i in range(len(lengths)))
    return TokenizedSuite(
        suite=PromptSuite("s", prompts),
        ids_T=np.arange(total, dtype=np.int32),
        role_T=np.zeros(total, dtype=np.uint8),
        mask_T=np.arange(total) % 3 > 0,
        indptr_P1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        num_truncated=0,
    )


@pytest.mark.parametrize(
    ("num_tokens", "lengths"), [(1, [3]), (6, [3, 5]), (12, [3, 5, 2, 3]), (20, [3, 5, 2] * 2)]
)
def test_a_suite_is_repeated_by_whole_prompts(num_tokens: int, lengths: list[int]) -> None:
    found = repeated(suite([3, 5, 2]), num_tokens)
    assert found.length_P.tolist() == lengths
    assert found.ids_T.tolist() == [t % 10 for t in range(sum(lengths))]
    assert found.mask_T.tolist() == [t % 10 % 3 > 0 for t in range(sum(lengths))]
    prompts = found.suite.prompts
    assert [p.row for p in prompts] == list(range(len(lengths)))
    assert [p.group for p in prompts] == [f"g{row % 3}" for row in range(len(lengths))]


@pytest.mark.parametrize(("num_tokens", "held"), [(1, 1), (3, 1), (4, 2), (8, 2), (10, 3), (99, 3)])
def test_the_pool_holds_whole_prompts(num_tokens: int, held: int) -> None:
    assert first_prompts(suite([3, 5, 2]), num_tokens).length_P.tolist() == [3, 5, 2][:held]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return job_over(tmp_path_factory.mktemp("job") / "store", weights=False, tokens_per_segment=200)


def test_a_job_over_the_pool_leaves_what_the_models_do(job: Job, tmp_path: Path) -> None:
    pool = Pool.capture(job, 300)
    pool.save(tmp_path / "pool.pt")
    over = job_over_pool(job, Pool.load(tmp_path / "pool.pt"), 300, tmp_path / "models")
    assert over.suites.suites[0].num_tokens == len(pool.base_TD) >= 300
    segments = {}
    with open_scheduler() as threads, ThreadPoolExecutor(1) as prefetch:
        for name in ("models", "pool"):
            mine = job_over_pool(job, pool, 300, tmp_path / name)
            workshop = pool_workshop(mine, pool, prefetch) if name == "pool" else None
            with ExitStack() as stack:
                place = LocalPlace(threads, prefetch, workshop)
                run_missing(mine, plan_passes(mine), place, Speeds(), False, stack)
            (planned,) = plan_passes(mine)
            assert len(planned.plan.segments) > 1
            segments[name] = [
                segment
                for run in planned.runs.values()
                for segment in mine.store.open_run(run.run_id).segments(stats=None)
            ]
    assert len(segments["pool"]) == len(segments["models"])
    for left, right in zip(segments["models"], segments["pool"], strict=True):
        assert left.num_tokens > 0
        assert bits(left) == bits(right)


def bits(segment: SegmentData) -> dict[str, list[bytes]]:
    named = segment.dense | segment.stats | segment.features
    return {
        name: [part.tobytes() for part in (found if isinstance(found, tuple) else (found,))]
        for name, found in named.items()
    }


def test_readings_of_a_run_are_prompts_of_their_own(tmp_path: Path) -> None:
    assert 55 < write_runs(tmp_path, SMALL) < 73
    base, tuned = open_runs(tmp_path, SMALL.times)
    num_prompts = base.manifest.num_prompts
    stored = base.num_segments // SMALL.times
    prompts = np.concatenate([base.segment(n).prompt_P for n in range(base.num_segments)])
    assert sorted(prompts.tolist()) == list(range(SMALL.times * num_prompts))
    first, again = base.segment(0), base.segment(stored)
    assert again.prompt_P.tolist() == (first.prompt_P + num_prompts).tolist()
    assert again.features[SAE][1].tobytes() == first.features[SAE][1].tobytes()
    with open_scheduler() as threads:
        verify(tmp_path, SMALL.times, threads)
        moments = pair_moments(base, tuned, SAE, threads)
    assert moments.num_prompts == SMALL.times * num_prompts
    assert 0 < moments.fired_both.sum() < moments.fired_base.sum()


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b"one")
    check(tmp_path, {"manifest.json": b"one"})
    with pytest.raises(AssertionError, match=r"other bytes than in one process.*manifest\.json"):
        check(tmp_path, {"manifest.json": b"two"})
    with pytest.raises(AssertionError, match="runs/a"):
        check(tmp_path, {"manifest.json": b"one", "runs/a": b""})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "figure"),
    [
        ("growth", "growth/memory_2000"),
        ("workers", "workers/segments_committed_at_the_kill"),
        ("reduction", "reduction/pairs"),
    ],
)
def test_a_quick_run_checks_and_measures(part: str, figure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    try:
        found = measure(Namespace(quick=True, rounds=1, only=[part]))
    finally:
        torch.set_num_threads(threads)
    names = [measured.name for measured in found]
    asked = load_asked("scale")
    assert len(set(names)) == len(names) and asked.keys() <= set(names)
    assert all(m.value is None and m.reason for m in found if m.name in asked)
    assert next(m.value or 0 for m in found if m.name == figure) >= 1


def test_what_is_left_out_says_so() -> None:
    found = measure(Namespace(quick=True, rounds=1, only=["nothing"]))
    assert {figure.name for figure in found} == set(load_asked("scale"))
    assert {figure.reason for figure in found} == {"left out by --only"}
