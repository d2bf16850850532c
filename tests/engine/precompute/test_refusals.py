"""Every mistake of a user through the command line: exit code 1, the value and the fix, an empty store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit import cli

NAN, INF = float("nan"), float("inf")
SAE = "layer_1_width_96"
Refused = Callable[..., str]


@pytest.fixture
def refused(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a job that must be refused, and return what it says."""

    def run(text: str | None = None, **sections: Any) -> str:
        store = tmp_path / "store"
        path = world.write(**{"store": store, **sections})
        if text is not None:
            path.write_text(text)
        code = cli.main(["precompute", str(path), "--json", "--no-progress"])
        out, err = capsys.readouterr()
        assert code == 1, out
        (line,) = out.splitlines()
        message = json.loads(line)["error"]["message"]
        assert f"ft-audit: error: {message}" in err and "Traceback" not in err
        # Nothing half-written, and nothing else either.
        assert not [path for path in store.rglob("*") if path.is_file()]
        assert not [*store.glob("runs/*"), *store.glob("diffs/*")]
        return str(message)

    return run


def spoil(tiny: Any, source: Path, to: Path, file: str, value: float, part: str) -> str:
    """Copy a folder with one bad number in one tensor; returns the copy as a reference."""
    shutil.copytree(source, to)

    def change(name: str, tensor: torch.Tensor) -> None:
        if part in name:
            tensor.flatten()[3] = value

    tiny.change_tensors(to / file, change)
    return str(to)


def edited(source: Path, to: Path, **changes: Any) -> str:
    """Copy a model folder with another config.json; returns the copy as a reference."""
    shutil.copytree(source, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return str(to)


def test_an_unknown_key_names_the_nearest(refused: Refused) -> None:
    message = refused(precompute={"tokens_per_bach": 5})
    assert "tokens_per_bach" in message and "tokens_per_batch" in message


def test_keys_of_the_original_toolkit_are_translated(refused: Refused) -> None:
    message = refused(
        "project: {name: x}\nmodels:\n  base: {model_id: a/b}\n  adversarial: {model_id: a/c}\n"
        "interp: {sae: {layer: 22, repo_id: google/gemma-scope-2-1b-it}}\n"
    )
    assert "models.tuned: a/c" in message and "models.base: a/b" in message
    assert "hooks: [{layer: 22" in message and "name: x" in message


@pytest.mark.parametrize(
    ("sections", "value", "fix"),
    [
        ({"models": {"tuned": "./adaptr"}}, "adaptr", "did you mean adapter"),
        ({"dataset": "./trian.jsonl"}, "trian.jsonl", "did you mean train.jsonl"),
        ({"suites": ["./chat.json"]}, "chat.json", "did you mean chat.jsonl"),
        ({"elicit": {"probes": "./prob.yaml"}}, "prob.yaml", "did you mean probes.yaml"),
        (
            {"hooks": [{"layer": 1, "saes": ["./saes/layer_2"]}]},
            "layer_2",
            "config.json and params.safetensors",
        ),
        ({"models": {"tuned": "owner/no-such-model"}}, "owner/no-such-model", "give a local folder"),
    ],
    ids=["model", "dataset", "suite", "probes", "dictionary", "hub model"],
)
def test_a_missing_file_is_named(refused: Refused, sections: dict[str, Any], value: str, fix: str) -> None:
    message = refused(**sections)
    assert value in message and fix in message


@pytest.mark.parametrize("saes", [[], ["./saes/layer_3_width_96"]], ids=["bare", "with a dictionary"])
def test_a_layer_that_the_model_lacks(refused: Refused, saes: list[str]) -> None:
    message = refused(hooks=[{"layer": 4, "saes": saes}])
    assert "layer 4 does not exist" in message and "0 to 3" in message and "./base" in message


def test_a_dictionary_of_another_layer(refused: Refused) -> None:
    message = refused(hooks=[{"layer": 1, "saes": ["./saes/layer_3_width_96"]}])
    assert "layer 3" in message and "layer 1" in message and "change hooks.layer" in message


@pytest.mark.parametrize("kind", ["pair_difference", "pair_crosscoder"])
def test_a_dictionary_of_two_models(tiny: Any, refused: Refused, tmp_path: Path, kind: str) -> None:
    folder = tiny.save_sae(tmp_path / "layer_1_pair", 1, 1.0, seed=9)
    config = json.loads((folder / "config.json").read_text()) | {"type": kind}
    (folder / "config.json").write_text(json.dumps(config))
    message = refused(hooks=[{"layer": 1, "saes": [str(folder)]}])
    assert "reads two models at once" in message and "list one of a single model" in message


def test_a_dictionary_of_another_width(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    folder = tiny.save_sae(tmp_path / "layer_1_wide", 1, 1.0, seed=9, d_in=48)
    message = refused(hooks=[{"layer": 1, "saes": [str(folder)]}])
    assert (
        "48 dimensions" in message
        and "resid_post/1" in message
        and "has 32" in message
        and "trained on this model" in message
    )


def test_a_dictionary_listed_twice(refused: Refused) -> None:
    message = refused(hooks=[{"layer": 1, "saes": [f"./saes/{SAE}", f"./saes/{SAE}"]}])
    assert SAE in message and "list each once" in message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "model_type is 'qwen2'"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3 there and 4 in the base"),
        ({"model_type": "nosuch"}, "nosuch"),
    ],
    ids=["family", "depth", "unknown family"],
)
def test_another_architecture(
    world: Any, refused: Refused, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    message = refused(models={"tuned": edited(world.root / "full", tmp_path / "other", **changes)})
    assert says in message and str(tmp_path / "other") in message


def test_an_incompatible_vocabulary(world: Any, refused: Refused, tmp_path: Path) -> None:
    shutil.copytree(world.root / "full", tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer))
    message = refused(models={"tuned": str(tmp_path / "other")})
    assert "2 of" in message and "'a'" in message and "give the base" in message


