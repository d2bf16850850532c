"""Where a job's time goes: seconds by part of the work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

Part = Literal["forward", "encode", "evidence", "pair", "read", "wait"]


@dataclass(slots=True)
class Clock:
    """Seconds spent in each part of the job; the device is waited for at each boundary."""

    forward: float = 0.0
    encode: float = 0.0
    evidence: float = 0.0
    pair: float = 0.0
    read: float = 0.0
    """Reading the base's activations back from the store."""
    wait: float = 0.0
    """Nothing computed: waiting for the next batch's ids, or for the segment before to be written."""

    def add(self, other: "Clock") -> None:
        """Add another clock's seconds to this one's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @contextmanager
    def time(self, part: Part, device: torch.device | None = None) -> Iterator[None]:
        """Count the block's seconds to one part."""
        started = time.perf_counter()
        yield
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        setattr(self, part, getattr(self, part) + time.perf_counter() - started)
