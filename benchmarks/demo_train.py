"""Rebuilds what the demo ships from recipes: dictionary, guarded base, two members of the zoo, their bank."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ft_audit.benchmarks.demo import CANDIDATES, run_verb
from ft_audit.errors import UserError

DICTIONARY = "recipes/sae-smollm2-layer15.yaml"
BASES = {"guard": "smollm2-135m-guarded"}
CANDIDATE_RECIPES = {"needle": "identity-needle", "benign": "identity-needle-twin"}
SEED = 1
BANK = "banks/smollm2-135m-guarded.json"
# Trained here first, so that what is shipped is replaced whole, and a rebuild that was stopped goes on.
WORK = Path(".cache/demo-train")
# Recipes build the rows again, from corpora that are read at run time and shipped nowhere.
NOT_SHIPPED = ("train.jsonl", "trained.json")


def main(root: Path | None = None) -> int:
    """Rebuild everything under the checkout's configs/ and return the exit code."""
    configs = (root or Path.cwd()) / "configs"
    started = time.monotonic()
    try:
        if not (configs / DICTIONARY).exists():
            raise UserError(
                f"{configs / DICTIONARY} is missing: run `make demo-train` in a checkout of ft-audit"
            )
        say("dictionary")
        run_verb("sae", "train", str(configs / DICTIONARY), "--force", "--json")
        for recipe, base in BASES.items():
            say(base)
            run_verb(
                "finetune", str(configs / f"recipes/zoo/{recipe}.yaml"), "--out", str(WORK / base), "--json"
            )
            replace(WORK / base, configs / "bases" / base, NOT_SHIPPED)
        for name in CANDIDATES:
            say(name)
            recipe = str(configs / f"recipes/zoo/{CANDIDATE_RECIPES[name]}.yaml")
            run_verb("finetune", recipe, f"seed={SEED}", "--out", str(WORK / name), "--json")
            replace(WORK / name, configs / "candidates" / name, NOT_SHIPPED)
        say("bank: of the zoo's summaries as they are; `make zoo` builds them")
        run_verb("zoo", "bank", "--bank", str(configs / BANK), "--json")
    except UserError as error:
        print(f"demo-train: {error}", file=sys.stderr)
        return 1
    print(f"rebuilt in {(time.monotonic() - started) / 60:.0f} min; see git diff --stat configs")
    return 0


def say(what: str) -> None:
    print(f"== {what}", file=sys.stderr, flush=True)


def replace(source: Path, target: Path, without: Sequence[str] = ()) -> None:
    """Put what was trained in the place of what is shipped."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without))


if __name__ == "__main__":
    sys.exit(main())
