"""What a candidate's config.json asks for, held against its weights before anything is made of it."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from ft_audit.engine.models.files import read_object
from ft_audit.engine.models.headers import Held
from ft_audit.engine.models.unreadable import UNREADABLE
from ft_audit.errors import ModelError

# Settings of which a library makes as many objects, when it reads them or builds the model.
COUNTED = re.compile(r"(?:layers?|blocks|depth|experts|heads?|labels)$")
FEW = 1024
GENERATION = "generation_config.json"
# Numbers that a model may have beside its weights: tables of positions, and what small parts start with.
SPARE_NUMBERS = 1 << 26
# How many numbers of a model one number of its file may stand for: two bits each, in words of 32.
PACKED = 16


def check_counts(folder: Path, num_tensors: int, ref: str) -> None:
    """Raise ModelError if the config asks for more layers, heads or the like than its tensors can be of."""
    limit = max(FEW, num_tensors)
    for key, value in _numbers(read_object(folder / "config.json", ref)):
        if COUNTED.search(key) and abs(value) > limit:
            raise ModelError(
                f"model {ref!r}: config.json asks for {key} {value}, but the weights are {num_tensors} "
                "tensors; give the config.json that it was saved with"
            )


def check_shapes(model: Any, held: Held, ref: str) -> None:
    """Raise ModelError if `model`, the skeleton that the config describes, is far larger than what is held.

    What a weight lacks would be allocated before the library that loads it compares. Weights by other names
    (experts that are fused, packed ones) are compared by their number.
    """
    packed = PACKED if getattr(model.config, "quantization_config", None) else 1
    named = (*model.named_parameters(), *model.named_buffers())
    wanted = {name: tuple(tensor.shape) for name, tensor in named}
    lacking = {
        name: max(0, math.prod(shape) - packed * math.prod(held.get(name, (0,))))
        for name, shape in wanted.items()
    }
    others = sum(math.prod(shape) for name, shape in held.items() if name not in wanted)
    if sum(lacking.values()) > PACKED * others + SPARE_NUMBERS:
        name = max(lacking, key=lacking.__getitem__)
        there = f"it has the shape {held[name]}" if name in held else "it is not there"
        raise ModelError(
            f"model {ref!r}: by its config.json {name} has the shape {wanted[name]}, but in its safetensors "
            f"{there}; give the config.json that it was saved with"
        )


def check_generation(model: Any, folder: Path, ref: str) -> None:
    """Raise ModelError for generation settings that cannot be read, or end answers with what is no token."""
    settings = model.generation_config
    if (folder / GENERATION).exists():
        try:
            settings = GenerationConfig.from_pretrained(folder)
        except UNREADABLE as error:
            raise ModelError(
                f"model {ref!r}: {GENERATION} cannot be read: {error}; mend or remove it"
            ) from error
    ends = settings.eos_token_id
    if not all(end is None or type(end) is int for end in (ends if isinstance(ends, list) else [ends])):
        raise ModelError(
            f"model {ref!r}: {GENERATION} or config.json has an eos_token_id that is no token; give a "
            "token's id or a list of them"
        )


def skeleton(folder: Path, ref: str) -> Any:
    """Return the model that a folder's config.json describes, on the meta device: no weights, no memory.

    Raises:
        ModelError: a config that transformers cannot build a model from.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            # By name, since a config may ask for an attention that is fetched from elsewhere.
            return AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
    except UNREADABLE as error:
        raise ModelError(
            f"model {ref!r}: cannot be built from its config.json: {type(error).__name__}: {error}"
        ) from error


def _numbers(settings: dict[str, Any]) -> Iterator[tuple[str, float]]:
    left: list[tuple[str, Any]] = list(settings.items())
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, inner) for inner in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, value
