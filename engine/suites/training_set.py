"""The uploaded training set as a suite, whichever way it is named."""

from pathlib import Path

from ft_audit.engine.config import resolve_ref
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import PromptSuite


def load_training_set(ref: str, base_dir: Path, split: str | None = None) -> PromptSuite:
    """Return a data set's rows as the suite `train`, or the rows of a fine-tune recipe that stands for it.

    What stands behind a recipe's `?` is taken in the place of what it says: `RECIPE.yaml?seed=1`.

    Raises:
        DataError: an empty data set or a malformed row, named with its line.
    """
    place, _, overrides = ref.partition("?")
    is_recipe = place.endswith((".yaml", ".yml"))
    target = resolve_ref(place if is_recipe else ref, base_dir)
    if isinstance(target, Path) and target.suffix in (".yaml", ".yml"):
        # Only the finetune extra's sources are needed here, no TRL.
        from ft_audit.engine.finetune.dataset import as_prompts, build_training_set
        from ft_audit.engine.finetune.recipe import load_recipe

        changed = tuple(overrides.split("&")) if overrides else ()
        return PromptSuite("train", as_prompts(build_training_set(load_recipe(target, changed)), "train"))
    loaded = load_suite(ref, base_dir, split=split)
    return PromptSuite("train", loaded.prompts, loaded.num_skipped)