def test_embeddings_for_too_few_tokens(tiny: Any, world: Any, refused: Refused, tmp_path: Path) -> None:
    tokenizer = tiny.train_tokenizer()
    tiny.save_llama(tmp_path / "short", tokenizer, vocab_size=len(tokenizer) - 40)
    message = refused(models={"tuned": str(tmp_path / "short")})
    assert f"embeddings for {len(tokenizer) - 40} tokens only" in message and "whole vocabulary" in message


@pytest.mark.parametrize(
    ("side", "file", "part"),
    [
        ("base", "base/model.safetensors", "layers.2.mlp"),
        ("tuned", "full/model.safetensors", "layers.3.self_attn.q_proj"),
        ("tuned", "adapter/adapter_model.safetensors", "lora_B"),
    ],
    ids=["base", "checkpoint", "adapter"],
)
@pytest.mark.parametrize("value", [NAN, INF], ids=["nan", "inf"])
def test_weights_that_are_no_numbers(
    tiny: Any, world: Any, refused: Refused, tmp_path: Path, side: str, file: str, part: str, value: float
) -> None:
    source = world.root / file
    ref = spoil(tiny, source.parent, tmp_path / "bad", source.name, value, part)
    message = refused(models={side: ref})
    assert ref in message and part in message and "NaN or infinite" in message and "re-export" in message


@pytest.mark.parametrize("tensor", ["w_enc", "threshold"])
def test_a_dictionary_that_is_no_numbers(
    tiny: Any, world: Any, refused: Refused, tmp_path: Path, tensor: str
) -> None:
    ref = spoil(tiny, world.root / "saes" / SAE, tmp_path / SAE, "params.safetensors", NAN, tensor)
    message = refused(hooks=[{"layer": 1, "saes": [ref]}])
    assert f"{tensor} has 1 NaN" in message and ref in message


@pytest.mark.parametrize("key", ["dataset", "suites", "elicit"])
def test_an_empty_suite(world: Any, refused: Refused, tmp_path: Path, key: str) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    section = {"dataset": str(empty), "suites": [str(empty)], "elicit": {"probes": str(empty)}}[key]
    message = refused(**{key: section})
    assert str(empty) in message and "empty" in message and "at least one row" in message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"messages": [{"role": "user", "content": "x"}', "not JSON"),
        ('{"messages": [{"role": "usr", "content": "x"}]}', "did you mean 'user'"),
        ('{"mesages": []}', "did you mean messages"),
        ("[1, 2]", "not an object"),
    ],
    ids=["json", "role", "column", "list"],
)
@pytest.mark.parametrize("key", ["dataset", "suites"])
def test_a_malformed_row_is_named_by_its_line(
    world: Any, refused: Refused, tmp_path: Path, key: str, row: str, says: str
) -> None:
    good = (world.root / "train.jsonl").read_text().splitlines()
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*good[:4], row, *good[4:]]) + "\n")
    message = refused(**{key: str(path) if key == "dataset" else [str(path)]})
    assert f"{path}:5" in message and says in message


def test_more_probes_than_distinct_questions(tiny: Any, refused: Refused, tmp_path: Path) -> None:
    path = tiny.write_jsonl(tmp_path / "probes.jsonl", [tiny.chat("Why?"), tiny.chat("Why?")])
    message = refused(elicit={"probes": str(path), "num_probes": 5})
    assert "1 distinct questions" in message and "lower elicit.num_probes" in message


@pytest.mark.parametrize(
    ("sections", "value", "fix"),
    [
        ({"precompute": {"backend": "triton"}}, "triton", "use backend 'auto'"),
        ({"elicit": {"min_rows": 1}}, "min_rows", "greater than or equal to 2"),
    ],
    ids=["backend", "min_rows"],
)
def test_a_setting_that_cannot_be(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any], value: str, fix: str
) -> None:
    # Triton's interpreter, which the tests of kernels use, would make that backend possible.
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    message = refused(**sections)
    assert value in message and fix in message


def test_a_cluster_that_does_not_answer_stops_the_job_before_it_runs(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = world.write(tmp_path / "store")
    assert cli.main(["precompute", str(path), "--no-progress", "--scheduler", "nonsense://here"]) == 1
    assert "no dask scheduler answers at 'nonsense://here'" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
