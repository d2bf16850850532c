"""Owns PairAccumulator: the diff statistics of batch after batch, kept where the rows lie.

Legend: T tokens, P prompts, F features, G groups of prompts.
"""

from typing import Protocol

import torch
from torch import Tensor

from ft_audit.kernels.diff_stats.batch import PairBatch
from ft_audit.kernels.diff_stats.cpu import CpuTotals
from ft_audit.kernels.diff_stats.moments import PairMoments
from ft_audit.kernels.diff_stats.naive import NaiveTotals
from ft_audit.kernels.jumprelu.backends import resolve_backend
from ft_audit.kernels.sparse_rows import SparseRows


class Totals(Protocol):
    """What a backend keeps between batches."""

    def add(self, batch: PairBatch) -> None: ...

    def result(self) -> list[PairMoments]: ...


class _HostTotals:
    """A path over arrays, fed from tensors."""

    def __init__(self, totals: CpuTotals | NaiveTotals) -> None:
        self._totals = totals

    def add(self, batch: PairBatch) -> None:
        self._totals.add(*batch.on_host())

    def result(self) -> list[PairMoments]:
        return self._totals.result()


class PairAccumulator:
    """Adds up the moments of each group of prompts; `backend` is the concrete one in use, `auto` resolved.

    Whatever the backend and however the prompts are cut into batches, the result has the bits of the naive
    moments of all batches one after another. With Triton nothing but the result leaves the device.
    """

    def __init__(
        self,
        num_features: int,
        num_groups: int = 1,
        backend: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        assert num_features > 0 and num_groups > 0, (num_features, num_groups)
        self.num_features = num_features
        self.num_groups = num_groups
        self.device = torch.device(device)
        self.backend = resolve_backend(backend, self.device)
        self._totals = _empty_totals(self.backend, num_features, num_groups, self.device)

    def add(
        self,
        base: SparseRows,
        tuned: SparseRows,
        prompt_indptr_P1: Tensor,
        mask_T: Tensor,
        groups_GP: Tensor | None = None,
    ) -> None:
        """Add whole prompts: prompt p owns the tokens [indptr[p], indptr[p + 1]), of which `mask_T` count.

        `groups_GP` says which groups hold each prompt, several or none; without it all hold every prompt.
        Pointers, mask and groups may lie on the host whatever the device; pinned memory must stay as it is
        until the device has caught up.
        """
        if groups_GP is None:
            groups_GP = torch.ones(self.num_groups, prompt_indptr_P1.numel() - 1, dtype=torch.bool)
        assert groups_GP.shape[0] == self.num_groups, (groups_GP.shape, self.num_groups)
        assert base.num_features == self.num_features, (base.num_features, self.num_features)
        assert base.value_N.device.type == self.device.type, (base.value_N.device, self.device)
        self._totals.add(PairBatch(base, tuned, prompt_indptr_P1, mask_T, groups_GP))

    def result(self) -> list[PairMoments]:
        """The moments of each group over everything added so far; more may be added after."""
        return self._totals.result()


def _empty_totals(backend: str, num_features: int, num_groups: int, device: torch.device) -> Totals:
    if backend == "triton":
        # Imported where it is chosen: machines without Triton run the other two.
        from ft_audit.kernels.diff_stats.triton_totals import TritonTotals

        return TritonTotals(num_features, num_groups, device)
    host = CpuTotals if backend == "cpu" else NaiveTotals
    return _HostTotals(host(num_features, num_groups))
