"""What a LoRA adapter does to each of its base's matrices, from the adapter's own file.

Shapes: M, N rows and columns of the base's tensor as stored; O, I a layer's outputs and inputs; R rank.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ft_audit.engine.models.lora import read_lora
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.weights.change import Added, Change, LowRank, Replaced, SomeRows
from ft_audit.engine.weights.names import canonical
from ft_audit.engine.weights.tensors import Matrix, Tensors
from ft_audit.errors import ModelError

Maker = Callable[[], Change]

PREFIX = "base_model.model."
FILE = "adapter_model.safetensors"
_PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_B.bias": "bias",
    "lora_embedding_A": "embedding_a",
    "lora_embedding_B": "embedding_b",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "token_adapter.trainable_tokens_delta": "tokens",
}


@dataclass(slots=True)
class _Module:
    """The adapter's tensors of one module: part to name in the file."""

    name: str
    parts: dict[str, str] = field(default_factory=dict)


class Adapter:
    """One adapter's file, sorted by what it changes; nothing but shapes has been read yet."""

    def __init__(self, source: ModelSource) -> None:
        assert source.adapter is not None, "the caller checks that the source is an adapter"
        self.ref = source.ref
        self.config = read_lora(source.adapter, source.ref)
        self.tensors = Tensors([source.adapter / FILE], source.ref)
        self._modules: dict[str, _Module] = {}
        self.whole: dict[str, str] = {}
        """Canonical name -> name in the file, of tensors that the adapter brings whole (modules_to_save)."""
        self.unread: list[str] = []
        """Modules whose factors belong to several matrices at once: LoRAs of stacked experts."""
        for name in self.tensors.names():
            self._sort(name)

    def close(self) -> None:
        self.tensors.close()

    def touched(self) -> set[str]:
        """Return the canonical names of the base's tensors that the adapter changes or may change."""
        names = {canonical(f"{m.name}.weight") for m in self._modules.values()}
        names |= {canonical(f"{m.name}.bias") for m in self._modules.values() if "bias" in m.parts}
        return names | set(self.whole) | {canonical(f"{name}.weight") for name in self.unread}

    def changes(self, base: Callable[[str], Matrix | None]) -> dict[str, list[Maker]]:
        """Return canonical tensor name -> what makes the change of each of its matrices, for all it touches.

        `base` finds the base's matrix of a canonical name. A maker reads and computes only when called.

        Raises:
            ModelError: two parts for one tensor.
        """
        found: dict[str, list[Maker]] = {}

        def add(name: str, makers: list[Maker]) -> None:
            if name in found:
                raise ModelError(f"model {self.ref!r}: the adapter changes {name} in two ways; save it again")
            found[name] = makers

        for name, stored in self.whole.items():
            add(name, [partial(Replaced, tuned, self.ref) for tuned in self.tensors.matrices(stored)])
        for module in self._modules.values():
            weight = canonical(f"{module.name}.weight")
            if "tokens" in module.parts:
                add(weight, [partial(self._some_rows, module, base(weight))])
            if module.parts.keys() - {"tokens", "bias"}:
                add(weight, [partial(self._lora, module, base(weight))])
            if "bias" in module.parts:
                add(canonical(f"{module.name}.bias"), [partial(self._bias, module)])
        return found

    def _sort(self, stored: str) -> None:
        name = stored.removeprefix(PREFIX)
        for ending, part in _PARTS.items():
            if not name.endswith(f".{ending}"):
                continue
            module = name.removesuffix(f".{ending}")
            if self._of_experts(module):
                if module not in self.unread:
                    self.unread.append(module)
            else:
                self._modules.setdefault(module, _Module(module)).parts[part] = stored
            return
        if "lora_" in name or "trainable_tokens" in name or stored == name:
            raise ModelError(
                f"model {self.ref!r}: {stored} in its adapter is no part of a LoRA that is understood; merge "
                "it into its base and give the full model"
            )
        self.whole[canonical(name)] = stored

    def _of_experts(self, module: str) -> bool:
        targets = self.config.target_parameters or ()
        owners = {str(t).rpartition(".")[0] for t in targets if not str(t).endswith(".weight")}
        return any(f".{module}".endswith(f".{o}") or f".{o}." in f".{module}." for o in owners if o)

    def _scale(self, module: str, rank: int) -> float:
        """Return alpha / R, or alpha / sqrt(R) for rank-stabilised LoRA (Kalajdzievski 2023)."""
        alphas: dict[str, float] = self.config.alpha_pattern or {}
        alpha = float(alphas.get(_pattern(alphas, module), self.config.lora_alpha))
        return alpha / (math.sqrt(rank) if self.config.use_rslora else rank)

    def _factors(self, module: _Module) -> tuple[Tensor, Tensor]:
        """Return the scaled B [O, R] and A [R, I], float32."""
        embedding = "embedding_a" in module.parts
        names = ("embedding_b", "embedding_a") if embedding else ("b", "a")
        if missing := [name for name in names if name not in module.parts]:
            raise ModelError(
                f"model {self.ref!r}: the adapter has only one half of {module.name} ({missing[0]} is "
                "missing); save it again"
            )
        b_OR, a_RI = (self.tensors.read(module.parts[name]) for name in names)
        if b_OR.ndim != 2 or a_RI.ndim != 2 or b_OR.shape[1] != a_RI.shape[0]:
            raise ModelError(
                f"model {self.ref!r}: the factors of {module.name} have the shapes {tuple(b_OR.shape)} and "
                f"{tuple(a_RI.shape)}, which do not make a product; save the adapter again"
            )
        return b_OR * self._scale(module.name, a_RI.shape[0]), a_RI

    def _lora(self, module: _Module, base: Matrix | None) -> Change:
        b_OR, a_RI = self._factors(module)
        product = (b_OR.shape[0], a_RI.shape[1])
        flipped = self._flipped(module, product, base)
        if "magnitude" in module.parts:
            if base is None:
                raise ModelError(
                    f"model {self.ref!r}: the base has no {module.name}.weight, without which its DoRA says "
                    "nothing; give the base that it was trained on"
                )
            magnitude_O = self.tensors.read(module.parts["magnitude"]).flatten()
            change_OI = _dora(base, flipped, b_OR, a_RI, magnitude_O, f"model {self.ref!r}: {module.name}")
            return Added(change_OI.T if flipped else change_OI)
        left, right = (a_RI.T, b_OR.T) if flipped else (b_OR, a_RI)
        return LowRank(left.contiguous(), right.contiguous())

    def _flipped(self, module: _Module, product: tuple[int, int], base: Matrix | None) -> bool:
        """Return whether the base keeps inputs as rows: embeddings do, and GPT-2's Conv1D."""
        wanted = "embedding_a" in module.parts or bool(self.config.fan_in_fan_out)
        if base is None:
            return wanted
        # PEFT sets fan_in_fan_out as the last module that it met needs it; the shape knows better.
        for flipped in (wanted, not wanted):
            if base.shape == (product[::-1] if flipped else product):
                return flipped
        raise ModelError(
            f"model {self.ref!r}: {module.name} changes a matrix of the shape {product}, but the base's is "
            f"{base.shape}; give the base that it was trained on"
        )

    def _bias(self, module: _Module) -> Change:
        bias_O = self.tensors.read(module.parts["bias"])
        rank = self.tensors.matrices(module.parts["b"])[0].shape[1] if "b" in module.parts else 1
        return Added(self._scale(module.name, rank) * bias_O[None])

    def _some_rows(self, module: _Module, base: Matrix | None) -> Change:
        value_IN = self.tensors.read(module.parts["tokens"])
        index = self._token_indices(module.name)
        num_rows = base.shape[0] if base is not None else 1 + max(index, default=0)
        if value_IN.ndim != 2 or len(index) != len(value_IN) or not all(0 <= i < num_rows for i in index):
            raise ModelError(
                f"model {self.ref!r}: trainable_token_indices names {len(index)} tokens, but {module.name} "
                f"has rows of the shape {tuple(value_IN.shape)}; save the adapter again"
            )
        return SomeRows(torch.tensor(index, dtype=torch.long), value_IN)

    def _token_indices(self, module: str) -> list[int]:
        named: Any = self.config.trainable_token_indices or []
        if isinstance(named, dict):
            named = next((v for k, v in named.items() if f".{module}".endswith(f".{k}")), [])
        return [int(index) for index in named]


def _pattern(patterns: Iterable[str], module: str) -> str:
    """Return the pattern that PEFT would take for this module: the first whose expression ends its name."""
    return next((p for p in patterns if re.match(rf"(.*\.)?({p})$", module)), module)


def _dora(base: Matrix, flipped: bool, b_OR: Tensor, a_RI: Tensor, magnitude_O: Tensor, what: str) -> Tensor:
    """Return m (W + BA) / ||W + BA|| - W, the norm over each output's weights (Liu et al. 2024, DoRA)."""
    stored = base.rows(0, base.shape[0]).float()
    base_OI = stored.T if flipped else stored
    if len(magnitude_O) != len(base_OI):
        raise ModelError(
            f"{what} has {len(magnitude_O)} magnitudes for {len(base_OI)} outputs; save the adapter again"
        )
    moved_OI = torch.addmm(base_OI, b_OR, a_RI)
    moved_OI *= (magnitude_O / torch.linalg.vector_norm(moved_OI, dim=1))[:, None]
    return moved_OI.sub_(base_OI)
