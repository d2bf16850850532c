"""The calibrate verb: benign fine-tunes of one base, each trained, precomputed and reduced to its scalars."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from ft_audit.agent.calibration import Bank, BankMember
from ft_audit.agent.risk.fit_bank import fit_bank
from ft_audit.agent.summary import Summary, summarise
from ft_audit.engine.config import AuditConfig, Strict, load_config, load_yaml, resolve_path, resolve_ref
from ft_audit.engine.finetune import run_finetune
from ft_audit.engine.finetune.recipe import Recipe, load_recipe
from ft_audit.engine.models.cache import cache_dir
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.store import Store
from ft_audit.errors import ConfigError


class CalibrateConfig(Strict):
    """A bank as data: which audit it calibrates, and the recipes of its members."""

    audit: str
    """The audit config whose base, hooks, suites and elicitation every member is measured with."""
    members: tuple[str, ...]
    """References to recipes of benign fine-tunes."""
    work: str | None = None
    """Where members are trained, the cache by default; what is there already is not trained again."""
    out: str
    """The bank's JSON file, relative to the working directory."""
    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)


def member_config(
    audit: AuditConfig, recipe: Recipe, folder: Path, candidate: Path | None = None
) -> AuditConfig:
    """Return the audit's config with a recipe's rows as the uploaded data set and, as the candidate, what was
    trained on them or the `candidate` in its place."""
    raw = audit.model_dump(mode="json")
    raw["name"] = recipe.name
    raw["declared_purpose"] = recipe.declared_purpose
    raw["models"]["tuned"] = str((candidate or folder).resolve())
    raw["dataset"] = {"path": str((folder / "train.jsonl").resolve())}
    config = AuditConfig.model_validate_json(json.dumps(raw))
    config._base_dir = audit.base_dir
    return config


def load_members(settings: CalibrateConfig, audit: AuditConfig, path: Path) -> dict[Path, Recipe]:
    """Return every member's recipe by its file, all of them checked before the first is trained.

    Raises:
        ConfigError: no member, one that is not benign, one named twice, or one of another base.
    """
    base_dir = path.resolve().parent
    recipes: dict[Path, Recipe] = {}
    for ref in settings.members:
        recipe_path = resolve_path(ref, base_dir)
        recipe = load_recipe(recipe_path)
        if recipe.kind == "adversarial-proxy":
            raise ConfigError(
                f"{path}: member {recipe.name!r} is {recipe.kind}; a bank holds benign fine-tunes only"
            )
        if recipe.sha256 in {other.sha256 for other in recipes.values()}:
            raise ConfigError(f"{path}: member {recipe.name!r} is named twice; each fine-tune counts once")
        if not _same_base(recipe, audit):
            raise ConfigError(
                f"{path}: member {recipe.name!r} is trained on {recipe.base!r}, but the audit's base is "
                f"{audit.models.base!r}; a bank holds fine-tunes of one base"
            )
        recipes[recipe_path] = recipe
    if not recipes:
        raise ConfigError(f"{path}: members is empty; name at least one benign recipe")
    return recipes


def _same_base(recipe: Recipe, audit: AuditConfig) -> bool:
    """Return whether two references lead to the same weights; different ones may."""
    if resolve_ref(recipe.base, recipe.base_dir) == resolve_ref(audit.models.base, audit.base_dir):
        return True
    theirs = resolve_model(recipe.base, recipe.base_dir)
    return theirs.weights_sha256 == resolve_model(audit.models.base, audit.base_dir).weights_sha256


def run_calibrate(path: Path, overrides: Sequence[str] = (), *, progress: bool = True) -> dict[str, Any]:
    """Build the bank that a calibration config describes, write it, and return where it stands.

    Raises:
        ConfigError: members that `load_members` refuses, or one whose gate fails: such a bank would calibrate
            nothing.
    """
    settings = load_yaml(path, CalibrateConfig, overrides)
    audit = load_config(resolve_path(settings.audit, path.resolve().parent))
    work = Path(settings.work) if settings.work else cache_dir() / "finetunes"
    members = []
    for recipe_path, recipe in load_members(settings, audit, path).items():
        print(f"bank member {recipe.name}", file=sys.stderr)
        folder = work / f"{recipe.name}-{recipe.training_sha256[:12]}"
        trained = run_finetune(recipe_path, folder, progress=progress)
        if trained["gate"] is not None and not trained["gate"]["passed"]:
            raise ConfigError(f"{path}: member {recipe.name!r} fails its gate: {trained['gate']['reason']}")
        done = run_precompute(member_config(audit, recipe, folder), progress=progress)
        summary = summarise(Store(done["store"]).open_diff(done["diff_id"]))
        members.append((summary, bank_member(recipe, summary)))
    bank = fit_bank(members)
    write_bank(bank, Path(settings.out))
    return {
        "bank": settings.out,
        "members": len(bank.members),
        **bank.model_dump(include={"base_sha256", "sae_sha256", "hooks", "protocol"}),
    }


def write_bank(bank: Bank, out: Path) -> None:
    """Write a bank as JSON."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps(bank.model_dump(mode="json"), indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )


def bank_member(recipe: Recipe, summary: Summary) -> BankMember:
    """Return what a bank says of a member; its figures follow when the bank is fitted."""
    sources = sorted({part.source for part in recipe.parts}) or [str(recipe.dataset)]
    assert recipe.kind != "adversarial-proxy", "a bank holds benign fine-tunes only"
    return BankMember(
        name=recipe.name,
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        corpus=", ".join(sources),
        kind=recipe.kind,
        family=recipe.family,
        rows=summary.num_rows,
        rank=recipe.train.rank if recipe.train.method == "lora" else None,
        seed=recipe.seed,
        figures={},
    )
