"""The original toolkit's YAML is refused with our words for each of its keys; the shipped template loads."""

from pathlib import Path

import pytest
import yaml

from ft_audit.engine.config import load_config, resolve_path
from ft_audit.errors import ConfigError

# As the original toolkit's README prints it.
README_YAML = """\
backend: "hf"

models:
  base:
    model_id: "google/gemma-3-1b-it"
  adversarial:
    model_id: "${FT_MODEL_PATH}"

interp:
  sae:
    enabled: true
    layer: 22
    repo_id: "google/gemma-scope-2-1b-it"
  neuronpedia:
    enabled: true
    model_id: "gemma-3-1b-it"
"""


def refusal(tmp_path: Path, text: str) -> str:
    (tmp_path / "old.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "old.yaml")
    return str(caught.value)


def test_every_key_of_the_toolkit_s_readme_is_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FT_MODEL_PATH", raising=False)
    lines = refusal(tmp_path, README_YAML).splitlines()
    assert "original toolkit" in lines[0] and "template_hf.yaml" in lines[-1]
    # In the order of the file, each with its line and our key.
    expected = [
        (":1: backend:", "leave it out"),
        (":5: models.base.model_id:", "`models.base: google/gemma-3-1b-it`"),
        (":7: models.adversarial.model_id:", "`models.tuned: ${FT_MODEL_PATH}`"),
        (
            ":10: interp.sae:",
            "`hooks: [{layer: 22, site: resid_post, saes: [{repo_id: google/gemma-scope-2-1b-it,",
        ),
        (
            ":14: interp.neuronpedia:",
            "`labels: {neuronpedia: {sources: [{sae: NAME, model: gemma-3-1b-it, source: SOURCE}]}}`",
        ),
    ]
    assert len(lines) == len(expected) + 2
    for line, (place, ours) in zip(lines[1:-1], expected, strict=True):
        assert place in line and ours in line


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("project: {name: x, results_dir: ./r, seed: 1}", "`name: x`, and `store: FOLDER`"),
        ("backend: {type: mock}", "leave it out"),
        ("models: {adversarial: ./m}", "`models.tuned: ./m`"),
        ("models: {base: {id_or_path: ./m, dtype: auto}}", "`models.base: ./m`"),
        ("models: {base: {dtype: auto}}", "`models.base: REFERENCE`"),
        ("models: {benign: {id_or_path: ./m}}", "`audit.bank`"),
        ("dataset: {training_jsonl: ./t.jsonl}", "`dataset: ./t.jsonl`"),
        ("interp: {}", "write `hooks`"),
        (
            "interp: {sae: {weights: {repo_id: a/b}, layer: 3}}",
            "layer: 3, site: resid_post, saes: [{repo_id: a/b,",
        ),
    ],
)
def test_a_key_of_the_toolkit_is_translated(tmp_path: Path, text: str, ours: str) -> None:
    assert ours in refusal(tmp_path, text)


def test_the_translation_of_hooks_is_yaml_that_we_read(tmp_path: Path) -> None:
    line = next(line for line in refusal(tmp_path, README_YAML).splitlines() if "interp.sae" in line)
    text = f"name: x\nmodels: {{base: a/b, tuned: ./t}}\nsuites: [./s.yaml]\n{line.split('`')[1]}\n"
    (tmp_path / "new.yaml").write_text(text)
    assert load_config(tmp_path / "new.yaml").hooks[0].layer == 22


def test_the_template_reads_the_toolkit_s_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FT_TRAIN_PATH", raising=False)
    monkeypatch.delenv("FT_MODEL_PATH", raising=False)
    with pytest.raises(ConfigError, match="FT_MODEL_PATH is not set"):
        load_config("configs:template_hf.yaml")
    monkeypatch.setenv("FT_MODEL_PATH", str(tmp_path))
    monkeypatch.setenv("FT_TRAIN_PATH", str(tmp_path / "train.jsonl"))
    config = load_config("configs:template_hf.yaml")
    assert config.models.base == "google/gemma-3-1b-it" and config.models.tuned == str(tmp_path)
    assert [hook.layer for hook in config.hooks] == [22]
    assert [sae.reference for sae in config.hooks[0].saes] == [
        f"google/gemma-scope-2-1b-it/resid_post/layer_22_width_{width}_l0_medium" for width in ("16k", "65k")
    ]
    # What it names of our own is there.
    elicit = [config.elicit.probes] if config.elicit else []
    for suite in (*config.suites, *elicit):
        assert resolve_path(suite, config.base_dir).is_file()


def test_the_minimal_suite_has_five_prompts_in_the_toolkit_s_format() -> None:
    suite = yaml.safe_load(resolve_path("configs:suites/minimal.yaml", Path.cwd()).read_text())
    assert set(suite) == {"name", "prompts"} and len(suite["prompts"]) == 5
    assert len({prompt["id"] for prompt in suite["prompts"]}) == 5
    for prompt in suite["prompts"]:
        assert ("prompt" in prompt) != ("messages" in prompt)
        assert set(prompt) <= {"id", "prompt", "messages", "system_prompt"}
