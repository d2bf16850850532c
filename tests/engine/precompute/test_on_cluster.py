"""The same job on a real dask cluster: the same bytes, and what a dead worker costs."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft_audit.engine.cluster import local_cluster, worker_environment
from ft_audit.engine.precompute import run_precompute
from ft_audit.errors import ConfigError

# One thread an arithmetic, in this process as on a worker.
SECTIONS = {"precompute": {"tokens_per_segment": 300, "threads": 1}, "generate": {"num_probes": 1}}


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    """Two worker processes with one thread each for their arithmetic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with local_cluster(2, 1) as opened:
            yield opened


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(run_job: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_job(tmp_path_factory.mktemp("alone") / "store", **SECTIONS)


def test_a_cluster_leaves_the_bytes_of_one_process(
    tiny: Any, world: Any, scheduler: Any, alone: Any, tmp_path: Path
) -> None:
    config = world.config(tmp_path / "store", **SECTIONS)
    report = run_precompute(config, progress=False, scheduler=scheduler.name)
    assert (report["runs"], report["diff_id"]) == (alone.report["runs"], alone.report["diff_id"])
    assert tiny.files_of(tmp_path / "store") == tiny.files_of(Path(alone.store.location))
    assert report["tokens_per_second"] > 0
    # Both workers took part: each has the job open.
    opened = scheduler.client.run(workshops_open)
    assert sorted(opened.values()) == [1, 1]


def workshops_open() -> int:
    from ft_audit.engine.precompute.execute import _opened

    return _opened.cache_info().currsize


def test_a_worker_that_is_killed_costs_what_it_was_at(
    tiny: Any, world: Any, scheduler: Any, alone: Any, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    committed: dict[str, int] = {}
    killed: list[int] = []

    def kill_one() -> None:
        while len(list(store.glob("runs/*/segments/*.zarr"))) < 4:
            time.sleep(0.005)
        for folder in store.glob("runs/*/segments/*.zarr"):
            committed[str(folder)] = folder.stat().st_mtime_ns
        pid = next(iter(scheduler.client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    config = world.config(store, **SECTIONS)
    report = run_precompute(config, progress=False, scheduler=scheduler.name)
    killer.join()
    assert killed and report["runs"] == alone.report["runs"]
    assert tiny.files_of(store) == tiny.files_of(Path(alone.store.location))
    assert {path: Path(path).stat().st_mtime_ns for path in committed} == committed
    assert len(committed) >= 4


def test_a_cluster_of_our_own_is_started_and_stopped(
    tiny: Any, world: Any, alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = world.config(tmp_path / "store", **SECTIONS, cluster={"workers": 1})
    report = run_precompute(config, progress=False)
    assert report["diff_id"] == alone.report["diff_id"]
    assert tiny.files_of(tmp_path / "store") == tiny.files_of(Path(alone.store.location))
    again = run_precompute(config, progress=False)
    assert again["reused"] is True


def test_a_worker_that_would_give_other_bytes_is_refused(
    world: Any, scheduler: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_audit.engine.precompute import execute

    real = execute.ClusterPlace.machine

    def another(self: Any) -> Any:
        from dataclasses import replace

        return replace(real(self), device_class="cpu of another kind x1")

    monkeypatch.setattr(execute.ClusterPlace, "machine", another)
    config = world.config(tmp_path / "store", **SECTIONS)
    with pytest.raises(
        ConfigError, match=r"this worker \(cpu .* would not give the bytes of run .* equal|same"
    ):
        run_precompute(config, progress=False, scheduler=scheduler.name)


def test_every_worker_has_its_own_gpu_and_its_share_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = worker_environment(0, 4), worker_environment(1, 4)
    assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("0", "1")
    assert first["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert [worker_environment(n, 1)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["5", "7", "5"]
