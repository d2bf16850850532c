"""The loops that precompute is compared with: the one that people write, and the bare forward.

Shapes: B prompts of a batch, L padded positions.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ft_audit.benchmarks.corpus_job import Part
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.tokens.padded import pad_batch
from ft_audit.sae.jumprelu_sae import JumpReluSae

PLAIN_BATCH = 16


def plain_batches(part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and attention mask [B, L] in the data set's order, PLAIN_BATCH prompts at a time."""
    starts = part.tokens.indptr_P1
    for first in range(0, len(part.lengths_P), PLAIN_BATCH):
        rows = [
            torch.from_numpy(part.tokens.ids_T[starts[p] : starts[p + 1]].astype(np.int64))
            for p in range(first, min(first + PLAIN_BATCH, len(part.lengths_P)))
        ]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
        yield ids, mask


def sorted_batches(part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and attention mask [B, L] of our length-sorted batches."""
    for batch in (b for segment in part.plan.segments for b in segment):
        padded = pad_batch(part.tokens, batch, 0)
        mask = torch.zeros_like(padded.ids_BL)
        mask[padded.row_T, padded.position_T] = 1
        yield padded.ids_BL, mask


@torch.inference_mode()
def plain_loop(
    sae: JumpReluSae, batches: Iterator[tuple[Tensor, Tensor]], out: Path, model: PreTrainedModel
) -> None:
    """The loop people write: full model with head, all hidden states, dense encode, nonzero, torch.save."""
    layer = sae.spec.layer
    dtype = next(model.parameters()).dtype
    w_enc, b_enc, threshold = (t.to(dtype) for t in (sae.w_enc_DF, sae.b_enc_F, sae.threshold_F))
    for number, (ids, mask) in enumerate(batches):
        hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer + 1]
        x = hidden[mask.bool()]
        pre = x @ w_enc + b_enc
        acts = torch.relu(pre) * (pre > threshold)
        where = acts.nonzero()
        torch.save({"where": where, "value": acts[where[:, 0], where[:, 1]]}, out / f"{number}.pt")


def bare_forward(layer: int, part: Part, model: PreTrainedModel) -> None:
    """The truncated forward alone, without hooks, over our batches."""
    runner = HfRunner(model, [HookPoint(layer)])
    for batch in (b for segment in part.plan.segments for b in segment):
        runner.run_bare(pad_batch(part.tokens, batch, 0))
