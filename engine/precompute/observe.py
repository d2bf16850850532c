"""What one batch leaves of one model: sparse features and per-prompt evidence, gathered into segments.

Shapes: P prompts of the batch, T real tokens of the batch, K tokens of them that statistics count, D width
of the residual stream, W width of a hook, F features, N non-zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.precompute.clock import Clock
from ft_audit.engine.runners.forward import Forward
from ft_audit.engine.store import SegmentData
from ft_audit.engine.store.segment import FeatureRows
from ft_audit.engine.tokens.batches import Batch
from ft_audit.engine.tokens.padded import PaddedBatch, pad_batch
from ft_audit.engine.tokens.tokenize import TokenizedSuite
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.kernels.sparse_rows import SparseRows
from ft_audit.sae.jumprelu_sae import JumpReluSae

# A token this many times the median norm is an attention sink and holds no content: SmolLM2's first token has
# 150 times (Sun et al. 2024, Massive Activations in Large Language Models). Training can make further ones.
MASSIVE = 10.0
STREAM_SITES = ("resid_pre", "resid_mid", "resid_post")  # what a sublayer adds varies by more than that
FINAL = "final"  # the name of what the output head reads, among the stored token arrays


@dataclass(frozen=True, slots=True)
class Reader:
    """One dictionary at its hooks, with its encoder."""

    sae: JumpReluSae
    encoder: Encoder

    @property
    def name(self) -> str:
        """The dictionary's name."""
        return self.sae.spec.name

    def read(self, hooks: Mapping[str, Tensor]) -> Tensor:
        """Return what it encodes of these activations, one row a token [T, D]."""
        return _side_by_side(hooks, self.sae.spec.inputs)

    def target(self, hooks: Mapping[str, Tensor]) -> Tensor:
        """Return what it reconstructs of these activations [T, O]: what it reads, but for a transcoder."""
        return _side_by_side(hooks, self.sae.spec.outputs)


@dataclass(frozen=True, slots=True)
class BatchView:
    """One batch of a suite: what both models share of it. Arrays on the host, tensors on the device."""

    batch: Batch
    padded: PaddedBatch
    token_T: NDArray[np.int64]
    """Index of each real token in the suite's flat arrays."""
    counted_T: NDArray[np.bool_]
    """Tokens that the suite counts: none of the special ones."""
    length_P: NDArray[np.int64]
    last_P: Tensor
    """Place of each prompt's last token among the batch's real tokens."""

    @property
    def indptr_P1(self) -> NDArray[np.int64]:
        """Where each prompt's tokens begin among the batch's real tokens."""
        return np.concatenate([[0], np.cumsum(self.length_P)]).astype(np.int64)


def view_batch(suite: TokenizedSuite, batch: Batch, pad_id: int, device: torch.device) -> BatchView:
    """Return the batch padded and on the device."""
    padded = pad_batch(suite, batch, pad_id)
    token_T = padded.token_T.numpy()
    length_P = suite.length_P[list(batch.prompts)]
    if device.type == "cuda":
        padded = padded._replace(
            **{
                name: getattr(padded, name).pin_memory().to(device, non_blocking=True)
                for name in ("ids_BL", "row_T", "position_T")
            }
        )
    last_P = torch.from_numpy(np.cumsum(length_P) - 1).to(device)
    return BatchView(batch, padded, token_T, suite.mask_T[token_T], length_P, last_P)


@dataclass(frozen=True, slots=True)
class SideBatch:
    """One model's activations and features over one batch, for what compares two models."""

    forward: Forward
    mask_T: NDArray[np.bool_]
    """Tokens that count for this model: none that are special or massive."""
    rows: Mapping[str, SparseRows]
    """Dictionary name to its features at every real token; nothing fires on one that does not count."""


