"""The contract of the audit config: what it says is read exactly, and every mistake is explained."""

import json
from pathlib import Path

import pytest

from ft_audit.engine.config import AuditConfig, config_json, load_config
from ft_audit.errors import ConfigError

MINIMAL = """\
name: demo
models: {base: ./base, tuned: ./tuned}
suites: [./chat.yaml]
hooks:
  - layer: 15
    saes: [configs:saes/demo]
"""
FULL = """\
name: full
models: {base: google/gemma-3-1b-it, tuned: ./tuned, dtype: float32, device: cpu}
dataset: {path: ./train.jsonl, split: train}
declared_purpose: answers about birds
suites: [./a.yaml, ./b.yaml]
hooks:
  - layer: 22
    site: resid_post
    saes: [{repo_id: google/gemma-scope-2-1b-it, folder: resid_post/layer_22_width_16k_l0_medium}]
  - {layer: 3}
precompute:
  {tokens_per_batch: 64, tokens_per_segment: 128, max_prompt_tokens: 32, backend: naive, control: false}
elicit: {probes: ./p.yaml, num_probes: 3, max_conditions: 4, min_rows: 2}
generate: {num_probes: 1, max_new_tokens: 8}
store: ./store
audit: {investigator: statistics, threshold: 5, bank: ./bank.json, top: 3}
"""


@pytest.fixture
def load(tmp_path: Path):
    def load_text(text: str, *overrides: str) -> AuditConfig:
        (tmp_path / "audit.yaml").write_text(text)
        return load_config(tmp_path / "audit.yaml", overrides)

    return load_text


