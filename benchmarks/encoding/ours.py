"""Owns the ways of this package's own encoder that the encode benchmark runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ft_audit.benchmarks.encoding.way import Way, WayMissing, read_rows
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights
from ft_audit.kernels.jumprelu.cpu import CpuEncoder
from ft_audit.kernels.jumprelu.cpu_screens import int8_is_exact
from ft_audit.kernels.sparse_rows import SparseRows

if TYPE_CHECKING:
    from ft_audit.kernels.jumprelu.triton_plans import Plan

DEFAULT = "ours"
NAIVE = f"{DEFAULT}/naive"
# Every precision that CpuEncoder screens in.
SCREENINGS = {
    f"{DEFAULT}/cpu-{name}": getattr(torch, name) for name in ("int8", "bfloat16", "float32")
}  # fmt: skip
CPU_BLOCK = 1024
NAIVE_WIDEST = 16_384  # beyond, the plain formula only takes time


def names(device: torch.device, width: int, *, every_plan: bool = False) -> list[str]:
    """The names of our ways on `device`; on a GPU one plan of each kind, or all that tuning tries."""
    explicit = list(SCREENINGS) if device.type == "cpu" else list(_plans(every_plan=every_plan))
    return [DEFAULT, *explicit, *([NAIVE] if width <= NAIVE_WIDEST else [])]


def build(name: str, weights: JumpReluWeights) -> Way:
    """The way called `name`: `auto`'s choice, or one path; raises WayMissing where it cannot run."""
    if name in SCREENINGS:
        return _cpu(name, weights)
    if name in (DEFAULT, NAIVE):
        encoder = Encoder(weights, "auto" if name == DEFAULT else "naive")
        return Way(name, "ours", encoder.encode, read_rows, describe=encoder.describe)
    return _triton(name, weights)


def _cpu(name: str, weights: JumpReluWeights) -> Way:
    screening = SCREENINGS[name]
    if screening == torch.int8 and not int8_is_exact():
        raise WayMissing("torch multiplies no eight-bit integers exactly on this processor")
    encoder = CpuEncoder(weights, CPU_BLOCK, screening)

    def encode(x_TD: Tensor) -> SparseRows:
        return SparseRows.concatenate([encoder.encode(x_BD) for x_BD in x_TD.split(CPU_BLOCK)])

    return Way(name, "ours", encode, read_rows)


def _plans(*, every_plan: bool) -> dict[str, Plan]:
    """Triton plans by name: the first fused one and the first of the vendor's product, or all."""
    from ft_audit.kernels.jumprelu.triton_plans import CANDIDATES

    named: dict[str, Plan] = {}
    kinds: set[type] = set()
    for number, plan in enumerate(CANDIDATES):
        if every_plan or type(plan) not in kinds:
            kinds.add(type(plan))
            named[f"{DEFAULT}/triton-{number}-{str(plan).replace(' ', '-')}"] = plan
    return named


def _triton(name: str, weights: JumpReluWeights) -> Way:
    from triton.runtime.errors import OutOfResources

    from ft_audit.kernels.jumprelu.triton_encoder import TritonEncoder

    plan = _plans(every_plan=True)[name]
    encoder = TritonEncoder(weights, plan=plan)

    def encode(x_TD: Tensor) -> SparseRows:
        try:
            return SparseRows.concatenate([encoder.encode(x_BD) for x_BD in x_TD.split(encoder.max_rows)])
        except OutOfResources as error:
            raise WayMissing(f"{plan} does not fit this GPU: {error}") from error

    return Way(name, "ours", encode, read_rows)
