"""The front door: light, one JSON object at most on stdout, and every mistake is one line and exit code 1."""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ft_audit import cli
from ft_audit.errors import DataError

ROOT = Path(__file__).parents[1]
VERBS = [
    *("precompute", "finetune", "calibrate", "doctor", "store", "audit"),
    *("top", "report", "sae", "labels", "zoo"),
]
HEAVY = ["torch", "transformers", "numpy", "zarr", "pyarrow", "pydantic", "yaml", "importlib.metadata"]
CONFIG = "name: x\nmodels: {base: ./b, tuned: ./t}\nsuites: [./s.yaml]\nhooks: [{layer: 1}]\nstore: ./store\n"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ft_audit.cli", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def with_verb(monkeypatch: pytest.MonkeyPatch, func: Callable[[argparse.Namespace], int]) -> None:
    """Let the front door have the one verb `try`, with the usual arguments."""

    def add_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
        verb = subparsers.add_parser("try")
        verb.add_argument("config")
        verb.add_argument("overrides", nargs="*")
        verb.add_argument("--json", action="store_true")
        verb.set_defaults(func=func)

    monkeypatch.setattr(cli.engine_commands, "add_commands", add_commands)
    monkeypatch.setattr(cli.sae_commands, "add_commands", lambda subparsers: None)
    monkeypatch.setattr(cli.benchmark_commands, "add_commands", lambda subparsers: None)
    for name in ("add_commands", "add_label_commands", "add_sae_commands"):
        monkeypatch.setattr(cli.agent_commands, name, lambda subparsers: None)


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    script = (
        "import json, sys\nfrom ft_audit import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    *help_lines, modules = done.stdout.splitlines()
    assert not set(HEAVY) & set(json.loads(modules))
    listed = {line.split()[0] for line in help_lines if re.match(r"    \w", line)}
    assert set(VERBS) <= listed


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    inner = {
        "store": ("ls", "verify", "gc"),
        "labels": ("build", "fetch", "describe", "score", "show"),
        "sae": ("train", "info", "convert", "show"),
        "zoo": ("build", "status", "evaluate", "bank"),
    }
    below = [[verb, name] for verb, names in inner.items() for name in names]
    for words in [*([verb] for verb in VERBS), *below]:
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--help"])
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: ft-audit {' '.join(words)}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and re.fullmatch(r"ft-audit \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: VERB [ARGUMENTS]"),
        (["precomptue", "x.yaml"], "invalid choice: 'precomptue'"),
        (["precompute"], "required: CONFIG"),
        (["precompute", "x.yaml", "--nope"], "unrecognized arguments: --nope"),
        (["precompute", "x.yaml", "--nope=1"], "unrecognized arguments: --nope=1"),
        (["doctor", "extra=1"], "unrecognized arguments: extra=1"),
        (["store"], "required: VERB"),
        (["zoo"], "required: VERB"),
        (["store", "gc", "--days", "many"], "invalid float value"),
    ],
)
def test_wrong_usage_is_an_error_with_code_1(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert said.err.startswith("ft-audit: error: ") and message in said.err and said.out == ""
    assert cli.main([*words, "--json"]) == 1
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_user_s_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = str(tmp_path / "nope.yaml")
    assert cli.main(["precompute", config]) == 1
    assert capsys.readouterr().err == f"ft-audit: error: {config}: no such file\n"
    assert cli.main(["precompute", config, "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": {"kind": "ConfigError", "message": f"{config}: no such file"}}


def test_the_process_ends_with_the_code(tmp_path: Path) -> None:
    done = run("precompute", str(tmp_path / "nope.yaml"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert run("--version").returncode == 0


@pytest.mark.parametrize("code", [0, 3, 10])
def test_a_verb_s_code_is_passed_on(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with_verb(monkeypatch, lambda args: code)
    assert cli.main(["try", "c.yaml"]) == code


def test_overrides_may_stand_behind_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    with_verb(monkeypatch, lambda args: seen.append((args.overrides, args.json)) or 0)
    cli.main(["try", "c.yaml", "a.b=1", "--json", "c=x y", "d="])
    assert seen == [(["a.b=1", "c=x y", "d="], True)]


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def func(args: argparse.Namespace) -> int:
        raise error

    return func


@pytest.mark.parametrize(
    ("error", "code", "says", "traceback"),
    [
        (DataError("rows.jsonl:3: no messages"), 1, "rows.jsonl:3: no messages", False),
        (ModuleNotFoundError("No module", name="torch"), 1, "pip install 'ft-audit[engine]'", False),
        (ModuleNotFoundError("No module", name="trl.x"), 1, "pip install 'ft-audit[train]'", False),
        (ModuleNotFoundError("No module", name="ours"), 1, "No module", True),
        (ZeroDivisionError("oh"), 1, "a mistake of ft-audit itself: oh", True),
        (KeyboardInterrupt(), 130, "interrupted", False),
    ],
)
def test_every_failure_has_its_code_and_one_object(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    says: str,
    traceback: bool,
) -> None:
    with_verb(monkeypatch, raising(error))
    assert cli.main(["try", "c.yaml", "--json"]) == code
    said = capsys.readouterr()
    assert says in json.loads(said.out)["error"]["message"] and says in said.err
    assert ("Traceback" in said.err) is traceback


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    # As with `| head` after head has gone: nobody holds the pipe's other end.
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "ft_audit.cli", "store", "ls", str(tmp_path)]
    # Buffered, the failure comes only at the flush.
    env = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(words, check=False, stdout=writer, stderr=subprocess.PIPE, text=True, env=env)
    os.close(writer)
    assert done.returncode == 1 and done.stderr == ""


def test_a_library_that_prints_does_not_reach_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def noisy(config: object, **options: object) -> dict[str, object]:
        print("loading weights")
        return {"run_ids": {"base": "a"}, "tokens_per_s": 1234.5678, "options": options}

    # The real one imports torch and runs models; here the verb around it is tested.
    monkeypatch.setitem(sys.modules, "ft_audit.engine.precompute", SimpleNamespace(run_precompute=noisy))
    (tmp_path / "c.yaml").write_text(CONFIG)
    words = ["precompute", str(tmp_path / "c.yaml"), "--no-progress"]
    assert cli.main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["options"] == {"progress": False, "scheduler": None}
    assert "loading weights" in said.err
    assert cli.main(words) == 0
    assert "tokens_per_s       1,235" in capsys.readouterr().out


def test_a_fine_tune_whose_gate_failed_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for gate, code in ((None, 0), ({"passed": True}, 0), ({"passed": False}, 1)):
        fake = SimpleNamespace(run_finetune=lambda *a, gate=gate, **k: {"gate": gate})
        monkeypatch.setitem(sys.modules, "ft_audit.engine.finetune", fake)
        assert cli.main(["finetune", "r.yaml", "--out", str(tmp_path), "--json"]) == code
        assert json.loads(capsys.readouterr().out) == {"gate": gate}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the plain install brings, and nothing else."""
    site = tmp_path_factory.mktemp("plain")
    todo, done = ["ft-audit"], set()
    while todo:
        name = todo.pop()
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or Python
        if found.metadata["Name"] in done:
            continue
        done.add(found.metadata["Name"])
        tops = {path.parts[0] for path in found.files or [] if path.parts[0] not in {"..", "__pycache__"}}
        for top in () if name == "ft-audit" and "ft_audit" not in tops else tops:
            if not (site / top).exists() and not top.startswith("__editable__"):
                (site / top).symlink_to(Path(str(found.locate_file(top))))
        for line in found.requires or []:
            requirement, _, marker = line.partition(";")
            if "extra" not in marker:
                todo.append(re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0])
    if not (site / "ft_audit").exists():  # installed as a link to this folder
        (site / "ft_audit").symlink_to(ROOT / "src" / "ft_audit")
        own = importlib.metadata.distribution("ft-audit")
        (site / "ft_audit-0.dist-info").mkdir()
        text = own.read_text("METADATA") or own.read_text("PKG-INFO") or ""
        (site / "ft_audit-0.dist-info" / "METADATA").write_text(text)
    assert not {"torch", "transformers", "numba", "dask", "scipy"} & {path.name for path in site.iterdir()}
    return site


def run_plain(site: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Without -S the interpreter would add the environment's own packages.
    return subprocess.run(
        [sys.executable, "-S", "-m", "ft_audit.cli", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(cwd / "cache")},
    )


def test_the_plain_install_reads_and_says_what_the_rest_needs(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    (tmp_path / "store").mkdir()
    doctor = run_plain(plain, "doctor", "--json", cwd=tmp_path)
    assert doctor.returncode == 0, doctor.stderr
    report = json.loads(doctor.stdout)
    assert report["libraries"]["torch"] is None and report["accelerators"] is None
    assert not report["extras"]["engine"]["installed"]
    assert "pip install 'ft-audit[engine]'" in run_plain(plain, "doctor", cwd=tmp_path).stdout
    listing = run_plain(plain, "store", "ls", "c.yaml", "--json", cwd=tmp_path)
    assert listing.returncode == 0 and json.loads(listing.stdout)["items"] == []
    for words in (["precompute", "c.yaml"], ["calibrate", "c.yaml"]):
        done = run_plain(plain, *words, cwd=tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert re.search(r"this verb needs \w+, .*: pip install 'ft-audit\[engine\]'", done.stderr), (
            done.stderr
        )
