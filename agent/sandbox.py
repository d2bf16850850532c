"""Runs an investigator's Python where it can reach nothing: bubblewrap, no network, no home, no environment.

What it sees: the system's programs and the files given to it, all read-only, and an empty /tmp of its own. No
filter of system calls is set: a hole in the kernel is a hole here.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ft_audit.errors import UserError

BWRAP, PYTHON, DATA = "bwrap", "/usr/bin/python3", "/data"
SECONDS = 10.0
MEMORY = 512 << 20
FILE_BYTES = 4 << 20
"""Of each file that it writes, its output's included."""
TMP_BYTES = 64 << 20
PROCESSES = 8
OUTPUT_CHARACTERS = 8_000
NOBODY = 65_534
TRIAL = "import json; print(json.dumps(sum(range(5))))"
# Limits are set by the first thing that runs inside: without capabilities nothing there can raise them.
LAUNCH = f"""
import resource, runpy, sys
for name, most in (("AS", {MEMORY}), ("FSIZE", {FILE_BYTES}), ("CPU", {int(SECONDS) + 1}),
                   ("NPROC", {PROCESSES}), ("CORE", 0), ("NOFILE", 64)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
sys.argv = ["{DATA}/code.py"]
runpy.run_path("{DATA}/code.py", run_name="__main__")
"""


class SandboxError(UserError):
    """Nothing can be run here, or what was to be run is too large."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program left behind."""

    output: str
    errors: str
    exit_code: int | None
    """None where it was stopped for its time."""


@lru_cache(maxsize=1)
def sandbox_refusal() -> str | None:
    """Return why no program can be run here, having tried one; None where it can."""
    if shutil.which(BWRAP) is None:
        return "bubblewrap (bwrap) is not installed"
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    try:
        ran = run_sandboxed(TRIAL, {})
    except (SandboxError, OSError) as error:
        return str(error)
    if (ran.exit_code, ran.output) != (0, "10\n"):
        said = ran.errors.strip().splitlines()
        return f"a trial in the sandbox failed: {said[-1] if said else 'it said nothing'}"
    return None


def run_sandboxed(code: str, files: Mapping[str, str], seconds: float = SECONDS) -> Ran:
    """Run a program beside some files, all under /data, and return what it said.

    Raises:
        SandboxError: bubblewrap is not there.
    """
    program = shutil.which(BWRAP)
    if program is None:
        raise SandboxError("nothing can be run: bubblewrap (bwrap) is not installed")
    with tempfile.TemporaryDirectory(prefix="ft-audit-sandbox-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for name, content in {**files, "code.py": code}.items():
            assert Path(name).name == name, name
            # Half a surrogate pair, which JSON may hold, has no place in a file.
            (data / name).write_bytes(content.encode("utf-8", "replace"))
        if os.geteuid() == 0:
            for path in (Path(folder), data, *data.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        with (Path(folder) / "out").open("w+b") as out, (Path(folder) / "err").open("w+b") as err:
            process = subprocess.Popen(
                [program, *arguments(data)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={},
                start_new_session=True,
                **_as_nobody(),
            )
            try:
                exit_code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                exit_code = None
            finally:
                # With it dies the first process of the sandbox, and with that all of them.
                process.kill()
                process.wait()
            return Ran(_read(out), _read(err), exit_code)


def arguments(data: Path) -> list[str]:
    """Return bubblewrap's arguments for a program in this folder."""
    made = ["--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"]
    made += ["--clearenv", "--cap-drop", "ALL", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    made += ["--hostname", "sandbox", "--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = Path("/") / name
        if path.is_symlink():
            made += ["--symlink", os.readlink(path), str(path)]
        elif path.exists():
            made += ["--ro-bind", str(path), str(path)]
    made += ["--proc", "/proc", "--dev", "/dev", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"]
    made += ["--ro-bind", str(data), DATA, "--chdir", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/"]
    # The same hashes, and so the same order of a set, in every run.
    for name, value in (("PYTHONHASHSEED", "0"), ("PYTHONDONTWRITEBYTECODE", "1"), ("LC_ALL", "C.UTF-8")):
        made += ["--setenv", name, value]
    return [*made, "--", PYTHON, "-s", "-S", "-c", LAUNCH]


def _as_nobody() -> dict[str, Any]:
    """Return how the superuser becomes nobody first: the number of its processes knows no limit."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _read(file: IO[bytes]) -> str:
    """Return the start and the end of what was said."""
    file.seek(0)
    said = file.read().decode("utf-8", "replace")
    half = OUTPUT_CHARACTERS // 2
    if len(said) <= OUTPUT_CHARACTERS:
        return said
    return f"{said[:half]}\n… {len(said) - 2 * half:,} characters …\n{said[-half:]}"
