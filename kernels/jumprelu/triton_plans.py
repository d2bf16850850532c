"""Owns the choice of path and tiles: a committed table, so that no result depends on a race of timings.

Nothing in it has been timed yet: `measured` is False in every row, and `triton_tune.tune` makes the rows to
replace them with. What the compiler says of a tile stands beside it where it decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """Product and selection in one program of `rows` x `features` tiles, `depth` of d_model at a time."""

    rows: int
    features: int
    depth: int
    num_warps: int
    num_stages: int
    programs_a_core: int = 1
    """How many programs one multiprocessor holds: one selects while another multiplies."""

    def __str__(self) -> str:
        return f"fused {self.rows}x{self.features}x{self.depth}"


@dataclass(frozen=True, slots=True)
class MatmulPlan:
    """The vendor's product of `rows` x `features` at a time, which stays in the L2 cache, then selection."""

    rows: int
    features: int

    def __str__(self) -> str:
        return f"matmul {self.rows}x{self.features}"


Plan = FusedPlan | MatmulPlan


class Row(NamedTuple):
    """The plan for one kind of device and shape; a shape between rows takes the nearest."""

    capability: tuple[int, int]
    dtype: str  # of the product: "bfloat16", or "float32" when either operand is
    d_in: int
    width: int
    plan: Plan
    measured: bool


# Two programs of 128x128 fit a Hopper core (98,304 bytes of shared memory and 255 registers a thread each):
# one's selection hides behind the other's product. 128x256 fits once, and nothing hides its selection.
HOPPER = FusedPlan(128, 128, 64, num_warps=4, num_stages=3, programs_a_core=2)
# With four warps, mma.sync spills the accumulators; eight, at 255 registers a thread, fill the core.
AMPERE = FusedPlan(128, 128, 32, num_warps=8, num_stages=4)
FLOAT32 = FusedPlan(128, 64, 32, num_warps=8, num_stages=3)

TABLE = (
    Row((8, 0), "bfloat16", 1152, 16384, AMPERE, measured=False),
    Row((8, 0), "float32", 1152, 16384, FLOAT32, measured=False),
    Row((9, 0), "bfloat16", 1152, 16384, HOPPER, measured=False),
    Row((9, 0), "float32", 1152, 16384, FLOAT32, measured=False),
)
# Few, large operations: each costs the interpreter the same.
INTERPRETED = FusedPlan(256, 512, 64, num_warps=4, num_stages=1)

# What tune() times; rows and features of a matmul block are whole waves of 128x256 tiles on 132 cores.
CANDIDATES: tuple[Plan, ...] = (
    HOPPER,
    FusedPlan(128, 128, 64, num_warps=4, num_stages=4),
    FusedPlan(128, 128, 64, num_warps=8, num_stages=4),
    FusedPlan(128, 256, 64, num_warps=8, num_stages=3),
    FusedPlan(128, 256, 64, num_warps=8, num_stages=4),
    FusedPlan(256, 128, 64, num_warps=8, num_stages=3),
    FusedPlan(256, 128, 64, num_warps=8, num_stages=4),
    FusedPlan(64, 256, 64, num_warps=4, num_stages=2, programs_a_core=2),
    AMPERE,
    FLOAT32,
    MatmulPlan(1536, 2816),
    MatmulPlan(1536, 4096),
    MatmulPlan(3072, 2048),
)


def choose_plan(device: torch.device, d_in: int, width: int, dtype: str) -> Plan:
    """The table's row for the newest device that is not newer than this one, and then the nearest shape."""
    if device.type != "cuda":
        return INTERPRETED
    have = torch.cuda.get_device_capability(device)
    return nearest_row(TABLE, have, d_in, width, dtype).plan


def nearest_row(table: tuple[Row, ...], have: tuple[int, int], d_in: int, width: int, dtype: str) -> Row:
    """The row that fits best; older devices than any in the table take the oldest's."""
    rows = [row for row in table if row.dtype == dtype]
    known = {row.capability for row in rows}
    capability = max((each for each in known if each <= have), default=min(known))

    def distance(row: Row) -> float:
        return abs(math.log(row.d_in / d_in)) + abs(math.log(row.width / width))

    return min((row for row in rows if row.capability == capability), key=distance)
