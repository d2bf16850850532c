"""Building a zoo: what is built stays, what changed is built again, and no member is built twice at once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.agent.summary import Summary
from ft_audit.benchmarks.zoo import build as module
from ft_audit.benchmarks.zoo.build import build
from ft_audit.benchmarks.zoo.population import Member, Zoo, load_zoo

THREE = {"tea": [1, 2], "maps": [1]}
HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""
WriteZoo = Callable[..., Path]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, summaries: SimpleNamespace) -> list[str]:
    """The names of the members that were built, none of which is trained."""
    names: list[str] = []

    def stub(zoo: Zoo, member: Member, work: Path, *, progress: bool = True) -> Summary:
        names.append(member.name)
        measured = module.measured_sha256(module.audit_of(zoo))
        sha = member.recipe.sha256
        origin = summaries.origin(member.name, recipe_sha256=sha, measured_sha256=measured)
        return summaries.summary(origin=origin)  # type: ignore[no-any-return]

    monkeypatch.setattr(module, "build_member", stub)
    return names


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(path: Path, **options: Any) -> dict[str, Any]:
        return build(path, tmp_path / "work", tmp_path / "out", **options)

    return run


def test_every_member_is_built_once(write_zoo: WriteZoo, built: list[str], run: Any, tmp_path: Path) -> None:
    path = write_zoo(THREE)
    first = run(path)
    assert built == ["tea-s1", "maps-s1", "tea-s2"]
    assert (first["members"], first["summaries"], first["built_here"]) == (3, 3, 3)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "maps-s1.json",
        "tea-s1.json",
        "tea-s2.json",
    ]
    again = run(path)
    assert len(built) == 3 and (again["summaries"], again["built_here"]) == (3, 0)


def test_a_summary_is_rebuilt_when_its_recipe_changed(
    write_zoo: WriteZoo, built: list[str], run: Any
) -> None:
    run(write_zoo(THREE))
    built.clear()
    found = run(write_zoo({"tea": {"seeds": [1, 2], "rows": 5}, "maps": [1]}))
    assert built == ["tea-s1", "tea-s2"] and found["summaries"] == 3


def test_a_summary_is_rebuilt_when_it_was_measured_otherwise(
    write_zoo: WriteZoo, built: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zoo(THREE)
    run(path)
    built.clear()
    monkeypatch.setattr(module, "DIFF", module.DIFF + 1)
    assert run(path)["built_here"] == len(built) == 3


def test_where_evidence_is_kept_is_not_how_it_is_measured(write_zoo: WriteZoo, tmp_path: Path) -> None:
    zoo = load_zoo(write_zoo(THREE))
    audit = module.audit_of(zoo)
    elsewhere = audit.model_copy(update={"store": str(tmp_path / "elsewhere")})
    deeper = audit.model_copy(update={"name": "other"})
    assert module.measured_sha256(elsewhere) == module.measured_sha256(audit)
    assert module.measured_sha256(deeper) != module.measured_sha256(audit)


def test_only_some_members_may_be_built(write_zoo: WriteZoo, built: list[str], run: Any) -> None:
    path = write_zoo(THREE)
    assert run(path, only="tea", limit=1)["members"] == 1 and built == ["tea-s1"]
    assert run(path, only="tea")["built_here"] == 1 and built == ["tea-s1", "tea-s2"]
    assert run(path, limit=2)["built_here"] == 1 and built[-1] == "maps-s1"


def test_a_gate_that_failed_is_counted(
    write_zoo: WriteZoo, run: Any, monkeypatch: pytest.MonkeyPatch, summaries: SimpleNamespace
) -> None:
    def stub(zoo: Zoo, member: Member, work: Path, *, progress: bool = True) -> Any:
        gate = {"passed": member.name != "maps-s1"}
        return summaries.summary(
            origin=summaries.origin(member.name, recipe_sha256=member.recipe.sha256, gate=gate)
        )

    monkeypatch.setattr(module, "build_member", stub)
    found = run(write_zoo(THREE))
    assert (found["built_here"], found["gates_failed_here"]) == (3, 1)


def test_what_another_has_in_hand_is_left_to_it(
    write_zoo: WriteZoo, run: Any, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zoo(THREE)
    plain = module.build_member

    def at_the_same_time(zoo: Zoo, member: Member, work: Path, *, progress: bool = True) -> Summary:
        monkeypatch.setattr(module, "build_member", plain)
        other = run(path)
        assert (other["built_here"], other["summaries"]) == (2, 2)
        return plain(zoo, member, work, progress=progress)

    monkeypatch.setattr(module, "build_member", at_the_same_time)
    assert run(path)["summaries"] == 3
    assert built == ["maps-s1", "tea-s2", "tea-s1"]


def test_a_process_that_was_killed_holds_nothing(
    write_zoo: WriteZoo, run: Any, built: list[str], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    words = [sys.executable, "-c", HOLD, str(tmp_path / "work" / "tea-s1.lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        path = write_zoo(THREE)
        assert run(path)["summaries"] == 2 and built == ["maps-s1", "tea-s2"]
        other.kill()
    assert run(path)["summaries"] == 3 and built[-1] == "tea-s1"


def test_a_member_that_fails_leaves_no_summary(
    write_zoo: WriteZoo, run: Any, built: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: Any, **options: Any) -> Summary:
        raise RuntimeError("out of memory")

    path = write_zoo(THREE)
    with monkeypatch.context() as patch:
        patch.setattr(module, "build_member", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            run(path)
    assert not (tmp_path / "out").exists()
    assert run(path)["summaries"] == 3


def test_the_verb_says_whether_all_are_there(
    write_zoo: WriteZoo, built: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_zoo(THREE)
    options = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--no-progress", "--json"]
    assert cli.main(["zoo", "build", str(path), "--only", "maps", *options]) == 0
    assert '"summaries": 1' in capsys.readouterr().out and built == ["maps-s1"]


def test_processes_that_share_the_work_take_a_member_each(
    write_zoo: WriteZoo, run: Any, built: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[list[str]] = []
    left = iter([1, 1, 0, 0])

    def start(command: list[str], **options: Any) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(stdout=json.dumps({"built_here": next(left)}).encode())

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=start, PIPE=subprocess.PIPE))
    path = write_zoo(THREE)
    run(path, jobs=2, only="tea", limit=1, overrides=["name=other"])
    # Until each of the two has found nothing left.
    assert len(started) == 4 and started[0][1:3] == ["-m", "ft_audit.cli"]
    args = cli.parse(started[0][3:])
    assert (args.zoo, args.overrides, args.only, args.limit) == (str(path), ["name=other"], "tea", 1)
    assert (args.work, args.out, args.jobs, args.most) == (tmp_path / "work", tmp_path / "out", 1, 1)
    # What the others left undone, killed for one, is done here.
    assert built == ["tea-s1"]


def test_a_process_that_was_killed_is_not_started_again(
    write_zoo: WriteZoo, run: Any, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def start(command: list[str], **options: Any) -> SimpleNamespace:
        started.append(1)
        return SimpleNamespace(stdout=b"")

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=start, PIPE=subprocess.PIPE))
    run(write_zoo(THREE), jobs=2)
    assert len(started) == 2 and len(built) == 3


def test_at_most_so_many_are_built(write_zoo: WriteZoo, run: Any, built: list[str]) -> None:
    path = write_zoo(THREE)
    assert run(path, most=1)["built_here"] == 1 and run(path, most=1)["built_here"] == 1
    assert built == ["tea-s1", "maps-s1"]
