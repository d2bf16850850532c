"""Owns the arithmetic of one BatchTopK training step, written out by hand so that nothing large is allocated.

BatchTopK after Bussmann et al. 2024 (arXiv 2412.06410): the k * B largest pre-activations of a batch are
kept. Matryoshka after Bussmann et al. 2025 (arXiv 2503.17547): each of several prefixes of the features must
explain the activations by itself, and the loss is the mean of theirs; an ordinary dictionary has one prefix,
all of it. The auxiliary loss after Gao et al. 2024 (arXiv 2406.04093), section A.2, lets features that have
not fired for long explain what is left. Autograd would keep several [B, F] tensors alive; the gradients
below need two, allocated once.

Legend of shapes: B tokens of a batch, D d_in, F features, A dead features that get the auxiliary loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

# The cap bounds the auxiliary matmuls at a small share of the main ones; the longest dead come first.
MAX_AUX_FEATURES = 256


@dataclass(frozen=True, slots=True)
class Start:
    """A dictionary to go on from, in the units of the scaled activations and with a decoder of unit norm."""

    w_enc_DF: Tensor
    w_dec_FD: Tensor
    b_enc_F: Tensor
    b_dec_D: Tensor
    threshold_F: Tensor
    """Above 0. Activations compete in units of it, so that the features keep their proportions."""


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step saw, before its update."""

    l0: float
    fvu: float  # squared error over squared distance to the batch mean
    dead_share: float
    min_kept: float  # smallest kept activation, in units of its threshold if it has one; inf for none


