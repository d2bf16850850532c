"""Owns the timing: ways take turns, round after round, so that a noisy machine hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one way, one call a round."""

    seconds: tuple[float, ...]

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def wait(device: torch.device) -> None:
    """Return once the device has done all it was given; at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def race(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warm_ups: int = 1
) -> dict[str, Times]:
    """The seconds of every call in `rounds` rounds; each round starts with another one.

    The first `warm_ups` rounds are not counted. What a call returns is dropped before the next begins.
    """
    assert rounds > 0
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_ups, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wait(device)
            started = time.perf_counter()
            calls[name]()
            wait(device)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: Times(tuple(spent)) for name, spent in seconds.items()}
