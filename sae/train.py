"""Owns the training of a dictionary: BatchTopK over a stream of activations, exported as JumpReLU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ft_audit.errors import DataError
from ft_audit.kernels.cpu_precision import fastest_matmul_dtype
from ft_audit.sae.batch_topk import BatchTopK, StepStats
from ft_audit.sae.checkpoint import read_checkpoint, write_checkpoint
from ft_audit.sae.export import export_jumprelu, training_start
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.recipe import SaeTrainRecipe

WARMUP_SHARE = 0.02  # of the steps, learning rate rising
DECAY_SHARE = 0.25  # of the steps, learning rate falling to zero
# A stream may end a little early, because tokens with massive activations are left out of it.
MIN_SHARE_OF_STEPS = 0.9


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Where the training stands after a step; the figures are None while it finds its place again."""

    step: int
    num_steps: int
    num_tokens: int
    tokens_per_second: float  # since the first batch came, waiting for activations included
    seconds_left: float
    stats: StepStats | None


@dataclass(frozen=True, slots=True)
class TrainedSae:
    """The exported dictionary and what the training of it did."""

    sae: JumpReluSae
    num_tokens: int
    num_steps: int
    scale: float  # activations were multiplied by it in training; already folded into the tensors
    seconds: float


def train_batch_topk(
    activations: Iterator[Tensor],
    recipe: SaeTrainRecipe,
    progress: Callable[[TrainProgress], None],
    checkpoint: Path | None = None,
    start: JumpReluSae | None = None,
) -> TrainedSae:
    """Trains on batches [recipe.batch, D] (float32, shuffled, special tokens gone) and exports.

    With `start`, training goes on from that dictionary instead of random directions; its features then
    compete in units of their thresholds, which are scaled together in the end.

    With `checkpoint`, the state is written there every `checkpoint_every_tokens` and an interrupted
    training of the same recipe goes on from it: the batches already seen are drawn again and passed over,
    so the iterator must be deterministic. Raises DataError when the stream ends early.
    """
    called = time.perf_counter()
    first_BD = next(activations, None)
    started = time.perf_counter()
    if first_BD is None:
        raise DataError(f"the suites {recipe.suites} gave no full batch of {recipe.batch} tokens; add text")
    scale = _scale(first_BD)
    model = BatchTopK(
        first_BD * scale,
        width=recipe.width,
        k=recipe.k,
        lr=recipe.lr,
        seed=recipe.seed,
        compute=compute_dtype(recipe.compute, first_BD.device),
        dead_after_tokens=recipe.dead_after_tokens,
        aux_coefficient=recipe.aux_coefficient,
        prefixes=[*recipe.prefixes, recipe.width],
        start=training_start(start, scale) if start is not None else None,
    )
    step, threshold = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        step, threshold = read_checkpoint(checkpoint, recipe.sha256, model)
    resumed_at = step
    steps_a_checkpoint = max(1, recipe.checkpoint_every_tokens // recipe.batch)
    for position, x_BD in enumerate(_chain(first_BD, activations)):
        if position == recipe.num_steps:
            break
        if position < resumed_at:
            progress(_progress(recipe, position + 1, started, None))
            continue
        stats = model.step(x_BD * scale, _learning_rate(recipe, step))
        threshold = _average(threshold, stats.min_kept, step)
        step += 1
        if checkpoint is not None and step % steps_a_checkpoint == 0 and step < recipe.num_steps:
            write_checkpoint(checkpoint, recipe.sha256, model, step, threshold)
        progress(_progress(recipe, step, started, stats))
    if step < MIN_SHARE_OF_STEPS * recipe.num_steps:
        raise DataError(
            f"the suites {recipe.suites} gave {step * recipe.batch} training tokens, "
            f"num_tokens={recipe.num_tokens} needs {recipe.num_steps * recipe.batch}; "
            f"lower num_tokens or add text"
        )
    sae = export_jumprelu(
        w_enc_DF=model.w_enc_DF,
        w_dec_FD=model.w_dec_FD,
        b_enc_F=model.b_enc_F,
        b_dec_D=model.b_dec_D,
        scale=scale,
        threshold_F=threshold * model.threshold_F,
        dtype=torch.bfloat16 if recipe.export == "bfloat16" else torch.float32,
        name=recipe.name,
        layer=recipe.layer,
        site=recipe.site,
        model_name=recipe.model,
        l0=float(recipe.k),
        pair=recipe.pair,
    )
    return TrainedSae(sae, step * recipe.batch, step, scale, time.perf_counter() - called)


def _progress(recipe: SaeTrainRecipe, step: int, started: float, stats: StepStats | None) -> TrainProgress:
    rate = step / (time.perf_counter() - started)
    return TrainProgress(
        step=step,
        num_steps=recipe.num_steps,
        num_tokens=step * recipe.batch,
        tokens_per_second=rate * recipe.batch,
        seconds_left=(recipe.num_steps - step) / rate,
        stats=stats,
    )


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision of the training matmuls: `auto` is bfloat16 where the hardware multiplies it."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    return fastest_matmul_dtype() if device.type == "cpu" else torch.bfloat16


def _scale(x_BD: Tensor) -> float:
    """Brings the mean square of a centred coordinate to 1, whatever the offset of the stream."""
    return float((x_BD - x_BD.mean(0)).square().mean().clamp_min(1e-30).rsqrt())


def _learning_rate(recipe: SaeTrainRecipe, step: int) -> float:
    rising = (step + 1) / max(1.0, WARMUP_SHARE * recipe.num_steps)
    falling = (recipe.num_steps - step) / max(1.0, DECAY_SHARE * recipe.num_steps)
    return recipe.lr * min(1.0, rising, falling)


def _average(threshold: float, min_kept: float, step: int) -> float:
    """A running mean of the smallest kept activation; early steps are forgotten faster."""
    if min_kept == float("inf"):
        return threshold
    keep = min(0.99, step / (10.0 + step))
    return keep * threshold + (1.0 - keep) * min_kept


def _chain(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest
