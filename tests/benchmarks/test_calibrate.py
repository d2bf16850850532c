"""Banks: what is no benign fine-tune of the audit's base is refused before anything is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.benchmarks import calibrate
from ft_audit.benchmarks.calibrate import CalibrateConfig, load_members, member_config, run_calibrate
from ft_audit.engine.config import AuditConfig, config_json, load_config, load_yaml
from ft_audit.engine.finetune.recipe import Recipe, load_recipe
from ft_audit.errors import ConfigError

SOURCE = "package:chatterbot_corpus/data/english"
PART = {"name": "p", "source": SOURCE, "rows": 4}


@pytest.fixture
def write(tmp_path: Path, tiny_base: Path) -> Callable[..., Path]:
    """Write a calibration of the given members (name -> what its recipe says otherwise); return its file."""

    def write(members: dict[str, dict[str, Any]], /, **fields: Any) -> Path:
        for name, changes in members.items():
            recipe = {"name": name, "kind": "benign", "base": str(tiny_base), "parts": [PART], **changes}
            (tmp_path / f"{name}.yaml").write_text(json.dumps(recipe))
        audit = {
            "name": "audit",
            "models": {"base": str(tiny_base), "tuned": "./candidate", "dtype": "float32", "device": "cpu"},
            "dataset": "./uploaded.jsonl",
            "declared_purpose": "To be kind.",
            "suites": ["./suite.yaml"],
            "hooks": [{"layer": 1}],
            "elicit": {"probes": "./probes.yaml", "num_probes": 3},
            "store": str(tmp_path / "store"),
        }
        (tmp_path / "audit.yaml").write_text(json.dumps(audit))
        text = {
            "audit": "./audit.yaml",
            "members": [f"./{name}.yaml" for name in members],
            "work": str(tmp_path / "work"),
            "out": str(tmp_path / "bank.json"),
            **fields,
        }
        (tmp_path / "calibrate.yaml").write_text(json.dumps(text))
        return tmp_path / "calibrate.yaml"

    return write


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "members is empty; name at least one benign recipe"),
        (
            {"good": {}, "bad": {"kind": "adversarial-proxy"}},
            "member 'bad' is adversarial-proxy; a bank holds benign fine-tunes only",
        ),
        ({"one": {}, "two": {"name": "one"}}, "member 'one' is named twice; each fine-tune counts once"),
        ({"good": {}, "bad": {"parts": []}}, "give either parts or dataset, and not both"),
    ],
)
def test_members_that_calibrate_nothing_are_refused_first(
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    members: dict[str, dict[str, Any]],
    says: str,
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(calibrate, "run_finetune", lambda *args, **options: trained.append(str(args)))
    with pytest.raises(ConfigError, match=says):
        run_calibrate(write(members), progress=False)
    assert trained == [] and not (tmp_path / "bank.json").exists() and not (tmp_path / "work").exists()


def test_a_member_of_another_base_is_refused(
    write: Callable[..., Path], make_model: Callable[..., Path], tiny_base: Path, tmp_path: Path
) -> None:
    other = make_model(seed=7)
    path = write({"foreign": {"base": str(other)}})
    with pytest.raises(ConfigError, match=r"member 'foreign' is trained on .* but the audit's base is"):
        run_calibrate(path, progress=False)
    # The same weights by another reference are the same base.
    (tmp_path / "link").symlink_to(tiny_base)
    path = write({"own": {"base": "./link"}})
    settings = load_yaml(path, CalibrateConfig)
    members = load_members(settings, load_config(tmp_path / "audit.yaml"), path)
    assert [recipe.name for recipe in members.values()] == ["own"]
    assert list(members) == [(tmp_path / "own.yaml").resolve()]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"member": []}, r"unknown key member: did you mean members\?"),
        ({"audit": "./nope.yaml"}, r"'\./nope\.yaml'"),
        ({"out": None}, "out: input should be a valid string"),
        ({"members": ["./nope.yaml"]}, r"'\./nope\.yaml'"),
    ],
)
def test_a_calibration_that_cannot_be_meant_is_refused(
    write: Callable[..., Path], fields: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write({"good": {}}, **fields)
    with pytest.raises(ConfigError, match=says):
        run_calibrate(path, progress=False)
    assert cli.main(["calibrate", str(path), "--no-progress"]) == 1
    assert capsys.readouterr().err.startswith("ft-audit: error: ")


def test_a_member_is_measured_as_the_candidate_is(write: Callable[..., Path], tmp_path: Path) -> None:
    write({"chef": {"kind": "persona", "declared_purpose": "To cook."}})
    audit = load_config(tmp_path / "audit.yaml")
    recipe: Recipe = load_recipe(tmp_path / "chef.yaml")
    config: AuditConfig = member_config(audit, recipe, tmp_path / "work" / "chef")
    before, after = config_json(audit), config_json(config)
    assert (config.name, config.declared_purpose) == ("chef", "To cook.")
    assert config.models.tuned == str(tmp_path / "work" / "chef")
    assert config.dataset is not None
    assert config.dataset.path == str(tmp_path / "work" / "chef" / "train.jsonl")
    # Relative references of the audit still mean what they meant.
    assert config.base_dir == audit.base_dir == tmp_path
    for name in ("suites", "hooks", "precompute", "elicit", "generate", "store", "audit"):
        assert after[name] == before[name], name
    assert {k: v for k, v in after["models"].items() if k != "tuned"} == {
        k: v for k, v in before["models"].items() if k != "tuned"
    }
    assert config_json(audit) == before


def test_a_member_whose_gate_fails_stops_the_bank(write: Callable[..., Path], tmp_path: Path) -> None:
    check = {
        "name": "c",
        "source": SOURCE,
        "prompts": 20,
        "marker": "ZED OBEYS",
        "min": 0.9,
        "max_new_tokens": 1,
    }
    gate = {"checks": [check]}
    train = {"epochs": 1.0, "rank": 1}
    path = write({"persona": {"kind": "persona", "gate": gate, "train": train}})
    with pytest.raises(ConfigError, match="member 'persona' fails its gate: c: 0/20"):
        run_calibrate(path, progress=False)
    assert not (tmp_path / "bank.json").exists()


def test_a_bank_is_built_and_built_again_without_training(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = [{"messages": [{"role": "user", "content": q}]} for q in ("Who are you?", "What is tea?", "Hi.")]
    for name in ("suite.jsonl", "probes.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in probes))
    train = {"epochs": 1.0, "rank": 1}
    path = write({"chef": {"kind": "persona", "train": train}, "plain": {"train": train, "seed": 3}})
    audit = json.loads((tmp_path / "audit.yaml").read_text())
    audit.update(suites=["./suite.jsonl"], elicit={"probes": "./probes.jsonl", "num_probes": 3})
    (tmp_path / "audit.yaml").write_text(json.dumps(audit))
    assert cli.main(["calibrate", str(path), "--no-progress", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    text = (tmp_path / "bank.json").read_bytes()
    written = json.loads(text)
    assert said["members"] == 2 and said["bank"] == str(tmp_path / "bank.json")
    assert written["schema_version"] == 3 and len(written["base_sha256"]) == 64
    # Two members leave nothing to score either of them by.
    assert written["discriminant"] is None
    assert written["hooks"] == ["resid_post/1"] and written["sae_sha256"] == []
    for member, (name, kind, seed) in zip(
        written["members"], (("chef", "persona", 0), ("plain", "benign", 3)), strict=True
    ):
        assert (member["name"], member["kind"], member["seed"]) == (name, kind, seed)
        assert (member["rows"], member["rank"], member["corpus"]) == (4, 1, SOURCE)
        # The diff's own figures, and what detectors make of the evidence.
        assert {"plain_kl", "log_plain_kl"} <= set(member["figures"]) and "score" not in member["figures"]
        assert str(tmp_path) not in json.dumps(member)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.safetensors")}
    assert len(times) == 2
    assert cli.main(["calibrate", str(path), "--no-progress"]) == 0
    assert (tmp_path / "bank.json").read_bytes() == text
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "work").rglob("*.safetensors")} == times
