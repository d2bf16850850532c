"""What one batch of prompts leaves behind: sparse features and per-prompt residual evidence.

Shapes: P prompts of the batch, T real tokens of the batch, K tokens of them that statistics count, D width
of the residual stream, F features, N non-zeros.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.runners.residuals import ResidualRunner
from ft_audit.engine.store import SegmentData
from ft_audit.engine.store.segment import FeatureRows
from ft_audit.engine.tokens.batches import Batch
from ft_audit.engine.tokens.padded import PaddedBatch, pad_batch
from ft_audit.engine.tokens.tokenize import TokenizedSuite
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae.jumprelu_sae import JumpReluSae

# A token this many times the median norm is an attention sink and holds no content: SmolLM2's first token has
# 150 times (Sun et al. 2024, Massive Activations in Large Language Models). Training can make further ones.
MASSIVE = 10.0


@dataclass(frozen=True, slots=True)
class Reader:
    """One dictionary at one hook, with its encoder."""

    sae: JumpReluSae
    encoder: Encoder


@dataclass(slots=True)
class Clock:
    """Seconds spent in each part of the job; the device is waited for at each boundary."""

    forward: float = 0.0
    encode: float = 0.0
    evidence: float = 0.0
    write: float = 0.0


@dataclass(slots=True)
class SegmentBuilder:
    """Gathers batches until a segment is whole; what it holds is what `SegmentData` needs, as lists."""

    prompts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tokens: list[NDArray[np.int64]] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)
    counts: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    index: dict[str, list[NDArray[np.int32]]] = field(default_factory=dict)
    value: dict[str, list[NDArray[np.uint16]]] = field(default_factory=dict)
    dense: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)

    def add_dense(self, name: str, rows: Tensor) -> None:
        """Append float32 rows [P, ...] of one named array."""
        self.dense.setdefault(name, []).append(rows.float().cpu().numpy())

    def finish(self, suite: TokenizedSuite) -> SegmentData:
        """Return the segment; token arrays come from the suite in the order in which prompts were added."""
        token_T = np.concatenate(self.tokens)
        features: dict[str, FeatureRows] = {}
        for name, counts in self.counts.items():
            indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
            features[name] = (indptr, np.concatenate(self.index[name]), np.concatenate(self.value[name]))
        return SegmentData(
            prompt_P=np.array(self.prompts, dtype=np.int64),
            prompt_indptr_P1=np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64),
            token_T=suite.ids_T[token_T].astype(np.int32),
            role_T=suite.role_T[token_T].astype(np.uint8),
            mask_T=np.concatenate(self.masks),
            features=features,
            dense={name: np.concatenate(parts) for name, parts in self.dense.items()},
        )


def observe_batch(
    runner: ResidualRunner,
    readers: Sequence[Reader],
    suite: TokenizedSuite,
    batch: Batch,
    pad_id: int,
    builder: SegmentBuilder,
    clock: Clock,
    *,
    to_the_end: bool,
) -> None:
    """Run one batch through the model and add what it leaves to `builder`.

    Counted tokens are those that the suite counts less the massive ones, whose number per prompt is kept.
    Per prompt and hook: the mean residual over counted tokens, the residual at the last token, the mean norm.
    Per prompt and dictionary: summed squared error and summed squares, from which FVU follows. With
    `to_the_end` also the final-normed hidden state at the last token, from which the next-token
    distribution follows.
    """
    started = time.perf_counter()
    padded = pad_batch(suite, batch, pad_id)
    residuals, final_BLD = runner.run(padded.ids_BL, to_the_end=to_the_end)
    _wait(runner.device)
    clock.forward += time.perf_counter() - started

    started = time.perf_counter()
    token_T = padded.token_T.numpy()
    massive_T = _massive(residuals, padded, torch.from_numpy(suite.mask_T[token_T]))
    mask_T = suite.mask_T[token_T] & ~massive_T
    keep_T = torch.from_numpy(mask_T)
    length_P = np.diff(suite.indptr_P1)[list(batch.prompts)]
    counted_P = _segment_counts(mask_T, length_P)
    at = (padded.row_T[keep_T].to(runner.device), padded.position_T[keep_T].to(runner.device))
    last = (
        torch.arange(len(length_P), device=runner.device),
        torch.from_numpy(length_P - 1).to(runner.device),
    )
    builder.prompts += batch.prompts
    builder.lengths += length_P.tolist()
    builder.tokens.append(token_T)
    builder.masks.append(mask_T)
    lengths = torch.from_numpy(counted_P).to(runner.device)
    builder.dense.setdefault("counted_P", []).append(counted_P)
    builder.dense.setdefault("massive_P", []).append(_segment_counts(massive_T, length_P))
    if final_BLD is not None:
        builder.add_dense("logits/final_PD", final_BLD[last])
    stream = {layer: residual_BLD[at] for layer, residual_BLD in residuals.items()}
    for layer, x_KD in stream.items():
        x = x_KD.float()
        divisor_P1 = lengths.clamp(min=1)[:, None]
        builder.add_dense(f"resid/{layer}/mean_PD", _sum_prompts(x, lengths) / divisor_P1)
        builder.add_dense(f"resid/{layer}/last_PD", residuals[layer][last])
        builder.add_dense(
            f"resid/{layer}/norm_P", (_sum_prompts(x.norm(dim=1)[:, None], lengths) / divisor_P1)[:, 0]
        )
    _wait(runner.device)
    clock.evidence += time.perf_counter() - started
    for reader in readers:
        _read(reader, stream[reader.sae.spec.layer], lengths, mask_T, builder, clock)


def _massive(residuals: dict[int, Tensor], padded: PaddedBatch, keep_T: Tensor) -> NDArray[np.bool_]:
    """Return which of the batch's otherwise counted tokens are massive at any hook [T]."""
    massive_T = torch.zeros(len(keep_T), dtype=torch.bool)
    if not bool(keep_T.any()):
        return massive_T.numpy()
    for residual_BLD in residuals.values():
        device = residual_BLD.device
        norm_T = residual_BLD[padded.row_T.to(device), padded.position_T.to(device)].float().norm(dim=1).cpu()
        massive_T |= keep_T & (norm_T > MASSIVE * norm_T[keep_T].median())
    return massive_T.numpy()


