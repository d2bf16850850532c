"""Processes in which a candidate's files may do what they like: their time and memory end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, Self

CHILD = Path(__file__).with_name("apart_child.py")
# All that a library may know of this one's surroundings.
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
SETTINGS = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
# A processor's time is what is limited; a process that waits for its turn may take longer, but not for ever.
WALL_TIMES, WALL_SECONDS = 10, 60
ANSWER_BYTES = 1 << 28


class Overrun(Exception):
    """A process that was ended, or failed; its text says what it did, to stand behind "doing this"."""


class Apart:
    """One process of `apart_child`, started by the first question and ended with the block, or with this."""

    def __init__(self, kind: str, num_bytes: int) -> None:
        """Take what it can do ("tokenizer", "match" or "render") and how much memory it gets for it."""
        self._arguments = [kind, str(num_bytes)]
        self._num_bytes = num_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer, for which the process gets so many seconds of a processor's time.

        Raises:
            Overrun: it took more time or memory, or an exception ended it.
        """
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(WALL_TIMES * seconds + WALL_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps({**question, "seconds": seconds}).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline(ANSWER_BYTES)
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            raise Overrun(self._why(process, seconds))
        answer: dict[str, Any] = json.loads(line)
        if "memory" in answer:
            raise Overrun(f"takes more than {self._num_bytes / 2**30:g} GiB of memory")
        if "failed" in answer:
            raise Overrun(f"fails ({answer['failed']})")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            surroundings = {name: os.environ[name] for name in KEPT if name in os.environ}
            # By its path and isolated: it sees the installed libraries, and nothing of this package.
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(CHILD), *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**surroundings, **SETTINGS},
            )
            weakref.finalize(self, _end, self._process)
        return self._process

    def _why(self, process: subprocess.Popen[bytes], seconds: float) -> str:
        process.kill()
        code = process.wait()
        self.close()
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return f"takes more than {seconds:g} s"
        return f"takes more than {self._num_bytes / 2**30:g} GiB of memory, or crashes (code {code})"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # the end of a question that nobody reads
                pipe.close()
    process.wait()
