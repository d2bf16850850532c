"""The scalar figures of the weights that a bank of benign fine-tunes is compared with."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from ft_audit.engine.weights.measure import Measured


def weight_figures(records: Sequence[dict[str, Any]], measured: Sequence[Measured]) -> dict[str, float]:
    """Return the figures; 0 where there is nothing to measure.

    weights_relative_change      ||dW|| / ||W|| over everything that both sides have
    weights_identical_share      share of the matrices of both sides that are bit-identical
    weights_max_matrix_change    largest ||dW|| / ||W|| of one matrix
    weights_max_layer_change     largest ||dW|| / ||W|| of one block
    weights_max_layer_share      largest share of all ||dW||^2 that one block holds
    weights_top1_energy          median share of ||dW||^2 in the first singular value, over changed matrices
    weights_top4_energy          in the first four
    weights_stable_rank          median over changed matrices
    weights_effective_rank       median over changed matrices
    weights_embedding_change     ||dW|| / ||W|| of the embedding
    weights_max_row_change       largest ||dw|| of one embedding row, over the base's median row norm
    weights_added_rows           rows that only the tuned embedding has
    weights_norm_change          ||dW|| / ||W|| over all norms' scales
    """
    shared = [(r, m) for r, m in zip(records, measured, strict=True) if r["status"] in _SHARED]
    changed = [m for _, m in shared if m.spectrum is not None]
    spectra = [(m.spectrum, m.change_norm**2) for m in changed if m.spectrum is not None]
    layers: dict[int, list[Measured]] = defaultdict(list)
    for record, found in shared:
        if record["layer"] is not None:
            layers[record["layer"]].append(found)
    total = _squares(m.change_norm for _, m in shared)
    identical = [record["identical"] for record, _ in shared]
    embeddings = [m for record, m in shared if record["kind"] == "embed"]
    return {
        "weights_relative_change": _ratio([m for _, m in shared]),
        "weights_identical_share": sum(identical) / max(len(identical), 1),
        "weights_max_matrix_change": max([0.0, *(_ratio([m]) for m in changed)]),
        "weights_max_layer_change": max([0.0, *(_ratio(found) for found in layers.values())]),
        "weights_max_layer_share": max(
            [0.0, *(_squares(m.change_norm for m in found) / total for found in layers.values() if total)]
        ),
        "weights_top1_energy": _median([s.energy(1, energy) for s, energy in spectra]),
        "weights_top4_energy": _median([s.energy(4, energy) for s, energy in spectra]),
        "weights_stable_rank": _median([s.stable_rank for s, _ in spectra]),
        "weights_effective_rank": _median([s.effective_rank for s, _ in spectra]),
        "weights_embedding_change": _ratio(embeddings),
        "weights_max_row_change": max([0.0, *(_largest_row(m) for m in embeddings)]),
        "weights_added_rows": float(sum(m.num_added for m in embeddings)),
        "weights_norm_change": _ratio([m for record, m in shared if record["kind"] == "norm"]),
    }


_SHARED = ("identical", "equal", "changed")


def _squares(norms: Any) -> float:
    """Return the sum of squares, of the norms that there are."""
    return float(sum(norm**2 for norm in norms if not math.isnan(norm)))


def _ratio(found: Sequence[Measured]) -> float:
    """Return ||dW|| / ||W|| over these matrices; one that the base lacks has no share in either."""
    known = [m for m in found if m.base_norm > 0]
    base = _squares(m.base_norm for m in known)
    return math.sqrt(_squares(m.change_norm for m in known) / base) if base else 0.0


def _median(values: list[float]) -> float:
    return float(median(values)) if values else 0.0


def _largest_row(found: Measured) -> float:
    if found.row_change_M is None or found.row_base_M is None or not len(found.row_change_M):
        return 0.0
    typical = float(median(found.row_base_M.tolist()))
    return float(found.row_change_M.max()) / typical if typical > 0 else 0.0
