"""Owns reading a published dictionary's files safely: no pickle runs, and every mistake names its file."""

from __future__ import annotations

import json
import pickle
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ft_audit.errors import SaeError

# What the parsers of these files raise over bytes that are not as they should be, as found by changing some.
DAMAGE = (
    SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    SyntaxError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of one file under their published names, and what else a state dict held."""

    path: Path
    tensors: Mapping[str, Tensor]
    other: Mapping[str, Any] = field(default_factory=dict)

    def need(self, *names: str) -> None:
        """Raise SaeError unless every named tensor is there."""
        missing = [name for name in names if name not in self.tensors]
        if missing:
            has = ", ".join(sorted(self.tensors)) or "nothing"
            raise SaeError(
                f"{self.path}: misses {', '.join(missing)} (has {has}); fetch it again, or choose a "
                f"dictionary of a kind that is read"
            )

    def matrix_shape(self, name: str) -> tuple[int, int]:
        """The shape of a tensor that must be a matrix."""
        self.need(name)
        shape = tuple(self.tensors[name].shape)
        if len(shape) != 2 or 0 in shape:
            raise SaeError(f"{self.path}: {name} has shape {shape}; expected a matrix; fetch it again")
        return shape[0], shape[1]

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in float32 on the CPU, which has this shape and is finite; raises SaeError naming it."""
        self.need(name)
        tensor = self.tensors[name]
        if tuple(tensor.shape) != shape:
            raise SaeError(
                f"{self.path}: {name} has shape {tuple(tensor.shape)}, the other tensors ask for {shape}; "
                f"they do not belong together, fetch the file again"
            )
        if tensor.dtype not in DTYPES:
            raise SaeError(
                f"{self.path}: {name} is {tensor.dtype}; expected one of {', '.join(map(str, DTYPES))}"
            )
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise SaeError(
                f"{self.path}: {name} has {bad} NaN or infinite values of {tensor.numel()}; get it anew"
            )
        return tensor.float().contiguous()


def read_safetensors(path: Path) -> TensorFile:
    """Every tensor of a safetensors file."""

    def read() -> Mapping[str, Tensor]:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    return TensorFile(path, _reading(path, "safetensors", read))


def read_npz(path: Path) -> TensorFile:
    """Every array of a numpy archive; one that holds Python objects is refused."""

    def read() -> Mapping[str, Tensor]:
        # numpy leaves a file open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}

    return TensorFile(path, _reading(path, "npz", read))


def read_state_dict(path: Path) -> TensorFile:
    """A torch state dict, loaded with `weights_only=True`: a pickle that wants to run code is refused."""

    def read() -> Any:
        # What torch warns of in an odd pickle is no business of the user's: it is read as weights or refused.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)

    loaded = _reading(path, "weights-only torch", read)
    if not isinstance(loaded, dict):
        raise SaeError(f"{path}: holds a {type(loaded).__name__}, expected a state dict; fetch it again")
    tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    return TensorFile(path, tensors, {str(k): v for k, v in loaded.items() if not isinstance(v, Tensor)})


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where there is no such file: some published folders have none."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SaeError(f"{path}: not readable JSON ({error}); fetch or copy it again") from error
    if not isinstance(config, dict):
        raise SaeError(f"{path}: expected a JSON object, found {type(config).__name__}; fetch it again")
    return config


def _reading(path: Path, kind: str, read: Callable[[], Any]) -> Any:
    if not path.is_file():
        raise SaeError(f"{path}: no such file; copy or fetch the dictionary again")
    try:
        return read()
    except DAMAGE as error:
        # Torch explains at length how to load what it refused all the same.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SaeError(f"{path}: not a readable {kind} file ({reason}); fetch it again") from error
