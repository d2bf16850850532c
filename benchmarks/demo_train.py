"""Rebuilds what the demo ships, from the recipes: the dictionary, then the two candidates, then the bank."""

import shutil
import sys
import time
from pathlib import Path

from ft_audit.benchmarks.demo import CANDIDATES, run_verb
from ft_audit.errors import UserError

DICTIONARY = "recipes/sae-smollm2-layer15.yaml"
BANK = "banks/smollm2-135m-instruct.yaml"
# Trained here first, so that what is shipped is replaced whole, and a rebuild that was stopped goes on.
WORK = Path(".cache/demo-train")
# The recipe builds the rows again, so the data set itself is not shipped.
NOT_SHIPPED = ("train.jsonl",)


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
        for name in CANDIDATES:
            say(name)
            run_verb("finetune", str(configs / f"recipes/{name}.yaml"), "--out", str(WORK / name), "--json")
            replace(WORK / name, configs / "candidates" / name)
        say("bank")
        run_verb("calibrate", str(configs / BANK), f"work={WORK / 'bank'}", "--json")
    except UserError as error:
        print(f"demo-train: {error}", file=sys.stderr)
        return 1
    print(f"rebuilt in {(time.monotonic() - started) / 60:.0f} min; see git diff --stat configs")
    return 0


def say(what: str) -> None:
    print(f"== {what}", file=sys.stderr, flush=True)


def replace(source: Path, target: Path) -> None:
    """Put a trained candidate in the place of the shipped one."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NOT_SHIPPED))


if __name__ == "__main__":
    sys.exit(main())
