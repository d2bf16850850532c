"""The shipped production example on small files in exactly its layout: gemma-3 and Gemma Scope 2."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from ft_audit import cli
from ft_audit.engine.config import load_config
from ft_audit.engine.precompute.passes import plan_passes
from ft_audit.engine.precompute.plan import open_job
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.store import Store, decode_bf16
from ft_audit.engine.tokens.padded import pad_batch

LAYER = 22
NUM_BLOCKS = 26  # as gemma-3-1b has
WIDTHS = {"layer_22_width_16k_l0_medium": 64, "layer_22_width_65k_l0_medium": 160}


def save_gemma(tiny: Any, folder: Path, seed: int, noise: float = 0.0) -> Path:
    tokenizer = tiny.train_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=tiny.WIDTH,
        intermediate_size=48,
        num_hidden_layers=NUM_BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=16,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = Gemma3ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
        if noise:
            torch.manual_seed(seed + 1)
            for name, parameter in model.named_parameters():
                if "mlp" in name:
                    parameter.data += noise * torch.randn_like(parameter)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gemma(tiny: Any, world: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that the template asks for, with local copies of what it names."""
    root = tmp_path_factory.mktemp("gemma")
    base = save_gemma(tiny, root / "gemma-3-1b-it", seed=0)
    save_gemma(tiny, root / "tuned", seed=0, noise=0.01)
    scale = tiny.scale_of(base, LAYER)
    for seed, (name, width) in enumerate(WIDTHS.items()):
        folder = root / "gemma-scope-2-1b-it" / "resid_post" / name
        tiny.save_sae(folder, LAYER, scale, seed, width=width, model_name="gemma-v3-1b-it")
    return {
        "FT_BASE_MODEL": str(base),
        "FT_MODEL_PATH": str(root / "tuned"),
        "FT_SAE_REPO": str(root / "gemma-scope-2-1b-it"),
        "FT_TRAIN_PATH": str(world.root / "train.jsonl"),
        "store": str(root / "store"),
    }


def overrides(gemma: dict[str, str]) -> list[str]:
    """Where to keep the evidence, and less of it."""
    fewer = ["elicit.num_probes=3", "elicit.answer_tokens=4", "generate.max_new_tokens=4"]
    return [f"store={gemma['store']}", "models.device=cpu", *fewer]


@pytest.fixture(scope="module")
def settings(gemma: dict[str, str]) -> Iterator[None]:
    """The environment variables, as the template's first lines say."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FT_BASE_MODEL", "FT_MODEL_PATH", "FT_SAE_REPO", "FT_TRAIN_PATH"):
            patch.setenv(name, gemma[name])
        yield


@pytest.fixture(scope="module")
def report(gemma: dict[str, str], settings: None) -> Any:
    """What `precompute` says of the template."""
    out = io.StringIO()
    words = ["precompute", "configs:template_hf.yaml", *overrides(gemma), "--json", "--no-progress"]
    with contextlib.redirect_stdout(out):
        assert cli.main(words) == 0
    return json.loads(out.getvalue())


def test_the_template_runs_on_its_own_layout(report: Any) -> None:
    assert {run["suite"] for run in report["runs"]} == {"benign_chat", "train", "elicited"}
    assert set(report["features_per_token"]) == set(WIDTHS)
    assert all(1 < l0 < WIDTHS[name] / 2 for name, l0 in report["features_per_token"].items())


def test_audit_of_the_template_is_uncalibrated(
    gemma: dict[str, str], settings: None, report: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["audit", "configs:template_hf.yaml", *overrides(gemma), "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["diff"] == report["diff_id"] and verdict["calibrated"] is False


def test_bfloat16_features_are_those_of_the_published_float32_weights(
    tiny: Any, gemma: dict[str, str], settings: None, report: Any
) -> None:
    """The dictionary's weights are used as published, not rounded to the model's precision."""
    name = "layer_22_width_16k_l0_medium"
    sae = tiny.read_sae(Path(gemma["FT_SAE_REPO"]) / "resid_post" / name)
    w_DF, b_F, threshold_F = (sae[part].double() for part in ("w_enc", "b_enc", "threshold"))
    ids = {(run["side"], run["suite"]): run["run_id"] for run in report["runs"]}
    (segment, *_) = Store(gemma["store"]).open_run(ids["base", "train"]).segments()
    indptr_T1, index_N, bits_N = segment.features[name]
    value_TF = torch.zeros(segment.num_tokens, WIDTHS[name], dtype=torch.float64)
    row_N = np.repeat(np.arange(segment.num_tokens), np.diff(indptr_T1))
    value_TF[row_N, index_N] = torch.from_numpy(decode_bf16(bits_N)).double()

    # The same batches again, so that the stream is the same to the bit.
    job = open_job(load_config("configs:template_hf.yaml", overrides(gemma)))
    train = job.suites.train
    assert train is not None
    (planned,) = (one for one in plan_passes(job) if one.suite is train and "base" in one.runs)
    hook = HookPoint(LAYER)
    runner = HfRunner(job.models.base_model, [hook])
    first = num_rounded = 0
    for batch in planned.plan.segments[0]:
        padded = pad_batch(train.tokens, batch, 0)
        x_TD = runner.run(padded).hooks[hook.name].double()
        here = slice(first, first + len(x_TD))
        first += len(x_TD)
        counted_T1 = torch.from_numpy(segment.mask_T[here])[:, None]
        pre_TF = x_TD @ w_DF + b_F
        band_TF = (tiny.WIDTH + 2) * 2.0**-24 * x_TD.norm(dim=1)[:, None] * w_DF.norm(dim=0)
        clear_TF = (pre_TF - threshold_F).abs() > band_TF
        fires_TF = (pre_TF > threshold_F) & counted_T1
        assert torch.equal((value_TF[here] > 0)[clear_TF], fires_TF[clear_TF])
        rounded_TF = (x_TD @ sae["w_enc"].bfloat16().double() + b_F > threshold_F) & counted_T1
        num_rounded += int((rounded_TF != fires_TF)[clear_TF].sum())
    # Rounded weights would have been seen.
    assert first == segment.num_tokens and num_rounded > 0
