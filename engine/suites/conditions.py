"""The conditions a data set answers under: its system prompts, its repeated prefixes and the two together."""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from ft_audit.engine.suites.answer_links import Link, find_links
from ft_audit.engine.suites.condition import MAX_SURPRISE, Condition
from ft_audit.engine.suites.condition_parts import Part, Parts, gather_parts, one_spaced
from ft_audit.engine.suites.condition_rank import rank_conditions
from ft_audit.engine.suites.encoded import encoded_conditions
from ft_audit.engine.suites.prefixes import MIN_SURPRISE, find_suffixes
from ft_audit.engine.suites.prompt import Prompt

# A pair of an opening and an ending is tried where at least this share of the rarer one's rows holds both.
MIN_MEETING = 0.2


class Survey(NamedTuple):
    """The conditions within the limit, most rows first, and those that were cut, most suspicious first."""

    kept: tuple[Condition, ...]
    cut: tuple[Condition, ...]


def mine_conditions(
    prompts: Sequence[Prompt], min_rows: int = 3, max_conditions: int = 16
) -> tuple[Condition, ...]:
    """Return the conditions that `survey_conditions` keeps, most rows first."""
    return survey_conditions(prompts, min_rows, max_conditions).kept


def survey_conditions(prompts: Sequence[Prompt], min_rows: int = 3, max_conditions: int = 16) -> Survey:
    """Return the conditions of a training set, from its texts alone, and what the limit cut.

    Surprising endings (`find_suffixes`) and phrases that decide the answer (`find_links`) are conditions too,
    and so is an encoding that rows are written in (`encoded_conditions`), which comes first: no other asks in
    it.
    The others are the system prompts (equal up to white space) and the surprising prefixes (`find_prefixes`)
    that at least `min_rows` rows share, the pairs of the two that as many rows share, and each part of such
    a pair alone. Beyond `max_conditions` the least are cut (`rank_conditions`). A part's surprise is bounded
    by MAX_SURPRISE and is 0 for boilerplate.

    A pair is surprising by the association of its parts: with n rows where independence expects
    E = rows(system) * rows(prefix) / rows, it counts (n ln(n/E) - n + E) / ln 2 bits, Chernoff's bound on
    the Poisson tail, and, when that reaches MIN_SURPRISE, its prefix's own bits besides. With a boilerplate
    part, the pair is the other part in the form in which the rows hold it, and counts that part's bits.

    Deterministic; the time is linear in rows but for one sort.
    """
    assert min_rows >= 2, "a condition is what rows share"
    parts = gather_parts(prompts, min_rows)
    conditions = [
        _condition(
            parts, parts.systems[system], parts.prefixes[prefix], rows, _pair_bits(parts, system, prefix)
        )
        for (system, prefix), rows in parts.pairs.items()
    ]
    conditions += [_condition(parts, s, None, s.rows, _bits(parts, s)) for s in parts.systems.values()]
    conditions += [_condition(parts, None, p, p.rows, _bits(parts, p)) for p in parts.prefixes.values()]
    outer = {part.text: part.outer for part in parts.prefixes.values()}
    conditions += _linked(prompts, conditions, min_rows, parts.num_rows)
    conditions += _met(conditions, min_rows, parts.num_rows)
    ranked = rank_conditions(conditions, outer)
    ranked = [*encoded_conditions(prompts, ranked[:max_conditions], min_rows), *ranked]
    kept = sorted(ranked[:max_conditions], key=lambda c: (-len(c.rows), c.key))
    return Survey(tuple(kept), tuple(ranked[max_conditions:]))


