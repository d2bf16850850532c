"""The command line of training: `sae train`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ft_audit.sae.recipe import SaeTrainRecipe
    from ft_audit.sae.train import TrainProgress
    from ft_audit.sae.training_run import Sources, Splice

SECONDS_BETWEEN_LINES = 5.0


def add_train(verbs: Any) -> None:
    """Add the verb `train`."""
    train = verbs.add_parser("train", help="train a dictionary from a recipe")
    train.add_argument(
        "recipe", metavar="RECIPE.yaml", help="the recipe's YAML file; configs:NAME names a shipped one"
    )
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="in the place of what the file says")
    train.add_argument("--force", action="store_true", help="replace a dictionary that another recipe made")
    train.add_argument("--no-progress", action="store_true", help="no progress on stderr")
    train.add_argument("--json", action="store_true", help="print the training report as one JSON object")
    train.set_defaults(func=_train)


def _train(args: argparse.Namespace) -> int:
    from ft_audit.engine.config import find_config
    from ft_audit.sae.recipe import load_recipe
    from ft_audit.sae.training_run import run_training

    path = find_config(args.recipe)
    recipe = load_recipe(path, args.overrides)
    first = min(recipe.buffer_tokens, recipe.num_kept_tokens)
    print(
        f"sae train: reading {first:,} tokens to shuffle before the first step", file=sys.stderr, flush=True
    )
    # What libraries print goes to stderr: on stdout stands the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        show = (lambda _: None) if args.no_progress else _printer()
        report = run_training(recipe, _sources(recipe, path.resolve().parent), show, force=args.force)
    if args.json:
        print(json.dumps(report, allow_nan=False))
    else:
        print_report(report)
        print(f"written to {recipe.out}")
    return 0


def _sources(recipe: SaeTrainRecipe, base_dir: Path) -> Sources:
    import torch

    from ft_audit.engine.models.load import load_tokenizer
    from ft_audit.engine.models.reference import resolve_model
    from ft_audit.engine.runners.activations import Text, loss_recovered, read_text, stream_activations
    from ft_audit.engine.runners.pair_stream import Contexts, PairReader
    from ft_audit.sae.load import load_sae
    from ft_audit.sae.pairs import side_by_side
    from ft_audit.sae.training_run import Sources

    base = resolve_model(recipe.model, base_dir)
    tuned = resolve_model(recipe.tuned, base_dir, base) if recipe.tuned is not None else None
    layer, device, dtype = recipe.layer, recipe.device, getattr(torch, recipe.model_dtype)

    @functools.cache
    def text(num_tokens: int, seed: int) -> Text:
        dataset = (recipe.dataset, recipe.dataset_share)
        return read_text(base, recipe.suites, base_dir, num_tokens, seed, *dataset)

    # Another seed: text in another order than the trained one.
    def recovered(splice: Splice) -> dict[str, float]:
        read = text(recipe.loss_recovered_tokens, recipe.seed + 1)
        source = tuned if recipe.learn == "tuned" and tuned is not None else base
        return loss_recovered(read, source, layer, splice, device, dtype)

    spliced = recipe.loss_recovered_tokens > 0 and recipe.learn in ("model", "tuned")
    sources = Sources(
        lambda: stream_activations(text(recipe.num_tokens, recipe.seed), base, layer, device, dtype),
        loss_recovered=recovered if spliced else None,
        start=load_sae(recipe.start, base_dir) if recipe.start is not None else None,
        compare=[load_sae(ref, base_dir) for ref in recipe.compare],
    )
    if tuned is None:
        return sources
    reader = PairReader(base, tuned, layer, device, dtype)

    def judged() -> Text:
        return text(recipe.pair_tokens, recipe.seed + 1)

    sources = replace(
        sources, pairs=lambda: reader.stream(judged()), words=lambda: Contexts(judged(), load_tokenizer(base))
    )
    if recipe.learn == "model":
        return sources
    return replace(
        sources, activations=lambda: side_by_side(reader.stream(text(recipe.num_tokens, recipe.seed)))
    )


def _printer() -> Callable[[TrainProgress], None]:
    """Prints where the training stands to stderr, now and then, and after the last step."""
    last = [0.0]

    def show(at: TrainProgress) -> None:
        now = time.monotonic()
        if now - last[0] < SECONDS_BETWEEN_LINES and at.step < at.num_steps:
            return
        last[0] = now
        if at.stats is None:
            doing = "finding the place of the checkpoint"
        else:
            doing = f"L0 {at.stats.l0:.1f}, FVU {at.stats.fvu:.3f}, dead {at.stats.dead_share:.1%}"
        print(
            f"sae train: {at.num_tokens:,} tokens ({at.step / at.num_steps:.0%}), "
            f"{at.tokens_per_second:,.0f} tokens/s, {at.seconds_left / 60:.1f} min left, {doing}",
            file=sys.stderr,
            flush=True,
        )

    return show


def print_report(report: dict[str, Any]) -> None:
    """Print what a training came to."""
    card, recovered = report["held_out"], report["loss_recovered"]
    print(
        f"trained on {report['trained_tokens']:,} tokens in {report['seconds']:.0f} s; on "
        f"{card['num_tokens']:,} held-out tokens: L0 {card['l0']:.1f}, FVU {card['fvu']:.3f}, "
        f"cosine {card['cosine']:.3f}, dead {card['dead_share']:.1%}"
    )
    for name in ("on_base", "on_tuned"):
        if name in report:
            of = report[name]
            model = name.removeprefix("on_")
            print(
                f"on the {model} model: L0 {of['l0']:.1f}, FVU {of['fvu']:.3f} ({of['num_tokens']:,} tokens)"
            )
    if "pair" in report:
        for name, seen in report["pair"]["difference_seen"].items():
            shares = f"{seen['of_all']:.1%}, and {seen['of_what_varies']:.1%} of what varies"
            print(f"of the squared difference between the models {name} sees {shares}")
        if report["pair"]["tuned_only_features"] is not None:
            print(f"features that are the tuned model's alone: {report['pair']['tuned_only_features']}")
    if recovered is not None:
        figures = ", ".join(
            f"{key} {value:.4g}" for key, value in recovered.items() if isinstance(value, float)
        )
        print(f"spliced into the model: {figures}")
