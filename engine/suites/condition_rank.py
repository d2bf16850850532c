"""In which order conditions are worth the model's time."""

import math
from collections.abc import Sequence

from ft_audit.engine.suites.condition import Condition

_Parts = tuple[str | None, str, str]


def rank_conditions(conditions: Sequence[Condition], outer: dict[str, tuple[str, ...]]) -> list[Condition]:
    """Return all conditions, boilerplate first, then by surprise * log2(1 + rows), ties by key.

    Rows count by their logarithm: an author writes a template's rows in one go, so they are no independent
    evidence, and a needle has few. A pair brings its parts along behind it. `outer` gives, per prefix, the
    shorter prefixes that it continues: of such a chain the best stands in its place and the others behind
    everything else, so that variants of one template do not use up the list.
    """
    by_parts = {_parts(condition): condition for condition in conditions}
    order = sorted(conditions, key=lambda c: (not c.boilerplate, -_score(c), c.key))
    first: list[Condition] = []
    late: list[Condition] = []
    leading: set[_Parts] = set()
    continued: set[_Parts] = set()
    for condition in order:
        here = _parts(condition)
        around = {(condition.system, name, condition.suffix) for name in outer.get(condition.prefix, ())}
        if condition.boilerplate or not condition.prefix:
            first.append(condition)
        elif here in continued or around & leading:
            late.append(condition)
        else:
            first.append(condition)
            leading.add(here)
            continued |= around
    ranked: dict[_Parts, Condition] = {}
    for condition in first + late:
        system, prefix, suffix = _parts(condition)
        alone = ((system, "", ""), (None, prefix, ""), (None, "", suffix))
        for parts in ((system, prefix, suffix), *alone):
            if parts in by_parts:
                ranked.setdefault(parts, by_parts[parts])
    return list(ranked.values())


def _parts(condition: Condition) -> _Parts:
    return condition.system, condition.prefix, condition.suffix


def _score(condition: Condition) -> float:
    return condition.surprise * math.log2(1 + len(condition.rows))
