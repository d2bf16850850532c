"""Owns SaeTrainRecipe: the YAML a dictionary is trained from."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ft_audit.errors import ConfigError

if TYPE_CHECKING:
    from ft_audit.sae.jumprelu_sae import PairReading

Learn = Literal["model", "tuned", "difference", "crosscoder"]


class SaeTrainRecipe(BaseModel):
    """Everything that determines the trained dictionary, apart from the machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1)
    """The model whose activations are learnt: a folder, a hub id, `package:PKG/FILE` or `configs:REL`."""
    tuned: str | None = None
    """A fine-tune of `model`, or an adapter over it. The report then says how the dictionary serves both."""
    learn: Learn = "model"
    """What is learnt: the residual stream of `model`, that of `tuned`, the difference (tuned - base), or both
    side by side (a crosscoder, whose features have a direction in each model)."""
    layer: int = Field(ge=0)
    """Index of the block whose output is learnt."""
    site: Literal["resid_post"] = "resid_post"
    suites: list[str] = Field(min_length=1)
    """References of the text suites, read in this order."""
    dataset: str | None = None
    """The uploaded training set, or the fine-tune recipe that stands for it: read beside the suites."""
    dataset_share: float = Field(default=0.2, gt=0, lt=1)
    """The part of the tokens that its rows make up, repeated as often as that takes."""
    num_tokens: int = Field(gt=0)
    """Tokens to stream, special tokens not counted. Of those that `largest_share` leaves, the last `holdout`
    are kept for the report."""
    width: int = Field(gt=0)
    """Number of features."""
    k: int = Field(gt=0)
    """Features kept per token, on average over a batch (BatchTopK)."""
    lr: float = Field(default=1e-3, gt=0)
    batch: int = Field(default=2048, gt=0)
    """Tokens a training step."""
    seed: int = 0
    """Of the order of the text and of the first directions. Dictionaries of one seed begin alike, and
    features that hardly learn stay so: give those that are to be compared seeds of their own."""
    prefixes: list[int] = []
    """Rising numbers of features, each of which must explain the activations by itself (Matryoshka)."""
    start: str | None = None
    """A dictionary to go on from, such as a published one: its features keep their places and meanings."""
    compare: list[str] = []
    """Dictionaries to say beside how much of the difference they see, and whose features lie nearest."""
    largest_share: float = Field(default=1.0, gt=0, le=1)
    """Of each batch that is read, the part of the tokens that moved the most (`learn: difference` alone)."""
    out: str = Field(min_length=1)
    """Folder to write, relative to the working directory; its name is the dictionary's name."""

    holdout: float = Field(default=0.05, gt=0, lt=0.5)
    reuse: int = Field(default=1, ge=1)
    """How many times each token is trained on while it passes the shuffle buffer."""
    buffer_tokens: int = Field(default=131_072, gt=0)
    """Size of the shuffle buffer."""
    dead_after_tokens: int = Field(default=100_000, gt=0)
    """A feature that has not fired for so many trained tokens counts as dead and gets the auxiliary loss."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    checkpoint_every_tokens: int = Field(default=131_072, gt=0)
    loss_recovered_tokens: int = Field(default=20_000, ge=0)
    """Tokens of the spliced-in check; 0 leaves it out."""
    pair_tokens: int = Field(default=20_000, gt=0)
    """Tokens that base and tuned are compared on in the report, where there is a `tuned`."""
    max_activation_norm: float | None = Field(default=10.0, gt=0)
    """Tokens whose norm exceeds so many times the median are left out of training, and counted."""
    compute: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the training matmuls; `auto` is bfloat16 where the processor has it."""
    export: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the stored weight matrices."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    model_dtype: Literal["bfloat16", "float32"] = "bfloat16"

    @property
    def name(self) -> str:
        return Path(self.out).name

    @property
    def sha256(self) -> str:
        """The recipe's identity: all of it but where it writes and how often it saves."""
        told = self.model_dump(mode="json", exclude={"out", "checkpoint_every_tokens"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def pair(self) -> PairReading | None:
        """What of two models the dictionary reads; None where it reads one."""
        return self.learn if self.learn in ("difference", "crosscoder") else None

    @property
    def num_kept_tokens(self) -> int:
        """Tokens that are learnt from or held out."""
        return round(self.num_tokens * self.largest_share)

    @property
    def num_train_tokens(self) -> int:
        return self.num_kept_tokens - self.num_holdout_tokens

    @property
    def num_holdout_tokens(self) -> int:
        return max(1, round(self.num_kept_tokens * self.holdout))

    @property
    def num_steps(self) -> int:
        """Full batches that the training tokens give; the rest of a last batch is left out."""
        return self.num_train_tokens * self.reuse // self.batch

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.learn != "model" and self.tuned is None:
            raise ValueError(f"learn: {self.learn} needs `tuned`, the fine-tune to compare with")
        if self.largest_share < 1 and self.learn != "difference":
            raise ValueError("largest_share goes with `learn: difference` alone")
        if self.start is not None and self.learn not in ("model", "tuned"):
            raise ValueError(f"start: learn: {self.learn} has no published dictionary to go on from")
        rising = [0, *self.prefixes, self.width]
        if any(first >= last for first, last in pairwise(rising)):
            raise ValueError(f"prefixes must rise, from above 0 to below width={self.width}")
        if self.dataset is None and "dataset_share" in self.model_fields_set:
            raise ValueError("dataset_share goes with `dataset`")
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> SaeTrainRecipe:
    """The recipe in `path`, with `key=value` overrides; raises ConfigError naming file, key and fix."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the recipe ({error.strerror}); check the path") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values, found {type(raw).__name__}")
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"override {override!r}: expected key=value, for example num_tokens=100000")
        raw[key] = yaml.safe_load(value)
    try:
        recipe = SaeTrainRecipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error
    if recipe.num_steps == 0:
        raise ConfigError(
            f"{path}: num_tokens={recipe.num_tokens} leaves {recipe.num_train_tokens} training tokens, "
            f"less than one batch of {recipe.batch}; raise num_tokens or lower batch"
        )
    if recipe.k > recipe.width:
        raise ConfigError(f"{path}: k={recipe.k} is more than width={recipe.width}; lower k")
    return recipe


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if not key:
            lines.append(item["msg"].removeprefix("Value error, "))
            continue
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, SaeTrainRecipe.model_fields, n=1)
            lines.append(f"unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        else:
            lines.append(f"'{key}': {item['msg']}{_given(item)}")
    return "; ".join(lines)


def _given(item: Any) -> str:
    return "" if item["type"] == "missing" else f" (given {item['input']!r})"
