"""What the store says it holds, whether it is whole, and what may go."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ft_audit.engine.store import Store, find_garbage, list_store, remove_garbage, verify_store
from ft_audit.errors import StoreError


@pytest.fixture
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "store_case.py")))


@pytest.fixture
def store(case: SimpleNamespace, store_root: str) -> Store:
    """A finished run, a diff that speaks of it, and an audit."""
    run = case.write_run(store_root)
    store = Store(store_root)
    with store.diff_writer({"base": run.run_id}) as writer:
        writer.put_stats("fvu/demo", {"base": np.zeros(1)})
        writer.finish({"name": "demo"})
    store.put_audit_file("a1", "verdict.json", b"{}")
    return store


def problems(store: Store) -> dict[str, list[str]]:
    return {item.kind: found for item, found in verify_store(store)}


def keys(store: Store, end: str) -> list[str]:
    return [file.key for file in store.place.files("") if file.key.endswith(end)]


def test_everything_is_listed_with_its_size(case: SimpleNamespace, store: Store) -> None:
    run, diff, audit = list_store(store)
    assert (run.kind, diff.kind, audit.kind) == ("run", "diff", "audit")
    assert run.complete and run.num_segments == case.NUM_SEGMENTS and run.name == "resid_post/3"
    assert run.num_tokens == store.open_run(run.id).manifest.num_tokens > 0
    assert diff.name == "demo" and audit.id == "a1" and audit.num_bytes == 2
    assert run.num_bytes == sum(map(len, case.contents(store.location, run.folder).values())) > 1000
    assert problems(store) == {"run": [], "diff": []}


def test_files_of_audits_come_back(store: Store) -> None:
    where = store.put_audit_file("a1", "report.html", b"<p>")
    assert where == f"{store.location}/audits/a1/report.html"
    assert store.read_audit_file("a1", "report.html") == b"<p>"
    with pytest.raises(StoreError, match=r"audits/a2/report\.html: no such file: run `ft-audit audit`"):
        store.read_audit_file("a2", "report.html")


def test_an_empty_store_has_nothing(store_root: str) -> None:
    store = Store(store_root)
    assert list_store(store) == [] == find_garbage(store, 0) == store.place.files("")


def test_damage_is_found_in_runs_and_diffs(store: Store) -> None:
    for end in ("00000.zarr/features/demo/width_64/value_N/c.0", "base/zarr.json"):
        store.place.replace(keys(store, end)[0], b"x")
    found = problems(store)
    assert "segment 00000" in found["run"][0] and "stats group 'fvu/demo'" in found["diff"][0]


def test_an_unreadable_manifest_is_a_problem_not_a_crash(store: Store) -> None:
    for manifest in keys(store, "manifest.json"):
        store.place.replace(manifest, b"{")
    assert all("damaged" in item.problem for item in list_store(store) if item.kind != "audit")
    assert all(len(found) == 1 for found in problems(store).values())


def test_a_renamed_folder_is_a_problem(case: SimpleNamespace, store: Store) -> None:
    run = list_store(store)[0]
    for key, content in case.contents(store.location, run.folder).items():
        store.place.replace(key.replace(run.id, "f" * 16), content)
    store.place.delete(run.folder)
    assert run.id in problems(store)["run"][0]


def test_a_run_that_a_diff_speaks_of_stays_and_so_does_one_given_up(
    case: SimpleNamespace, store: Store
) -> None:
    with store.run_writer({"other": 1}, case.HOOKS) as writer:
        writer.supersede({"batch_tokens": 1})
    assert find_garbage(store, min_age_s=0) == []


def test_what_may_go_goes_and_nothing_else(case: SimpleNamespace, store: Store) -> None:
    kept = list_store(store)
    with store.run_writer({"other": 1}, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
    with store.run_writer({"other": 2}, case.HOOKS) as orphan:
        orphan.write_segment(0, case.make_segment(0))
        orphan.finish()
    store.place.put("diffs/ab.tmp/part", b"x")
    assert find_garbage(store) == [], "everything is younger than a day"
    garbage = find_garbage(store, min_age_s=0)
    reasons = {item.folder.rpartition("/")[2]: item.reason for item in garbage}
    assert set(reasons) == {writer.run_id, orphan.run_id, "ab.tmp"}
    assert "interrupted" in reasons[writer.run_id] and "no diff" in reasons[orphan.run_id]
    assert remove_garbage(store, garbage) == sum(item.num_bytes for item in garbage) > 1000
    assert list_store(store) == kept and store.place.files("diffs/ab.tmp") == []


def test_a_run_being_written_stays(case: SimpleNamespace, store: Store) -> None:
    with store.run_writer({"other": 1}, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
        assert find_garbage(store, min_age_s=0) == []
    garbage = find_garbage(store, min_age_s=0)
    assert len(garbage) == 1
    with store.run_writer({"other": 1}, case.HOOKS) as writer:
        assert remove_garbage(store, garbage) == 0 and writer.committed == {0}
