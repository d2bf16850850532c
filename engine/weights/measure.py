"""The figures of one matrix: how much of it changed, and in what shape.

Shapes: M rows that both sides have, N columns.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.weights.change import Added, Change, Replaced, same_bits
from ft_audit.engine.weights.spectrum import Spectrum, dense_spectrum, factored_spectrum
from ft_audit.engine.weights.tensors import Matrix, not_finite, row_chunks
from ft_audit.errors import ModelError

CHUNK_ELEMENTS = 1 << 22  # 16 MB in float32

FloatArray = NDArray[np.float64]


@dataclass(slots=True)
class Measured:
    """One matrix's figures; `nan` where there is nothing to measure."""

    identical: bool
    shape: tuple[int, int]
    """Rows and columns that both sides have."""
    base_norm: float = math.nan
    """||W||_F."""
    change_norm: float = math.nan
    """||dW||_F."""
    max_change: float = math.nan
    """The largest |dW| of one weight."""
    spectrum: Spectrum | None = None
    """Of a matrix that changed; a vector has none."""
    row_change_M: FloatArray | None = None
    """||dW|| of each row, for matrices whose rows are tokens."""
    row_base_M: FloatArray | None = None
    added_A: FloatArray | None = None
    """||W|| of each row that only the tuned side has."""

    @property
    def num_added(self) -> int:
        return 0 if self.added_A is None else len(self.added_A)


def measure(
    base: Matrix | None, change: Change | None, ref: str, num_directions: int, *, rows_are_tokens: bool
) -> Measured:
    """Return the figures of one matrix; `ref` names the base. Without a change it is the base's unchanged.

    Holds at most dW in float32 and what its spectrum needs beside pieces of about 4 M weights.

    Raises:
        ModelError: shapes that do not belong together, NaN or infinite values, a quantised matrix.
    """
    if base is None:
        return _without_base(change, num_directions)
    tuned = change.tuned if isinstance(change, Replaced) else base
    if not (base.is_float and tuned.is_float):
        return _not_numbers(base, tuned)
    num_rows = base.shape[0]
    if isinstance(change, Replaced):
        num_rows = _shared_rows(base, change, rows_are_tokens)
    found = Measured(True, (num_rows, base.shape[1]), 0.0, 0.0, 0.0)
    row_change, row_base = np.zeros(num_rows), np.zeros(num_rows)
    base_square = change_square = 0.0
    given = change.change_MN if isinstance(change, Added) else None
    gathered: Tensor | None = None
    for start, stop in row_chunks((num_rows, base.shape[1]), CHUNK_ELEMENTS):
        base_rN = base.rows(start, stop)
        squares = _row_squares(base_rN.float())
        row_base[start:stop] = np.sqrt(squares)
        base_square += float(squares.sum())
        if not math.isfinite(base_square):
            raise not_finite(ref, base.name)
        if change is None:
            continue
        same_bits, change_rN = change.piece(start, stop, base_rN)
        found.identical &= same_bits
        if change_rN is None:
            continue
        squares = _row_squares(change_rN)
        row_change[start:stop] = np.sqrt(squares)
        change_square += float(squares.sum())
        found.max_change = max(found.max_change, float(change_rN.abs().max()))
        if change.factors is None and given is None and not base.is_vector:
            if gathered is None:
                gathered = torch.zeros(num_rows, base.shape[1])
            gathered[start:stop] = change_rN
    found.base_norm, found.change_norm = math.sqrt(base_square), math.sqrt(change_square)
    if found.change_norm > 0 and not base.is_vector:
        found.spectrum = _spectrum(change, given if given is not None else gathered, num_directions)
    if rows_are_tokens:
        found.row_change_M, found.row_base_M = row_change, row_base
        if isinstance(change, Replaced):
            found.added_A = _added(change, num_rows)
            found.identical &= base.shape == change.tuned.shape
    return found


def _spectrum(change: Change | None, whole: Tensor | None, num_directions: int) -> Spectrum:
    if change is not None and change.factors is not None:
        return factored_spectrum(*change.factors, num_directions)
    assert whole is not None, "a change that is not zero was gathered"
    return dense_spectrum(whole, num_directions)


def _without_base(change: Change | None, num_directions: int) -> Measured:
    """Return the figures of what only the tuned side has; a LoRA's product has a spectrum even so."""
    assert change is not None, "one of the two sides is there"
    found = Measured(False, _shape(change))
    if change.factors is not None:
        spectrum = factored_spectrum(*change.factors, num_directions)
        if spectrum.values_S[0] > 0:
            # ||left right||_F^2 is the trace of the two small Gram matrices' product.
            left, right = change.factors
            gram = (left.double().T @ left.double()) * (right.double() @ right.double().T)
            found.change_norm, found.spectrum = math.sqrt(max(float(gram.sum()), 0.0)), spectrum
    return found


def _shape(change: Change) -> tuple[int, int]:
    if isinstance(change, Replaced):
        return change.tuned.shape
    if change.factors is not None:
        return change.factors[0].shape[0], change.factors[1].shape[1]
    assert isinstance(change, Added), "rows of an embedding need the embedding"
    return change.change_MN.shape[0], change.change_MN.shape[1]


def _shared_rows(base: Matrix, change: Replaced, rows_are_tokens: bool) -> int:
    ours, theirs = base.shape, change.tuned.shape
    # A larger vocabulary has rows of its own; anything else of another shape is another model.
    if ours[1] != theirs[1] or (ours[0] != theirs[0] and not rows_are_tokens):
        raise ModelError(
            f"model {change.ref!r}: {change.tuned.name} has the shape {theirs} and the base's {ours}; give "
            "the base that it was trained from"
        )
    return min(ours[0], theirs[0])


def _not_numbers(base: Matrix, tuned: Matrix) -> Measured:
    """Return the figures of integers or packed numbers, which say something only where nothing changed."""
    if base.shape == tuned.shape and base.dtype == tuned.dtype:
        rows = base.shape[0]
        if tuned is base or same_bits(base.rows(0, rows), tuned.rows(0, rows)):
            return Measured(True, base.shape)
    raise ModelError(
        f"{base.name} is {base.dtype} in the base and {tuned.dtype} in the fine-tune, and what changes in a "
        "quantised matrix cannot be measured; give both models in bfloat16 or float32, or set "
        "precompute.weights to false"
    )


def _added(change: Replaced, num_rows: int) -> FloatArray:
    parts = [np.zeros(0)]
    count = change.tuned.shape[0] - num_rows
    for start, stop in row_chunks((max(count, 0), change.tuned.shape[1]), CHUNK_ELEMENTS):
        rows = change.tuned.rows(num_rows + start, num_rows + stop).float()
        parts.append(np.sqrt(_row_squares(rows)))
    norms = np.concatenate(parts)
    if not np.isfinite(norms).all():
        raise not_finite(change.ref, change.tuned.name)
    return norms


def _row_squares(rows_rN: Tensor) -> FloatArray:
    # A row's sum in float32 is exact to 1e-6; accumulating it in float64 takes ten times as long.
    squares: FloatArray = torch.linalg.vector_norm(rows_rN, dim=1).double().square().numpy()
    return squares
