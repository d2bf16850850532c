"""Owns the report card: how well a stored dictionary describes activations it was not trained on.

Legend of shapes: n tokens of a chunk, N non-zeros, D d_model, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ft_audit.errors import DataError
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae.jumprelu_sae import JumpReluSae

# Upper edges of the density histogram: the share of tokens on which a feature fires.
DENSITY_EDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CHUNK_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class ReportCard:
    """Figures over held-out tokens."""

    num_tokens: int
    l0: float  # mean features per token
    fvu: float  # squared error over squared distance to the mean
    cosine: float  # mean cosine of a token and its reconstruction, both centred on the mean
    dead_share: float  # features that fired on no held-out token
    density: dict[
        str, int
    ]  # "<=edge" -> features whose firing rate lies there, "0" for those that never fire


def report_card(sae: JumpReluSae, activations: Iterator[Tensor], backend: str = "auto") -> ReportCard:
    """The card of `sae` over chunks [n, D] of activations; raises DataError when there are none."""
    encoder: Encoder | None = None
    fired_F = torch.zeros(sae.spec.width, dtype=torch.int64)
    num_tokens, num_active, error = 0, 0, 0.0
    sum_D = torch.zeros(sae.spec.d_in, dtype=torch.float64)
    sum_squares = 0.0
    cosines: list[Tensor] = []
    for chunk in activations:
        if encoder is None:
            encoder = Encoder(sae.weights(chunk.device), backend, max_rows=CHUNK_TOKENS)
        for x_nD in chunk.float().split(CHUNK_TOKENS):
            rows = encoder.encode(x_nD)
            decoded_nD = sae.decode(rows)
            error += float((decoded_nD - x_nD).double().square().sum())
            sum_D += x_nD.double().sum(0).cpu()
            sum_squares += float(x_nD.double().square().sum())
            b_dec_D = sae.b_dec_D.to(x_nD.device)
            cosines.append(torch.cosine_similarity(decoded_nD - b_dec_D, x_nD - b_dec_D).cpu())
            fired_F += torch.bincount(rows.index_N.long().cpu(), minlength=sae.spec.width)
            num_tokens += x_nD.shape[0]
            num_active += rows.num_nonzeros
    if num_tokens == 0:
        raise DataError("no held-out tokens: the report card needs some; raise num_tokens or holdout")
    total = sum_squares - float(sum_D.square().sum()) / num_tokens
    if total <= 0:
        raise DataError(
            f"the {num_tokens} held-out activations are all equal; check the suites and the layer"
        )
    return ReportCard(
        num_tokens=num_tokens,
        l0=num_active / num_tokens,
        fvu=error / total,
        cosine=float(torch.cat(cosines).mean()),
        dead_share=int((fired_F == 0).sum()) / sae.spec.width,
        density=_histogram(fired_F, num_tokens),
    )


def _histogram(fired_F: Tensor, num_tokens: int) -> dict[str, int]:
    rate_F = fired_F.double() / num_tokens
    counts = {"0": int((fired_F == 0).sum())}
    lower = 0.0
    for edge in DENSITY_EDGES:
        counts[f"<={edge:g}"] = int(((rate_F > lower) & (rate_F <= edge)).sum())
        lower = edge
    return counts
