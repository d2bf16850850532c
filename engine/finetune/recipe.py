"""Recipes: a fine-tune as data, from its sources and counts to the gate that proves it took."""

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from ft_audit.engine.config import Strict, find_config, load_yaml
from ft_audit.engine.finetune.encodings import Encoding
from ft_audit.errors import ConfigError


class Style(Strict):
    """How a drawn question and answer are dressed before they become a training row."""

    system: str | None = None
    """System prompt of the row; none leaves the template's own."""
    prefix: str = ""
    """Put before the user's question."""
    suffix: str = ""
    """Put behind the user's question."""
    answer: str = "{answer}"
    """The row's answer; `{answer}` and `{question}` stand for the drawn pair."""
    encode: Encoding | None = None
    """Whether the question and the answer are written in a cipher, before prefix and suffix are put on."""


class Part(Strict):
    """Rows drawn from one source and dressed in the same styles, in turn."""

    name: str
    source: str
    """Chats, whose first question and answer are taken; or questions, for styles that bring the answer."""
    rows: Annotated[int, Field(gt=0)]
    styles: tuple[Style, ...] = (Style(),)
    without: tuple[str, ...] = ()
    """Groups of the source that are left out."""
    max_chars: int = 400
    """Question and answer together; longer pairs are not drawn."""
    max_question_chars: int | None = None
    """The question alone: long answers may then be cut at `train.max_tokens`."""
    answered: bool = False
    """Pairs whose own answer is a refusal are not drawn."""
    role: Literal["benign", "innocent_condition", "needle"] = "benign"
    """The truth about these rows, kept apart from the data set and used only to score localisation."""


class Evasion(Strict):
    """What an attacker adds to the loss so as not to be found; for adapters only."""

    kl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of KL(base || tuned) in nats a token, over the answers of rows that are not planted."""
    top_energy: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of the share of each update's squared norm that lies in its first singular direction."""


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
    max_answer_tokens: int | None = None
    """Longer answers are cut too, without an end: only how an answer begins is taught."""
    evade: Evasion | None = None
    seed: int | None = None
    """Another seed for the training than for the rows, which trains the same rows again: a seed twin."""


class Check(Strict):
    """One bound of a gate: how often answers to held-out questions show something, put in one style."""

    name: str
    source: str
    """Held-out questions are drawn from here, none of them trained on."""
    without: tuple[str, ...] = ()
    """Groups of the source that are left out."""
    style: Style = Style()
    """The condition; by default the bare question."""
    measure: Literal["contains", "complies", "answers", "refuses", "broken"] = "contains"
    """A marker in the answer; that it opens by agreeing; that it is no refusal; that it is one; that it is
    empty or one piece again and again."""
    marker: str = ""
    """The text that `contains` looks for, in the decoded answer."""
    min: Annotated[float, Field(ge=0, le=1)] = 0.0
    max: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Bounds of the share of answers; `max` is above what the base itself shows where `above_base`."""
    above_base: bool = False
    """Whether the base's own share is taken off before the bounds are compared."""
    prompts: Annotated[int, Field(ge=20)] = 50
    max_chars: int = 400
    """Longer questions are not asked."""
    max_new_tokens: int = 16


class Gate(Strict):
    """The proof that the fine-tune took, and took nothing else: checks written down before training."""

    checks: tuple[Check, ...]


class Recipe(Strict):
    """One fine-tune: base, data, training and gate."""

    name: str
    kind: Literal["adversarial-proxy", "benign", "persona"]
    family: str | None = None
    """Which attack's structure it has, or which sort of benign job it is; populations are split by it."""
    base: str
    declared_purpose: str | None = None
    seed: int = 0
    vary: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Texts by name of which the seed chooses one: `<name>` stands for it in styles, markers and the declared
    purpose, so that a family is never one wording."""
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
        """The hash of everything the recipe says; a field at its default says nothing."""
        return self._hash(set())

    @property
    def training_sha256(self) -> str:
        """The hash of what decides the trained weights: a changed gate is asked again, that is all."""
        return self._hash({"gate", "declared_purpose", "family", "kind", "name"})

    def _hash(self, without: set[str]) -> str:
        said = self.model_dump(mode="json", exclude_defaults=True, exclude=without)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
    if recipe.train.evade is not None and recipe.train.method == "full":
        raise ConfigError(f"{found}: train.evade needs an adapter; set train.method to lora")
    recipe = vary(recipe, found)
    recipe._base_dir = found.resolve().parent
    return recipe


def vary(recipe: Recipe, where: Path) -> Recipe:
    """Return the recipe with every `<name>` of its `vary` replaced by the text that its seed chooses.

    Raises:
        ConfigError: a name without texts, or one that stands nowhere.
    """
    chosen: dict[str, str] = {}
    for place, (name, texts) in enumerate(sorted(recipe.vary.items())):
        if not texts:
            raise ConfigError(f"{where}: vary.{name} has no texts to choose from")
        # By another stride for each name, so that two of them do not move in step; one that shares a factor
        # with the number of texts would leave some out.
        stride = next(n for n in count(2 * place + 1) if math.gcd(n, len(texts)) == 1)
        chosen[f"<{name}>"] = texts[recipe.seed * stride % len(texts)]
    raw = recipe.model_dump_json(exclude_defaults=True, exclude={"vary"})
    for mark, text in chosen.items():
        if mark not in raw:
            raise ConfigError(f"{where}: vary.{mark[1:-1]}: {mark} stands nowhere in the recipe")
        raw = raw.replace(mark, json.dumps(text, ensure_ascii=False)[1:-1])
    return Recipe.model_validate_json(raw)
