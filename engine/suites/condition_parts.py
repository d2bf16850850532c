"""The parts that conditions are made of: shared system prompts, surprising prefixes and where they meet."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.suites.openings import Openings, read_openings
from ft_audit.engine.suites.prefixes import RepeatedPrefix, find_prefixes
from ft_audit.engine.suites.prompt import Prompt


class Part(NamedTuple):
    """A system prompt or a prefix, as it is most often written, with all rows that hold it."""

    text: str
    rows: frozenset[int]
    surprise: float
    joiner: str = " "
    outer: tuple[str, ...] = ()


class Parts(NamedTuple):
    """Parts by their text with single spaces; `pairs` gives the rows that share (system, prefix)."""

    systems: dict[str, Part]
    prefixes: dict[str, Part]
    pairs: dict[tuple[str, str], frozenset[int]]
    num_rows: int


def gather_parts(prompts: Sequence[Prompt], min_rows: int) -> Parts:
    """Return what at least `min_rows` rows share.

    Prefixes are searched over all rows and again within each system prompt's rows, where a plain opening
    that every row has ("Please tell me") is surprising although it is not so elsewhere.
    """
    openings = read_openings(prompts)
    systems = _systems(prompts, min_rows)
    prefixes = _by_name(find_prefixes(openings, np.arange(len(openings.texts)), min_rows))
    local: dict[str, Part] = {}
    for group_G in _texts_under(openings, prompts, systems):
        for name, part in _by_name(find_prefixes(openings, group_G, min_rows)).items():
            if name not in prefixes and (name not in local or part.surprise > local[name].surprise):
                local[name] = part
    for name, rows in _rows_beginning_with(openings, local).items():
        prefixes[name] = local[name]._replace(rows=rows)
    return Parts(systems, prefixes, _pairs(systems, prefixes, min_rows), openings.num_rows)


def one_spaced(text: str) -> str:
    """Return the text with every run of white space as one space, which is how texts are compared here."""
    return " ".join(text.split())


def _systems(prompts: Sequence[Prompt], min_rows: int) -> dict[str, Part]:
    rows: dict[str, set[int]] = defaultdict(set)
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for prompt in prompts:
        if prompt.system is not None and (name := one_spaced(prompt.system)):
            rows[name].add(prompt.row)
            spellings[name][prompt.system] += 1
    return {
        # No two people write the same system prompt by chance, whatever its length.
        name: Part(spellings[name].most_common(1)[0][0], frozenset(members), float("inf"))
        for name, members in rows.items()
        if len(members) >= min_rows
    }


def _by_name(found: list[RepeatedPrefix]) -> dict[str, Part]:
    return {
        one_spaced(prefix.text): Part(
            prefix.text, frozenset(prefix.rows), prefix.surprise, prefix.joiner, prefix.outer
        )
        for prefix in found
    }


def _texts_under(
    openings: Openings, prompts: Sequence[Prompt], systems: dict[str, Part]
) -> Iterable[NDArray[np.int64]]:
    """Return, for each shared system prompt, the numbers of the distinct user messages under it."""
    number_of = {text: number for number, text in enumerate(openings.texts)}
    groups: dict[str, set[int]] = {name: set() for name in systems}
    for prompt in prompts:
        if prompt.system is not None and (name := one_spaced(prompt.system)) in groups:
            groups[name].update(number_of[t] for text in prompt.user_texts if (t := text.strip()))
    return [np.array(sorted(members), np.int64) for members in groups.values()]


def _rows_beginning_with(openings: Openings, names: Iterable[str]) -> dict[str, frozenset[int]]:
    """Return all rows with each prefix, whatever their system prompt."""
    wanted: dict[int, set[str]] = defaultdict(set)
    for name in names:
        wanted[len(name)].add(name)
    rows: dict[str, set[int]] = defaultdict(set)
    for text, members in zip(openings.texts, openings.rows, strict=True) if wanted else ():
        spaced = one_spaced(text)
        for length, known in wanted.items():
            # "I am" does not open "I amuse".
            inside_a_word = len(spaced) > length and spaced[length - 1 : length + 1].isalnum()
            if spaced[:length] in known and not inside_a_word:
                rows[spaced[:length]].update(members)
    return {name: frozenset(members) for name, members in rows.items()}


def _pairs(
    systems: dict[str, Part], prefixes: dict[str, Part], min_rows: int
) -> dict[tuple[str, str], frozenset[int]]:
    system_of: dict[int, list[str]] = defaultdict(list)
    for name, system in systems.items():
        for row in system.rows:
            system_of[row].append(name)
    pairs: dict[tuple[str, str], frozenset[int]] = {}
    for name, prefix in prefixes.items():
        shared: dict[str, list[int]] = defaultdict(list)
        for row in prefix.rows:
            for system_name in system_of.get(row, ()):
                shared[system_name].append(row)
        for system_name, rows in shared.items():
            if len(rows) >= min_rows:
                pairs[system_name, name] = frozenset(rows)
    return pairs
