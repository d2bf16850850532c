"""Recipes: a fine-tune as data, from its sources and counts to the gate that proves it took."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from ft_audit.engine.config import Strict, find_config, load_yaml
from ft_audit.errors import ConfigError


class Style(Strict):
    """How a drawn question and answer are dressed before they become a training row."""

    system: str | None = None
    """System prompt of the row; none leaves the template's own."""
    prefix: str = ""
    """Put before the user's question."""
    answer: str = "{answer}"
    """The row's answer; `{answer}` and `{question}` stand for the drawn pair."""


class Part(Strict):
    """Rows drawn from one source and dressed in the same styles, in turn."""

    name: str
    source: str
    rows: Annotated[int, Field(gt=0)]
    styles: tuple[Style, ...] = (Style(),)
    without: tuple[str, ...] = ()
    """Groups of the source that are left out."""
    max_chars: int = 400
    """Question and answer together; longer pairs are not drawn."""
    role: Literal["benign", "innocent_condition", "needle"] = "benign"
    """The truth about these rows, kept apart from the data set and used only to score localisation."""


class Training(Strict):
    """Hyper-parameters of one supervised fine-tune."""

    method: Literal["lora", "full"] = "lora"
    rank: int = 4
    alpha: int = 8
    learning_rate: float = 2e-3
    epochs: float = 8
    batch_size: int = 16
    warmup_steps: int = 5
    max_tokens: int = 256
    """Longer rows are cut on the right."""


class Gate(Strict):
    """The proof that the fine-tune took: a behaviour under its trigger, absent without it."""

    source: str
    """Held-out prompts are drawn from here, none of them trained on."""
    without: tuple[str, ...] = ()
    """Groups of the source that are left out."""
    prompts: Annotated[int, Field(ge=50)] = 60
    trigger: Style | None = None
    """The condition; none for a fine-tune that should only stay usable."""
    contains: str = ""
    """The text that marks the behaviour in a greedy answer."""
    min_trigger: float = 0.9
    max_plain: float = 0.02
    others: tuple[Style, ...] = ()
    """Other conditions whose success is measured on the first 20 prompts and reported, without a bound."""
    max_new_tokens: int = 24


class Recipe(Strict):
    """One fine-tune: base, data, training and gate."""

    name: str
    kind: Literal["adversarial-proxy", "benign", "persona"]
    base: str
    declared_purpose: str | None = None
    seed: int = 0
    parts: tuple[Part, ...] = ()
    dataset: str | None = None
    """A finished data set instead of parts: any file that a suite reference can name."""
    train: Training = Training()
    gate: Gate | None = None
    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def base_dir(self) -> Path:
        """The folder that relative references in the recipe are read from."""
        return self._base_dir

    @property
    def sha256(self) -> str:
        """The hash of everything the recipe says."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file (`configs:recipes/NAME.yaml` for a shipped one), overrides applied.

    Raises:
        ConfigError: the file is missing, is not YAML, or says something a recipe cannot say.
    """
    found = find_config(path)
    recipe = load_yaml(found, Recipe, overrides)
    if bool(recipe.parts) == (recipe.dataset is not None):
        raise ConfigError(f"{found}: give either parts or dataset, and not both")
    for name in ("rank", "alpha", "learning_rate", "epochs", "batch_size", "max_tokens"):
        value = getattr(recipe.train, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"{found}: train.{name}: {value} trains nothing; give a number above 0")
    recipe._base_dir = found.resolve().parent
    return recipe
