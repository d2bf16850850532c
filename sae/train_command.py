"""The command line of training: `sae train`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ft_audit.sae.train import TrainProgress

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
    import torch

    from ft_audit.engine.config import find_config
    from ft_audit.engine.runners.activations import loss_recovered, stream_activations
    from ft_audit.sae.recipe import load_recipe
    from ft_audit.sae.training_run import run_training

    path = find_config(args.recipe)
    recipe = load_recipe(path, args.overrides)
    base_dir = path.resolve().parent
    source = (recipe.model, recipe.suites, base_dir, recipe.layer)
    device, dtype = recipe.device, getattr(torch, recipe.model_dtype)

    activations = functools.partial(
        stream_activations, *source, recipe.num_tokens, recipe.seed, device=device, dtype=dtype
    )
    # Another seed: text in another order than the trained one.
    recovered = functools.partial(
        loss_recovered,
        *source,
        num_tokens=recipe.loss_recovered_tokens,
        seed=recipe.seed + 1,
        device=device,
        dtype=dtype,
    )
    first = min(recipe.buffer_tokens, recipe.num_tokens)
    print(
        f"sae train: reading {first:,} tokens to shuffle before the first step", file=sys.stderr, flush=True
    )
    # What libraries print goes to stderr: on stdout stands the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        show = (lambda _: None) if args.no_progress else _printer()
        report = run_training(recipe, activations, recovered, show, force=args.force)
    if args.json:
        print(json.dumps(report, allow_nan=False))
    else:
        print_report(report)
        print(f"written to {recipe.out}")
    return 0


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
    if recovered is not None:
        figures = ", ".join(
            f"{key} {value:.4g}" for key, value in recovered.items() if isinstance(value, float)
        )
        print(f"spliced into the model: {figures}")
