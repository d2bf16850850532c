"""What a program in the sandbox cannot do, tried for real where bubblewrap is; and how it is begun."""

import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from ft_audit.agent import sandbox
from ft_audit.agent.sandbox import arguments, run_sandboxed, sandbox_refusal

refused = sandbox_refusal()
real = pytest.mark.skipif(refused is not None, reason=f"no sandbox here: {refused}")
ROWS = {"rows.jsonl": '{"row": 0, "text": "user: \u00e4"}\n'}


def said(code: str) -> tuple[str, str]:
    """What a program printed, and the last line of its errors."""
    ran = run_sandboxed(code, ROWS)
    return ran.output, (ran.errors.strip().splitlines() or [""])[-1]


@real
def test_a_program_reads_the_rows_and_prints() -> None:
    output, errors = said("import json; print([json.loads(x)['text'] for x in open('/data/rows.jsonl')])")
    assert (output, errors) == ("['user: \u00e4']\n", "")


@real
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import socket; socket.create_connection(('1.1.1.1', 53), 2)", "Network is unreachable"),
        ("import socket; socket.create_connection(('127.0.0.1', 22), 2)", "Connection refused"),
        ("open('/etc/shadow')", "No such file"),
        ("open('/etc/passwd')", "No such file"),
        (f"import os; os.listdir({str(Path.home())!r})", "No such file"),
        (f"open({os.path.abspath(__file__)!r})", "No such file"),
        ("open('/data/rows.jsonl', 'a')", "Read-only file system"),
        ("open('/data/new', 'w')", "Read-only file system"),
        ("import os; os.remove('/data/rows.jsonl')", "Read-only file system"),
        ("open('/new', 'w')", "Read-only file system"),
        ("open('/usr/bin/new', 'w')", "Read-only file system"),
        ("open('/dev/shm/new', 'w')", "Read-only file system"),
        ("open('/proc/sys/kernel/hostname', 'w')", "Permission denied"),
        ("import os; os.setuid(0)", "Invalid argument"),
        ("import os; os.kill(-1, 9)", "No such process"),
        ("bytearray(600 << 20)", "MemoryError"),
        ("import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 40, 1 << 40))", "not allowed to raise"),
        ("open('/tmp/x', 'wb').write(bytes(5 << 20))", "File too large"),
    ],
)
def test_what_is_out_of_reach(code: str, error: str) -> None:
    output, last = said(code)
    assert error in last and output == ""


@real
def test_the_environment_holds_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    output, _ = said("import os; print(sorted(os.environ), os.getuid())")
    assert output == "['LC_ALL', 'PWD', 'PYTHONDONTWRITEBYTECODE', 'PYTHONHASHSEED'] 65534\n"
    everything, _ = said("import glob; print([open(p).read() for p in glob.glob('/proc/self/environ')])")
    assert "PYTHONHASHSEED" in everything and "sk-secret" not in everything


@real
def test_a_fork_bomb_is_bounded_and_leaves_nothing() -> None:
    bomb = (
        "import os, time\ncount = 0\ntry:\n  while count < 500:\n    if os.fork() == 0: time.sleep(7777)\n"
        "    count += 1\nexcept OSError:\n  print(count)"
    )
    output, _ = said(bomb)
    assert 0 < int(output) < sandbox.PROCESSES
    commands = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert "runpy.run_path" not in commands


@real
@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_an_endless_program_is_stopped(code: str) -> None:
    started = time.monotonic()
    assert run_sandboxed(code, {}, seconds=1.0).exit_code is None
    assert time.monotonic() - started < 8


@real
def test_much_output_is_bounded() -> None:
    ran = run_sandboxed("while True: print('x' * 999)", {})
    assert ran.exit_code != 0 and len(ran.output) < sandbox.OUTPUT_CHARACTERS + 60
    assert "more" not in ran.output and "… 4,1" in ran.output


@real
def test_many_files_do_not_fill_the_memory() -> None:
    output, _ = said(
        "try:\n  for i in range(99): open(f'/tmp/{i}', 'wb').write(bytes(3 << 20))\n"
        "except OSError as error: print(i, error)"
    )
    assert 10 < int(output.split()[0]) <= sandbox.TMP_BYTES // (3 << 20) and "No space left" in output


@real
def test_sets_come_in_the_same_order_every_time() -> None:
    code = "print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    assert len({said(code)[0] for _ in range(3)}) == 1


def test_how_a_program_is_begun() -> None:
    made = arguments(Path("/somewhere/data"))
    pairs = list(itertools.pairwise(made))
    for flag in ("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--clearenv"):
        assert flag in made
    assert ("--cap-drop", "ALL") in pairs and "--new-session" in made
    bound = {made[i + 1] for i, flag in enumerate(made) if flag == "--ro-bind"}
    assert bound <= {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/somewhere/data"}
    # Nothing is bound so that it can be written, and the root is closed last of all.
    assert not {"--bind", "--dev-bind", "--bind-try", "--share-net"} & set(made)
    assert made.index("--remount-ro") > made.index("/somewhere/data")
    assert made[made.index("--") + 1] == "/usr/bin/python3"


def test_why_there_is_no_sandbox_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fresh() -> str | None:
        return sandbox_refusal.__wrapped__()

    def broken(*args: Any) -> sandbox.Ran:
        return sandbox.Ran("", "bwrap: setting up uid map: Permission denied\n", 1)

    with monkeypatch.context() as patch:
        patch.setattr("shutil.which", lambda name: None)
        assert fresh() == "bubblewrap (bwrap) is not installed"
        with pytest.raises(sandbox.SandboxError, match="not installed"):
            run_sandboxed("print(1)", {})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.which", lambda name: "/usr/bin/bwrap")
        patch.setattr(sandbox, "PYTHON", "/nowhere/python3")
        assert fresh() == "there is no /nowhere/python3"
        patch.setattr(sandbox, "PYTHON", "/bin/sh")
        patch.setattr(sandbox, "run_sandboxed", broken)
        assert fresh() == "a trial in the sandbox failed: bwrap: setting up uid map: Permission denied"
