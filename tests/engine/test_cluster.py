"""The reductions' scheduler: order of results, shape of the tree, closing, and a wrong address."""

import threading

import pytest
from distributed import LocalCluster

from ft_audit.engine.cluster import open_scheduler, scheduler_or_threads
from ft_audit.errors import ConfigError


def join(left: str, right: str) -> str:
    return f"({left}{right})"


@pytest.mark.parametrize(
    ("count", "tree"), [(1, "0"), (2, "(01)"), (3, "((01)2)"), (5, "(((01)(23))4)"), (6, "(((01)(23))(45))")]
)
def test_the_tree_depends_on_the_number_of_tasks_alone(count, tree):
    for num_threads in (1, 3):
        with open_scheduler(num_threads=num_threads) as scheduler:
            assert scheduler.map_reduce(str, range(count), join) == tree
            assert scheduler.map(str, range(count)) == [str(n) for n in range(count)]


def test_the_same_tree_on_a_cluster_and_nothing_left_open():
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        with open_scheduler(cluster.scheduler_address) as scheduler:
            assert scheduler.map_reduce(str, range(6), join) == "(((01)(23))(45))"
            assert scheduler.map(str, range(3)) == ["0", "1", "2"]
            assert len(cluster.scheduler.clients) == 2  # the cluster's own and ours
        assert len(cluster.scheduler.clients) == 1


def test_threads_are_gone_when_the_block_ends():
    with open_scheduler(num_threads=2) as scheduler:
        scheduler.map(str, range(4))
        assert any(thread.name.startswith("ft-audit-reduce") for thread in threading.enumerate())
    assert not any(thread.name.startswith("ft-audit-reduce") for thread in threading.enumerate())


def test_a_given_scheduler_stays_open():
    with open_scheduler(num_threads=1) as scheduler:
        with scheduler_or_threads(scheduler) as same:
            assert same is scheduler
        assert scheduler.map(str, [7]) == ["7"]


def fail_at_two(number: int) -> int:
    if number == 2:
        raise ValueError("segment 2 is broken")
    return number


def test_a_failing_task_fails_the_reduction():
    with open_scheduler() as scheduler, pytest.raises(ValueError, match="segment 2 is broken"):
        scheduler.map_reduce(fail_at_two, range(4), max)


@pytest.mark.parametrize("address", ["nonsense", "foo://host:1", "tcp://127.0.0.1:1", ""])
def test_an_address_without_a_scheduler_is_named(address):
    with (
        pytest.raises(ConfigError, match=f"no dask scheduler answers at '{address}'.*--scheduler"),
        open_scheduler(address, connect_seconds=0.2),
    ):
        pass
