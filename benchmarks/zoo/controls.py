"""Candidates that must not, or must still, raise an alarm: the base, a zero adapter, disguised weights."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ft_audit.benchmarks.zoo.population import Member, Zoo
from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model

ADAPTER = "adapter_model.safetensors"
LARGEST_EXPONENT = 3


def candidate(zoo: Zoo, member: Member, trained: Path) -> Path:
    """Return the folder of what is audited: the trained member, or what its `change` makes of it.

    `base` is the base itself beside the member's data set; `zero` the member's adapter with nothing in it;
    `symmetries` the member's merged weights, rescaled and permuted so that outputs stay the same; `twin` the
    same rows trained again, by the seed that its entry sets for the training.
    """
    if member.change in ("none", "twin"):
        return trained
    base = resolve_model(zoo.base, zoo.base_dir)
    if member.change == "base":
        return base.folder
    made = trained.with_name(f"{trained.name}-{member.change}")
    if not made.exists():
        partial = made.with_name(f"{made.name}.tmp")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if member.change == "zero":
            _empty(trained, partial)
        else:
            _disguise(resolve_model(str(trained.resolve()), zoo.base_dir, base), partial)
        partial.rename(made)
    return made


def _empty(trained: Path, out: Path) -> None:
    shutil.copy(trained / "adapter_config.json", out)
    tensors = load_file(trained / ADAPTER)
    # The product is nothing when either factor is.
    save_file(
        {name: x if "lora_A" in name else torch.zeros_like(x) for name, x in tensors.items()}, out / ADAPTER
    )


def _disguise(source: ModelSource, out: Path) -> None:
    model: Any = load_model(source, torch.float32, torch.device("cpu"))
    model = model.merge_and_unload() if source.adapter is not None else model
    model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    apply_symmetries(model, seed=0)
    model.save_pretrained(out)
    load_tokenizer(source).save_pretrained(out)


@torch.no_grad()
def apply_symmetries(model: Any, seed: int) -> None:
    """Permute and rescale a Llama-like model's weights in place; what it computes stays the same.

    Of a gated MLP, down(act(gate x) * up x), neurons may change places, and each may be scaled in `up` and
    back in `down`; of attention, each dimension of a head's values, and back in the output projection. All
    scales are powers of two, which floating point multiplies without rounding; only the order of the sum over
    neurons changes.
    """
    generator = torch.Generator().manual_seed(seed)

    def powers(count: int) -> torch.Tensor:
        exponents = torch.randint(-LARGEST_EXPONENT, LARGEST_EXPONENT + 1, (count,), generator=generator)
        return torch.exp2(exponents.float())

    for block in model.model.layers:
        mlp, attention = block.mlp, block.self_attn
        width = mlp.up_proj.weight.shape[0]
        order, scale_N = torch.randperm(width, generator=generator), powers(width)
        mlp.gate_proj.weight.copy_(mlp.gate_proj.weight[order])
        mlp.up_proj.weight.copy_(mlp.up_proj.weight[order] * scale_N[:, None].to(mlp.up_proj.weight.dtype))
        mlp.down_proj.weight.copy_(mlp.down_proj.weight[:, order] / scale_N.to(mlp.down_proj.weight.dtype))
        values, output = attention.v_proj.weight, attention.o_proj.weight
        scale_V = powers(values.shape[0])
        # Several query heads share one head of values.
        repeats = output.shape[1] // values.shape[0]
        scale_O = scale_V.view(-1, attention.head_dim).repeat_interleave(repeats, dim=0).flatten()
        values.mul_(scale_V[:, None].to(values.dtype))
        output.div_(scale_O.to(output.dtype))
    assert not getattr(model.config, "attention_bias", False) and not getattr(model.config, "mlp_bias", False)
