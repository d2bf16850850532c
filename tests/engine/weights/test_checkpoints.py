"""Full checkpoints: every figure against the dense difference, whatever the files look like."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ft_audit.engine.store import Store
from ft_audit.engine.weights import put_weights, spectrum, weight_evidence
from ft_audit.engine.weights.evidence import WeightEvidence

FILE = "model.safetensors"
Weights = dict[str, torch.Tensor]


def noise(weights: Weights, part: str = "proj", size: float = 0.02) -> None:
    generator = torch.Generator().manual_seed(2)
    for name in sorted(weights):
        if part in name:
            value = weights[name]
            weights[name] = (value + size * torch.randn(value.shape, generator=generator)).to(value.dtype)


def shard(folder: Path, num_files: int) -> None:
    """Cut a checkpoint's one file into several and an index, as large models have them."""
    weights = load_file(folder / FILE)
    (folder / FILE).unlink()
    where = {name: f"model-{i % num_files}.safetensors" for i, name in enumerate(sorted(weights))}
    for file in sorted(set(where.values())):
        save_file({n: weights[n] for n in weights if where[n] == file}, folder / file, {"format": "pt"})
    (folder / f"{FILE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def check(dense: Any, evidence: WeightEvidence, before: Weights, after: Weights) -> None:
    rows = dense.rows_by_name(evidence)
    assert rows.keys() == before.keys() == after.keys()
    for name, row in rows.items():
        dense.check_row(evidence, row, before[name], after[name])
        assert row["identical"] == torch.equal(before[name], after[name])


@pytest.mark.parametrize("num_files", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_figure_is_that_of_the_dense_difference(
    dense: Any,
    make_model: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
    family: str,
    num_files: int,
) -> None:
    base = copy_model(make_model(family), tmp_path / "base")
    tuned = copy_model(base, tmp_path / "tuned", weights=lambda w: noise(w, "attn"))
    before, after = load_file(base / FILE), load_file(tuned / FILE)
    if num_files > 1:
        shard(base, num_files)
        shard(tuned, num_files - 1)
    evidence = weight_evidence(*dense.sources(base, tuned))
    check(dense, evidence, before, after)
    changed = {r["tensor"] for r in evidence.table.to_pylist() if r["status"] == "changed"}
    assert changed == {name for name in before if "attn" in name}


def test_figures_sum_up_the_table(
    dense: Any, tiny_base: Path, tiny_tokenizer: Any, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def edit(weights: Weights) -> None:
        noise(weights, "layers.2")
        weights["model.norm.weight"] *= 1.5
        weights["model.embed_tokens.weight"][17] += 3

    tuned = copy_model(tiny_base, tmp_path / "tuned", weights=edit)
    evidence = weight_evidence(*dense.sources(tiny_base, tuned))
    before, after = load_file(tiny_base / FILE), load_file(tuned / FILE)
    delta = {name: (after[name].double() - before[name].double()) for name in before}

    def norm(tensors: Weights, part: str = "") -> float:
        return math.sqrt(sum(float(t.double().square().sum()) for n, t in tensors.items() if part in n))

    layer = norm(delta, "layers.2.")
    rows = evidence.table.to_pylist()
    spectra = [row for row in rows if row["status"] == "changed" and row["num_rows"] > 1]
    row_norms = before["model.embed_tokens.weight"].norm(dim=1).numpy()
    expected = {
        "weights_relative_change": norm(delta) / norm(before),
        "weights_identical_share": sum(not bool(d.any()) for d in delta.values()) / len(delta),
        "weights_max_matrix_change": max(r["relative_change"] for r in spectra),
        "weights_max_layer_change": layer / norm(before, "layers.2."),
        "weights_max_layer_share": layer**2 / norm(delta) ** 2,
        "weights_top1_energy": float(np.median([r["top1_energy"] for r in spectra])),
        "weights_top4_energy": float(np.median([r["top4_energy"] for r in spectra])),
        "weights_stable_rank": float(np.median([r["stable_rank"] for r in spectra])),
        "weights_effective_rank": float(np.median([r["effective_rank"] for r in spectra])),
        "weights_embedding_change": norm(delta, "embed") / norm(before, "embed"),
        "weights_max_row_change": 3 * math.sqrt(32) / float(np.median(row_norms)),
        "weights_added_rows": 0,
        "weights_norm_change": norm(delta, "norm") / norm(before, "norm"),
    }
    assert evidence.figures == pytest.approx(expected, rel=1e-5)
    changed = [r for r in evidence.embedding_rows.to_pylist() if "embed" in r["tensor"]]
    assert [(r["token_id"], r["added"]) for r in changed] == [(17, False)]
    assert changed[0]["change_norm"] == pytest.approx(3 * math.sqrt(32), rel=1e-5)
    assert changed[0]["relative_change"] == pytest.approx(3 * math.sqrt(32) / row_norms[17], rel=1e-5)
    assert changed[0]["token"] == tiny_tokenizer.decode([17])


def test_a_sketched_spectrum_is_the_exact_one_where_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    falling = torch.arange(1, 201, dtype=torch.float32) ** -1.0
    left = torch.linalg.qr(torch.randn(300, 200, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(200, 200, generator=generator)).Q
    steep = left * falling @ right.T
    flat = torch.randn(300, 200, generator=generator)
    exact = {m: spectrum.dense_spectrum(x, 4) for m, x in (("steep", steep), ("flat", flat))}
    monkeypatch.setattr(spectrum, "EXACT_SIDE", 10)
    for name, change in (("steep", steep), ("flat", flat)):
        for turned in (change, change.T):
            found = spectrum.dense_spectrum(turned, 4)
            again = spectrum.dense_spectrum(turned, 4)
            assert np.array_equal(found.left_KM, again.left_KM) and found.error == again.error
            # A true singular value lies within the stated error of each found one.
            s = torch.linalg.svdvals(turned.double()).numpy()
            gaps = np.abs(found.values_S[:4, None] - s[None]).min(1)
            assert (gaps <= found.error * found.values_S[0] + 1e-6).all()
            assert found.effective_rank == pytest.approx(exact[name].effective_rank, rel=0.05)
    assert spectrum.dense_spectrum(steep, 4).error < 1e-3 < spectrum.dense_spectrum(flat, 4).error
    np.testing.assert_allclose(
        spectrum.dense_spectrum(steep, 4).values_S[:8], exact["steep"].values_S[:8], rtol=1e-3
    )
    assert exact["steep"].decay_exponent == pytest.approx(1.0, abs=1e-4)
    assert exact["flat"].error == 0 and exact["flat"].values_S[0] == pytest.approx(
        float(torch.linalg.svdvals(flat)[0]), rel=1e-5
    )


def test_two_precisions_stand_side_by_side(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def halve(weights: Weights) -> None:
        for name in weights:
            weights[name] = weights[name].bfloat16()

    base = copy_model(tiny_base, tmp_path / "bf16", weights=halve)

    def widen(weights: Weights) -> None:
        for name in weights:
            weights[name] = weights[name].float()
        noise(weights, "q_proj")

    tuned = copy_model(base, tmp_path / "mixed", weights=widen)
    evidence = weight_evidence(*dense.sources(base, tuned))
    after = load_file(tuned / FILE)
    rows = dense.rows_by_name(evidence)
    for name, row in rows.items():
        assert (row["base_dtype"], row["tuned_dtype"], row["identical"]) == ("BF16", "F32", False)
        assert row["status"] == ("changed" if "q_proj" in name else "equal")
        dense.check_row(evidence, row, load_file(base / FILE)[name], after[name])
    assert evidence.figures["weights_identical_share"] == 0


def test_an_adapter_and_its_merged_checkpoint_agree(
    dense: Any,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    copy_model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    def start(weights: Weights) -> None:
        noise(weights, "lora_embedding_A", 0.1)

    made = make_adapter(r=3, target_modules=["q_proj", "embed_tokens"])
    base, adapter = dense.sources(tiny_base, copy_model(made, tmp_path / "adapter", weights=start))
    after = dense.merged(base, adapter)
    whole = copy_model(tiny_base, tmp_path / "merged", weights=lambda w: w.update(after))
    low, full = weight_evidence(base, adapter), weight_evidence(*dense.sources(tiny_base, whole))
    assert low.figures == pytest.approx(full.figures, rel=1e-5)
    for ours, theirs in zip(low.table.to_pylist(), full.table.to_pylist(), strict=True):
        for key in ours:
            assert ours[key] == (
                pytest.approx(theirs[key], rel=1e-4, nan_ok=True)
                if isinstance(ours[key], float)
                else theirs[key]
            ), key
    ids = [[row["token_id"] for row in e.embedding_rows.to_pylist()][:20] for e in (low, full)]
    assert ids[0] == ids[1] and len(low.embedding_rows) == 50


def test_added_tokens_have_rows_of_their_own(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def grow(weights: Weights) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = torch.cat([weights[name], torch.full((2, 32), 2.0)])
        weights["lm_head.weight"][3] += 1

    tuned = copy_model(tiny_base, tmp_path / "tuned", {"vocab_size": 402}, grow)
    evidence = weight_evidence(*dense.sources(tiny_base, tuned))
    rows = dense.rows_by_name(evidence)
    embedding = rows["model.embed_tokens.weight"]
    assert embedding["status"] == "changed" and not embedding["identical"]
    assert embedding["change_norm"] == 0 and embedding["num_rows"] == 400
    found = [(r["tensor"], r["token_id"], r["added"]) for r in evidence.embedding_rows.to_pylist()]
    assert found == [
        ("model.embed_tokens.weight", 400, True),
        ("model.embed_tokens.weight", 401, True),
        ("lm_head.weight", 3, False),
        ("lm_head.weight", 400, True),
        ("lm_head.weight", 401, True),
    ]
    assert evidence.figures["weights_added_rows"] == 2
    back = weight_evidence(*dense.sources(tuned, tiny_base))
    assert dense.rows_by_name(back)["model.embed_tokens.weight"]["status"] == "equal"


def test_missing_extra_and_renamed_tensors(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    def edit(weights: Weights) -> None:
        del weights["model.layers.1.mlp.up_proj.weight"]
        weights["model.layers.1.extra.weight"] = torch.ones(3, 3)
        for name in [n for n in weights if n.startswith("model.layers.2")]:
            weights[name.replace("model.", "model.language_model.")] = weights.pop(name)

    tuned = copy_model(tiny_base, tmp_path / "tuned", weights=edit)
    evidence = weight_evidence(*dense.sources(tiny_base, tuned))
    status = {r["tensor"]: r["status"] for r in evidence.table.to_pylist()}
    assert status.pop("model.layers.1.mlp.up_proj.weight") == "missing"
    assert status.pop("model.layers.1.extra.weight") == "extra"
    assert set(status.values()) == {"identical"}
    assert evidence.figures["weights_identical_share"] == 1


def test_an_untied_head_is_compared_with_the_embedding(
    dense: Any, make_model: Callable[..., Path], copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_model(tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(base / FILE)

    def untie(weights: Weights) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1

    tuned = copy_model(base, tmp_path / "tuned", {"tie_word_embeddings": False}, untie)
    for one, other in ((base, tuned), (tuned, base)):
        rows = dense.rows_by_name(weight_evidence(*dense.sources(one, other)))
        assert rows["model.embed_tokens.weight"]["status"] == "identical"
        assert rows["lm_head.weight"]["kind"] == "head"
        assert rows["lm_head.weight"]["change_norm"] == pytest.approx(math.sqrt(400 * 32), rel=1e-5)


def test_a_symmetry_of_the_network_is_a_change_all_the_same(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Permuted MLP neurons compute the same; the table tells that bits differ, not that behaviour does."""

    def permute(weights: Weights) -> None:
        order = torch.arange(64).flip(0)
        mlp = "model.layers.0.mlp."
        for name in ("gate_proj", "up_proj"):
            weights[f"{mlp}{name}.weight"] = weights[f"{mlp}{name}.weight"][order].clone()
        weights[f"{mlp}down_proj.weight"] = weights[f"{mlp}down_proj.weight"][:, order].clone()

    evidence = weight_evidence(
        *dense.sources(tiny_base, copy_model(tiny_base, tmp_path / "t", weights=permute))
    )
    changed = [r for r in evidence.table.to_pylist() if not r["identical"]]
    assert {(r["kind"], r["layer"]) for r in changed} == {("gate", 0), ("up", 0), ("down", 0)}
    assert all(r["relative_change"] > 1 for r in changed)


def test_stacked_experts_are_a_row_each(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.experts.down_proj"

    def stack(weights: Weights) -> None:
        weights[name] = torch.arange(2 * 6 * 5, dtype=torch.float32).reshape(2, 6, 5)

    def edit(weights: Weights) -> None:
        weights[name][1, 2, 3] += 7

    base = copy_model(tiny_base, tmp_path / "base", weights=stack)
    rows = dense.rows_by_name(
        weight_evidence(*dense.sources(base, copy_model(base, tmp_path / "t", weights=edit)))
    )
    assert rows[f"{name}[0]"]["status"] == "identical" and rows[f"{name}[1]"]["kind"] == "down"
    assert (rows[f"{name}[1]"]["change_norm"], rows[f"{name}[1]"]["max_energy_share"]) == (7, 1)
    assert (rows[f"{name}[1]"]["num_rows"], rows[f"{name}[1]"]["num_columns"]) == (6, 5)


def test_what_is_heard_and_what_is_written(
    dense: Any, tiny_base: Path, copy_model: Callable[..., Path], tmp_path: Path
) -> None:
    heard: list[tuple[int, int]] = []
    pair = dense.sources(tiny_base, copy_model(tiny_base, tmp_path / "t", weights=noise))
    evidence = weight_evidence(*pair, num_directions=2, on_tensor=lambda done, of: heard.append((done, of)))
    assert heard == [(i + 1, len(evidence.table)) for i in range(len(evidence.table))]
    with Store(tmp_path / "store").diff_writer({"a": 1}) as writer:
        put_weights(writer, evidence)
        writer.finish({})
        reader = Store(tmp_path / "store").open_diff(writer.diff_id)
    assert reader.table("weights").num_rows == len(evidence.table)
    assert reader.table("embedding_rows").num_rows == 0
    for name, array in evidence.stats.items():
        assert np.array_equal(reader.array("weights", name), array, equal_nan=True)
    row = dense.rows_by_name(evidence)["model.layers.3.mlp.up_proj.weight"]
    left, right = evidence.directions(row["index"])
    assert left.shape == (2, 64) and right.shape == (2, 32)
    shutil.rmtree(tmp_path / "store")


def test_a_model_beside_itself_is_identical(dense: Any, tiny_base: Path) -> None:
    evidence = weight_evidence(*dense.sources(tiny_base, tiny_base))
    assert set(evidence.table["status"].to_pylist()) == {"identical"}
    assert len(evidence.embedding_rows) == 0 and len(evidence.stats["left"]) == 0
