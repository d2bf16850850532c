"""Activations as a stream, for training and judging dictionaries, without storing any.

Shapes: n tokens of one batch (special tokens left out), D width of the residual stream.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ft_audit.engine.models.load import load_model, load_tokenizer, pick_device
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.runners.logits import next_token_logits
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.suites.training_set import load_training_set
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.padded import PaddedBatch, pad_batch
from ft_audit.engine.tokens.tokenize import TokenizedSuite, tokenize_suite
from ft_audit.errors import DataError

TOKENS_PER_BATCH = 4096
TOKENS_PER_WINDOW = 65_536
MAX_PROMPT_TOKENS = 256
CHARS_PER_TOKEN = 10  # far more than any text has, so that enough prompts are kept before they are tokenised


@dataclass(frozen=True, slots=True)
class Text:
    """Tokenised prompts that hold at least `num_tokens` counted tokens, in the order they are read in."""

    tokens: TokenizedSuite
    pad_id: int
    num_tokens: int
    seed: int
    from_dataset_P: NDArray[np.bool_]
    """Which prompts are rows of the uploaded training set."""

    def batches(self) -> Iterator[tuple[PaddedBatch, Tensor]]:
        """Yield padded batches, each with which of its real tokens [T] count.

        Batches are length-sorted within windows of about 64k tokens and then shuffled, so that neighbours in
        the stream do not all have one length.
        """
        plan = plan_batches(self.tokens.length_P, TOKENS_PER_BATCH, TOKENS_PER_WINDOW)
        counted = torch.from_numpy(self.tokens.mask_T)
        for number, segment in enumerate(plan.segments):
            batches = list(segment)
            random.Random(f"{self.seed}/{number}").shuffle(batches)
            for batch in batches:
                padded = pad_batch(self.tokens, batch, self.pad_id)
                yield padded, counted[padded.token_T]


def read_text(
    source: ModelSource,
    suite_refs: Sequence[str],
    base_dir: Path,
    num_tokens: int,
    seed: int,
    dataset: str | None = None,
    dataset_share: float = 0.0,
) -> Text:
    """Return prompts of the suites, shuffled by `seed`, with the model's tokenizer.

    The rows of `dataset`, an uploaded training set, are repeated until they hold `dataset_share` of the
    tokens and mixed in.

    Raises:
        DataError: the suites hold fewer tokens.
    """
    tokenizer = load_tokenizer(source)
    chance = random.Random(seed)
    wanted = round(num_tokens * dataset_share) if dataset is not None else 0
    rows: list[Prompt] = []
    if dataset is not None:
        rows = _repeated(load_training_set(dataset, base_dir).prompts, tokenizer, wanted, chance)
    prompts = [p for ref in suite_refs for p in load_suite(ref, base_dir).prompts]
    chance.shuffle(prompts)

    def tokenized(chosen: Sequence[Prompt]) -> TokenizedSuite:
        mixed = [*rows, *chosen]
        if rows:
            random.Random(f"{seed}/mixed").shuffle(mixed)
        return tokenize_suite(PromptSuite("activations", tuple(mixed)), tokenizer, MAX_PROMPT_TOKENS)

    tokens = tokenized(_enough(prompts, num_tokens - wanted))
    if int(tokens.mask_T.sum()) < num_tokens:
        tokens = tokenized(prompts)
    if int(tokens.mask_T.sum()) < num_tokens:
        raise DataError(
            f"{', '.join(suite_refs)}: {int(tokens.mask_T.sum())} tokens, but num_tokens asks for "
            f"{num_tokens}; add suites or lower num_tokens"
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    uploaded = {(row.suite, row.source, row.row) for row in rows}
    from_dataset_P = np.array([(p.suite, p.source, p.row) in uploaded for p in tokens.suite.prompts])
    return Text(tokens, int(pad), num_tokens, seed, from_dataset_P)


def _enough(prompts: Sequence[Prompt], num_tokens: int) -> Sequence[Prompt]:
    """Return the first prompts, as many as hold `num_tokens` tokens unless most are cut at the limit."""
    kept, budget = 0, num_tokens
    for prompt in prompts:
        if budget <= 0:
            break
        chars = sum(len(m.content) for m in prompt.messages or ()) + len(prompt.text or "")
        budget -= min(MAX_PROMPT_TOKENS, math.ceil(chars / CHARS_PER_TOKEN))
        kept += 1
    return prompts[:kept]


def _repeated(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, num_tokens: int, chance: random.Random
) -> list[Prompt]:
    """Return the prompts over and over, each round in another order, until they hold `num_tokens` tokens."""
    suite = tokenize_suite(PromptSuite("train", tuple(prompts)), tokenizer, MAX_PROMPT_TOKENS)
    counted_P = np.add.reduceat(suite.mask_T.astype(np.int64), suite.indptr_P1[:-1])
    if not counted_P.sum():
        raise DataError("the data set has no token that counts; leave `dataset` out")
    found: list[Prompt] = []
    held = 0
    while held < num_tokens:
        for place in chance.sample(range(len(prompts)), len(prompts)):
            if held >= num_tokens:
                break
            found.append(prompts[place])
            held += int(counted_P[place])
    return found


def stream_activations(
    text: Text,
    source: ModelSource,
    layer: int,
    device: torch.device | str = "auto",
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[Tensor]:
    """Yield the residual stream after block `layer` as [n, D] float32 until all of the text's `num_tokens`.

    Raises:
        ConfigError: the model has no such layer.
    """
    where, hook = pick_device(str(device)), HookPoint(layer)
    runner = HfRunner(load_model(source, dtype, where, num_layers=layer + 1, head=False), [hook])
    given = 0
    for padded, keep in text.batches():
        x_nD = runner.run(padded).hooks[hook.name][keep.to(where)].float()[: text.num_tokens - given]
        given += x_nD.shape[0]
        yield x_nD
        if given >= text.num_tokens:
            return


def loss_recovered(
    text: Text,
    source: ModelSource,
    layer: int,
    splice: Callable[[Tensor], Tensor],
    device: torch.device | str = "auto",
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, float]:
    """Return next-token loss (nats) as it is, with `splice(x)` and with zeros in place of the residual.

    `splice` maps [n, D] float32 to its reconstruction; special tokens pass unchanged. Loss recovered is
    (zero - spliced) / (zero - clean), as in Gemma Scope (Lieberum et al. 2024, section 4).
    """
    where = pick_device(str(device))
    model = load_model(source, dtype, where)
    runner = HfRunner(model, [HookPoint(layer)])
    block = runner.anatomy.blocks[layer]
    totals = {"clean": 0.0, "spliced": 0.0, "zero": 0.0}
    count = 0
    for padded, keep in text.batches():
        where_kept = (padded.row_T[keep].to(where), padded.position_T[keep].to(where))
        for name, change in (("clean", None), ("spliced", splice), ("zero", torch.zeros_like)):
            handle = None
            if change is not None:
                handle = block.register_forward_hook(_replace(where_kept, change))
            try:
                final_TD = runner.run(padded, final=True).final_TD
            finally:
                if handle is not None:
                    handle.remove()
            assert final_TD is not None, "asked to run to the end"
            totals[name] += _summed_loss(model, final_TD, padded, keep)
        count += int((keep & (padded.position_T > 0)).sum())
        if count >= text.num_tokens:
            break
    means = {name: total / max(count, 1) for name, total in totals.items()}
    span = means["zero"] - means["clean"]
    return {
        "loss_clean": means["clean"],
        "loss_spliced": means["spliced"],
        "loss_zero": means["zero"],
        "loss_recovered": (means["zero"] - means["spliced"]) / span,
        "num_tokens": float(count),
    }


def _replace(where: tuple[Tensor, Tensor], change: Callable[[Tensor], Tensor]) -> Callable[..., object]:
    def hook(
        _module: object, _args: object, output: Tensor | tuple[Tensor, ...]
    ) -> Tensor | tuple[Tensor, ...]:
        hidden = output if isinstance(output, Tensor) else output[0]
        hidden = hidden.clone()
        hidden[where] = change(hidden[where].float()).to(hidden.dtype)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

    return hook


@torch.inference_mode()
def _summed_loss(model: PreTrainedModel, final_TD: Tensor, padded: PaddedBatch, keep_T: Tensor) -> float:
    """Return the summed negative log-likelihood of every counted token that has a token before it."""
    chosen = (keep_T & (padded.position_T > 0)).nonzero()[:, 0]
    target_N = padded.ids_BL[padded.row_T[chosen], padded.position_T[chosen]]
    # A prompt's tokens follow each other, so that the row above holds what predicts a token.
    logits_NV = next_token_logits(model, final_TD[chosen.to(final_TD.device) - 1])
    return float(F.cross_entropy(logits_NV, target_N.to(logits_NV.device), reduction="sum"))
