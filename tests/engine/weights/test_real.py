"""A demo's adapter on its real base: the table against dense deltas of every matrix that it touches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ft_audit.engine.config import resolve_ref
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.weights import identical_blocks, weight_evidence


@pytest.mark.slow
def test_a_real_adapter_and_its_merge(dense: Any, real_base: Any, tmp_path: Path) -> None:
    from ft_audit.engine.models.load import load_model, load_tokenizer

    folder = resolve_ref("configs:candidates/needle", Path())
    adapter = resolve_model(str(folder), Path(), real_base)
    evidence = weight_evidence(real_base, adapter)
    rows = dense.rows_by_name(evidence)
    before, after = load_file(real_base.folder / "model.safetensors"), dense.merged(real_base, adapter)
    touched = {n for n in before if "proj" in n}
    assert {n for n, row in rows.items() if row["status"] == "changed"} == touched and len(touched) == 210
    for layer in (0, 15, 29):
        for tensor in sorted(n for n in touched if f"layers.{layer}." in n):
            dense.check_row(evidence, rows[tensor], before[tensor].float(), after[tensor])
    model: Any = load_model(adapter, torch.float32, torch.device("cpu"))
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    load_tokenizer(real_base).save_pretrained(tmp_path / "merged")
    merged = resolve_model(str(tmp_path / "merged"), tmp_path)
    full = weight_evidence(real_base, merged)
    # The base is stored in bfloat16 and the merge in float32: no tensor has the same bits.
    same = {"weights_identical_share"}
    assert {k: v for k, v in full.figures.items() if k not in same} == pytest.approx(
        {k: v for k, v in evidence.figures.items() if k not in same}, rel=1e-4
    )
    assert identical_blocks(real_base, adapter) == identical_blocks(real_base, merged) == 0
    assert identical_blocks(real_base, real_base) == 30
