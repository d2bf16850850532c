"""Owns the list of the encode benchmark's ways on a device, and how one is built by its name."""

import torch

from ft_audit.benchmarks.encoding import ours, torch_pipeline
from ft_audit.benchmarks.encoding.peers import CUDA_PEERS, PEERS
from ft_audit.benchmarks.encoding.way import Operands, Way

# Peers write float32 [rows, F] several times over; more rows than this a call only cost them page faults.
CPU_CHUNK_ELEMENTS, CUDA_CHUNK_ELEMENTS = 1 << 26, 1 << 30


def way_names(device: torch.device, num_rows: int, width: int, *, every_plan: bool = False) -> list[str]:
    """Every way's name: ours, the peers, torch's pipeline in its variants, the bare product in its."""
    peers = [*PEERS, *(CUDA_PEERS if device.type == "cuda" else [])]
    return [
        *ours.names(device, width, every_plan=every_plan),
        *peers,
        *torch_pipeline.pipeline_names(device, num_rows, width),
        *torch_pipeline.gemm_names(device, num_rows, width),
    ]


def build_way(name: str, operands: Operands, chunk: int, k: int) -> Way:
    """The way called `name`, `chunk` rows a call and `k` for those that keep the k largest.

    Raises WayMissing where it cannot run.
    """
    if name.startswith(ours.DEFAULT):
        return ours.build(name, operands.weights)
    peers = PEERS | CUDA_PEERS
    return peers[name](operands, chunk, k) if name in peers else torch_pipeline.build(name, operands)


def chunk_rows(device: torch.device, num_rows: int, width: int) -> int:
    """How many rows a call of a peer takes."""
    elements = CUDA_CHUNK_ELEMENTS if device.type == "cuda" else CPU_CHUNK_ELEMENTS
    return max(1, min(num_rows, elements // width))
