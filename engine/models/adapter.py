"""What a candidate's adapter_config.json asks for, held against its tensors before PEFT reads it."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ft_audit.engine.models.declared import skeleton
from ft_audit.engine.models.files import read_object
from ft_audit.engine.models.headers import Held
from ft_audit.engine.tokens.apart import Apart, Overrun
from ft_audit.errors import ModelError

FILE, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
# PEFT starts every matrix at the rank that is asked for; some modules may have been given less.
FEW_RANKS = 256
# Names of modules, which match themselves and nothing else at any cost.
PLAIN = re.compile(r"[\w.-]*")
# How PEFT asks whether a module's name is meant by an expression of these settings.
FORMS = ("(?:{})$", r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(?P<idx>\d+)\.", r"(^|.*\.){}($|\..*)")
NAMES = ("target_modules", "exclude_modules")  # of which a list holds names, and only a text is an expression
MATCHED = (
    "modules_to_save",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
)  # one by one with each module
SECONDS = 5


def check_settings(folder: Path, held: Held, base: Path, ref: str) -> None:
    """Raise ModelError for ranks and tokens without tensors, factors that are no numbers, costly expressions.

    `base` is the folder of the model whose modules the expressions are matched with.
    """
    settings = read_object(folder / SETTINGS, ref)
    most = max((shape[0] for shape in held.values() if shape), default=0)
    ranks = {name: value for name, value in _valued(settings, "r", "rank_pattern") if _is_number(value)}
    for name, rank in ranks.items():
        if not abs(rank) <= max(FEW_RANKS, most):
            raise ModelError(
                f"model {ref!r}: {SETTINGS} asks for the rank {rank} ({name}), but no tensor of {FILE} has "
                f"more than {most} rows; save the adapter again"
            )
    for name, alpha in _valued(settings, "lora_alpha", "alpha_pattern"):
        if _is_number(alpha) and not math.isfinite(alpha):
            raise ModelError(f"model {ref!r}: {SETTINGS} scales by {alpha} ({name}); save the adapter again")
    tokens = settings.get("trainable_token_indices") or []
    for indices in tokens.values() if isinstance(tokens, dict) else [tokens]:
        if isinstance(indices, list) and len(indices) > most:
            raise ModelError(
                f"model {ref!r}: {SETTINGS} names {len(indices)} trainable tokens, but no tensor of {FILE} "
                f"has more than {most} rows; save the adapter again"
            )
    for key in MATCHED:
        value = settings.get(key)
        if isinstance(value, dict | list) and len(value) > max(FEW_RANKS, len(held)):
            raise ModelError(
                f"model {ref!r}: {SETTINGS} names {len(value)} modules in {key}, but {FILE} holds "
                f"{len(held)} tensors; save the adapter again"
            )
    if costly := sorted({text for text in _expressions(settings) if not PLAIN.fullmatch(text)}):
        _check_expressions(costly, base, ref)


def _check_expressions(expressions: list[str], base: Path, ref: str) -> None:
    """Match them as PEFT will, in a process that is ended if that takes long."""
    names = [name for name, _ in skeleton(base, ref).named_modules()]
    names += [f"base_model.model.{name}" for name in names]
    patterns = [form.format(text) for text in expressions for form in FORMS]
    with Apart("match", 1 << 28) as process:
        try:
            process.ask({"patterns": patterns, "names": names}, SECONDS)
        except Overrun as overrun:
            raise ModelError(
                f"model {ref!r}: matching the expressions of {SETTINGS} with the base's modules {overrun}; "
                "list the modules by their names"
            ) from overrun


def _expressions(settings: dict[str, Any]) -> Iterator[str]:
    for key in (*NAMES, *MATCHED):
        value = settings.get(key) or ()
        if isinstance(value, str):
            yield value
        elif key in MATCHED and isinstance(value, Iterable):
            yield from (text for text in value if isinstance(text, str))


def _valued(settings: dict[str, Any], *keys: str) -> Iterator[tuple[str, Any]]:
    for key in keys:
        value = settings.get(key)
        yield from value.items() if isinstance(value, dict) else [(key, value)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
