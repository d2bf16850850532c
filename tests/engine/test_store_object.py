"""What a store on S3 survives: a server that fails, is slow or forbids, and holders of the lock that die."""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import obstore
import pytest

from ft_audit.engine.store import Store, lease, object_place, run_id
from ft_audit.engine.store.object_place import ObjectPlace
from ft_audit.errors import MissingExtraError, StoreError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HERE / "store_case.py")))


@pytest.fixture(scope="module")
def whole(case: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = str(tmp_path_factory.mktemp("whole"))
    case.write_run(root)
    return dict(case.contents(root))


@pytest.fixture(scope="module")
def proxy(s3_server: str) -> Iterator[str]:
    """The address of a proxy before the S3 server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upstream = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]
    server = subprocess.Popen([sys.executable, str(HERE / "s3_proxy.py"), str(port), upstream])
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert server.poll() is None
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def be(proxy: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Send stores that are opened from now on through the proxy, and set what it does."""

    def set_mode(mode: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{proxy}/_mode/{mode}", method="PUT")).close()

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
    monkeypatch.setattr(object_place, "PATIENCE", timedelta(seconds=1))
    set_mode("ok")
    yield set_mode
    set_mode("ok")


@pytest.mark.parametrize(
    ("mode", "said"), [("down", "503"), ("cut", "check AWS_ENDPOINT_URL"), ("deny", "permission denied")]
)
def test_a_failing_server_is_named_and_what_is_committed_stays(
    case: SimpleNamespace,
    whole: dict[str, bytes],
    s3_root: str,
    be: Callable[[str], None],
    mode: str,
    said: str,
) -> None:
    store = Store(s3_root)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        for number in (0, 1):
            writer.write_segment(number, case.make_segment(number))
        be(mode)
        with pytest.raises(StoreError, match=f"writing {s3_root}/runs.* failed: .*{said}") as caught:
            writer.write_segment(2, case.make_segment(2))
        assert "what was committed is intact, and the same command goes on" in str(caught.value)
        with pytest.raises(StoreError, match="failed"):
            store.open_run(writer.run_id)
        be("ok")
        assert store.open_run(writer.run_id, allow_incomplete=True).damaged() == []
        assert writer.committed == {0, 1}
        # The same writer can go on, ...
        writer.write_segment(2, case.make_segment(2))
    # ... and so can the next.
    case.write_run(s3_root)
    assert case.contents(s3_root, "runs") == whole


@pytest.mark.parametrize("mode", ["flaky", "slow"])
def test_a_flaky_or_slow_server_costs_only_time(
    case: SimpleNamespace,
    whole: dict[str, bytes],
    s3_root: str,
    be: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setattr(object_place, "PATIENCE", timedelta(seconds=60))
    be(mode)
    run = case.write_run(s3_root)
    diff = case.write_diff(s3_root, {"base": run.run_id})
    assert Store(s3_root).open_diff(diff).damaged() == []
    be("ok")
    assert case.contents(s3_root, "runs") == whole


def put_lease(root: str, folder: str, **changes: object) -> None:
    facts = {"nonce": "ab", "host": socket.gethostname(), "pid": os.getpid(), "seconds": 1.0}
    obstore.put(ObjectPlace(root).client, f"locks/{folder}.json", json.dumps({**facts, **changes}).encode())


def test_a_lease_is_taken_over_once_it_ran_out(case: SimpleNamespace, s3_root: str) -> None:
    store, folder = Store(s3_root), f"runs/{run_id(case.IDENTITY)}"
    put_lease(s3_root, folder, host="elsewhere", pid=7, seconds=2.0)
    with pytest.raises(StoreError, match=r"another process is writing .* \(elsewhere, process 7\): wait"):
        store.run_writer(case.IDENTITY, case.HOOKS)
    time.sleep(4)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
    assert [file.key for file in store.place.files("locks/runs")] == []


def test_a_dead_process_of_this_machine_holds_no_lease(case: SimpleNamespace, s3_root: str) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    put_lease(s3_root, f"runs/{run_id(case.IDENTITY)}", pid=dead.pid, seconds=3600.0)
    Store(s3_root).run_writer(case.IDENTITY, case.HOOKS).close()


def test_a_lease_is_renewed_while_it_is_held(
    case: SimpleNamespace, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    store = Store(s3_root)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        time.sleep(5)
        with pytest.raises(StoreError, match="another process is writing"):
            store.run_writer(case.IDENTITY, case.HOOKS)
        writer.write_segment(0, case.make_segment(0))


def test_a_writer_that_lost_its_lease_writes_no_manifest(
    case: SimpleNamespace,
    s3_root: str,
    be: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 2.0)
    cut_off = Store(s3_root).run_writer(case.IDENTITY, case.HOOKS)
    cut_off.write_segment(0, case.make_segment(0))
    be("cut")
    time.sleep(4)
    monkeypatch.undo()
    with Store(s3_root).run_writer(case.IDENTITY, case.HOOKS) as other:
        assert other.committed == {0}
        other.write_segment(1, case.make_segment(1))
        be("ok")
        with pytest.raises(StoreError, match="another process took it: what was committed is intact"):
            cut_off.write_segment(2, case.make_segment(2))
        assert Store(s3_root).open_run(other.run_id, allow_incomplete=True).num_segments == 2
        cut_off.close()
        with pytest.raises(StoreError, match="another process is writing"):
            Store(s3_root).run_writer(case.IDENTITY, case.HOOKS)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"s3://bucket/x.* needs obstore.*ft-audit\[s3\]"):
        Store("s3://bucket/x")


@pytest.mark.parametrize("root", ["s3://", "s3:///prefix"])
def test_an_address_without_a_bucket_is_refused(root: str) -> None:
    with pytest.raises(StoreError, match="names no bucket"):
        Store(root)


def test_a_missing_bucket_is_named(case: SimpleNamespace, s3_server: str) -> None:
    with pytest.raises(StoreError, match=r"locking s3://no-such-bucket/x/.* failed: .*the bucket"):
        case.write_run("s3://no-such-bucket/x")
