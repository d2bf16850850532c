"""vLLM in a process of its own: started, asked and stopped from here, where it is never imported."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Self

from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.vllm.messages import Ask, Done, Failed, Ready, Sampling, Start
from ft_audit.engine.runners.vllm.support import OTHER_RUNNER
from ft_audit.errors import MissingExtraError, ModelError

# More than this many prompts are never in work at once; each may leave a block of the cache half empty.
MAX_PROMPTS = 128
STOP_SECONDS = 20
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    # See server.py: one process, which steps only when we ask.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # The one token after the longest prompt is sampled, never read.
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    # Several jobs on one machine would all be bound to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "PYTHONWARNINGS": "ignore",
}
# Triton's interpreter is no device; a cache's size given for another engine would overrule ours.
NOT_HANDED_ON = ("TRITON_INTERPRET", "VLLM_CPU_KVCACHE_SPACE")


def require_vllm() -> None:
    """Raise MissingExtraError unless vLLM is installed here."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtraError(
            "precompute.runner: vllm needs vLLM, which pins its own torch: beside a GPU pip install "
            "'ft-audit[vllm]' in an environment of its own; without one, make test-vllm makes .venv-vllm"
        )


def vllm_version() -> str:
    """Return the installed vLLM's name and version, under whichever name it was distributed.

    Raises MissingExtraError where there is none.
    """
    require_vllm()
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    raise AssertionError("vLLM can be imported, so some distribution brought it")


class VllmEngine:
    """A running vLLM engine; close it, or use it in a `with`.

    What shares a step, and with it every last bit, depends on the requests of a call alone.

    Raises:
        MissingExtraError: no vLLM here.
        ModelError: a model that vLLM cannot run, or from which it cannot extract.
    """

    def __init__(
        self,
        source: ModelSource,
        arguments: Mapping[str, Any],
        ids: Sequence[int] = (),
        *,
        threads: int | None = None,
    ) -> None:
        require_vllm()
        self.source = source
        self.scratch = _scratch_folder()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the engine
        self._pipe, other = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__name__.rpartition('.')[0]}.server", str(other.fileno())],
            env=_environment(threads),
            pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        other.close()
        try:
            self._pipe.send(Start(dict(arguments), tuple(ids), str(self.scratch)))
            ready = self._receive()
        except BaseException:
            self.close()
            raise
        assert isinstance(ready, Ready), ready
        self.config = ready.config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM's process and remove its files; a second call does nothing."""
        self._pipe.close()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def ask(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling], adapter: Path | None = None
    ) -> Iterator[Done]:
        """Yield each prompt's outcome, in the order in which they finish; all of them are to be taken.

        Raises:
            ModelError: vLLM failed or was killed.
        """
        assert not self._pipe.closed, "the engine is closed"
        path = None if adapter is None else str(adapter)
        try:
            self._pipe.send(Ask([list(ids) for ids in prompts], list(sampling), path))
            for _ in prompts:
                done = self._receive()
                assert isinstance(done, Done), done
                yield done
        except BaseException:
            # What is still on its way would be taken for the next call's.
            self.close()
            raise

    def _receive(self) -> Any:
        """Return vLLM's next message."""
        try:
            message = self._pipe.recv()
        except (EOFError, OSError) as error:
            code = self.process.wait()
            raise ModelError(
                f"model {self.source.ref!r}: vLLM's process ended with code {code}: {self._last_words()}; "
                f"see that there is enough memory, lower precompute.tokens_per_batch, or {OTHER_RUNNER}"
            ) from error
        if isinstance(message, Failed):
            raise ModelError(f"model {self.source.ref!r}: {message.what}: {OTHER_RUNNER}")
        return message

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _environment(threads: int | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in NOT_HANDED_ON}
    return {**kept, **ENVIRONMENT, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}


def _scratch_folder() -> Path:
    """Return a new folder for states on their way from vLLM's process to ours, in memory where it can be."""
    memory = Path("/dev/shm")
    inside = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="ft-audit-vllm-", dir=inside))
