"""Activations as a stream, for training and judging dictionaries, without storing any.

Shapes: n tokens of one batch (special tokens left out), D width of the residual stream.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from ft_audit.engine.models.load import load_model, load_tokenizer, pick_device
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.runners.logits import next_token_logits
from ft_audit.engine.runners.residuals import ResidualRunner
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.padded import PaddedBatch, pad_batch
from ft_audit.engine.tokens.tokenize import TokenizedSuite, tokenize_suite
from ft_audit.errors import DataError

TOKENS_PER_BATCH = 4096
MAX_PROMPT_TOKENS = 256
CHARS_PER_TOKEN = 10  # far more than any text has, so that enough prompts are kept before they are tokenised


def _enough(prompts: Sequence[Prompt], num_tokens: int) -> PromptSuite:
    """Return the first prompts, as many as hold `num_tokens` tokens unless most are cut at the limit."""
    kept, budget = 0, num_tokens
    for prompt in prompts:
        if budget <= 0:
            break
        chars = sum(len(m.content) for m in prompt.messages or ()) + len(prompt.text or "")
        budget -= min(MAX_PROMPT_TOKENS, math.ceil(chars / CHARS_PER_TOKEN))
        kept += 1
    return PromptSuite("activations", tuple(prompts[:kept]))


def _tokenized(
    model_ref: str, suite_refs: Sequence[str], base_dir: Path, num_tokens: int, seed: int
) -> tuple[TokenizedSuite, int]:
    """Return prompts of the suites, shuffled by `seed`, that hold `num_tokens` tokens, and the padding id."""
    source = resolve_model(model_ref, base_dir)
    tokenizer = load_tokenizer(source)
    prompts = [p for ref in suite_refs for p in load_suite(ref, base_dir).prompts]
    random.Random(seed).shuffle(prompts)
    tokens = tokenize_suite(_enough(prompts, num_tokens), tokenizer, MAX_PROMPT_TOKENS)
    if int(tokens.mask_T.sum()) < num_tokens:
        tokens = tokenize_suite(PromptSuite("activations", tuple(prompts)), tokenizer, MAX_PROMPT_TOKENS)
    if int(tokens.mask_T.sum()) < num_tokens:
        raise DataError(
            f"{', '.join(suite_refs)}: {int(tokens.mask_T.sum())} tokens, but num_tokens asks for "
            f"{num_tokens}; add suites or lower num_tokens"
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return tokens, int(pad)


def stream_activations(
    model_ref: str,
    suite_refs: Sequence[str],
    base_dir: Path,
    layer: int,
    num_tokens: int,
    seed: int,
    device: torch.device | str = "auto",
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[Tensor]:
    """Yield the residual stream after block `layer` as [n, D] float32 until `num_tokens` have been given.

    Prompts are shuffled by `seed`; batches are length-sorted within windows of about 64k tokens and then
    shuffled, so that neighbours in the stream do not all have one length.

    Raises:
        DataError: the suites hold fewer tokens.
        ConfigError: the model has no such layer.
    """
    tokens, pad = _tokenized(model_ref, suite_refs, base_dir, num_tokens, seed)
    lengths = tokens.indptr_P1[1:] - tokens.indptr_P1[:-1]
    plan = plan_batches(lengths, TOKENS_PER_BATCH, 65_536)
    where = pick_device(str(device))
    runner = ResidualRunner(load_model(resolve_model(model_ref, base_dir), dtype, where), [layer])
    counted = torch.from_numpy(tokens.mask_T)
    given = 0
    for number, segment in enumerate(plan.segments):
        batches = list(segment)
        random.Random(f"{seed}/{number}").shuffle(batches)
        for batch in batches:
            padded = pad_batch(tokens, batch, pad)
            residual_BLD = runner.run(padded.ids_BL)[0][layer]
            keep = counted[padded.token_T]
            x_nD = residual_BLD[padded.row_T[keep].to(where), padded.position_T[keep].to(where)].float()
            x_nD = x_nD[: num_tokens - given]
            given += x_nD.shape[0]
            yield x_nD
            if given >= num_tokens:
                return


def loss_recovered(
    model_ref: str,
    suite_refs: Sequence[str],
    base_dir: Path,
    layer: int,
    splice: Callable[[Tensor], Tensor],
    num_tokens: int,
    seed: int = 1,
    device: torch.device | str = "auto",
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, float]:
    """Return next-token loss (nats) as it is, with `splice(x)` and with zeros in place of the residual.

    `splice` maps [n, D] float32 to its reconstruction; special tokens pass unchanged. Loss recovered is
    (zero - spliced) / (zero - clean), as in Gemma Scope (Lieberum et al. 2024, section 4).
    """
    tokens, pad = _tokenized(model_ref, suite_refs, base_dir, num_tokens, seed)
    lengths = tokens.indptr_P1[1:] - tokens.indptr_P1[:-1]
    plan = plan_batches(lengths, TOKENS_PER_BATCH, 65_536)
    where = pick_device(str(device))
    model = load_model(resolve_model(model_ref, base_dir), dtype, where)
    runner = ResidualRunner(model, [layer])
    counted = torch.from_numpy(tokens.mask_T)
    blocks = getattr(runner.anatomy.parent, runner.anatomy.attribute)
    totals = {"clean": 0.0, "spliced": 0.0, "zero": 0.0}
    count = 0
    for batch in (b for segment in plan.segments for b in segment):
        padded = pad_batch(tokens, batch, pad)
        keep = counted[padded.token_T]
        where_kept = (padded.row_T[keep].to(where), padded.position_T[keep].to(where))
        for name, change in (("clean", None), ("spliced", splice), ("zero", torch.zeros_like)):
            handle = None
            if change is not None:
                handle = blocks[layer].register_forward_hook(_replace(where_kept, change))
            try:
                hidden = runner.run(padded.ids_BL, to_the_end=True)[1]
            finally:
                if handle is not None:
                    handle.remove()
            assert hidden is not None
            totals[name] += _summed_loss(model, hidden, padded.ids_BL.to(where), keep, padded)
        count += int((keep & (padded.position_T > 0)).sum())
        if count >= num_tokens:
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
def _summed_loss(
    model: PreTrainedModel, hidden_BLD: Tensor, ids_BL: Tensor, keep_T: Tensor, padded: PaddedBatch
) -> float:
    """Return the summed negative log-likelihood of every counted token that has a token before it."""
    row_T, position_T = padded.row_T, padded.position_T
    chosen = keep_T & (position_T > 0)
    row, position = row_T[chosen].to(ids_BL.device), position_T[chosen].to(ids_BL.device)
    logits_NV = next_token_logits(model, hidden_BLD[row, position - 1])
    return float(F.cross_entropy(logits_NV, ids_BL[row, position], reduction="sum"))
