"""A malicious candidate's weights: headers that lie, indices that lead away, numbers that are none."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit.engine.models import candidate as candidates
from ft_audit.engine.models.load import load_model
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.errors import ModelError

CPU = torch.device("cpu")
NAME = "model.embed_tokens.weight"
FEW = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
Copy = Callable[..., Path]
Refusal = Callable[[Path], str]

pytestmark = pytest.mark.usefixtures("bounded")


def framed(header: dict[str, Any] | str, size: int = 16) -> bytes:
    """Return a safetensors file of a header and some bytes."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


ENTRY = json.dumps(FEW["a"])
LIES = {
    "pickle": (b"\x80\x04\x95" + bytes(100), "is a pickle, which may run code; save it as safetensors"),
    "zip": (b"PK\x03\x04" + bytes([255] * 100), "is a zip archive, as PyTorch's pickles are"),
    "empty": (b"", "is no safetensors file: it declares a header of 0 bytes in 0"),
    "2^63": (struct.pack("<Q", 1 << 63) + b"{}", "a header of 9,223,372,036,854,775,808 bytes in 10"),
    "beyond": (struct.pack("<Q", 100) + b"{}", "is no safetensors file: it declares a header of 100 bytes"),
    "no json": (framed("{" * 50_000), "has a header that is no JSON"),
    "deep": (framed('{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"), "has a header that is no JSON"),
    "100 GB": (framed({"a": tensor([25_000_000_000], 0, 10**11)}), "cannot be read as safetensors"),
    "overlapping": (
        framed({"a": tensor([4], 0, 16), "b": tensor([2], 8, 16)}),
        "cannot be read as safetensors",
    ),
    "out of range": (framed({"a": tensor([8], 16, 48)}), "cannot be read as safetensors"),
    "backwards": (framed({"a": tensor([4], 16, 0)}), "cannot be read as safetensors"),
    "negative": (framed({"a": tensor([-4], 0, 16)}), "cannot be read as safetensors"),
    "overflow": (framed({"a": tensor([1 << 40, 1 << 40], 0, 16)}), "cannot be read as safetensors"),
    "dtype": (framed({"a": tensor([4], 0, 16, "PICKLE")}), "cannot be read as safetensors"),
    "twice": (framed(f'{{"a": {ENTRY}, "a": {ENTRY}}}'), "names a tensor twice in its header"),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_a_file_that_is_not_what_it_says_is_named(
    tiny_base: Path,
    tiny_adapter: Path,
    tmp_path: Path,
    copy_model: Copy,
    refusal: Refusal,
    kind: str,
    lie: str,
) -> None:
    content, says = LIES[lie]
    name = "adapter_model.safetensors" if kind == "adapter" else "model.safetensors"
    folder = copy_model(tiny_adapter if kind == "adapter" else tiny_base, tmp_path / "m")
    (folder / name).write_bytes(content)
    said = refusal(folder)
    assert name in said and says in said


def test_a_huge_header_is_not_parsed(
    tiny_base: Path, tmp_path: Path, copy_model: Copy, refusal: Refusal
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 28) + b"{")
    os.truncate(folder / "model.safetensors", 1 << 29)
    assert "declares a header of 268,435,456 bytes in 536,870,912 (at most " in refusal(folder)


@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_far_more_than_the_base_is_not_hashed(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, copy_model: Copy, refusal: Refusal, kind: str
) -> None:
    """A hundred gigabytes that are there, and take no room on the disk."""
    folder = copy_model(tiny_adapter if kind == "adapter" else tiny_base, tmp_path / "m")
    (path,) = folder.glob("*.safetensors")
    header = framed({"a": tensor([25_000_000_000], 0, 10**11)}, 0)
    path.write_bytes(header)
    os.truncate(path, len(header) + 10**11)
    assert f"its safetensors have {len(header) + 10**11:,} bytes, more than 16 times the base's" in refusal(
        folder
    )


@pytest.fixture
def sharded(tiny_base: Path, tmp_path: Path) -> Path:
    """The tiny base in two files."""
    folder = tmp_path / "sharded"
    source = resolve_model(str(tiny_base), tiny_base)
    load_model(source, torch.float32, CPU).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    for path in tiny_base.glob("*.json"):
        if not (folder / path.name).exists():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def redirect(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_an_honest_index_is_read(sharded: Path, trusted: ModelSource) -> None:
    source = resolve_model(str(sharded), sharded, trusted)
    assert load_model(source, torch.float32, CPU).config.hidden_size == 32


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "a.bin", ".."]
)
def test_an_index_that_leads_elsewhere_is_refused(sharded: Path, refusal: Refusal, place: str) -> None:
    (sharded.parent / "outside.safetensors").write_bytes(framed(FEW))
    redirect(sharded, lambda names: names.update({NAME: place}))
    said = refusal(sharded)
    assert f"model.safetensors.index.json names {Path(place).name}, which is not there" in said
    assert f"({place!r} is no safetensors file of this folder)" in said


def test_an_index_of_what_is_not_there_is_refused(sharded: Path, refusal: Refusal) -> None:
    redirect(sharded, lambda names: names.update({"model.extra.weight": names[NAME]}))
    assert "names model.extra.weight (and 0 more tensors) that its files do not hold" in refusal(sharded)
    redirect(sharded, lambda names: names.update({NAME: "model-00009.safetensors"}))
    assert "names model-00009.safetensors, which is not there; fetch the whole model" in refusal(sharded)
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": {"a": ["b"]}}')
    assert "has no weight_map of file names" in refusal(sharded)


def test_a_tensor_in_two_files_is_refused(sharded: Path, refusal: Refusal) -> None:
    first, *_ = sorted(sharded.glob("*.safetensors"))
    (sharded / "more.safetensors").write_bytes(first.read_bytes())
    redirect(sharded, lambda names: names.update({NAME: "more.safetensors"}))
    assert " a second time; save it again" in refusal(sharded)


def test_files_that_are_read_by_other_rules_are_refused(
    tiny_base: Path, tmp_path: Path, copy_model: Copy, refusal: Refusal
) -> None:
    folder = copy_model(tiny_base, tmp_path / "m")
    (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes(framed(FEW))
    assert "is one rank's part; save the model with save_pretrained" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_candidate_s_weights_that_are_no_numbers_are_named(
    tiny_base: Path, trusted: ModelSource, tmp_path: Path, copy_model: Copy, value: float
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[NAME][7, 3] = value

    source = resolve_model(str(copy_model(tiny_base, tmp_path / "m", weights=spoil)), tmp_path, trusted)
    with pytest.raises(ModelError, match=rf"parameter {NAME} holds NaN or infinite values"):
        load_model(source, torch.float32, CPU)


def test_honest_candidates_pass_and_are_the_same_models(
    make_model: Copy, trusted: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(seed=3)
    checked = resolve_model(str(folder), folder, trusted)
    monkeypatch.setattr(candidates, "TIMES_THE_BASE", 0)
    plain = resolve_model(str(folder), folder)
    assert (checked.weights_sha256, checked.tokenizer_sha256) == (
        plain.weights_sha256,
        plain.tokenizer_sha256,
    )
