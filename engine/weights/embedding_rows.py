"""Which tokens' rows of the embedding and the head changed most."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.weights.measure import FloatArray, Measured

TOP_ROWS = 50
ROWS_SCHEMA = pa.schema(
    [
        ("tensor", pa.string()),
        ("token_id", pa.int64()),
        ("token", pa.string()),
        ("added", pa.bool_()),
        ("change_norm", pa.float64()),
        ("relative_change", pa.float64()),
    ]
)


def embedding_rows(
    records: Sequence[dict[str, Any]], measured: Sequence[Measured], tuned: ModelSource
) -> pa.Table:
    """Return as `ROWS_SCHEMA` the `TOP_ROWS` rows of each embedding and head that changed most.

    `relative_change` is ||dw|| over the row's norm in the base. As many of the rows that only the tuned model
    has follow, with their whole norm as the change. `token` is empty for a row that no token uses.

    Raises:
        ModelError: rows changed and the tuned model's tokenizer cannot be read.
    """
    rows: list[dict[str, Any]] = []
    for record, found in zip(records, measured, strict=True):
        if found.row_change_M is None or found.row_base_M is None:
            continue
        change_M, base_M = found.row_change_M, found.row_base_M
        for index in _largest(change_M):
            norm = base_M[index]
            relative = float(change_M[index] / norm) if norm > 0 else float("inf")
            rows.append(_row(record["tensor"], index, False, change_M[index], relative))
        added_A = found.added_A if found.added_A is not None else np.zeros(0)
        for index in _largest(added_A):
            rows.append(_row(record["tensor"], len(change_M) + index, True, added_A[index], float("nan")))
    if rows:
        tokenizer = load_tokenizer(tuned)
        for row in rows:
            row["token"] = _text(tokenizer, row["token_id"])
    return pa.Table.from_pylist(rows, schema=ROWS_SCHEMA)


def _largest(norms: FloatArray) -> list[int]:
    """Return the indices of the largest norms that are not zero, falling; equal ones by index."""
    order = np.argsort(-norms, kind="stable")[:TOP_ROWS]
    return [int(index) for index in order if norms[index] > 0]


def _row(tensor: str, token_id: int, added: bool, change: float, relative: float) -> dict[str, Any]:
    return {
        "tensor": tensor,
        "token_id": token_id,
        "added": added,
        "change_norm": float(change),
        "relative_change": relative,
    }


def _text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    # Checkpoints pad their vocabulary to a round number.
    return str(tokenizer.decode([token_id])) if token_id < len(tokenizer) else ""
