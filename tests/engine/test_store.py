"""The contract of runs in the store: what was written comes back byte for byte, and damage is named."""

import hashlib
import json
import os
import pickle
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ft_audit.engine.store import RunReader, SegmentData, Store, run_id
from ft_audit.errors import StoreError

CASE_FILE = Path(__file__).parent / "store_case.py"


@pytest.fixture(scope="module")
def case() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(CASE_FILE)))


@pytest.fixture(scope="module")
def whole(case: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    case.write_run(str(root))
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "store")


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def assert_same_segment(back: SegmentData, given: SegmentData) -> None:
    for name in ("prompt_P", "prompt_indptr_P1", "token_T", "role_T", "mask_T"):
        assert np.array_equal(getattr(back, name), getattr(given, name)), name
        assert getattr(back, name).dtype == getattr(given, name).dtype, name
    assert set(back.features) == set(given.features) and set(back.dense) == set(given.dense)
    for sae, rows in given.features.items():
        for mine, theirs in zip(back.features[sae], rows, strict=True):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    for name, dense in given.dense.items():
        assert back.dense[name].dtype == dense.dtype and np.array_equal(back.dense[name], dense)


def only_run(root: Path) -> RunReader:
    store = Store(root)
    return store.open_run(store.runs()[0])


def test_segments_come_back(case: SimpleNamespace, whole: Path) -> None:
    run = only_run(whole)
    assert run.manifest.complete and run.manifest.hooks == case.HOOKS
    assert run.manifest.identity == case.IDENTITY and run.manifest.run_id == run_id(case.IDENTITY)
    segments = list(run.segments())
    assert len(segments) == case.NUM_SEGMENTS
    for number, segment in enumerate(segments):
        assert_same_segment(segment, case.make_segment(number))
    assert run.manifest.num_tokens == sum(segment.num_tokens for segment in segments)
    assert run.manifest.num_prompts == case.NUM_SEGMENTS * case.NUM_PROMPTS


def test_a_reader_takes_only_what_it_asks_for(case: SimpleNamespace, whole: Path) -> None:
    segment = only_run(whole).segment(2, saes=(), dense=("resid/3/norm_P",))
    assert list(segment.features) == [] and list(segment.dense) == ["resid/3/norm_P"]


def test_dense_arrays_come_in_the_order_of_the_suite(case: SimpleNamespace, whole: Path) -> None:
    run = only_run(whole)
    mean_PD = run.dense("resid/3/mean_PD")
    for number in range(case.NUM_SEGMENTS):
        segment = case.make_segment(number)
        assert np.array_equal(mean_PD[segment.prompt_P], segment.dense["resid/3/mean_PD"])
    assert sorted(run.prompt_order) == list(range(len(mean_PD)))
    with pytest.raises(StoreError, match=r"no array 'resid/9/mean_PD'.*resid/3/mean_PD"):
        run.dense("resid/9/mean_PD")


def test_the_same_input_gives_the_same_bytes(case: SimpleNamespace, whole: Path, tmp_path: Path) -> None:
    case.write_run(str(tmp_path))
    assert digests(tmp_path) == digests(whole)


def test_ids_follow_content_not_order() -> None:
    assert run_id({"a": 1, "b": [1.5, None]}) == run_id({"b": [1.5, None], "a": 1})
    assert len({run_id({"a": 1}), run_id({"a": 2}), run_id({"a": "1"}), run_id({"a": True})}) == 4
    assert len(run_id({})) == 16


