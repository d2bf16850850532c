"""How far the residual stream moved, where in the model, and what the dictionaries still explain of it."""

import numpy as np

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.views import Fvu, LayerProfile, Residual

LAYERS = "layers/"


def residuals(evidence: Evidence) -> list[Residual]:
    """The move of the residual stream at each hook on each suite; quartiles over prompts."""
    stored = set(evidence.groups())
    places = [(hook.name, suite.name) for hook in evidence.hooks for suite in evidence.suites]
    return [_residual(evidence, *place) for place in places if "residual/{}/{}".format(*place) in stored]


def fvus(evidence: Evidence) -> list[Fvu]:
    """What each dictionary leaves unexplained on each suite, in base and tuned."""
    stored = set(evidence.groups())
    found = []
    for sae in (sae for hook in evidence.hooks for sae in hook.saes):
        for suite in evidence.suites:
            group = f"fvu/{sae}/{suite.name}"
            if group in stored:
                base, tuned = (float(evidence.array(group, side)[0]) for side in ("base", "tuned"))
                found.append(Fvu(sae, suite.name, base, tuned))
    return found


def layer_profiles(evidence: Evidence) -> list[LayerProfile]:
    """The move after every block, for the suites on which it was measured."""
    return [
        LayerProfile(
            group.removeprefix(LAYERS),
            tuple(int(layer) for layer in evidence.array(group, "layer_L")),
            tuple(float(shift) for shift in evidence.array(group, "shift_L")),
        )
        for group in evidence.groups()
        if group.startswith(LAYERS)
    ]


def _residual(evidence: Evidence, hook: str, suite: str) -> Residual:
    group = f"residual/{hook}/{suite}"
    base_P = evidence.array(group, "norm_base_P")
    relative_P = evidence.array(group, "diff_norm_P") / base_P
    low, middle, high = (float(value) for value in np.nanquantile(relative_P, (0.25, 0.5, 0.75)))
    ratio = float(np.nanmedian(evidence.array(group, "norm_tuned_P") / base_P))
    cosine = float(np.nanmedian(evidence.array(group, "cosine_P")))
    return Residual(hook, suite, low, middle, high, ratio, cosine)
