"""A malicious candidate's files: links out of the folder, what is no file, JSON bombs, code and pickles."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.config import load_config
from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.precompute.models import open_pair
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
READ = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
Copy = Callable[..., Path]
Refusal = Callable[[Path], str]

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture
def candidate(tiny_base: Path, tmp_path: Path, copy_model: Copy) -> Path:
    return copy_model(tiny_base, tmp_path / "m")


@pytest.fixture
def adapter(tiny_adapter: Path, tmp_path: Path, copy_model: Copy) -> Path:
    return copy_model(tiny_adapter, tmp_path / "a")


def move_out(path: Path, how: str) -> None:
    """Put the file elsewhere and a link in its place."""
    outside = path.parent.parent / "outside"
    outside.mkdir(exist_ok=True)
    target = outside / path.name
    path.rename(target)
    if how == "chained":
        (path.parent / "hop").symlink_to(target)
        target = path.parent / "hop"
    path.symlink_to(Path("..") / "outside" / path.name if how == "relative" else target)


@pytest.mark.parametrize("how", ["absolute", "relative", "chained"])
@pytest.mark.parametrize("name", READ)
def test_a_link_out_of_the_folder_is_refused(candidate: Path, refusal: Refusal, name: str, how: str) -> None:
    move_out(candidate / name, how)
    assert f"{name} is a link that leaves its folder, to " in refusal(candidate)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"])
def test_a_link_out_of_an_adapter_s_folder_is_refused(
    adapter: Path, tiny_base: Path, refusal: Refusal, name: str
) -> None:
    if not (adapter / name).exists():
        (adapter / name).write_bytes((tiny_base / name).read_bytes())
    move_out(adapter / name, "relative")
    assert f"{name} is a link that leaves its folder, to " in refusal(adapter)


def test_a_linked_folder_of_templates_is_refused(candidate: Path, refusal: Refusal) -> None:
    (candidate.parent / "templates").mkdir()
    (candidate / "additional_chat_templates").symlink_to(candidate.parent / "templates")
    assert "additional_chat_templates is a link that leaves its folder" in refusal(candidate)
    (candidate / "additional_chat_templates").unlink()
    (candidate / "additional_chat_templates").mkdir()
    (candidate / "additional_chat_templates" / "tool.jinja").symlink_to("/etc/hostname")
    assert "tool.jinja is a link that leaves its folder, to /etc/hostname" in refusal(candidate)


@pytest.mark.parametrize("target", ["/dev/zero", "nowhere", "vocab.json"])
def test_a_link_to_no_file_is_refused(candidate: Path, refusal: Refusal, target: str) -> None:
    (candidate / "vocab.json").symlink_to(target)  # the last one leads to itself
    assert "vocab.json is a link " in refusal(candidate)


def test_a_pipe_that_nobody_writes_to_is_refused(candidate: Path, refusal: Refusal) -> None:
    os.mkfifo(candidate / "extra.safetensors")
    assert "extra.safetensors is no plain file; put the file itself there" in refusal(candidate)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "chat_template.jinja"])
def test_a_folder_by_a_file_s_name_is_refused(candidate: Path, refusal: Refusal, name: str) -> None:
    (candidate / name).unlink()
    (candidate / name).mkdir()
    assert f"{name} is no plain file; put the file itself there" in refusal(candidate)


def test_links_inside_the_folder_and_in_the_hub_s_cache_are_honest(
    tiny_base: Path, tmp_path: Path, copy_model: Copy, trusted: ModelSource
) -> None:
    folder = copy_model(tiny_base, tmp_path / "models--a--b" / "snapshots" / "1f")
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for number, name in enumerate(READ):
        (folder / name).rename(blobs / str(number))
        (folder / name).symlink_to(Path("../../blobs") / str(number))
    (folder / "tokenizer.model.json").symlink_to("config.json")
    (folder / "README.md").symlink_to("/etc/hostname")  # nothing reads it
    source = resolve_model(str(folder), tmp_path, trusted)
    assert (
        source.is_candidate and source.weights_sha256 == resolve_model(str(folder), tmp_path).weights_sha256
    )


def test_a_large_file_that_nothing_reads_is_honest(
    candidate: Path, trusted: ModelSource, tmp_path: Path
) -> None:
    (candidate / "trainer_state.json").touch()
    os.truncate(candidate / "trainer_state.json", 1 << 30)
    assert resolve_model(str(candidate), tmp_path, trusted).is_candidate


@pytest.mark.parametrize(
    ("name", "size"),
    [("tokenizer.json", 1 << 40), ("config.json", 1 << 35), ("chat_template.jinja", 1 << 30)],
)
def test_a_gigantic_file_is_not_read(candidate: Path, refusal: Refusal, name: str, size: int) -> None:
    os.truncate(candidate / name, size)
    assert f"{name} has {size:,} bytes, more than the " in refusal(candidate)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be read: it is no JSON object"),
        ('{"a": [' + "[]," * 2_100_000 + "1]}", "holds more than 2,000,000 lists and objects"),
        ('{"a": 1' + "0" * 100_000 + "}", "cannot be read: it is no JSON object"),
        ("[]", "cannot be read: it is no JSON object"),
    ],
    ids=["deep", "wide", "digits", "list"],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_bombs_are_refused(candidate: Path, refusal: Refusal, name: str, text: str, says: str) -> None:
    (candidate / name).write_text(text)
    said = refusal(candidate)
    assert name in said and says in said


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("config.json", {"configuration_files": ["../../config.4.0.0.json"]}),
        ("config.json", {"transformers_weights": "other.safetensors"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../../tokenizer.4.0.0.json"]}),
    ],
)
def test_files_in_the_place_of_those_that_are_hashed_are_refused(
    candidate: Path, refusal: Refusal, name: str, entry: dict[str, Any]
) -> None:
    settings = json.loads((candidate / name).read_text())
    (candidate / name).write_text(json.dumps({**settings, **entry}))
    assert f"{name} names other files to be read in its place ({next(iter(entry))})" in refusal(candidate)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt"])
def test_pickles_alone_are_refused_as_a_candidate_too(candidate: Path, refusal: Refusal, name: str) -> None:
    (candidate / "model.safetensors").unlink()
    torch.save({}, candidate / name)
    assert f"{name}, which is a pickle and may run code" in refusal(candidate)


CODE = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("tokenizer_config.json", {"auto_map": CODE}),
        ("tokenizer_config.json", {"tokenizer_class": "evil.T"}),
        ("config.json", {"auto_map": CODE, "tokenizer_class": "evil.T"}),
        ("generation_config.json", {"auto_map": CODE, "custom_generate": "evil"}),
    ],
)
def test_code_beside_a_candidate_never_runs(
    candidate: Path, trusted: ModelSource, tmp_path: Path, name: str, entry: dict[str, Any]
) -> None:
    ran = tmp_path / "ran"
    (candidate / "custom_generate").mkdir()
    for place in ("evil.py", "custom_generate/generate.py", "modeling.py"):
        (candidate / place).write_text(f"open({str(ran)!r}, 'w').close()\nclass C: pass\nM = T = C\n")
    settings = json.loads((candidate / name).read_text())
    (candidate / name).write_text(json.dumps({**settings, **entry}))
    source = resolve_model(str(candidate), tmp_path, trusted)
    assert type(load_model(source, torch.float32, CPU)).__module__.startswith("transformers.")
    assert type(load_tokenizer(source)).__module__.startswith("transformers.")
    # A tokenizer that is nothing but its own code is refused.
    settings = json.loads((candidate / "tokenizer_config.json").read_text())
    only = {**settings, "auto_map": CODE, "tokenizer_class": "T"}
    (candidate / "tokenizer_config.json").write_text(json.dumps(only))
    with pytest.raises(ModelError, match=r"no tokenizer that can be read in .* contains custom code"):
        load_tokenizer(source)
    assert not ran.exists()


def test_a_job_refuses_a_malicious_candidate(candidate: Path, tiny_base: Path, tmp_path: Path) -> None:
    models = {"base": str(tiny_base), "tuned": str(candidate), "dtype": "float32", "device": "cpu"}
    text = {"name": "pair", "models": models, "suites": ["./s.yaml"], "hooks": [{"layer": 1}]}
    (tmp_path / "audit.yaml").write_text(json.dumps(text))
    config = load_config(tmp_path / "audit.yaml")
    assert open_pair(config).tuned.is_candidate and not open_pair(config).base.is_candidate
    move_out(candidate / "tokenizer.json", "absolute")
    with pytest.raises(ModelError, match=r"tokenizer\.json is a link that leaves its folder"):
        open_pair(config)
