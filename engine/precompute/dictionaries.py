"""A dictionary of the config, opened and held against the hook that lists it and the base model."""

import re
from collections.abc import Sequence

from ft_audit.engine.config import AuditConfig, HookConfig
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.errors import SaeError
from ft_audit.sae.hook_names import split_hook
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec
from ft_audit.sae.load import load_sae

# What the names of one model differ in from publisher to publisher, and what tuning adds to them: a base's
# dictionaries are used on its chat model too.
HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
PREFIXES = re.compile(r"^(?:meta|google|qwen|openai)-")
SUFFIXES = re.compile(r"-(?:it|pt|base|instruct|chat|hf|small)$")


def open_dictionary(config: AuditConfig, hook: HookConfig, ref: str, models: ModelPair) -> JumpReluSae:
    """Return the dictionary that `hook` lists as `ref`.

    Raises:
        SaeError: it cannot be read, or is one of another hook, width, layer or model.
    """
    sae = load_sae(ref, config.base_dir)
    spec = sae.spec
    if spec.pair is not None:
        raise SaeError(
            f"hooks: dictionary {ref!r} reads two models at once ({spec.pair}), and precompute encodes each "
            f"by itself; list one of a single model. What it found stands in its pair_features.json"
        )
    if (spec.layer, spec.site) != (hook.layer, hook.site):
        raise SaeError(
            f"hooks: dictionary {ref!r} was trained on {spec.site} of layer {spec.layer}, but the "
            f"hook reads {hook.site} of layer {hook.layer}; change hooks.layer or the dictionary"
        )
    _check_listed(config, ref, spec)
    _check_width(f"dictionary {ref!r} reads", spec.d_in, spec.inputs, models)
    _check_width(f"dictionary {ref!r} reconstructs", sae.d_out, spec.outputs, models)
    _check_model(ref, spec.model_name, models)
    return sae


def _check_listed(config: AuditConfig, ref: str, spec: SaeSpec) -> None:
    """Raise SaeError unless the config lists every hook that the dictionary reads or reconstructs."""
    listed = {hook.name for hook in config.hooks}
    missing = [name for name in dict.fromkeys((*spec.inputs, *spec.outputs)) if name not in listed]
    if missing:
        entries = "".join(
            f", `- {{layer: {layer}, site: {site}}}`" for layer, site in map(split_hook, missing)
        )
        raise SaeError(
            f"hooks: dictionary {ref!r} reads {', '.join(spec.inputs)} and reconstructs "
            f"{', '.join(spec.outputs)}; add {entries.removeprefix(', ')} to hooks"
        )


def _check_width(what: str, width: int, hooks: Sequence[str], models: ModelPair) -> None:
    there = sum(models.width_at(HookPoint(*split_hook(hook))) for hook in hooks)
    if width != there:
        raise SaeError(
            f"hooks: {what} {width} dimensions, but {', '.join(hooks)} of {models.base.ref!r} has {there}; "
            "choose one trained on this model"
        )


def _check_model(ref: str, trained_on: str, models: ModelPair) -> None:
    # Only two names of the hub can be compared: a folder may be called anything.
    if models.base.format != "hub" or not HUB_NAME.fullmatch(trained_on):
        return
    if _family(trained_on) != _family(models.base.ref):
        raise SaeError(
            f"hooks: dictionary {ref!r} was trained on {trained_on}, but models.base is {models.base.ref}; "
            f"choose one of this model, or state that it fits: "
            f"`ft-audit sae convert {ref} DST --model {models.base.ref}`"
        )


def _family(name: str) -> str:
    """The model without its owner, and without what tuning adds to the name: `gemma-3-1b`."""
    tail = PREFIXES.sub("", name.rpartition("/")[2].lower())
    while SUFFIXES.search(tail):
        tail = SUFFIXES.sub("", tail)
    return tail