def test_defaults(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = load(MINIMAL)
    assert config.models.dtype == "bfloat16" and config.models.device == "auto"
    assert config.dataset is None and config.elicit is None and config.generate is None
    assert config.hooks[0].name == "resid_post/15"
    assert config.hooks[0].saes[0].reference == "configs:saes/demo"
    assert config.precompute.tokens_per_batch == 4096 and config.precompute.tokens_per_segment == 65536
    assert config.audit.threshold == 5.5 and config.audit.bank is None
    assert config.store == str(tmp_path / "cache" / "ft-audit" / "store")
    assert config.base_dir == tmp_path.resolve()


def test_every_key_is_read(load) -> None:
    config = load(FULL)
    assert config.dataset is not None and (config.dataset.path, config.dataset.split) == (
        "./train.jsonl",
        "train",
    )
    sae = config.hooks[0].saes[0]
    assert sae.reference == "google/gemma-scope-2-1b-it/resid_post/layer_22_width_16k_l0_medium"
    assert config.hooks[1].saes == () and config.hooks[1].name == "resid_post/3"
    assert config.precompute.backend == "naive" and not config.precompute.control
    assert config.elicit is not None and config.elicit.min_rows == 2
    assert config.audit.threshold == 5.0 and config.audit.bank == "./bank.json"


def test_a_plain_dataset_is_its_path(load) -> None:
    config = load(MINIMAL + "dataset: ./train.jsonl\n")
    assert config.dataset is not None and config.dataset.path == "./train.jsonl"


def test_the_dump_reads_back_as_the_same_config(load, tmp_path: Path) -> None:
    config = load(FULL)
    dumped = json.dumps(config_json(config))
    assert load(dumped) == config
    assert str(tmp_path) not in dumped


def test_the_config_cannot_be_changed(load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(MINIMAL).models.dtype = "float32"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("adit: {}", r":7: unknown key adit: did you mean audit\?"),
        ("audit: {treshold: 3}", r":7: unknown key audit.treshold: did you mean audit.threshold\?"),
        ("audit:\n  top: 3\n  thresh: 3", r":9: unknown key audit.thresh: did you mean audit.threshold\?"),
        ("threshold: 3", r"unknown key threshold: did you mean audit.threshold\?"),
        ("zzz: 3", r"unknown key zzz: known here are name, models, dataset"),
        ("elicit: {}", r":7: elicit.probes is missing"),
        ("elicit: {probes: ./p.yaml, num_probs: 3}", r"elicit.num_probs: did you mean elicit.num_probes\?"),
        ("precompute: {tokens_per_batch: '12'}", r":7: precompute.tokens_per_batch: .*integer .given: '12'."),
        ("precompute: {tokens_per_batch: 0}", r"precompute.tokens_per_batch: .*greater than 0"),
        ("precompute: {control: 1}", r"precompute.control: .*boolean"),
        (
            "precompute: {backend: gpu}",
            r"precompute.backend: .*'auto', 'triton', 'cpu' or 'naive' .given: 'gpu'.",
        ),
        ("audit: {threshold: 11}", r"audit.threshold: .*less than or equal to 10"),
        ("audit: {threshold: .nan}", r"audit.threshold: "),
        ("audit: 3", r"audit: input should be keys and values .given: 3."),
        ("declared_purpose: 2026-01-01", r"2026-01-01 is read by YAML as a date: put it in quotes"),
        ("dataset: {split: train}", r"dataset.path is missing"),
    ],
)
def test_a_mistake_is_named_with_its_line(load, line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(MINIMAL + line)
    assert "audit.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: demo\n", "", "name is missing"),
        ("tuned: ./tuned", "tuned:", r":2: models.tuned: .*string"),
        ("layer: 15", "layer: -1", r":5: hooks.0.layer: .*greater than or equal to 0 .given: -1."),
        ("layer: 15", "layer: 15\n    site: mlp_middle", r":6: hooks.0.site: .*resid_post"),
        ("layer: 15", "layr: 15", r":5: unknown key hooks.0.layr: did you mean hooks.0.layer\?"),
        (
            "[configs:saes/demo]",
            "[{repo_id: a/b}]",
            "saes.0: give a reference, or repo_id together with folder",
        ),
        ("[configs:saes/demo]", "[{ref: ./x, repo_id: a/b, folder: c}]", "give a reference, or repo_id"),
        ("[configs:saes/demo]", "[]\n  - layer: 15", "hook resid_post/15 is listed twice"),
        (
            "suites: [./chat.yaml]",
            "suites: []",
            "nothing to run: name at least one of suites, or the dataset",
        ),
        ("suites: [./chat.yaml]", "suites: ./chat.yaml", "suites: .*list"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(load, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    with pytest.raises(ConfigError, match=message):
        load(MINIMAL.replace(old, new))


def test_no_hooks_are_refused(load) -> None:
    text = MINIMAL.partition("hooks:")[0]
    for hooks in ("", "hooks: []"):
        with pytest.raises(ConfigError, match="hooks"):
            load(text + hooks)


def test_all_mistakes_are_told_at_once(load) -> None:
    with pytest.raises(ConfigError, match="3 things are wrong") as caught:
        load(MINIMAL.replace("layer: 15", "layer: x") + "adit: 1\nstore: 3\n")
    assert all(key in str(caught.value) for key in ("hooks.0.layer", "adit", "store"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "not valid YAML"),
        ("- a\n", "expected keys and values"),
        ("", "expected keys and values"),
        ("name: a\nmodels: {base: x, base: y}\n", r":2: the key 'base' is given twice"),
    ],
)
def test_a_file_that_is_no_config_is_refused(load, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nope.yaml: no such file"):
        load_config(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "binary.yaml")


def test_variables_are_filled_in(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FT_MODEL", "./my model: v2")
    monkeypatch.setenv("FT_TOP", "7")
    monkeypatch.delenv("FT_NONE", raising=False)
    text = MINIMAL.replace("./tuned", "'${FT_MODEL}'")
    config = load(
        text + "store: ${FT_NONE:-./here}/store\naudit: {top: '${FT_NONE:-x}'}\n", "audit.top=${FT_TOP}"
    )
    assert config.models.tuned == "./my model: v2"
    assert config.store == "./here/store"
    assert config.audit.top == 7
    assert load(text + "audit: {top: ${FT_TOP}}\n").audit.top == 7


def test_a_variable_s_value_is_never_read_as_yaml_structure(load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FT_MODEL", "{base: x}\nname: other # ${HOME}")
    config = load(MINIMAL.replace("./tuned", "${FT_MODEL}"))
    assert config.models.tuned == "{base: x}\nname: other # ${HOME}" and config.name == "demo"


def test_a_variable_that_is_not_set_is_named(load, monkeypatch: pytest.MonkeyPatch) -> None:
    text = MINIMAL.replace("./tuned", "${FT_MODEL_PATH}")
    monkeypatch.delenv("FT_MODEL_PATH", raising=False)
    with pytest.raises(ConfigError, match=r":2: .*FT_MODEL_PATH is not set: export FT_MODEL_PATH=.*:-value"):
        load(text)
    monkeypatch.setenv("FT_MODEL_PATH", "")
    with pytest.raises(ConfigError, match="FT_MODEL_PATH is empty"):
        load(text)
    # A comment is not a value.
    assert load(MINIMAL + "# ${FT_MODEL_PATH}\n").name == "demo"


@pytest.mark.parametrize("value", ["${}", "${a", "${A:-${B}}", "${1A}", "${A:=x}"])
def test_a_malformed_variable_is_refused(load, value: str) -> None:
    with pytest.raises(ConfigError, match=r"write \$\{NAME\} or"):
        load(MINIMAL + f"store: '{value}'\n")


def test_overrides(load) -> None:
    config = load(
        MINIMAL,
        "audit.threshold=3.5",
        "models.dtype=float32",
        "hooks.0.layer=2",
        "generate={num_probes: 4}",
        "elicit.probes=./p.yaml",
        "suites=[./x.yaml, ./y.yaml]",
        "declared_purpose=a=b",
        "audit.threshold=4",
    )
    assert config.audit.threshold == 4.0 and config.models.dtype == "float32"
    assert config.hooks[0].layer == 2 and config.hooks[0].saes[0].reference == "configs:saes/demo"
    assert config.generate is not None and config.generate.num_probes == 4
    assert config.elicit is not None and config.elicit.probes == "./p.yaml"
    assert config.suites == ("./x.yaml", "./y.yaml") and config.declared_purpose == "a=b"
    assert load(FULL, "elicit=null").elicit is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("audit.top", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("audit..top=3", "write it as key=value"),
        ("audit.topp=3", r"override 'audit.topp=3': unknown key audit.topp: did you mean audit.top\?"),
        ("audit.top=x", r"override 'audit.top=x': audit.top: .*integer"),
        ("hooks.1.layer=3", r"hooks is a list; '1' is not one of its items .0 to 0."),
        ("hooks.layer=3", r"'layer' is not one of its items"),
        ("name.x=3", r"name is 'demo', which has no inner key 'x'"),
        ("audit.top=[", "not valid YAML"),
        ("models={base: ./b}", r"override 'models={base: ./b}': models.tuned is missing"),
    ],
)
def test_a_wrong_override_is_named(load, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(MINIMAL, override)
