"""How fast is a dictionary trained, end to end, and against SAELens's trainer over the same activations?

Shapes: T tokens, B tokens of a batch, D width of the residual stream.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.engine.config import find_config
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.runners.activations import read_text, stream_activations
from ft_audit.sae.recipe import SaeTrainRecipe, load_recipe
from ft_audit.sae.report_card import report_card
from ft_audit.sae.train import train_batch_topk
from ft_audit.sae.training_run import Sources, run_training

RECIPE = "configs:recipes/sae-smollm2-layer15.yaml"
HELD_OUT_BATCHES = 8
MINUTES_ASKED_FOR = 1_000_000  # tokens
NO_GPU = "needs an H200 and Gemma-3-1B's shape; not run"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=100_000, help="streamed and trained on, end to end")
        parser.add_argument("--race-tokens", type=int, default=200_000, help="that both trainers learn from")
        parser.add_argument("--width", type=int, help="of the dictionaries; the recipe's by default")

    return run_benchmark("sae_train", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Train end to end, then both trainers on stored activations; no loss splicing, which is not training."""
    with tempfile.TemporaryDirectory() as scratch:
        return [
            *_end_to_end(_recipe(options, options.tokens, scratch)),
            *_race(_recipe(options, options.race_tokens, scratch)),
            Measurement("gpu_rate", None, "tokens/s", NO_GPU),
        ]


def _recipe(options: argparse.Namespace, num_tokens: int, scratch: str) -> SaeTrainRecipe:
    changes = [f"num_tokens={num_tokens}", f"out={scratch}/{num_tokens}", "loss_recovered_tokens=0"]
    changes += [f"width={options.width}"] if options.width else []
    recipe = load_recipe(find_config(RECIPE), changes)
    buffer_tokens = min(recipe.buffer_tokens, num_tokens // 4)
    return recipe.model_copy(update={"tuned": None, "buffer_tokens": buffer_tokens})


def _activations(recipe: SaeTrainRecipe) -> Iterator[Tensor]:
    base_dir = find_config(RECIPE).resolve().parent
    source = resolve_model(recipe.model, base_dir)
    text = read_text(source, recipe.suites, base_dir, recipe.num_tokens, recipe.seed)
    return stream_activations(text, source, recipe.layer, recipe.device)


def _end_to_end(recipe: SaeTrainRecipe) -> list[Measurement]:
    rates: list[float] = []
    report = run_training(
        recipe, Sources(lambda: _activations(recipe)), lambda at: rates.append(at.tokens_per_second)
    )
    trained = report["trained_tokens"]
    # Reading and starting up stay out: they are the same for a long training.
    seconds = trained / rates[-1]
    return [
        Measurement("minutes_a_million", MINUTES_ASKED_FOR / rates[-1] / 60, "min"),
        Measurement("rate", rates[-1], "tokens/s"),
        Measurement("seconds", seconds, "s"),
        Measurement("tokens", trained, "tokens"),
        Measurement("width", recipe.width, "features"),
    ]


def _race(recipe: SaeTrainRecipe) -> list[Measurement]:
    """The same batches in the same order, centred and scaled for both; each in its own fast precision."""
    x_TD = torch.cat(list(_activations(recipe)))
    x_TD = x_TD[x_TD.norm(dim=1) <= 10 * x_TD.norm(dim=1).median()]
    x_TD = (x_TD - x_TD.mean(0)) / (x_TD - x_TD.mean(0)).square().mean().sqrt()
    x_TD = x_TD[torch.randperm(len(x_TD), generator=torch.Generator().manual_seed(0))]
    batches = list(x_TD[: len(x_TD) // recipe.batch * recipe.batch].split(recipe.batch))
    training, held_out = batches[:-HELD_OUT_BATCHES], batches[-HELD_OUT_BATCHES:]
    print(f"race: {len(training)} batches of {recipe.batch}", file=sys.stderr, flush=True)
    own_seconds, own = _ours(recipe, training, held_out)
    their_seconds, theirs = _saelens(recipe, training, held_out)
    return [
        Measurement("speed_against_saelens", their_seconds / own_seconds, "x"),
        Measurement("race_seconds", own_seconds, "s"),
        Measurement("race_seconds_saelens", their_seconds, "s"),
        Measurement("race_fvu", own[1], "ratio"),
        Measurement("race_fvu_saelens", theirs[1], "ratio"),
        Measurement("race_l0", own[0], "features/token"),
        Measurement("race_l0_saelens", theirs[0], "features/token"),
        Measurement("race_dead_share", own[2], "ratio"),
        Measurement("race_dead_share_saelens", theirs[2], "ratio"),
    ]


Quality = tuple[float, float, float]  # L0, FVU, share of features that never fired


def _ours(
    recipe: SaeTrainRecipe, training: Sequence[Tensor], held_out: Sequence[Tensor]
) -> tuple[float, Quality]:
    tokens = len(training) * recipe.batch
    # All of it is training, so that the learning rate falls to zero at its end.
    told = recipe.model_copy(update={"num_tokens": tokens + 1, "holdout": 1e-9})
    started = time.perf_counter()
    trained = train_batch_topk(iter(training), told, lambda _: None)
    seconds = time.perf_counter() - started
    assert trained.num_steps == len(training)
    card = report_card(trained.sae, iter(held_out))
    return seconds, (card.l0, card.fvu, card.dead_share)


def _saelens(
    recipe: SaeTrainRecipe, training: Sequence[Tensor], held_out: Sequence[Tensor]
) -> tuple[float, Quality]:
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(recipe.seed)
    steps, d_in = len(training), training[0].shape[1]
    sae = BatchTopKTrainingSAE(
        BatchTopKTrainingSAEConfig(d_in=d_in, d_sae=recipe.width, k=recipe.k, dtype="float32", device="cpu")
    )
    settings = SAETrainerConfig(
        total_training_samples=steps * recipe.batch,
        train_batch_size_samples=recipe.batch,
        lr=recipe.lr,
        lr_end=recipe.lr / 10,
        lr_warm_up_steps=max(1, steps // 50),
        lr_decay_steps=steps // 4,
        autocast=True,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(cfg=settings, sae=sae, data_provider=iter(training))
    started = time.perf_counter()
    trainer.fit()
    seconds = time.perf_counter() - started
    return seconds, _judged(sae, recipe.k, torch.cat(list(held_out)))


@torch.inference_mode()
def _judged(sae: Any, k: int, x_TD: Tensor) -> Quality:
    """As it is trained, with the k largest a token over the held-out batch: its running threshold, of which
    its JumpReLU form is made, takes far longer to settle than this race lasts."""
    norm_F = sae.W_dec.norm(dim=1)
    act_TF = (((x_TD - sae.b_dec) @ sae.W_enc + sae.b_enc) * norm_F).relu()
    cut = act_TF.flatten().topk(k * len(x_TD)).values[-1]
    act_TF = act_TF * (act_TF >= cut)
    decoded_TD = act_TF @ (sae.W_dec / norm_F[:, None]) + sae.b_dec
    total = (x_TD - x_TD.mean(0)).square().sum()
    fvu = float((decoded_TD - x_TD).square().sum() / total)
    return float((act_TF > 0).sum(1).float().mean()), fvu, float((~(act_TF > 0).any(0)).float().mean())


if __name__ == "__main__":
    sys.exit(main())
