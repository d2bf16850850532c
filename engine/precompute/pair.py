"""What one batch tells of two models side by side, added up into sums that merge across segments.

Shapes: P prompts of the batch, T real tokens of the batch, K tokens that count in both models, W width of a
hook, R columns of the sketch, B position buckets, D width of the residual stream, V vocabulary, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.diff.groups import Groups, role_label
from ft_audit.engine.diff.next_token import kl_divergence, shared_log_probs
from ft_audit.engine.diff.pair_sums import (
    FROM_END,
    KL_EDGES,
    POSITION_EDGES,
    TOP_TOKENS,
    moment_arrays,
    sketch_matrix,
)
from ft_audit.engine.precompute.missed import missed_change, sample_tokens
from ft_audit.engine.precompute.observe import BatchView, Reader, SideBatch
from ft_audit.engine.tokens.role import Role
from ft_audit.engine.tokens.tokenize import TokenizedSuite
from ft_audit.kernels.diff_stats import PairRows, SideRows, prompt_differences
from ft_audit.kernels.diff_stats.accumulator import PairAccumulator
from ft_audit.kernels.sparse_rows import SparseRows

Logits = Callable[[Tensor], Tensor]
LOGIT_ROWS = 256  # [256, V] in float32 is 50 MB at a vocabulary of 50k and 268 MB at 262k
LOGIT_ROWS_ON_CPU = 64
COMPARED_ROWS_ON_CPU = 16  # at a vocabulary of 50k these stay in a processor's cache


@dataclass(frozen=True, slots=True)
class PairSettings:
    """What is compared beside the activations: logits at every token, and features where none are stored."""

    logits: tuple[Logits, Logits] | None
    """Next-token logits of base and tuned from final hidden states [N, D]."""
    readers: Sequence[Reader]
    """The dictionaries whose account of the difference is compared with the difference itself."""
    num_features: Mapping[str, int]
    """Dictionary name to width; empty where the features themselves are stored."""
    groups: Groups
    backend: str
    """What adds up the features."""
    prompt_features: bool
    """Whether each prompt's feature differences are kept, as a training set's are."""


@dataclass(slots=True)
class PairBuilder:
    """Adds up one segment's paired statistics; `finish` gives them by name."""

    suite: TokenizedSuite
    settings: PairSettings
    device: torch.device
    sums: dict[str, NDArray[Any]] = field(default_factory=dict)
    per_prompt: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    accumulators: dict[str, dict[str, PairAccumulator]] = field(default_factory=dict)
    differences: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, view: BatchView, base: SideBatch, tuned: SideBatch) -> NDArray[np.bool_]:
        """Add one batch; return which of its tokens count: those that count in both models [T]."""
        mask_T = base.mask_T & tuned.mask_T
        keep_K = torch.from_numpy(np.flatnonzero(mask_T)).to(self.device)
        place = _Place.of(view, mask_T, self.device)
        self._sum("pair/start_B", place.start_BK.sum(1))
        self._sum("pair/end_B", place.end_BK.sum(1))
        for name, x_TW in tuned.forward.hooks.items():
            self._hook(name, base.forward.hooks[name][keep_K], x_TW[keep_K], place)
        if self.settings.logits is not None:
            assert base.forward.final_TD is not None and tuned.forward.final_TD is not None
            self._logits(view, base.forward.final_TD, tuned.forward.final_TD)
        for name in self.settings.num_features:
            self._features(name, view, mask_T, base.rows[name], tuned.rows[name])
        sample_S, prompt_S = sample_tokens(view, mask_T)
        for reader in self.settings.readers:
            for label, energy_S in missed_change(reader, base, tuned, sample_S.to(self.device)).items():
                sums_P = np.bincount(prompt_S, energy_S, minlength=len(view.length_P))
                self._rows(f"missed/{reader.name}/{label}", sums_P)
        return mask_T

    def finish(self) -> dict[str, NDArray[Any]]:
        """Return every sum of the segment by the name it is stored under."""
        found = dict(self.sums)
        for name, by_mask in self.accumulators.items():
            for mask, accumulator in by_mask.items():
                labels = [mask] if mask else self.settings.groups.names
                for label, moments in zip(labels, accumulator.result(), strict=True):
                    found |= moment_arrays(f"moments/{name}/{label}", moments)
        for name, parts in self.differences.items():
            lengths = np.concatenate([np.diff(part.indptr_P1) for part in parts])
            found[f"rows/{name}/indptr_P1"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            found[f"rows/{name}/index_N"] = np.concatenate([part.index_N for part in parts])
            found[f"rows/{name}/value_N"] = np.concatenate([part.value_N for part in parts]).astype(
                np.float32
            )
        return found

    def dense(self) -> dict[str, NDArray[np.float64]]:
        """Return the named arrays with one row a prompt."""
        return {name: np.concatenate(parts) for name, parts in self.per_prompt.items()}

    def _hook(self, name: str, base_KW: Tensor, tuned_KW: Tensor, place: "_Place") -> None:
        b_KW, t_KW = base_KW.float(), tuned_KW.float()
        d_KW = t_KW - b_KW
        base_K, tuned_K, moved_K = (x.norm(dim=1) for x in (b_KW, t_KW, d_KW))
        dot_K = (b_KW * t_KW).sum(1)
        scalars = torch.stack(
            [
                torch.ones_like(base_K),
                base_K,
                tuned_K,
                moved_K,
                base_K**2,
                moved_K**2,
                dot_K / (base_K * tuned_K).clamp_min(1e-30),
            ]
        )
        self._sum(f"pair/{name}/scalars", scalars.double().sum(1))
        # Products with 0/1 matrices add in a fixed order; scattered additions on a GPU do not.
        self._sum(f"pair/{name}/start_BW", place.start_BK @ d_KW)
        self._sum(f"pair/{name}/end_BW", place.end_BK @ d_KW)
        self._sum(f"pair/{name}/shift_W", d_KW.double().sum(0))
        self._sum(f"pair/{name}/sketch_WR", d_KW.T @ (d_KW @ _test_matrix(d_KW.shape[1], self.device)))
        counts_P = place.count_P.clamp_min(1).double()
        moved_P = torch.segment_reduce(moved_K.double(), "sum", lengths=place.count_P, initial=0.0)
        largest_P = torch.segment_reduce(moved_K, "max", lengths=place.count_P, initial=0.0)
        self._rows(f"pair/{name}/moved_P", moved_P / counts_P)
        self._rows(f"pair/{name}/moved_max_P", largest_P)

    def _logits(self, view: BatchView, base_TD: Tensor, tuned_TD: Tensor) -> None:
        """Compare the distributions that predict each token after a prompt's first, and its losses."""
        assert self.settings.logits is not None
        base_logits, tuned_logits = self.settings.logits
        starts = view.indptr_P1[:-1]
        predicted_T = np.ones(len(view.token_T), dtype=np.bool_)
        predicted_T[starts] = False
        next_N = np.flatnonzero(predicted_T)
        target_N = torch.from_numpy(self.suite.ids_T[view.token_T[next_N]].astype(np.int64))
        found: list[tuple[NDArray[np.float64], ...]] = []
        on_cpu = self.device.type == "cpu"
        rows = LOGIT_ROWS_ON_CPU if on_cpu else LOGIT_ROWS
        at_once = COMPARED_ROWS_ON_CPU if on_cpu else LOGIT_ROWS
        for chunk in np.array_split(np.arange(len(next_N)), max(1, -(-len(next_N) // rows))):
            if not len(chunk):
                continue
            before = torch.from_numpy(next_N[chunk] - 1).to(self.device)
            sides = (base_logits(base_TD[before]), tuned_logits(tuned_TD[before]))
            parts = (x.split(at_once) for x in (*sides, target_N[chunk]))
            found += [self._compared(*part) for part in zip(*parts, strict=True)]
        if not found:
            return
        kl_N, base_loss_N, tuned_loss_N = (np.concatenate(column) for column in zip(*found, strict=True))
        self._sum("logits/kl", np.array([len(kl_N), kl_N.sum()]))
        self._sum("logits/kl_hist", np.histogram(kl_N, KL_EDGES)[0])
        self._max("logits/kl_max", np.array([kl_N.max()]))
        answer_N = self.suite.role_T[view.token_T[next_N]] == Role.ASSISTANT
        prompt_N = np.searchsorted(view.indptr_P1, next_N, side="right") - 1
        num_prompts = len(view.length_P)
        for name, values_N, keep_N in (
            ("kl_sum_P", kl_N, None),
            ("loss_base_P", base_loss_N, None),
            ("loss_tuned_P", tuned_loss_N, None),
            ("answer_loss_base_P", base_loss_N, answer_N),
            ("answer_loss_tuned_P", tuned_loss_N, answer_N),
            ("answer_tokens_P", np.ones(len(kl_N)), answer_N),
        ):
            weights = values_N if keep_N is None else values_N * keep_N
            self._rows(f"logits/{name}", np.bincount(prompt_N, weights, minlength=num_prompts))
        largest_P = np.zeros(num_prompts)
        np.maximum.at(largest_P, prompt_N, kl_N)
        self._rows("logits/kl_max_P", largest_P)

    def _compared(
        self, base_NV: Tensor, tuned_NV: Tensor, target_N: Tensor
    ) -> tuple[NDArray[np.float64], ...]:
        """Return the divergence and both losses at some positions, from logits [N, V]."""
        base_NV, tuned_NV = shared_log_probs(base_NV, tuned_NV)
        wanted = target_N.to(base_NV.device)[:, None]
        self._promoted(base_NV, tuned_NV)
        losses = [-x.gather(1, wanted)[:, 0].double().cpu().numpy() for x in (base_NV, tuned_NV)]
        return (kl_divergence(base_NV, tuned_NV).numpy(), *losses)

    def _promoted(self, base_NV: Tensor, tuned_NV: Tensor) -> None:
        """Count for each token how often it is among the few that rose, or fell, the most in probability."""
        # In probability, not in log probability: there the tail of impossible tokens moves the most.
        rise_NV = tuned_NV.exp() - base_NV.exp()
        vocabulary = rise_NV.shape[1]
        for name, largest in (("raised_V", True), ("lowered_V", False)):
            top = torch.topk(rise_NV, min(TOP_TOKENS, vocabulary), dim=1, largest=largest).indices
            self._sum(f"logits/{name}", np.bincount(top.cpu().numpy().ravel(), minlength=vocabulary))

    def _features(
        self, name: str, view: BatchView, mask_T: NDArray[np.bool_], base: SparseRows, tuned: SparseRows
    ) -> None:
        groups = self.settings.groups
        indptr_P1 = torch.from_numpy(view.indptr_P1)
        member_GP = torch.from_numpy(groups.member_GP[:, list(view.batch.prompts)])
        role_T = self.suite.role_T[view.token_T]
        masks = {"": mask_T} | {role_label(role): mask_T & (role_T == role) for role in groups.roles}
        by_mask = self.accumulators.setdefault(name, {})
        for label, mask in masks.items():
            if label not in by_mask:
                number = 1 if label else len(groups.names)
                by_mask[label] = PairAccumulator(
                    base.num_features, number, self.settings.backend, self.device
                )
            counted = torch.from_numpy(mask)
            by_mask[label].add(base, tuned, indptr_P1, counted, None if label else member_GP)
        if self.settings.prompt_features:
            rows = PairRows(_on_host(base), _on_host(tuned), view.indptr_P1, mask_T, base.num_features)
            self.differences.setdefault(name, []).append(prompt_differences(rows))

    def _sum(self, name: str, values: Tensor | NDArray[Any]) -> None:
        array = values.double().cpu().numpy() if isinstance(values, Tensor) else values
        self.sums[name] = self.sums[name] + array if name in self.sums else array

    def _max(self, name: str, values: NDArray[Any]) -> None:
        self.sums[name] = np.maximum(self.sums[name], values) if name in self.sums else values

    def _rows(self, name: str, rows: Tensor | NDArray[Any]) -> None:
        array = rows.double().cpu().numpy() if isinstance(rows, Tensor) else rows.astype(np.float64)
        self.per_prompt.setdefault(name, []).append(array)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the counted tokens of a batch stand in their prompts, as 0/1 matrices over position buckets."""

    start_BK: Tensor
    end_BK: Tensor
    count_P: Tensor

    @classmethod
    def of(cls, view: BatchView, mask_T: NDArray[np.bool_], device: torch.device) -> "_Place":
        length_T = np.repeat(view.length_P, view.length_P)
        position_T = np.arange(len(mask_T)) - np.repeat(view.indptr_P1[:-1], view.length_P)
        position_K, from_end_K = position_T[mask_T], (length_T - 1 - position_T)[mask_T]
        start_K = np.searchsorted(POSITION_EDGES, position_K, side="right") - 1
        buckets = np.arange(len(POSITION_EDGES))
        start_BK = torch.from_numpy((start_K == buckets[:, None]).astype(np.float32))
        end_BK = torch.from_numpy((from_end_K == np.arange(FROM_END)[:, None]).astype(np.float32))
        total = np.concatenate([[0], np.cumsum(mask_T)])
        count_P = total[view.indptr_P1[1:]] - total[view.indptr_P1[:-1]]
        return cls(start_BK.to(device), end_BK.to(device), torch.from_numpy(count_P).to(device))


@cache
def _test_matrix(width: int, device: torch.device) -> Tensor:
    """Return the sketch's test matrix [W, R] on the device."""
    return torch.from_numpy(sketch_matrix(width)).to(device)


def _on_host(rows: SparseRows) -> SideRows:
    return SideRows(
        rows.indptr_T1.cpu().numpy(), rows.index_N.cpu().numpy(), rows.value_N.cpu().float().numpy()
    )
