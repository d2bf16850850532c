"""Owns the approximation of a TopK dictionary by a threshold, and the measure of how far off it is.

One threshold for all features, at which as many fire on average as TopK keeps: what BatchTopK does at
inference (Bussmann et al. 2024, arXiv 2412.06410). It encodes faster than an exact TopK, which must know
every pre-activation; and it is another dictionary, which says so in its config.

Legend of shapes: T tokens, D width of what is read, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ft_audit.errors import DataError, SaeError
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.kernels.jumprelu.naive import pre_activations
from ft_audit.kernels.sparse_rows import SparseRows
from ft_audit.sae.digest import hashed
from ft_audit.sae.jumprelu_sae import JumpReluSae

CHUNK_VALUES = 1 << 24  # dense pre-activations at once
MIN_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How a threshold differs from the TopK it stands for, on tokens that did not set it."""

    topk: int
    threshold: float
    num_tokens: int
    l0_topk: float
    l0_threshold: float
    missed: float
    """Share of TopK's firings that the threshold has not."""
    added: float
    """Share of the threshold's firings that TopK has not."""
    fvu_topk: float
    fvu_threshold: float


def by_threshold(sae: JumpReluSae, x_TD: Tensor) -> tuple[JumpReluSae, Disagreement]:
    """The dictionary with a threshold in the place of its k, and how far off it is on every second token.

    The other tokens set the threshold. Raises SaeError unless it is a TopK dictionary that reconstructs what
    it reads, DataError for fewer than 200 tokens of another width.
    """
    if sae.topk is None or sae.spec.writes:
        raise SaeError(
            f"{sae.spec.name}: only TopK autoencoders are given a threshold; leave --threshold out"
        )
    if x_TD.dim() != 2 or x_TD.shape[1] != sae.spec.d_in or x_TD.shape[0] < MIN_TOKENS:
        raise DataError(
            f"activations of shape {tuple(x_TD.shape)}: expected at least {MIN_TOKENS} rows of "
            f"{sae.spec.d_in} dimensions, taken at {' and '.join(sae.spec.inputs)} without special tokens"
        )
    fitted_TD, held_TD = x_TD[::2].float(), x_TD[1::2].float()
    threshold = _threshold(sae, fitted_TD)
    approximate = hashed(replace(sae, topk=None, threshold_F=torch.full((sae.spec.width,), threshold)))
    exact_rows, rows = (Encoder(each.weights("cpu")).encode(held_TD) for each in (sae, approximate))
    num_common = _num_common(exact_rows, rows)
    found = Disagreement(
        topk=sae.topk,
        threshold=threshold,
        num_tokens=held_TD.shape[0],
        l0_topk=exact_rows.l0,
        l0_threshold=rows.l0,
        missed=1 - num_common / max(exact_rows.num_nonzeros, 1),
        added=1 - num_common / max(rows.num_nonzeros, 1),
        fvu_topk=_fvu(sae, exact_rows, held_TD),
        fvu_threshold=_fvu(approximate, rows, held_TD),
    )
    return approximate, found


def read_activations(path: Path) -> Tensor:
    """The one matrix [T, D] of a .npy or .safetensors file; raises DataError for anything else."""
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False)).float()
        tensors = load_file(path)
    except (OSError, ValueError, TypeError, EOFError, SafetensorError) as error:
        raise DataError(f"{path}: not a readable .npy or .safetensors file ({error})") from error
    if len(tensors) != 1:
        raise DataError(f"{path}: holds {len(tensors)} tensors, expected one [tokens, dimensions]")
    return next(iter(tensors.values())).float()


def _threshold(sae: JumpReluSae, x_TD: Tensor) -> float:
    """The value that k features a token exceed on average, of the pre-activations above 0."""
    assert sae.topk is not None
    weights = sae.weights("cpu", torch.float32)
    largest = torch.empty(0)
    wanted = sae.topk * x_TD.shape[0]
    for chunk_TD in x_TD.split(max(1, CHUNK_VALUES // sae.spec.width)):
        pre_TF = pre_activations(chunk_TD, weights)
        largest = torch.cat([largest, pre_TF[pre_TF > 0]])
        if largest.numel() > wanted + 1:
            largest = largest.topk(wanted + 1).values
    # Strictly above: what comes after the last one that is kept.
    return float(largest.min()) if largest.numel() > wanted else 0.0


def _num_common(a: SparseRows, b: SparseRows) -> int:
    return int(torch.isin(_entries(a), _entries(b)).sum())


def _entries(rows: SparseRows) -> Tensor:
    """Each firing as one number: token and feature."""
    token_N = torch.repeat_interleave(torch.arange(rows.num_rows), rows.indptr_T1.diff())
    return token_N * rows.num_features + rows.index_N


def _fvu(sae: JumpReluSae, rows: SparseRows, x_TD: Tensor) -> float:
    error_T, _ = sae.squared_errors(rows, x_TD, x_TD)
    spread = (x_TD.double() - x_TD.double().mean(0)).square().sum()
    return float(error_T.double().sum() / spread)