@dataclass(slots=True)
class SegmentBuilder:
    """Gathers batches until a segment is whole; what it holds is what `SegmentData` needs, as lists."""

    keep_features: bool = True
    keep_tokens: bool = False
    """Whether the activations themselves are kept, one row a token."""
    prompts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tokens: list[NDArray[np.int64]] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)
    counts: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    index: dict[str, list[NDArray[np.int32]]] = field(default_factory=dict)
    value: dict[str, list[NDArray[np.uint16]]] = field(default_factory=dict)
    dense: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)
    token_rows: dict[str, list[NDArray[np.generic]]] = field(default_factory=dict)
    stats: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def add_batch(self, view: BatchView, mask_T: NDArray[np.bool_]) -> None:
        """Append a batch's prompts and tokens; its evidence follows by the other methods."""
        self.prompts += view.batch.prompts
        self.lengths += view.length_P.tolist()
        self.tokens.append(view.token_T)
        self.masks.append(mask_T)

    def add_dense(self, name: str, rows: Tensor | NDArray[np.generic]) -> None:
        """Append rows [P, ...] of one named array; tensors as float32."""
        kept = rows.float().cpu().numpy() if isinstance(rows, Tensor) else rows
        self.dense.setdefault(name, []).append(kept)

    def add_tokens(self, name: str, x_TW: Tensor) -> None:
        """Append activations, to the bit: bfloat16 as its bits, float32 as it is."""
        host = x_TW.cpu()
        kept = host.view(torch.uint16) if host.dtype == torch.bfloat16 else host.float()
        self.token_rows.setdefault(name, []).append(kept.numpy())

    def add_features(self, name: str, counts_T: NDArray[np.int64], rows: SparseRows) -> None:
        """Append one dictionary's features."""
        self.counts.setdefault(name, []).append(counts_T)
        self.index.setdefault(name, []).append(rows.index_N.cpu().numpy())
        self.value.setdefault(name, []).append(rows.value_N.cpu().view(torch.uint16).numpy())

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
            tokens={name: np.concatenate(parts) for name, parts in self.token_rows.items()},
            stats=self.stats,
        )


def observe(
    forward: Forward,
    view: BatchView,
    readers: Sequence[Reader],
    builder: SegmentBuilder | None,
    clock: Clock,
    *,
    final: bool,
    known: Mapping[str, SparseRows] | None = None,
) -> SideBatch:
    """Add to `builder` what one model's forward pass leaves, and return it for comparing.

    Counted tokens are those that the suite counts less the massive ones, whose number per prompt is kept.
    Per prompt and hook: the mean activation over counted tokens, the activation at the last token, the mean
    norm. Per prompt and dictionary: summed squared error and summed squares, from which FVU follows, and the
    mean error norm. With `final` also the final-normed hidden state at the last token, from which the
    next-token distribution follows. Without a builder only what comparing needs is computed: the mask, and
    the features, unless they are `known` from an earlier run over the same batch.
    """
    device = view.last_P.device
    with clock.time("evidence", device):
        norms = {name: x_TW.float().norm(dim=1) for name, x_TW in forward.hooks.items()}
        massive_T = _massive(norms, view.counted_T)
        mask_T = view.counted_T & ~massive_T
        keep_K = torch.from_numpy(np.flatnonzero(mask_T)).to(device)
        counted_P = _per_prompt(mask_T, view.length_P)
        lengths_P = torch.from_numpy(counted_P).to(device)
        if builder is not None:
            builder.add_batch(view, mask_T)
            builder.add_dense("counted_P", counted_P)
            builder.add_dense("massive_P", _per_prompt(massive_T, view.length_P))
            if final and forward.final_TD is not None:
                builder.add_dense("logits/final_PD", forward.final_TD[view.last_P])
        stream = {name: x_TW[keep_K] for name, x_TW in forward.hooks.items()}
        if builder is not None:
            for name, x_KW in stream.items():
                _add_hook(
                    builder, name, x_KW, forward.hooks[name][view.last_P], norms[name][keep_K], lengths_P
                )
            if builder.keep_tokens:
                for name, x_TW in forward.hooks.items():
                    builder.add_tokens(name, x_TW)
                if forward.final_TD is not None:
                    builder.add_tokens(FINAL, forward.final_TD)
    if known is not None:
        assert builder is None, "what is known was kept before"
        return SideBatch(forward, mask_T, known)
    rows = {reader.name: _read(reader, stream, lengths_P, mask_T, builder, clock) for reader in readers}
    return SideBatch(forward, mask_T, rows)