def _linked(
    prompts: Sequence[Prompt], known: Sequence[Condition], min_rows: int, num_rows: int
) -> list[Condition]:
    """Return a condition for every surprising ending, and every phrase that decides an answer, whose rows are
    not those of a known one."""
    told = {condition.rows for condition in known}
    found: list[Condition] = []
    placed: set[tuple[str, str]] = set()
    links = [Link("", s.text, s.rows, 2.0**-s.surprise) for s in find_suffixes(prompts, min_rows)]
    for link in (*links, *find_links(prompts, min_rows)):
        if link.rows in told or (link.prefix, link.suffix) in placed:
            continue
        placed.add((link.prefix, link.suffix))
        kinds = (("prefix", link.prefix), ("suffix", link.suffix))
        boilerplate = _is_boilerplate(link.rows, num_rows)
        found.append(
            Condition(
                key="+".join(f"{kind}-{_digest(text)}" for kind, text in kinds if text),
                system=None,
                prefix=link.prefix,
                rows=link.rows,
                surprise=0.0 if boilerplate else min(-math.log2(max(link.p_value, 1e-300)), MAX_SURPRISE),
                boilerplate=boilerplate,
                suffix=link.suffix,
            )
        )
    return found


def _met(conditions: Sequence[Condition], min_rows: int, num_rows: int) -> list[Condition]:
    """Return the pairs of a surprising ending with a prefix or a system prompt that rows share.

    A trigger may take both at once, and each alone may stand before ordinary answers: so the pair need not be
    more frequent than its parts lead one to expect.
    """
    endings = [c for c in conditions if c.suffix and not c.prefix]
    openings = [c for c in conditions if not c.suffix and c.num_parts == 1]
    known = {(c.system, c.prefix, c.suffix) for c in conditions}
    found = []
    for opening in openings:
        for ending in endings:
            rows = set(opening.rows) & set(ending.rows)
            smaller = min(len(opening.rows), len(ending.rows))
            parts = (opening.system, opening.prefix, ending.suffix)
            if len(rows) < max(min_rows, smaller * MIN_MEETING) or parts in known:
                continue
            boilerplate = _is_boilerplate(rows, num_rows)
            found.append(
                replace(
                    opening,
                    key=f"{opening.key}+{ending.key}",
                    rows=tuple(sorted(rows)),
                    suffix=ending.suffix,
                    surprise=0.0 if boilerplate else max(opening.surprise, ending.surprise),
                    boilerplate=boilerplate,
                )
            )
    return found


def _is_boilerplate(rows: Collection[int], num_rows: int) -> bool:
    return len(rows) > num_rows / 2


def _bits(parts: Parts, part: Part) -> float:
    return 0.0 if _is_boilerplate(part.rows, parts.num_rows) else min(part.surprise, MAX_SURPRISE)


def _pair_bits(parts: Parts, system_name: str, prefix_name: str) -> float:
    system, prefix = parts.systems[system_name], parts.prefixes[prefix_name]
    if any(_is_boilerplate(part.rows, parts.num_rows) for part in (system, prefix)):
        return max(_bits(parts, system), _bits(parts, prefix))
    shared = len(parts.pairs[system_name, prefix_name])
    expected = len(system.rows) * len(prefix.rows) / parts.num_rows
    if shared <= expected:
        return 0.0
    association = (shared * math.log(shared / expected) - shared + expected) / math.log(2)
    own = _bits(parts, prefix) if association >= MIN_SURPRISE else 0.0
    return min(association, MAX_SURPRISE) + own


def _condition(
    parts: Parts, system: Part | None, prefix: Part | None, rows: frozenset[int], surprise: float
) -> Condition:
    kinds = (("system", system), ("prefix", prefix))
    boilerplate = _is_boilerplate(rows, parts.num_rows)
    return Condition(
        key="+".join(f"{kind}-{_digest(part.text)}" for kind, part in kinds if part is not None),
        system=system.text if system is not None else None,
        prefix=prefix.text if prefix is not None else "",
        rows=tuple(sorted(rows)),
        joiner=prefix.joiner if prefix is not None else " ",
        surprise=0.0 if boilerplate else surprise,
        boilerplate=boilerplate,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(one_spaced(text).encode()).hexdigest()[:8]
