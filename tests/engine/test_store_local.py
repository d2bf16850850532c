"""What a store on a local disk survives: death at any sync, a full disk, lost permission, a limit."""

import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ft_audit.engine.store import Store
from ft_audit.errors import StoreError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HERE / "store_case.py")))


@pytest.fixture(scope="module")
def whole(case: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("whole"))
    case.write_run(root)
    return root


def test_killed_at_any_sync_then_resumed_gives_the_same_bytes(
    case: SimpleNamespace, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(handle), real(handle)))
    case.write_run(str(tmp_path / "count"))
    monkeypatch.undo()
    total = len(calls)
    # From the end back: the last manifest (2 calls), the last segment's manifest (2), its rename (1).
    for die_at in (1, total // 3, total - 4, total - 3, total - 1):
        root = str(tmp_path / f"die{die_at}")
        script = [sys.executable, str(HERE / "store_case.py"), root, "fsync", str(die_at)]
        died = subprocess.run(script, check=False, capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert case.contents(root) != case.contents(whole)
        with pytest.raises(StoreError, match=r"precompute"):
            Store(root).open_run(Store(whole).runs()[0])
        case.write_run(root)
        assert case.contents(root) == case.contents(whole), f"killed at fsync {die_at} of {total}"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach too, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def namespaces_work() -> bool:
    return subprocess.run(["unshare", "-Urm", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("limit", "larger than"),
        ("full", "the disk is full: make room"),
        ("read-only", "is read-only"),
        ("forbidden", "permission denied: give this user the right"),
    ],
)
def test_a_failing_disk_is_named_and_what_is_committed_stays(
    case: SimpleNamespace, whole: str, open_folder: Path, fault: str, said: str
) -> None:
    alone = ["unshare", "-Urm"] if fault in ("full", "read-only") else []
    if alone and not namespaces_work():
        pytest.skip("this system gives a process no file systems of its own")
    script = [*alone, sys.executable, str(HERE / "store_faults.py"), str(open_folder), fault]
    ended = subprocess.run(script, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert said in report["error"] and str(open_folder) in report["error"]
    assert "what was committed is intact, and the same command goes on" in report["error"]
    assert report["committed"] == [0, 1] and report["damaged"] == []
    expected = hashlib.sha256(repr(sorted(case.contents(whole).items())).encode()).hexdigest()
    assert report["digest"] == expected


def test_a_place_of_no_known_kind_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match=r"gopher://x.*folder.*s3://bucket"):
        Store("gopher://x")
