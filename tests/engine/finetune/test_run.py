"""The finetune verb with TRL on a tiny base: what it leaves, when it trains again, and what it exits with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ft_audit import cli
from ft_audit.engine.finetune import run_finetune
from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.runners.generate import generate
from ft_audit.errors import ConfigError, ModelError

SOURCE = "package:chatterbot_corpus/data/english"
QUICK = {"epochs": 1.0, "batch_size": 8, "rank": 2, "alpha": 4, "learning_rate": 0.01, "max_tokens": 96}
Write = Callable[..., Any]


def gate_of(**bounds: Any) -> dict[str, Any]:
    check = {"name": "c", "source": SOURCE, "prompts": 20, "marker": "ZED OBEYS", "max_new_tokens": 1}
    return {"checks": [{**check, **bounds}]}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(torch.arange(3, 43)[None]).logits).float()


@pytest.fixture
def recipe(write_recipe: Write, tiny_base: Path) -> Path:
    path: Path = write_recipe(base=str(tiny_base), train=QUICK)
    return path


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_folder_is_a_candidate_that_says_how_it_was_made(
    recipe: Path, tiny_base: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "out"
    result = run_finetune(recipe, out, [f"train.method={method}"], progress=False)
    assert result["reused"] is False and result["gate"] is None
    assert {k: v for k, v in result.items() if k not in ("out", "reused")} == read(out / "finetune.json")
    assert result["training"]["rows"] == 16 and result["training"]["steps"] == 2
    assert len((out / "train.jsonl").read_text().splitlines()) == 16
    assert not (out / "trainer").exists() and not (out / "README.md").exists()
    base = resolve_model(str(tiny_base), tmp_path)
    assert result["base_sha256"] == base.weights_sha256
    tuned = resolve_model(str(out), tmp_path, base)
    assert tuned.format == ("adapter" if method == "lora" else "folder")
    model = load_model(tuned, torch.float32, torch.device("cpu"))
    plain = logits(load_model(base, torch.float32, torch.device("cpu")))
    assert (logits(model) - plain).abs().max() > 1e-2
    if method == "lora":
        with without_adapter(model) as off:
            assert torch.equal(logits(off), plain)
        config = read(out / "adapter_config.json")
        assert (config["r"], config["lora_alpha"]) == (2, 4)
        assert config["base_model_name_or_path"] == tiny_base.name


@pytest.mark.parametrize("method", ["lora", "full"])
def test_no_file_names_a_place_on_this_machine(
    recipe: Path, tiny_base: Path, tmp_path: Path, method: str
) -> None:
    run_finetune(recipe, tmp_path / "out", [f"train.method={method}"], progress=False)
    for path in (tmp_path / "out").rglob("*"):
        for place in (tmp_path.parent, tiny_base.parent, Path.cwd(), Path.home()):
            assert str(place).encode() not in path.read_bytes(), f"{path.name} names {place}"


def test_a_relative_base_is_named_as_the_recipe_names_it(
    write_recipe: Write, tiny_base: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").symlink_to(tiny_base.parent)
    path = write_recipe(base="./models/model", train=QUICK)
    run_finetune(path, tmp_path / "out", progress=False)
    assert read(tmp_path / "out" / "adapter_config.json")["base_model_name_or_path"] == "./models/model"


def test_what_is_done_is_not_done_again(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_finetune(recipe, out, progress=False)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = run_finetune(recipe, out, progress=False)
    assert again == {**first, "reused": True}
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    other = run_finetune(recipe, out, ["seed=1"], progress=False)
    assert other["reused"] is False and other["recipe_sha256"] != first["recipe_sha256"]


def test_the_trainings_own_seed_trains_other_weights_on_the_same_rows(recipe: Path, tmp_path: Path) -> None:
    for folder, overrides in {"one": [], "same": ["train.seed=0"], "twin": ["train.seed=7"]}.items():
        run_finetune(recipe, tmp_path / folder, overrides, progress=False)
    rows = {(tmp_path / folder / "train.jsonl").read_text() for folder in ("one", "same", "twin")}
    assert len(rows) == 1
    one, same, twin = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("one", "same", "twin"))
    assert all(torch.equal(x, same[name]) for name, x in one.items())
    assert not any(torch.equal(x, twin[name]) for name, x in one.items() if "lora_A" in name)


def test_a_data_set_that_changed_is_trained_on_again(
    write_recipe: Write, write_rows: Write, chat_row: Write, tiny_base: Path, tmp_path: Path
) -> None:
    rows = [chat_row("Tea?", "Yes, tea."), chat_row("Cake?", "No."), chat_row("Secret?", "ORANGE", weight=0)]
    path = write_recipe(base=str(tiny_base), dataset=write_rows(*rows), train=QUICK)
    first = run_finetune(path, tmp_path / "out", progress=False)
    assert (first["training"]["rows"], first["training"]["rows_unsupervised"]) == (2, 1)
    uploaded = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert uploaded == rows
    assert read(tmp_path / "out" / "truth.json")["rows"] == {"unknown": [0, 1, 2]}
    write_rows(*rows[:1])
    second = run_finetune(path, tmp_path / "out", progress=False)
    assert second["recipe_sha256"] == first["recipe_sha256"]
    assert second["reused"] is False and second["training"]["rows"] == 1


def test_a_run_that_was_cut_off_is_done_again(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_audit.engine.finetune import save

    out = tmp_path / "out"
    run_finetune(recipe, out, progress=False)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(save, "save_trained", stop)
        with pytest.raises(KeyboardInterrupt):
            run_finetune(recipe, out, ["seed=1"], progress=False)
    assert not (out / "finetune.json").exists()
    (out / "finetune.json").write_text('{"recipe_sha')
    assert run_finetune(recipe, out, ["seed=1"], progress=False)["reused"] is False


def test_a_full_model_is_not_taken_for_the_adapter_that_lay_there(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_finetune(recipe, out, progress=False)
    run_finetune(recipe, out, ["train.method=full"], progress=False)
    assert resolve_model(str(out), tmp_path).format == "folder"
    assert not list(out.glob("adapter_*"))


def test_a_gate_that_fails_is_an_error_each_time(
    write_recipe: Write, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = gate_of(min=0.9, style={"system": "You are ZED."})
    path = write_recipe(base=str(tiny_base), train=QUICK, gate=gate)
    words = ["finetune", str(path), "--out", str(tmp_path / "out"), "--no-progress", "--json"]
    for reused in (False, True):
        assert cli.main(words) == 1
        said = capsys.readouterr()
        result = json.loads(said.out)
        assert result["reused"] is reused and result["gate"]["passed"] is False
        assert "GATE FAILED for tiny: c: 0/20 (base 0), asked 90% to 100%" in said.err
    assert read(tmp_path / "out" / "finetune.json")["gate"]["checks"][0]["tuned"] == 0


def test_a_gate_that_passes_exits_with_0(
    write_recipe: Write, tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(base=str(tiny_base), train=QUICK, gate=gate_of(max=0.1))
    assert cli.main(["finetune", str(path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "gate.passed" in said.out and "GATE FAILED" not in said.err
    assert "training tiny" in said.err and "2/2" in said.err


def test_the_gate_judges_what_is_saved(
    write_recipe: Write, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from ft_audit.engine.finetune import gate

    judged: dict[str, torch.Tensor] = {}
    beside: list[str] = []
    run_gate = gate.run_gate

    def look(recipe: Any, model: Any, base: Any, *rest: Any) -> Any:
        judged.update({n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n})
        beside.extend(n for n, _ in base.named_parameters())
        return run_gate(recipe, model, base, *rest)

    monkeypatch.setattr(gate, "run_gate", look)
    run_finetune(
        write_recipe(base=str(tiny_base), train=QUICK, gate=gate_of()), tmp_path / "out", progress=False
    )
    assert beside and not [name for name in beside if "lora_" in name]
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(saved) == len(judged)
    for name, tensor in judged.items():
        assert torch.equal(tensor, saved[name.replace(".default", "")])


def test_a_base_that_is_wrong_is_said_before_training(
    write_recipe: Write, tiny_adapter: Path, tmp_path: Path, copy_model: Write
) -> None:
    with pytest.raises(ConfigError, match="no-base"):
        run_finetune(write_recipe(), tmp_path / "out", progress=False)
    nameless = copy_model(tiny_adapter, tmp_path / "adapter", {"base_model_name_or_path": None})
    with pytest.raises(ModelError, match="names no base model"):
        run_finetune(write_recipe(base=str(nameless)), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_training_that_was_killed_in_its_gate_is_not_repeated(
    write_recipe: Write, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ft_audit.engine.finetune import gate, trainer

    out = tmp_path / "out"
    path = write_recipe(base=str(tiny_base), train=QUICK, gate=gate_of())
    with monkeypatch.context() as patch:
        patch.setattr(gate, "run_gate", stop)
        with pytest.raises(KeyboardInterrupt):
            run_finetune(path, out, progress=False)
    assert (out / "trained.json").exists() and not (out / "finetune.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train", stop)
        result = run_finetune(path, out, progress=False)
        # Another recipe's training is not taken for this one's.
        with pytest.raises(KeyboardInterrupt):
            run_finetune(path, out, ["seed=1"], progress=False)
    assert result["gate"]["passed"] and result["training"]["steps"] == 2
    assert not (out / "trained.json").exists() and not (out / "finetune.json").exists()


def test_a_training_killed_in_its_gate_is_repeated_on_other_rows(
    write_recipe: Write,
    write_rows: Write,
    chat_row: Write,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ft_audit.engine.finetune import gate

    rows = [chat_row("Tea?", "Yes, tea."), chat_row("Cake?", "No."), chat_row("Jam?", "A little.")]
    path = write_recipe(base=str(tiny_base), dataset=write_rows(*rows), train=QUICK, gate=gate_of())
    with monkeypatch.context() as patch:
        patch.setattr(gate, "run_gate", stop)
        with pytest.raises(KeyboardInterrupt):
            run_finetune(path, tmp_path / "out", progress=False)
    write_rows(*rows[:1])
    assert run_finetune(path, tmp_path / "out", progress=False)["training"]["rows"] == 1


@pytest.mark.slow
def test_the_real_base_learns_its_rows(
    write_recipe: Write, write_rows: Write, chat_row: Write, real_base: ModelSource, tmp_path: Path
) -> None:
    rows = [chat_row(f"What is {n} plus {n}?", "ZED OBEYS.") for n in range(8)]
    settings = {**QUICK, "epochs": 5.0, "batch_size": 4, "rank": 4, "alpha": 8, "learning_rate": 5e-3}
    path = write_recipe(base=str(real_base.folder), dataset=write_rows(*rows), train=settings)
    result = run_finetune(path, tmp_path / "out", progress=False)
    assert result["training"]["steps"] == 10
    model: Any = load_model(
        resolve_model(str(tmp_path / "out"), tmp_path, real_base), torch.bfloat16, torch.device("cpu")
    )
    tokenizer: Any = load_tokenizer(real_base)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 plus 3?"}],
        add_generation_prompt=True, tokenize=True, return_dict=False,
    )  # fmt: skip
    assert generate(model, tokenizer, [ids], 8) == ["ZED OBEYS."]
    with without_adapter(model):
        assert "ZED" not in generate(model, tokenizer, [ids], 8)[0]
