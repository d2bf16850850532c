"""What the store says it holds, whether it is whole, and what may go."""

import os
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ft_audit.engine.store import Store, StoredItem, find_garbage, list_store, remove_garbage, verify_store


@pytest.fixture
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "store_case.py")))


@pytest.fixture
def store(case: SimpleNamespace, tmp_path: Path) -> Store:
    """A finished run, a diff that speaks of it, and an audit."""
    run = case.write_run(str(tmp_path))
    store = Store(tmp_path)
    with store.diff_writer({"base": run.run_id}) as writer:
        writer.put_stats("fvu/demo", {"base": np.zeros(1)})
        writer.finish({"name": "demo"})
    store.put_audit_file("a1", "verdict.json", b"{}")
    return store


def folder(store: Store, item: StoredItem) -> Path:
    return Path(store.location, item.folder)


def problems(store: Store) -> dict[str, list[str]]:
    return {item.kind: found for item, found in verify_store(store)}


def test_everything_is_listed_with_its_size(case: SimpleNamespace, store: Store) -> None:
    run, diff, audit = list_store(store)
    assert (run.kind, diff.kind, audit.kind) == ("run", "diff", "audit")
    assert run.complete and run.num_segments == case.NUM_SEGMENTS and run.name == "resid_post/3"
    assert run.num_tokens == store.open_run(run.id).manifest.num_tokens > 0
    assert diff.name == "demo" and audit.id == "a1" and audit.num_bytes == 2
    du = sum(f.stat().st_size for f in folder(store, run).rglob("*") if f.is_file())
    assert run.num_bytes == du > 1000
    assert problems(store) == {"run": [], "diff": []}


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert list_store(store) == [] == find_garbage(store, 0) and not (tmp_path / "none").exists()


def test_damage_is_found_in_runs_and_diffs(store: Store) -> None:
    for kind, pattern in (("runs", "value_N/c.*"), ("diffs", "base/zarr.json")):
        next(path for path in Path(store.location, kind).rglob(pattern) if path.is_file()).write_bytes(b"x")
    found = problems(store)
    assert "segment 0000" in found["run"][0] and "stats group 'fvu/demo'" in found["diff"][0]


def test_an_unreadable_manifest_is_a_problem_not_a_crash(store: Store) -> None:
    for manifest in Path(store.location).rglob("manifest.json"):
        manifest.write_text("{")
    assert all("damaged" in item.problem for item in list_store(store) if item.kind != "audit")
    assert all(len(found) == 1 for found in problems(store).values())


def test_a_renamed_folder_is_a_problem(store: Store) -> None:
    run = list_store(store)[0]
    folder(store, run).rename(folder(store, run).with_name("f" * 16))
    assert run.id in problems(store)["run"][0]


def test_a_run_that_a_diff_speaks_of_stays(store: Store) -> None:
    assert find_garbage(store, min_age_s=0) == []


def test_what_may_go_goes_and_nothing_else(case: SimpleNamespace, store: Store) -> None:
    kept = list_store(store)
    with store.run_writer({"other": 1}, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
    with store.run_writer({"other": 2}, case.HOOKS) as orphan:
        orphan.write_segment(0, case.make_segment(0))
        orphan.finish()
    leftover = Path(store.location, "diffs", "ab.tmp")
    leftover.mkdir()
    (leftover / "part").write_bytes(b"x")
    assert find_garbage(store) == [], "everything is younger than a day"
    old = time.time() - 2 * 86_400
    for path in Path(store.location).rglob("*"):
        os.utime(path, (old, old))
    garbage = find_garbage(store)
    reasons = {item.folder.rpartition("/")[2]: item.reason for item in garbage}
    assert set(reasons) == {writer.run_id, orphan.run_id, "ab.tmp"}
    assert "interrupted" in reasons[writer.run_id] and "no diff" in reasons[orphan.run_id]
    assert remove_garbage(store, garbage) == sum(item.num_bytes for item in garbage) > 1000
    assert list_store(store) == kept and not leftover.exists()


def test_a_run_being_written_stays(case: SimpleNamespace, store: Store) -> None:
    with store.run_writer({"other": 1}, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
        assert find_garbage(store, min_age_s=0) == []
    assert len(find_garbage(store, min_age_s=0)) == 1