def test_killed_anywhere_then_resumed_gives_the_same_bytes(
    case: SimpleNamespace, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(handle), real(handle)))
    case.write_run(str(tmp_path / "count"))
    monkeypatch.undo()
    total = len(calls)
    # From the end back: the last manifest (2 calls), the last segment's manifest (2), its rename (1).
    for die_at in (1, total // 3, total - 4, total - 3, total - 1):
        root = tmp_path / f"die{die_at}"
        script = [sys.executable, str(CASE_FILE), str(root)]
        died = subprocess.run([*script, str(die_at)], check=False, capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert digests(root) != digests(whole)
        # Between the death and the resumption no reader takes the run for whole.
        with pytest.raises(StoreError, match=r"precompute"):
            only_run(root)
        case.write_run(str(root))
        assert digests(root) == digests(whole), f"killed at fsync {die_at} of {total}"


def test_resuming_writes_only_what_is_missing(case: SimpleNamespace, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(2, case.make_segment(2))
        with pytest.raises(AssertionError, match="missing"):
            writer.finish()
    assert not store.has_run(writer.run_id)
    assert store.run_writer(case.IDENTITY, case.HOOKS).committed == {2}
    case.write_run(str(tmp_path))
    assert store.has_run(writer.run_id)
    assert store.run_writer(case.IDENTITY, case.HOOKS).complete


def test_two_writers_of_one_run_are_refused(case: SimpleNamespace, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.run_writer(case.IDENTITY, case.HOOKS)
    with pytest.raises(StoreError, match="another process is writing"):
        store.run_writer(case.IDENTITY, case.HOOKS)
    first.close()
    store.run_writer(case.IDENTITY, case.HOOKS).close()


def test_a_writer_that_fails_in_a_segment_leaves_the_others(case: SimpleNamespace, tmp_path: Path) -> None:
    good = case.make_segment(1)
    bad = SegmentData(good.prompt_P, good.prompt_indptr_P1, good.token_T, good.role_T[:-1], good.mask_T)
    with Store(tmp_path).run_writer(case.IDENTITY, case.HOOKS) as writer:
        writer.write_segment(0, case.make_segment(0))
        with pytest.raises(AssertionError, match="rows of set"):
            writer.write_segment(1, bad)
        assert writer.committed == {0}


@pytest.mark.parametrize("array", ["prompt_indptr_P1", "role_T", "mask_T"])
def test_a_segment_whose_shapes_disagree_is_refused(case: SimpleNamespace, array: str) -> None:
    good = case.make_segment(1)
    values = {name: getattr(good, name) for name in SegmentData.__slots__}
    with pytest.raises(AssertionError, match=array):
        SegmentData(**{**values, array: values[array][:-1]}).check()


def one_chunk(root: Path, segment: str) -> Path:
    return next(path for path in sorted(root.rglob(f"{segment}.zarr/**/value_N/c.*")) if path.is_file())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_segment_is_named_and_the_others_read(copy: Path, damage) -> None:
    damage(one_chunk(copy, "00002"))
    run = only_run(copy)
    assert run.segment(1).num_tokens > 0
    assert run.segment(2, saes=()).num_tokens > 0, "what is not asked for is not read"
    for read in (lambda: run.segment(2), lambda: list(run.segments())):
        with pytest.raises(StoreError, match=r"segment 00002 of run \w{16} is damaged.*precompute"):
            read()
    (damage,) = run.damaged()
    assert (damage.part, damage.number) == ("segment", 2)
    assert "array features/demo/width_64/value_N" in damage.message


def test_an_extra_file_and_a_missing_segment_are_damage(copy: Path) -> None:
    (one_chunk(copy, "00000").parent / "1").write_bytes(b"x")
    shutil.rmtree(next(copy.rglob("00001.zarr")))
    extra, missing = only_run(copy).damaged()
    assert extra.number == 0 and "does not belong there" in extra.message
    assert missing.number == 1 and "missing" in missing.message


def change_manifest(root: Path, change) -> Path:
    manifest = next(root.rglob("manifest.json"))
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    return manifest


def test_a_manifest_of_another_schema_is_refused(case: SimpleNamespace, copy: Path) -> None:
    manifest = change_manifest(copy, lambda m: {**m, "schema_version": 1})
    for open_it in (only_run, lambda root: Store(root).run_writer(case.IDENTITY, case.HOOKS)):
        with pytest.raises(StoreError, match="schema version 1, this ft-audit reads version 2") as caught:
            open_it(copy)
        assert str(manifest) in str(caught.value) and "delete the folder" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {k: v for k, v in m.items() if k != "schema_version"},
        lambda m: {k: v for k, v in m.items() if k != "checksum"},
        lambda m: {**m, "num_tokens": m["num_tokens"] + 1},
        lambda m: {**m, "author": "me"},
        lambda m: [],
    ],
)
def test_a_damaged_manifest_is_named_and_made_again_from_whole_segments(
    case: SimpleNamespace, whole: Path, copy: Path, change
) -> None:
    manifest = change_manifest(copy, change)
    flip(one_chunk(copy, "00002"))
    with pytest.raises(StoreError, match=r"damaged .*precompute") as caught:
        only_run(copy)
    assert str(manifest) in str(caught.value)
    store = Store(copy)
    assert not store.has_run(store.runs()[0])
    with store.run_writer(case.IDENTITY, case.HOOKS) as writer:
        assert writer.committed == {0, 1, 3} and not writer.complete
    case.write_run(str(copy))
    assert digests(copy) == digests(whole)


def test_a_manifest_cut_short_is_refused(copy: Path) -> None:
    manifest = next(copy.rglob("manifest.json"))
    manifest.write_bytes(manifest.read_bytes()[:40])
    with pytest.raises(StoreError, match="damaged"):
        only_run(copy)


def test_other_hooks_under_the_same_identity_are_refused(case: SimpleNamespace, copy: Path) -> None:
    with pytest.raises(StoreError, match="another run"):
        Store(copy).run_writer(case.IDENTITY, [])


def test_an_unknown_run_is_answered_with_those_there(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"no run 'nope' .it has: {Store(whole).runs()[0]}"):
        Store(whole).open_run("nope")
    with pytest.raises(StoreError, match="it has: none"):
        Store(tmp_path / "empty").open_diff("nope")
    assert not (tmp_path / "empty").exists()


def test_a_place_of_no_known_kind_is_refused_by_name() -> None:
    with pytest.raises(StoreError, match=r"gopher://x.*folder.*s3://bucket"):
        Store("gopher://x")


def test_a_reader_travels_to_another_process(whole: Path) -> None:
    run = pickle.loads(pickle.dumps(only_run(whole)))
    assert run.segment(0).num_prompts > 0
