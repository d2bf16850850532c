"""A bank from summaries: benign members' scalars and scores, and the discriminant that gives them."""

# Shapes: M members, S scalars.

from collections.abc import Sequence

import numpy as np

from ft_audit.agent.calibration import Bank, BankMember
from ft_audit.agent.detectors.matrix import matrix
from ft_audit.agent.risk.fit import fit_score
from ft_audit.agent.risk.score import SCORE, Discriminant, keep
from ft_audit.agent.summary import Summary, known
from ft_audit.errors import ConfigError

MIN_MEMBERS = 3
"""With fewer to fit on, beside the member that is scored, there is no spread: such a bank has no score."""


def fit_bank(
    benign: Sequence[tuple[Summary, BankMember]], malicious: Sequence[Summary] = (), fitted_on: str = ""
) -> Bank:
    """Return the bank of the benign summaries, each with what the bank says of it.

    The weights are fitted against `malicious` where there are any, and equal else. A member's own score comes
    from a fit without any member of its recipe, which the bank keeps: a candidate is compared with the member
    by that same fit.

    Raises:
        ConfigError: there are no members, or they were not measured alike.
    """
    if not benign:
        raise ConfigError("bank: it has no members; give at least one benign fine-tune")
    summaries = [summary for summary, _ in benign]
    first = summaries[0]
    if any(_measured_on(summary) != _measured_on(first) for summary in (*summaries, *malicious)):
        raise ConfigError(
            "bank: its members were measured on different bases, dictionaries, hooks or protocols"
        )
    data = matrix([*summaries, *malicious])
    is_benign = np.arange(len(data.x_MS)) < len(summaries)
    recipes = [member.recipe for _, member in benign]
    without = {}
    for recipe in sorted(set(recipes)):
        others = is_benign.copy()
        others[: len(summaries)] &= np.array(recipes) != recipe
        if others.sum() >= MIN_MEMBERS:
            without[recipe] = fit_score(data, others, ~is_benign)
    members = []
    for place, (summary, member) in enumerate(benign):
        scalars = {name: known(x) for name, x in zip(data.names, data.x_MS[place], strict=True)}
        figures = {**summary.figures, **scalars}
        if member.recipe in without:
            own = without[member.recipe].scores(data.x_MS[[place]], data.degradation_M[[place]])
            figures[SCORE] = float(own[0])
        members.append(member.model_copy(update={"figures": figures}))
    discriminant = None
    # A candidate's score says nothing beside members that have none.
    if without.keys() == set(recipes):
        discriminant = Discriminant(
            names=list(data.names),
            direct=[name for name, direct in zip(data.names, data.direct_S, strict=True) if direct],
            fitted_on=fitted_on or "no attack: equal weights",
            whole=keep(fit_score(data, is_benign, ~is_benign)),
            without={recipe: keep(fit) for recipe, fit in without.items()},
        )
    return Bank(
        schema_version=3,
        base_sha256=first.base_sha256,
        sae_sha256=first.sae_sha256,
        hooks=first.hooks,
        protocol=first.protocol,
        members=members,
        discriminant=discriminant,
    )


def _measured_on(summary: Summary) -> tuple[str, str, frozenset[str], frozenset[str]]:
    return summary.base_sha256, summary.protocol, frozenset(summary.hooks), frozenset(summary.sae_sha256)
