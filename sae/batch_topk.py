"""Owns the arithmetic of one BatchTopK training step, written out by hand so that nothing large is allocated.

BatchTopK after Bussmann et al. 2024 (arXiv 2412.06410): the k * B largest pre-activations of a batch are
kept. The auxiliary loss after Gao et al. 2024 (arXiv 2406.04093), section A.2, lets features that have
not fired for long explain what is left. Autograd would keep several [B, F] tensors alive; the gradients
below need two, allocated once.

Legend of shapes: B tokens of a batch, D d_model, F features, A dead features that get the auxiliary loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The cap bounds the auxiliary matmuls at a small share of the main ones; the longest dead come first.
MAX_AUX_FEATURES = 256


@dataclass(frozen=True, slots=True)
class StepStats:
    """What one step saw, before its update."""

    l0: float
    fvu: float  # squared error over squared distance to the batch mean
    dead_share: float
    min_kept: float  # smallest kept activation; inf when nothing was kept


class BatchTopK:
    """Parameters (float32), their optimiser and the buffers of the step; inputs are already scaled."""

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
    ) -> None:
        batch, d_in = first_BD.shape
        device = first_BD.device
        self.k, self.compute = k, compute
        self.dead_after_tokens, self.aux_coefficient = dead_after_tokens, aux_coefficient
        generator = torch.Generator().manual_seed(seed)
        w_dec_FD = torch.nn.functional.normalize(torch.randn(width, d_in, generator=generator), dim=1)
        self.w_dec_FD = w_dec_FD.to(device)
        self.w_enc_DF = self.w_dec_FD.t().contiguous()
        self.b_enc_F = torch.zeros(width, device=device)
        self.b_dec_D = first_BD.mean(0)
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

        cut, min_kept, num_kept = self._cut(act_BF)
        torch.threshold_(act_BF, cut, 0.0)
        self.silent_F[act_BF.amax(dim=0) > 0] = 0.0

        error_BD = torch.mm(act_BF, w_dec_FD).float() + self.b_dec_D - x_BD
        total = (x_BD - x_BD.mean(0)).square().sum()
        fvu = float(error_BD.square().sum() / total.clamp_min(1e-30))
        # The mean over tokens of the summed squared error; its factor 2 is left to the learning rate.
        slope_BD = (error_BD / batch).to(compute)
        self._main_gradients(act_BF, slope_BD, centred_BD, w_dec_FD)
        if aux_pre_BA is not None:
            self._aux_gradients(aux_A, aux_pre_BA, error_BD, centred_BD, w_dec_FD)
        self._update(lr)
        dead_share = float((self.silent_F >= self.dead_after_tokens).float().mean())
        return StepStats(num_kept / batch, fvu, dead_share, min_kept)

    def _aux_features(self) -> Tensor:
        if self.aux_coefficient == 0:
            return self.silent_F.new_empty(0, dtype=torch.long)
        num = min(MAX_AUX_FEATURES, int((self.silent_F > self.dead_after_tokens).sum()))
        return self.silent_F.topk(num).indices.sort().values

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

    def _main_gradients(self, act_BF: Tensor, slope_BD: Tensor, centred_BD: Tensor, w_dec_FD: Tensor) -> None:
        grad_BF = self._grad_BF
        torch.mm(slope_BD, w_dec_FD.t(), out=grad_BF)
        torch.ops.aten.threshold_backward.grad_input(grad_BF, act_BF, 0, grad_input=grad_BF)
        w_enc, w_dec, b_enc, b_dec = (_grad(parameter) for parameter in self.parameters)
        w_enc.copy_(torch.mm(centred_BD.t(), grad_BF))
        w_dec.copy_(torch.mm(act_BF.t(), slope_BD))
        b_enc.copy_(grad_BF.sum(0))
        # b_dec enters twice: added after decoding, subtracted before encoding.
        b_dec.copy_(slope_BD.float().sum(0)).sub_(self.w_enc_DF @ b_enc)

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


def _grad(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
