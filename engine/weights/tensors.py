"""The tensors of one checkpoint's safetensors, read by rows, never whole."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ft_audit.engine.weights.names import canonical
from ft_audit.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix of a checkpoint: a tensor, or one expert of a tensor that stacks them."""

    name: str
    """The tensor's name in its file, with `[e]` behind it for expert e."""
    shape: tuple[int, int]
    """A vector is one row; a convolution's kernel is flattened into its output channel's row."""
    is_vector: bool
    dtype: str
    """As safetensors calls it: "BF16", "F32", "I64", ..."""
    _slice: Any
    _expert: int | None = None

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS

    def rows(self, start: int, stop: int) -> Tensor:
        """Return rows `start` to `stop` as stored, [stop - start, columns]."""
        if self._expert is not None:
            found: Tensor = self._slice[self._expert, start:stop]
        elif self.is_vector:
            # A number alone cannot be sliced.
            found = self._slice[...] if not self._slice.get_shape() else self._slice[:]
        else:
            found = self._slice[start:stop]
        return found.reshape(stop - start, self.shape[1])


class Tensors:
    """Every tensor of some safetensors files of one model, opened and not yet read.

    Raises:
        ModelError: a file that is missing or damaged, a tensor without an element, or one that is held twice.
    """

    def __init__(self, files: list[Path], ref: str) -> None:
        self.ref = ref
        self._open = ExitStack()
        self._slices: dict[str, Any] = {}
        for path in files:
            try:
                file = self._open.enter_context(safe_open(path, framework="pt"))
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no dict
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"model {ref!r}: {path.name} cannot be read ({error}); save it again"
                ) from error
            if twice := sorted(slices.keys() & self._slices.keys()):
                raise ModelError(f"model {ref!r}: {path.name} holds {twice[0]} a second time; save it again")
            self._slices |= slices
        for name, found in self._slices.items():
            if 0 in found.get_shape():
                raise ModelError(
                    f"model {ref!r}: {name} has the shape {tuple(found.get_shape())} and so no element; "
                    "re-export the model"
                )

    def names(self) -> list[str]:
        """Return the tensors' names in their files, sorted."""
        return sorted(self._slices)

    def by_canonical(self) -> dict[str, str]:
        """Return canonical name -> name; where two share a canonical name, both keep their own."""
        found: dict[str, list[str]] = {}
        for name in self.names():
            found.setdefault(canonical(name), []).append(name)
        return {
            (short if len(names) == 1 else name): name for short, names in found.items() for name in names
        }

    def matrices(self, name: str) -> list[Matrix]:
        """Return the matrices of one tensor: experts that are stacked are one each."""
        found = self._slices[name]
        shape, dtype = tuple(found.get_shape()), str(found.get_dtype())
        if len(shape) == 3 and "experts" in name:
            return [
                Matrix(f"{name}[{e}]", (shape[1], shape[2]), False, dtype, found, e) for e in range(shape[0])
            ]
        if len(shape) < 2:
            return [Matrix(name, (1, shape[0] if shape else 1), True, dtype, found)]
        columns = 1
        for size in shape[1:]:
            columns *= size
        return [Matrix(name, (shape[0], columns), False, dtype, found)]

    def read(self, name: str) -> Tensor:
        """Return a small tensor whole, in float32 and checked.

        Raises:
            ModelError: it holds NaN or infinite values.
        """
        found = self._slices[name]
        value: Tensor = (found[...] if not found.get_shape() else found[:]).float()
        if not bool(torch.isfinite(value).all()):
            raise not_finite(self.ref, name)
        return value

    def close(self) -> None:
        self._slices.clear()
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def checkpoint_files(folder: Path, ref: str) -> list[Path]:
    """Return the safetensors that transformers would load from a checkpoint's folder.

    Raises:
        ModelError: an index that cannot be read or names a file that is not there.
    """
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    if not (folder / INDEX).exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        paths = [folder / str(file) for file in sorted(named)]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"model {ref!r}: {INDEX} cannot be read ({error}); save the model again") from error
    for path in paths:
        if path.parent != folder or not path.is_file():
            raise ModelError(
                f"model {ref!r}: {INDEX} names {path.name}, which is not there; fetch the whole model"
            )
    return paths


def not_finite(ref: str, name: str) -> ModelError:
    """Return the refusal of a tensor that holds no numbers."""
    return ModelError(f"model {ref!r}: {name} holds NaN or infinite values; re-export the model")


def row_chunks(shape: tuple[int, int], elements: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of consecutive rows, about `elements` numbers at a time."""
    step = max(1, elements // shape[1])
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])
