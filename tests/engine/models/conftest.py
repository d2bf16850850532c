"""What a refusal may cost: a test that takes more fails, and neither hangs nor fills the machine."""

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.errors import ModelError

SECONDS = 60
NUM_BYTES = 2 << 30
Refusal = Callable[[Path], str]


@pytest.fixture
def bounded() -> Iterator[None]:
    """Give the test a minute, and 2 GiB more than are in use where the system says how much that is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before, (soft, hard) = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + NUM_BYTES, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="session")
def trusted(tiny_base: Path) -> ModelSource:
    """The tiny base, as what candidates are held against."""
    return resolve_model(str(tiny_base), tiny_base)


@pytest.fixture
def refusal(trusted: ModelSource) -> Refusal:
    """Return what is said of a folder that is refused as a candidate before anything of it is loaded."""

    def refuse(folder: Path) -> str:
        with pytest.raises(ModelError) as said:
            resolve_model(str(folder), folder, trusted)
        assert repr(str(folder)) in str(said.value)
        return str(said.value)

    return refuse