def _read(
    reader: Reader,
    x_KD: Tensor,
    lengths_P: Tensor,
    mask_T: NDArray[np.bool_],
    builder: SegmentBuilder,
    clock: Clock,
) -> None:
    started = time.perf_counter()
    rows = reader.encoder.encode(x_KD)
    name = reader.sae.spec.name
    counts_T = np.zeros(len(mask_T), dtype=np.int64)
    counts_T[mask_T] = np.diff(rows.indptr_T1.cpu().numpy())
    builder.counts.setdefault(name, []).append(counts_T)
    builder.index.setdefault(name, []).append(rows.index_N.cpu().numpy().copy())
    builder.value.setdefault(name, []).append(rows.value_N.cpu().view(torch.uint16).numpy().copy())
    _wait(x_KD.device)
    clock.encode += time.perf_counter() - started
    started = time.perf_counter()
    error_K, square_K = reader.sae.squared_errors(rows, x_KD, reader.encoder.backend)
    builder.add_dense(f"sae/{name}/sq_error_P", _sum_prompts(error_K[:, None], lengths_P)[:, 0])
    builder.add_dense(f"sae/{name}/sq_total_P", _sum_prompts(square_K[:, None], lengths_P)[:, 0])
    clock.evidence += time.perf_counter() - started


def _segment_counts(mask_T: NDArray[np.bool_], length_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many counted tokens each prompt of the batch has."""
    ends = np.cumsum(length_P)
    total = np.concatenate([[0], np.cumsum(mask_T)])
    return np.asarray(total[ends] - total[ends - length_P], dtype=np.int64)


def _sum_prompts(rows_KD: Tensor, lengths_P: Tensor) -> Tensor:
    """Return the sums over each prompt's consecutive rows [P, D]; a prompt without rows sums to 0."""
    return torch.segment_reduce(rows_KD, "sum", lengths=lengths_P, axis=0, initial=0.0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
