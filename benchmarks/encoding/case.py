"""Owns the inputs of the encode benchmark: residuals, real or synthetic, and a dictionary over them.

Shapes: T tokens, C rows that calibrate, D width of the residual stream, F features, f some of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ft_audit.kernels.jumprelu import JumpReluWeights

CALIBRATION_ROWS = 1024
FEATURES_A_STEP = 8192  # float32 copies of a wide encoder are large
BINS = 4096
MASSIVE_DIMENSIONS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """Activations in bfloat16 and the dictionary they are encoded with; `label` says where both come from."""

    name: str
    label: str
    x_TD: Tensor
    weights: JumpReluWeights

    @property
    def num_rows(self) -> int:
        return self.x_TD.shape[0]


def width_name(width: int) -> str:
    """16384 as `16k`, 65536 as `65k`, the way dictionaries are named."""
    if width >= 1 << 20:
        return f"{width // 1_000_000}m"
    return f"{width // 1000}k" if width >= 1000 else str(width)


def at_least(x_TD: Tensor, num_rows: int) -> Tensor:
    """The first `num_rows` rows, the rows repeated in order where there are fewer."""
    copies = -(-num_rows // x_TD.shape[0])
    return (x_TD if copies == 1 else x_TD.repeat(copies, 1))[:num_rows].contiguous()


def synthetic_residuals(num_rows: int, d_in: int, seed: int = 0) -> Tensor:
    """[T, D] bfloat16: correlated dimensions of unequal size, three of them massive on every token.

    Massive dimensions sit far from zero and vary little beside it, as those of trained models do (Sun et
    al. 2024, arXiv 2402.17762).
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rank = max(1, d_in // 8)
    x_TD: Tensor = normal(num_rows, rank) @ normal(rank, d_in) / rank**0.5 + normal(num_rows, d_in)
    x_TD *= torch.exp(0.5 * normal(d_in))
    massive = torch.randperm(d_in, generator=generator)[:MASSIVE_DIMENSIONS]
    sign = torch.where(normal(len(massive)) > 0, 1.0, -1.0)
    x_TD[:, massive] = sign * (100.0 + 5.0 * normal(num_rows, len(massive)))
    return x_TD.bfloat16()


def draw_dictionary(
    x_TD: Tensor, width: int, l0: float = 60.0, noise: float = 0.5, seed: int = 0
) -> JumpReluWeights:
    """A stand-in for a trained dictionary: directions between pairs of residuals, firing `l0` times a token.

    Each direction is the normalised difference of two random rows plus `noise` of its length. Biases centre
    the pre-activations; a threshold is as many of its feature's standard deviations as all others', the
    number at which the rows that calibrate average `l0` firings. For speed alone: it explains nothing.
    """
    device, num_rows = x_TD.device, x_TD.shape[0]
    generator = torch.Generator().manual_seed(seed)
    w_enc_DF = torch.empty(x_TD.shape[1], width, dtype=torch.bfloat16, device=device)
    for start in range(0, width, FEATURES_A_STEP):
        stop = min(start + FEATURES_A_STEP, width)
        first_f = torch.randint(num_rows, (stop - start,), generator=generator)
        apart_f = torch.randint(1, num_rows, (stop - start,), generator=generator)
        second_f = (first_f + apart_f) % num_rows
        way_fD = _unit(x_TD[second_f.to(device)].float() - x_TD[first_f.to(device)].float())
        aside_fD = _unit(torch.randn(way_fD.shape, generator=generator)).to(device)
        w_enc_DF[:, start:stop] = _unit(way_fD + noise * aside_fD).t()
    mean_F, deviation_F, cut = _calibrate(x_TD[:: max(1, num_rows // CALIBRATION_ROWS)], w_enc_DF, l0)
    return JumpReluWeights(w_enc_DF, -mean_F, cut * deviation_F, None)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)
    return unit


def _calibrate(x_CD: Tensor, w_enc_DF: Tensor, l0: float) -> tuple[Tensor, Tensor, float]:
    """Mean and deviation of every pre-activation, and how many deviations above it `l0` of them lie."""
    width = w_enc_DF.shape[1]
    mean_F, deviation_F = (torch.empty(width, device=x_CD.device) for _ in range(2))
    counts = torch.zeros(BINS, dtype=torch.float64)
    largest = 16.0
    for start in range(0, width, FEATURES_A_STEP):
        part = slice(start, start + FEATURES_A_STEP)
        pre_Cf = x_CD.float() @ w_enc_DF[:, part].float()
        deviation_f, mean_f = torch.std_mean(pre_Cf, dim=0)
        mean_F[part], deviation_F[part] = mean_f, deviation_f.clamp_min(1e-6)
        above = ((pre_Cf - mean_f) / deviation_F[part]).clamp(0.0, largest)
        counts += torch.histc(above, BINS, 0.0, largest).double().cpu()
    above_bin = (
        counts.flip(0).cumsum(0).flip(0) / x_CD.shape[0]
    )  # firings a token with a cut at the bin's left
    chosen = int((above_bin >= l0).sum())
    return mean_F, deviation_F, largest * chosen / BINS