class BatchTopK:
    """Parameters (float32), their optimiser and the buffers of the step; inputs are already scaled.

    `prefixes` are the rising widths of the Matryoshka's prefixes, the last of which is `width`.
    """

    def __init__(
        self,
        first_BD: Tensor,
        *,
        width: int,
        k: int,
        lr: float,
        seed: int,
        compute: torch.dtype,
        dead_after_tokens: int,
        aux_coefficient: float,
        prefixes: Sequence[int] = (),
        start: Start | None = None,
    ) -> None:
        batch = first_BD.shape[0]
        device = first_BD.device
        self.k, self.compute = k, compute
        self.dead_after_tokens, self.aux_coefficient = dead_after_tokens, aux_coefficient
        self.blocks = list(pairwise([0, *(prefixes or (width,))]))
        assert self.blocks[-1][1] == width and all(first < last for first, last in self.blocks)
        start = start or _random_start(first_BD, width, seed)
        self.w_dec_FD = start.w_dec_FD.to(device, copy=True)
        self.w_enc_DF = start.w_enc_DF.to(device, copy=True)
        self.b_enc_F = start.b_enc_F.to(device, copy=True)
        self.b_dec_D = start.b_dec_D.to(device, copy=True)
        self.threshold_F = start.threshold_F.to(device)
        self.has_thresholds = bool((self.threshold_F != 1.0).any())
        self.silent_F = torch.zeros(width, device=device)  # tokens since the feature last fired
        self.guess = 0.0  # a little below the last cut: narrows the search for the next one
        self.parameters = (self.w_enc_DF, self.w_dec_FD, self.b_enc_F, self.b_dec_D)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimiser = torch.optim.Adam(self.parameters, lr=lr, betas=(0.9, 0.999), fused=True)
        self._act_BF = torch.empty(batch, width, dtype=compute, device=device)
        self._grad_BF = torch.empty(batch, width, dtype=compute, device=device)

    def step(self, x_BD: Tensor, lr: float) -> StepStats:
        """One update on a batch of scaled activations; the batch has the size of the first one."""
        act_BF, compute = self._act_BF, self.compute
        assert x_BD.shape == (act_BF.shape[0], self.b_dec_D.shape[0])
        batch = x_BD.shape[0]
        centred_BD = (x_BD - self.b_dec_D).to(compute)
        w_enc_DF, w_dec_FD = self.w_enc_DF.to(compute), self.w_dec_FD.to(compute)
        torch.addmm(self.b_enc_F.to(compute), centred_BD, w_enc_DF, out=act_BF)
        self.silent_F += batch
        aux_A = self._aux_features()
        aux_pre_BA = act_BF[:, aux_A].relu() if aux_A.numel() else None

        min_kept, num_kept = self._keep_largest(act_BF)
        self.silent_F[act_BF.amax(dim=0) > 0] = 0.0

        errors_BD = self._errors(act_BF, w_dec_FD, x_BD)
        error_BD = errors_BD[-1]
        total = (x_BD - x_BD.mean(0)).square().sum()
        fvu = float(error_BD.square().sum() / total.clamp_min(1e-30))
        self._main_gradients(act_BF, self._slopes(errors_BD), centred_BD, w_dec_FD)
        if aux_pre_BA is not None:
            self._aux_gradients(aux_A, aux_pre_BA, error_BD, centred_BD, w_dec_FD)
        self._update(lr)
        dead_share = float((self.silent_F >= self.dead_after_tokens).float().mean())
        return StepStats(num_kept / batch, fvu, dead_share, min_kept)

    def _errors(self, act_BF: Tensor, w_dec_FD: Tensor, x_BD: Tensor) -> list[Tensor]:
        """What each prefix makes of the activations, less the activations [B, D]."""
        found = [self.b_dec_D - x_BD]
        for first, last in self.blocks:
            found.append(found[-1] + torch.mm(act_BF[:, first:last], w_dec_FD[first:last]).float())
        return found[1:]

    def _slopes(self, errors_BD: Sequence[Tensor]) -> list[Tensor]:
        """The slope of the loss in what each block of features adds [B, D]: it is part of all later prefixes.

        The loss is the mean over prefixes and tokens of half the summed squared error.
        """
        share = 1.0 / (len(errors_BD) * errors_BD[0].shape[0])
        slope_BD, found = torch.zeros_like(errors_BD[0]), []
        for error_BD in reversed(errors_BD):
            slope_BD = slope_BD + share * error_BD
            found.append(slope_BD.to(self.compute))
        return found[::-1]

    def _aux_features(self) -> Tensor:
        if self.aux_coefficient == 0:
            return self.silent_F.new_empty(0, dtype=torch.long)
        num = min(MAX_AUX_FEATURES, int((self.silent_F > self.dead_after_tokens).sum()))
        return self.silent_F.topk(num).indices.sort().values

    def _keep_largest(self, act_BF: Tensor) -> tuple[float, int]:
        """Set all but about the k * B largest activations to zero; return the least kept and their number."""
        if not self.has_thresholds:
            cut, min_kept, num_kept = self._cut(act_BF)
            torch.threshold_(act_BF, cut, 0.0)
            return min_kept, num_kept
        relative_BF = torch.div(act_BF, self.threshold_F.to(act_BF.dtype), out=self._grad_BF)
        cut, min_kept, num_kept = self._cut(relative_BF)
        act_BF.masked_fill_(relative_BF <= cut, 0.0)
        return min_kept, num_kept

    def _cut(self, act_BF: Tensor) -> tuple[float, float, int]:
        """The value above which about k * B activations lie, the smallest of those, and their number."""
        flat = act_BF.view(-1)
        wanted = self.k * act_BF.shape[0]
        candidates = flat[flat > self.guess]
        if candidates.numel() <= wanted and self.guess > 0:
            candidates = flat[flat > 0]
        cut = 0.0
        if candidates.numel() > wanted:
            cut = float(candidates.kthvalue(candidates.numel() - wanted).values)
        self.guess = 0.8 * cut
        kept = candidates[candidates > cut]
        return cut, float(kept.min()) if kept.numel() else float("inf"), kept.numel()

    def _main_gradients(
        self, act_BF: Tensor, slopes_BD: Sequence[Tensor], centred_BD: Tensor, w_dec_FD: Tensor
    ) -> None:
        grad_BF = self._grad_BF
        w_enc, w_dec, b_enc, b_dec = (_grad(parameter) for parameter in self.parameters)
        for (first, last), slope_BD in zip(self.blocks, slopes_BD, strict=True):
            torch.mm(slope_BD, w_dec_FD[first:last].t(), out=grad_BF[:, first:last])
            w_dec[first:last] = torch.mm(act_BF[:, first:last].t(), slope_BD)
        torch.ops.aten.threshold_backward.grad_input(grad_BF, act_BF, 0, grad_input=grad_BF)
        w_enc.copy_(torch.mm(centred_BD.t(), grad_BF))
        b_enc.copy_(grad_BF.sum(0))
        # b_dec enters twice: added after decoding, subtracted before encoding.
        b_dec.copy_(slopes_BD[0].float().sum(0)).sub_(self.w_enc_DF @ b_enc)

    def _aux_gradients(
        self, aux_A: Tensor, act_BA: Tensor, error_BD: Tensor, centred_BD: Tensor, w_dec_FD: Tensor
    ) -> None:
        """Adds the gradients of `aux_coefficient * |residue - act_BA @ w_dec_AD|^2`, the residue fixed."""
        w_dec_AD = w_dec_FD[aux_A]
        slope_BD = torch.mm(act_BA, w_dec_AD).float() + error_BD  # the residue is -error
        slope_BD = (slope_BD * (self.aux_coefficient / error_BD.shape[0])).to(self.compute)
        grad_BA = torch.mm(slope_BD, w_dec_AD.t()) * (act_BA > 0)
        w_enc, w_dec, b_enc, _ = (_grad(parameter) for parameter in self.parameters)
        w_enc.index_add_(1, aux_A, torch.mm(centred_BD.t(), grad_BA).float())
        w_dec.index_add_(0, aux_A, torch.mm(act_BA.t(), slope_BD).float())
        b_enc.index_add_(0, aux_A, grad_BA.float().sum(0))

    def _update(self, lr: float) -> None:
        grad_FD = _grad(self.w_dec_FD)
        # Only the part along the sphere: the rest would be undone by the normalisation and upset Adam.
        along_F1 = (grad_FD * self.w_dec_FD).sum(1, keepdim=True)
        grad_FD.addcmul_(self.w_dec_FD, along_F1, value=-1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.w_dec_FD.div_(self.w_dec_FD.norm(dim=1, keepdim=True).clamp_min(1e-12))


def _random_start(first_BD: Tensor, width: int, seed: int) -> Start:
    """Random directions, the encoder's the decoder's, around the mean of the first batch."""
    generator = torch.Generator().manual_seed(seed)
    w_dec_FD = torch.nn.functional.normalize(
        torch.randn(width, first_BD.shape[1], generator=generator), dim=1
    )
    return Start(
        w_enc_DF=w_dec_FD.t().contiguous(),
        w_dec_FD=w_dec_FD,
        b_enc_F=torch.zeros(width),
        b_dec_D=first_BD.mean(0),
        threshold_F=torch.ones(width),
    )


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
