"""Where each site of a hook lies in a model's blocks, in the conventions of the published dictionaries.

The residual stream is read before (`resid_pre`), between (`resid_mid`) and after (`resid_post`) the halves of
a block. `attn_out` and `mlp_out` are what each half adds to it: the output of the norm that follows the half
in Gemma 2 and 3, of the half itself elsewhere. `attn_z` is the input of attention's output projection, all
heads side by side; `mlp_in` is the MLP's input, which is the output of the weighted norm before it.

Shapes: B prompts, L positions, D width of the residual stream.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ft_audit.engine.models.anatomy import Anatomy
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.errors import ConfigError

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
PROJECTION = ("o_proj", "c_proj", "out_proj", "dense")
MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
# Norms that stand after a half and before the sum.
AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
# Norms before the MLP; what enters them is the stream between the halves.
BEFORE_MLP = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2")
SUMS = ("resid_mid", "attn_out", "mlp_out")


class Tap(NamedTuple):
    """One side of one module: where a hook listens."""

    module: nn.Module
    side: Literal["input", "output"]


def check_layers(hooks: Sequence[HookPoint], num_layers: int) -> None:
    """Raise ConfigError for a hook on a block that the model does not have."""
    for hook in hooks:
        if not 0 <= hook.layer < num_layers:
            raise ConfigError(
                f"hooks: layer {hook.layer} does not exist; this model has blocks 0 to {num_layers - 1}"
            )


def tap(blocks: Sequence[nn.Module] | nn.ModuleList, hook: HookPoint, family: str) -> Tap:
    """Return where `hook` listens among `blocks`.

    Raises:
        ConfigError: the family's blocks have no such site.
    """
    if hook.site == "resid_pre" and hook.layer > 0:
        # What enters a block has left the one before, so that the block itself need not run.
        return Tap(blocks[hook.layer - 1], "output")
    block = blocks[hook.layer]
    if hook.site == "resid_pre":
        return Tap(block, "input")
    if hook.site == "resid_post":
        return Tap(block, "output")
    parts = dict(block.named_children())
    if hook.site in ("attn_z", "attn_out"):
        attention = _part(parts, ATTENTION)
        if attention is None:
            raise _lacking(hook, family, "attention")
        if hook.site == "attn_z":
            projection = _part(dict(attention.named_children()), PROJECTION)
            if projection is None:
                raise _lacking(hook, family, "output projection of its attention")
            return Tap(projection, "input")
        return Tap(_after_attention(parts) or attention, "output")
    mlp = _part(parts, MLP)
    if mlp is None:
        raise _lacking(hook, family, "MLP")
    if hook.site == "mlp_in":
        return Tap(mlp, "input")
    if hook.site == "mlp_out":
        return Tap(_part(parts, AFTER_MLP) or mlp, "output")
    assert hook.site == "resid_mid", hook.site
    after = _after_attention(parts)
    before = next((parts[name] for name in BEFORE_MLP if name in parts and parts[name] is not after), None)
    if before is None and after is None:
        raise _lacking(hook, family, "norm between attention and MLP")
    # OLMo 2 norms what comes out of each half, and nothing that goes in: its MLP reads the stream.
    return Tap(before if before is not None else mlp, "input")


def depth_of(hooks: Sequence[HookPoint]) -> int:
    """Return how many blocks must run for all of `hooks`."""
    return max((hook.layer + (hook.site != "resid_pre" or hook.layer == 0) for hook in hooks), default=0)


def hook_width(found: Anatomy, hook: HookPoint) -> int:
    """Return how many dimensions a dictionary at `hook` reads; an outline of the model is enough.

    Raises:
        ConfigError: a block or a site that the model does not have.
    """
    check_layers([hook], found.num_layers)
    where = tap(found.blocks, hook, found.family)
    if hook.site != "attn_z":
        return found.width
    # All heads side by side, which are wider than the stream in Gemma.
    if isinstance(where.module, nn.Linear):
        return where.module.in_features
    weight = getattr(where.module, "weight", None)
    assert isinstance(weight, Tensor), "GPT-2's Conv1D"
    return int(weight.shape[0])


def hidden(value: Any) -> Tensor:
    """Return the activations among what a module takes or gives: the tensor, or the first of several."""
    first = value if isinstance(value, Tensor) else value[0]
    assert isinstance(first, Tensor), type(first)
    return first


def _part(parts: dict[str, nn.Module], names: Sequence[str]) -> nn.Module | None:
    return next((parts[name] for name in names if name in parts), None)


def _after_attention(parts: dict[str, nn.Module]) -> nn.Module | None:
    """Return the norm between attention and its sum, where the family has one."""
    if "post_self_attn_layernorm" in parts:  # GLM 4
        return parts["post_self_attn_layernorm"]
    # The name means a norm before the MLP in Llama; beside these neighbours it is one after attention.
    if "pre_feedforward_layernorm" in parts or "input_layernorm" not in parts:
        return parts.get("post_attention_layernorm")
    return None


def _lacking(hook: HookPoint, family: str, what: str) -> ConfigError:
    return ConfigError(
        f"hooks: {hook.name} cannot be read: block {hook.layer} of {family} has no {what}; "
        "choose another site"
    )


def check_shapes(seen: dict[str, Tensor], shape_BL: Sequence[int], family: str) -> None:
    """Raise ConfigError where a site does not hold one vector for each token, as Gemma 3n's streams do."""
    for name, x in seen.items():
        if tuple(x.shape[:-1]) != tuple(shape_BL):
            raise ConfigError(
                f"hooks: {name} cannot be read: {family} has {tuple(x.shape)} there for {tuple(shape_BL)} "
                "tokens, not one vector each; choose another site"
            )


def check_sums(seen: dict[str, Tensor], hooks: Sequence[HookPoint], family: str) -> None:
    """Raise ConfigError unless attention and MLP add to the stream what `hooks` says they do.

    `seen` holds every site of `probes(hooks)`, each [B, L, D], from one forward pass. Families differ in more
    than names: some run both halves on the same input (Phi, Cohere), some scale what a half adds (Granite).
    """
    for hook in hooks:
        if hook.site not in SUMS:
            continue
        pre, attn, mlp, post = (
            seen[f"{site}/{hook.layer}"] for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")
        )
        if not _equal_sums((pre, attn, mlp), post):
            raise ConfigError(
                f"hooks: {hook.name} cannot be read: {family} does not simply add the outputs of "
                "attention and MLP to the residual stream; choose resid_pre, resid_post, attn_z or mlp_in"
            )
        if hook.site == "resid_mid" and not _equal_sums((pre, attn), seen[hook.name]):
            raise ConfigError(
                f"hooks: {hook.name} cannot be read: in {family} the MLP does not read the stream after "
                "attention, so that there is none between them; choose resid_pre or resid_post"
            )


def probes(hooks: Sequence[HookPoint]) -> list[HookPoint]:
    """Return the sites that `check_sums` needs to see."""
    layers = sorted({hook.layer for hook in hooks if hook.site in SUMS})
    sites = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    mid = [hook for hook in hooks if hook.site == "resid_mid"]
    return [HookPoint(layer, site) for layer in layers for site in sites] + mid


def _equal_sums(terms: Sequence[Tensor], total: Tensor) -> bool:
    """Return whether the terms add up, within what rounding each sum to the total's type may lose."""
    ulp = torch.finfo(total.dtype).eps
    added = torch.stack([term.float() for term in terms]).sum(0)
    magnitude = torch.stack([term.float().abs() for term in terms]).sum(0)
    return bool(((added - total.float()).abs() <= 2 * len(terms) * ulp * magnitude).all())