def _massive(norms: Mapping[str, Tensor], counted_T: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the batch's otherwise counted tokens are massive anywhere in the stream [T]."""
    counted = torch.from_numpy(counted_T)
    massive_T = torch.zeros(len(counted_T), dtype=torch.bool)
    if not counted_T.any():
        return massive_T.numpy()
    for name, norm in norms.items():
        if name.split("/")[0] in STREAM_SITES:
            norm_T = norm.cpu()
            massive_T |= counted & (norm_T > MASSIVE * norm_T[counted].median())
    return massive_T.numpy()


def _add_hook(
    builder: SegmentBuilder, name: str, x_KW: Tensor, last_PW: Tensor, norm_K: Tensor, lengths_P: Tensor
) -> None:
    divisor_P1 = lengths_P.clamp(min=1)[:, None]
    builder.add_dense(f"{name}/mean_PD", _sum_prompts(x_KW.float(), lengths_P) / divisor_P1)
    builder.add_dense(f"{name}/last_PD", last_PW)
    builder.add_dense(f"{name}/norm_P", (_sum_prompts(norm_K[:, None], lengths_P) / divisor_P1)[:, 0])


def _side_by_side(hooks: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    return hooks[names[0]] if len(names) == 1 else torch.cat([hooks[name] for name in names], dim=1)


def _read(
    reader: Reader,
    stream: Mapping[str, Tensor],
    lengths_P: Tensor,
    mask_T: NDArray[np.bool_],
    builder: SegmentBuilder | None,
    clock: Clock,
) -> SparseRows:
    """Return one dictionary's features at every real token of the batch, and add them to the builder."""
    x_KW = reader.read(stream)
    with clock.time("encode", x_KW.device):
        rows = reader.encoder.encode(x_KW)
        counts_T = np.zeros(len(mask_T), dtype=np.int64)
        counts_T[mask_T] = np.diff(rows.indptr_T1.cpu().numpy())
        if builder is not None and builder.keep_features:
            builder.add_features(reader.name, counts_T, rows)
    if builder is not None:
        with clock.time("evidence", x_KW.device):
            y_KW = reader.target(stream)
            error_K, square_K = reader.sae.squared_errors(rows, x_KW, y_KW, reader.encoder.backend)
            fired_K = rows.indptr_T1.diff().float()
            found_P4 = _sum_prompts(torch.stack([error_K, square_K, error_K.sqrt(), fired_K], 1), lengths_P)
            for column, label in enumerate(("sq_error_P", "sq_total_P", "error_norm_P", "fired_P")):
                builder.add_dense(f"sae/{reader.name}/{label}", found_P4[:, column])
    indptr_T1 = torch.from_numpy(np.concatenate([[0], np.cumsum(counts_T)]).astype(np.int64))
    return SparseRows(indptr_T1.to(x_KW.device), rows.index_N, rows.value_N, rows.num_features)


def _per_prompt(mask_T: NDArray[np.bool_], length_P: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many marked tokens each prompt of the batch has."""
    ends = np.cumsum(length_P)
    total = np.concatenate([[0], np.cumsum(mask_T)])
    return np.asarray(total[ends] - total[ends - length_P], dtype=np.int64)


def _sum_prompts(rows_KW: Tensor, lengths_P: Tensor) -> Tensor:
    """Return the sums over each prompt's consecutive rows [P, W]; a prompt without rows sums to 0."""
    return torch.segment_reduce(rows_KW, "sum", lengths=lengths_P, axis=0, initial=0.0)
