"""The zoo as data: which fine-tunes there are, in the order in which they are built."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from ft_audit.engine.config import Strict, find_config, load_yaml, resolve_path
from ft_audit.engine.finetune.recipe import Recipe, load_recipe
from ft_audit.errors import ConfigError


class Entry(Strict):
    """One recipe under several seeds."""

    recipe: str
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    set: tuple[str, ...] = ()
    """`key=value` in the place of what the recipe says; another name, so that it is a recipe of its own."""


Change = Literal["none", "base", "zero", "symmetries", "twin"]


class Control(Entry):
    """A fine-tune that something is made of which is no job of its own: see `benchmarks.zoo.controls`."""

    change: Change


class Zoo(Strict):
    """A population of fine-tunes of one base, and the audit that each is measured with."""

    name: str
    base: str
    audit: str
    members: Annotated[tuple[Entry, ...], Field(min_length=1)]
    controls: tuple[Control, ...] = ()
    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def base_dir(self) -> Path:
        """The folder that relative references are read from."""
        return self._base_dir


@dataclass(frozen=True, slots=True)
class Member:
    """One fine-tune of the zoo."""

    name: str
    path: Path
    recipe: Recipe
    overrides: tuple[str, ...]
    change: Change = "none"

    @property
    def folder_name(self) -> str:
        """What its folder is called: by the hash of what decides the trained weights."""
        return f"{self.recipe.name}-s{self.recipe.seed}-{self.recipe.training_sha256[:12]}"


def load_zoo(path: str | Path, overrides: Sequence[str] = ()) -> Zoo:
    """Return the zoo in a YAML file.

    Raises:
        ConfigError: the file says something that a zoo cannot say.
    """
    found = find_config(path)
    zoo = load_yaml(found, Zoo, overrides)
    zoo._base_dir = found.resolve().parent
    return zoo


def members(zoo: Zoo) -> list[Member]:
    """Return every fine-tune in order: all recipes by their first seed, then by their second, and so on; the
    controls come last.

    Raises:
        ConfigError: a recipe that cannot be read, of another base, without a family, or named twice; a seed
            twin whose training has no seed of its own.
    """
    found: list[Member] = []
    for member in _in_turn(zoo):
        if member.recipe.base != zoo.base:
            raise ConfigError(f"{member.path}: base is {member.recipe.base!r}, but the zoo's is {zoo.base!r}")
        if member.recipe.family is None:
            raise ConfigError(f"{member.path}: a member of a zoo names its family")
        if member.change == "twin" and member.recipe.train.seed in (None, member.recipe.seed):
            raise ConfigError(f"{member.name}: a seed twin sets train.seed to another than the recipe's seed")
        if member.name in {other.name for other in found}:
            raise ConfigError(f"{member.path}: {member.name} is in the zoo twice")
        found.append(member)
    return found


def _in_turn(zoo: Zoo) -> Iterator[Member]:
    for turn in range(max(len(entry.seeds) for entry in zoo.members)):
        for entry in zoo.members:
            if turn < len(entry.seeds):
                yield _member(zoo, entry, entry.seeds[turn], "none")
    for control in zoo.controls:
        for seed in control.seeds:
            yield _member(zoo, control, seed, control.change)


def _member(zoo: Zoo, entry: Entry, seed: int, change: Change) -> Member:
    path = resolve_path(entry.recipe, zoo.base_dir)
    overrides = (*entry.set, f"seed={seed}")
    recipe = load_recipe(path, overrides)
    name = f"{recipe.name}-s{seed}" + (f"-{change}" if change != "none" else "")
    return Member(name, path, recipe, overrides, change)
