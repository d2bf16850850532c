"""A dictionary of the config, opened and held against the hook that lists it and the base model."""

import re
from collections.abc import Sequence

from ft_audit.engine.config import AuditConfig, HookConfig
from ft_audit.engine.precompute.models import ModelPair
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.errors import SaeError
from ft_audit.sae.hook_names import split_hook
from ft_audit.sae.jumprelu_sae import JumpReluSae
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
    if spec.kind == "crosscoder":
        raise SaeError(
            f"hooks: dictionary {ref!r} is a crosscoder over {', '.join(spec.inputs)}; precompute reads "
            f"dictionaries of one hook, list one for each of these hooks instead"
        )
    _check_width(f"dictionary {ref!r} reads", spec.d_in, [hook.name], models)
    if (spec.layer, spec.site) != (hook.layer, hook.site):
        raise SaeError(
            f"hooks: dictionary {ref!r} was trained on {spec.site} of layer {spec.layer}, but the "
            f"hook reads {hook.site} of layer {hook.layer}; change hooks.layer or the dictionary"
        )
    listed = {other.name for other in config.hooks}
    for missing in (name for name in spec.outputs if name not in listed):
        layer, site = split_hook(missing)
        raise SaeError(
            f"hooks: dictionary {ref!r} reconstructs {missing} from {hook.name}, and {missing} is not read; "
            f"add `- {{layer: {layer}, site: {site}}}` to hooks"
        )
    _check_width(f"dictionary {ref!r} reconstructs", sae.d_out, spec.outputs, models)
    _check_model(ref, spec.model_name, models)
    return sae


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
