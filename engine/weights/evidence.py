"""Weight evidence of a pair: one row a matrix, the changed embedding rows, top directions and scalar figures.

Shapes: M matrices, K directions, S singular values.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.store import DiffWriter
from ft_audit.engine.weights.adapter import Adapter
from ft_audit.engine.weights.change import Change
from ft_audit.engine.weights.embedding_rows import embedding_rows
from ft_audit.engine.weights.figures import weight_figures
from ft_audit.engine.weights.measure import Measured, measure
from ft_audit.engine.weights.names import layer_of
from ft_audit.engine.weights.parts import Part, pair_adapter, pair_checkpoints
from ft_audit.engine.weights.spectrum import NUM_VALUES
from ft_audit.engine.weights.spread import spread
from ft_audit.engine.weights.tensors import Tensors, checkpoint_files

LARGE = 1 << 24  # weights
TOKEN_KINDS = ("embed", "head")
WEIGHTS_SCHEMA = pa.schema(
    [
        ("tensor", pa.string()),
        ("kind", pa.string()),
        ("layer", pa.int32()),
        ("num_rows", pa.int64()),
        ("num_columns", pa.int64()),
        ("base_dtype", pa.string()),
        ("tuned_dtype", pa.string()),
        ("status", pa.string()),
        ("identical", pa.bool_()),
        *(
            (name, pa.float64())
            for name in (
                "base_norm",
                "change_norm",
                "relative_change",
                "max_change",
                "max_energy_share",
                "stable_rank",
                "effective_rank",
                "top1_energy",
                "top4_energy",
                "top16_energy",
                "decay_exponent",
                "spectrum_error",
            )
        ),
    ]
)
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WeightEvidence:
    """What the two models' weights say of the fine-tune, without a forward."""

    table: pa.Table
    """`WEIGHTS_SCHEMA`, one row a matrix. `status` is `identical` (bit for bit), `equal` (the same values in
    other bits), `changed`, `missing` (the fine-tune lacks it), `extra` (only the fine-tune has it) or
    `unread` (a kind of adapter whose product is not measured). `max_change` is the largest |dW|,
    `max_energy_share` its square's share of ||dW||_F^2. Spectra belong to matrices, not to vectors; NaN where
    there is none. See `spectrum.Spectrum` for the rest."""
    embedding_rows: pa.Table
    """`ROWS_SCHEMA`: see `embedding_rows.embedding_rows`."""
    stats: dict[str, NDArray[np.generic]]
    """`singular_values` [M, S]; `left` and `right`, the top directions of all matrices one after another:
    matrix m has `left[left_indptr[m]:left_indptr[m + 1]]` as [K, rows], and so on the right for columns."""
    figures: dict[str, float]

    def directions(self, matrix: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the top directions of one matrix of the table: [K, rows] and [K, columns]."""
        row = self.table.slice(matrix, 1).to_pylist()[0]
        found = []
        for side, width in (("left", row["num_rows"]), ("right", row["num_columns"])):
            first, end = self.stats[f"{side}_indptr"][matrix : matrix + 2].tolist()
            found.append(self.stats[side][first:end].astype(np.float32).reshape(-1, width))
        return found[0], found[1]


def weight_evidence(
    base: ModelSource,
    tuned: ModelSource,
    *,
    num_directions: int = 4,
    on_tensor: Callable[[int, int], object] | None = None,
) -> WeightEvidence:
    """Return how the weights of `tuned` differ from those of `base`, read matrix by matrix from their files.

    Nothing is loaded or run; an adapter's changes come from its factors alone. Matrices of up to `LARGE`
    weights are measured side by side, one processor thread each, larger ones one after another with all
    threads, so no other work of torch's should run meanwhile. The most memory is a few copies of the largest
    matrix, or of a `LARGE` one per thread. `on_tensor` hears after each matrix how many of how many are done.

    Raises:
        ModelError: files that cannot be read, shapes that do not belong together, NaN or infinite values, a
            quantised matrix that changed, an adapter that is no plain LoRA.
    """
    with open_parts(base, tuned) as parts:

        def one(number: int) -> tuple[Record, Measured]:
            part = parts[number]
            change = part.make() if part.make is not None else None
            tokens = part.kind in TOKEN_KINDS and (part.base is None or not part.base.is_vector)
            found = measure(part.base, change, base.ref, num_directions, rows_are_tokens=tokens)
            return _record(part, change, found), found

        large = [part.base is not None and math.prod(part.base.shape) > LARGE for part in parts]
        done = spread(one, large, on_tensor)
    records, measured = [record for record, _ in done], [found for _, found in done]
    return WeightEvidence(
        pa.Table.from_pylist(records, schema=WEIGHTS_SCHEMA),
        embedding_rows(records, measured, tuned),
        _stats(measured),
        weight_figures(records, measured),
    )


def put_weights(writer: DiffWriter, evidence: WeightEvidence) -> None:
    """Write the tables `weights` and `embedding_rows` and the stats group `weights`."""
    writer.put_table("weights", evidence.table)
    writer.put_table("embedding_rows", evidence.embedding_rows)
    writer.put_stats("weights", evidence.stats)


@contextmanager
def open_parts(base: ModelSource, tuned: ModelSource) -> Iterator[list[Part]]:
    """Open both models' files and give the pairs of matrices, readable inside the block."""
    with Tensors(checkpoint_files(base.folder, base.ref), base.ref) as ours:
        if tuned.adapter is not None:
            adapter = Adapter(tuned)
            with adapter.tensors:
                yield pair_adapter(ours, adapter)
        else:
            with Tensors(checkpoint_files(tuned.folder, tuned.ref), tuned.ref) as theirs:
                yield pair_checkpoints(ours, theirs)


def _record(part: Part, change: Change | None, found: Measured) -> Record:
    """Return the matrix's row of the table."""
    base_dtype = part.base.dtype if part.base is not None else None
    record: Record = {
        "tensor": part.name,
        "kind": part.kind,
        "layer": layer_of(part.name),
        "num_rows": found.shape[0],
        "num_columns": found.shape[1],
        "base_dtype": base_dtype,
        "tuned_dtype": None if part.missing else (change.dtype if change else None) or base_dtype,
        "status": _status(part, found),
        "identical": found.identical and not (part.missing or part.unread),
        "base_norm": found.base_norm,
        "change_norm": math.nan if part.missing or part.unread else found.change_norm,
        "relative_change": math.nan,
        "max_change": math.nan if part.missing or part.unread else found.max_change,
    }
    if found.base_norm > 0:
        record["relative_change"] = record["change_norm"] / found.base_norm
    energy = found.change_norm**2
    record["max_energy_share"] = found.max_change**2 / energy if energy > 0 else math.nan
    spectrum = found.spectrum
    return record | {
        "stable_rank": spectrum.stable_rank if spectrum else math.nan,
        "effective_rank": spectrum.effective_rank if spectrum else math.nan,
        **{
            f"top{count}_energy": spectrum.energy(count, energy) if spectrum else math.nan
            for count in (1, 4, 16)
        },
        "decay_exponent": spectrum.decay_exponent if spectrum else math.nan,
        "spectrum_error": spectrum.error if spectrum else math.nan,
    }


def _status(part: Part, found: Measured) -> str:
    if part.unread:
        return "unread"
    if part.missing:
        return "missing"
    if part.base is None and found.spectrum is None:
        return "extra"
    if found.identical:
        return "identical"
    return "equal" if found.change_norm == 0 and not found.num_added else "changed"


def _stats(measured: list[Measured]) -> dict[str, NDArray[np.generic]]:
    values_MS = np.full((len(measured), NUM_VALUES), np.nan)
    sides: dict[str, list[NDArray[np.float32]]] = {"left": [], "right": []}
    nothing = np.zeros(0, np.float32)
    for row, found in enumerate(measured):
        spectrum = found.spectrum
        if spectrum is not None:
            values_MS[row] = spectrum.values_S
        sides["left"].append(spectrum.left_KM.ravel() if spectrum else nothing)
        sides["right"].append(spectrum.right_KN.ravel() if spectrum else nothing)
    stats: dict[str, NDArray[np.generic]] = {"singular_values": values_MS}
    for side, parts in sides.items():
        stats[side] = np.concatenate([nothing, *parts])
        stats[f"{side}_indptr"] = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return stats
