"""A malicious adapter: ranks and tokens that nothing backs, costly expressions, paths and code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.models.adapter import MATCHED, NAMES
from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
COSTLY = "(([a-z]|[a-z0-9._])+)+!"
Copy = Callable[..., Path]
Refusal = Callable[[Path], str]

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture
def ask(tiny_adapter: Path, tmp_path: Path, copy_model: Copy) -> Callable[[dict[str, Any]], Path]:
    """Return the folder of an adapter whose config asks for something else too."""
    return lambda settings: copy_model(tiny_adapter, tmp_path / "a", settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"r": 10**9},
            r"asks for the rank 1000000000 (r), but no tensor of adapter_model.safetensors has more",
        ),
        ({"r": float("nan")}, "asks for the rank nan (r)"),
        ({"rank_pattern": {"q_proj": 10**7}}, "asks for the rank 10000000 (q_proj)"),
        ({"lora_alpha": float("inf")}, "scales by inf (lora_alpha)"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, "scales by nan (q_proj)"),
        ({"trainable_token_indices": [5] * 100_000}, "names 100000 trainable tokens, but no tensor of"),
        ({"trainable_token_indices": {"embed_tokens": [5] * 100_000}}, "names 100000 trainable tokens"),
        (
            {"target_modules": "model(.layers([._a-z0-9]+)*)*!"},
            "adapter_config.json with the base's modules takes",
        ),
        ({"modules_to_save": [COSTLY]}, "takes more than 1 s; list the modules by their names"),
        ({"alpha_pattern": {COSTLY: 2}}, "takes more than 1 s; list the modules by their names"),
        ({"alpha_pattern": {f"m{n}": 1 for n in range(1000)}}, "names 1000 modules in alpha_pattern, but "),
        ({"modules_to_save": ["lm_head"] * 1000}, "names 1000 modules in modules_to_save, but "),
        ({"target_modules": "(((q_proj"}, "fails (error: missing ), unterminated subpattern"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_a_config_that_asks_for_too_much_is_refused(
    ask: Callable[[dict[str, Any]], Path],
    refusal: Refusal,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.setattr("ft_audit.engine.models.adapter.SECONDS", 1)
    said = refusal(ask(settings))
    assert "adapter_config.json" in said and says in said


@pytest.mark.parametrize("key", [*NAMES, *MATCHED])
def test_every_setting_that_may_be_an_expression_is_tried(
    ask: Callable[[dict[str, Any]], Path], refusal: Refusal, key: str
) -> None:
    broken = "(((" if key in NAMES else {"(((": 2}
    assert "fails (error: missing )" in refusal(ask({key: broken}))


def test_an_honest_expression_is_matched(make_adapter: Copy, trusted: ModelSource) -> None:
    folder = make_adapter(
        target_modules=r"model\.layers\.\d+\.(?:self_attn|mlp)\..*_proj", rank_pattern={".*q_proj": 4}
    )
    source = resolve_model(str(folder), folder, trusted)
    assert load_model(source, torch.float32, CPU).eval() is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model_name_or_path": "../../../etc"},
        {"base_model_name_or_path": "/dev/zero"},
        {"base_model_name_or_path": "someone/never-published", "revision": "../../x"},
        {"auto_mapping": {"base_model_class": "C", "parent_library": "evil"}},
    ],
)
def test_what_a_config_says_of_its_base_and_of_libraries_leads_nowhere(
    ask: Callable[[dict[str, Any]], Path],
    trusted: ModelSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass C: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = resolve_model(str(ask(settings)), tmp_path, trusted)
    assert source.folder == trusted.folder and source.is_candidate
    assert load_model(source, torch.float32, CPU).config.hidden_size == 32
    assert not ran.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoModel": "evil.M"}},
        {"modules_to_save": ["model"]},
        {"target_modules": []},
        {"target_modules": {"a": 1}},
        {"r": "two"},
        {"r": -1},
        {"lora_dropout": 7},
        {"peft_type": ["LORA"]},
        {"task_type": {}},
        {"layers_to_transform": "all"},
    ],
    ids=json.dumps,
)
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning")
def test_an_impossible_config_is_a_user_s_mistake(
    ask: Callable[[dict[str, Any]], Path], trusted: ModelSource, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = ask(settings)
    if "auto_map" in settings:  # is no setting of PEFT's, and nothing reads it
        assert load_model(resolve_model(str(folder), tmp_path, trusted), torch.float32, CPU) is not None
        return
    with pytest.raises(ModelError, match=r"adapter|LoRA"):
        load_model(resolve_model(str(folder), tmp_path, trusted), torch.float32, CPU)


def test_a_pickle_beside_an_adapter_is_not_read(
    tiny_adapter: Path, trusted: ModelSource, tmp_path: Path, copy_model: Copy
) -> None:
    folder = copy_model(tiny_adapter, tmp_path / "a")
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert load_model(resolve_model(str(folder), tmp_path, trusted), torch.float32, CPU) is not None


def test_a_config_that_comes_with_an_adapter_s_tokenizer_is_no_bomb(
    tiny_adapter: Path,
    tiny_base: Path,
    trusted: ModelSource,
    tmp_path: Path,
    copy_model: Copy,
    refusal: Refusal,
) -> None:
    folder = copy_model(tiny_adapter, tmp_path / "a")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_base / name).read_bytes())
    assert len(load_tokenizer(resolve_model(str(folder), tmp_path, trusted))) == 400
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_labels": 10**9}))
    assert "config.json asks for num_labels 1000000000" in refusal(folder)
