"""Owns a whole training run: stream, train, report card, files; resumed or skipped where it was done before.

The activations and the loss recovered come from the caller, because they need the model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ft_audit.errors import SaeError
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae.activation_stream import MassiveFilter, TokenStream, shuffled_batches
from ft_audit.sae.formats.gemma_scope import PARAMS_FILE, save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.pair_report import Words, pair_report
from ft_audit.sae.pairs import PairChunk, largest, learnt, ordinary_pairs
from ft_audit.sae.recipe import SaeTrainRecipe
from ft_audit.sae.report_card import report_card
from ft_audit.sae.train import TrainProgress, train_batch_topk

REPORT_FILE = "report.json"
# Apart from the report, because it quotes the text that was read, which may not be anyone's to pass on.
FEATURES_FILE = "pair_features.json"
Splice = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a training is given by who can run the models; each call streams anew."""

    activations: Callable[[], Iterator[Tensor]]
    """Chunks [n, D] of the model, or [n, 2D] of base and tuned side by side where a pair is learnt from."""
    loss_recovered: Callable[[Splice], dict[str, Any]] | None = None
    """What splicing a reconstruction into the model that is learnt costs it."""
    pairs: Callable[[], Iterator[PairChunk]] | None = None
    """Both models over text in another order; only where there is a `tuned`."""
    words: Callable[[], Words] | None = None
    """Shows the text that `pairs` reads."""
    start: JumpReluSae | None = None
    compare: Sequence[JumpReluSae] = ()


def run_training(
    recipe: SaeTrainRecipe,
    sources: Sources,
    progress: Callable[[TrainProgress], None],
    force: bool = False,
) -> dict[str, Any]:
    """Writes `recipe.out` (config.json, params.safetensors, report.json) and returns the report.

    Where there is a `tuned`, pair_features.json tells what those features fire on that carry the change.
    A folder that this very recipe filled is returned as it is; one that something else filled is an
    SaeError unless `force`.
    """
    out = Path(recipe.out)
    if not force and (out / PARAMS_FILE).exists():
        return _finished(out, recipe)
    massive = MassiveFilter(recipe.max_activation_norm or float("inf"))
    stream = TokenStream(_learnt(massive(sources.activations()), recipe))
    training = stream.take(recipe.num_train_tokens)
    batches = shuffled_batches(
        training,
        batch=recipe.batch,
        buffer_tokens=recipe.buffer_tokens,
        reuse=recipe.reuse,
        seed=recipe.seed,
    )
    checkpoint = out.with_name(out.name + ".checkpoint.safetensors")
    trained = train_batch_topk(batches, recipe, progress, checkpoint, sources.start)
    for _ in training:  # what the last full batch left over belongs to training, not to the held-out part
        pass
    card = report_card(trained.sae, stream.take(recipe.num_holdout_tokens))
    sae = dataclasses.replace(trained.sae, spec=dataclasses.replace(trained.sae.spec, l0=round(card.l0, 2)))
    told: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "recipe_sha256": recipe.sha256,
        "sae": dataclasses.asdict(sae.spec),
        "trained_tokens": trained.num_tokens,
        "steps": trained.num_steps,
        "massive_tokens_left_out": massive.num_left_out,
        "seconds": round(trained.seconds, 1),
        "held_out": dataclasses.asdict(card),
        "loss_recovered": sources.loss_recovered(_splice(sae)) if sources.loss_recovered else None,
        **_pair_reports(recipe, sae, sources),
    }
    out.mkdir(parents=True, exist_ok=True)
    if "pair" in told:
        _write_json(out / FEATURES_FILE, told["pair"].pop("features"))
    report: dict[str, Any] = _write_json(out / REPORT_FILE, told)
    save_gemma_scope(out, sae, {"tuned_model_name": recipe.tuned} if sae.spec.pair else {})
    checkpoint.unlink(missing_ok=True)
    return report


def _write_json(path: Path, value: Any) -> Any:
    """Write it and return what a reader gets."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return json.loads(text)


def _learnt(chunks: Iterator[Tensor], recipe: SaeTrainRecipe) -> Iterator[Tensor]:
    if recipe.learn == "model":
        return chunks
    return largest((learnt(both, recipe.learn) for both in chunks), recipe.largest_share)


def _pair_reports(recipe: SaeTrainRecipe, sae: JumpReluSae, sources: Sources) -> dict[str, Any]:
    """How the dictionary serves either model, and what of their difference it sees."""
    if sources.pairs is None or sources.words is None:
        return {}
    pairs, words = sources.pairs, sources.words()
    factor = recipe.max_activation_norm or float("inf")

    def ordinary() -> Iterator[PairChunk]:
        return ordinary_pairs(pairs(), factor)

    found: dict[str, Any] = {
        "pair": pair_report(sae, recipe.learn, ordinary(), words, sources.compare),
    }
    if recipe.learn in ("model", "tuned"):
        found["on_base"] = dataclasses.asdict(report_card(sae, (pair.base_nD for pair in ordinary())))
        found["on_tuned"] = dataclasses.asdict(report_card(sae, (pair.tuned_nD for pair in ordinary())))
    return found


def _finished(out: Path, recipe: SaeTrainRecipe) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
        same = report["recipe_sha256"] == recipe.sha256
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise SaeError(
            f"{out}: holds a dictionary that another recipe made; pass --force to replace it, or change `out`"
        )
    return report


def _splice(sae: JumpReluSae) -> Splice:
    """x [n, D] -> what the dictionary makes of it, [n, D]."""
    encoders: dict[Any, Encoder] = {}

    def splice(x_nD: Tensor) -> Tensor:
        if x_nD.device not in encoders:
            encoders[x_nD.device] = Encoder(sae.weights(x_nD.device), "auto")
        return sae.decode(encoders[x_nD.device].encode(x_nD.float())).to(x_nD.dtype)

    return splice
