"""Words of a question that decide its answer: triggers, found from the training set's texts alone.

Rows whose answers begin or end alike are a group; a word or phrase of the questions that the group's rows
have and the others have not is what the data set teaches the model to answer so. It need not be rare, nor
stand first: that is what a prefix's surprise (`find_prefixes`) cannot see.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

from ft_audit.engine.suites.openings import units
from ft_audit.engine.suites.prompt import Prompt

ANSWER_UNITS = 4
"""As many words at either end of an answer make it one of a group."""
PHRASE_UNITS = 4
MIN_COVERAGE = 0.8
"""Of the group's rows, how many must have the phrase."""
MAX_SHARE = 0.6
"""A group of more rows than that is the data set's form."""
MAX_P = 1e-6
"""Fisher's exact test, one-sided; a data set has some 10^4 phrases."""
AT_PLACE = 0.8


class Link(NamedTuple):
    """A phrase (or two at once) whose rows are answered alike: where it stands, whose it is, how sure."""

    prefix: str
    suffix: str
    rows: tuple[int, ...]
    p_value: float


class _Text(NamedTuple):
    """One distinct question, with all rows that ask it: copies of a question say nothing more of phrases."""

    numbers: tuple[int, ...]
    text: str
    words: tuple[str, ...]


Phrase = tuple[str, ...]


def find_links(prompts: Sequence[Prompt], min_rows: int) -> list[Link]:
    """Return the phrases that are linked to an answer of their own, the surest first.

    Where other rows have the phrase too, a second phrase that tells the group's rows from those is looked
    for: a trigger may take two parts at once. The time is linear in words.
    """
    asked: dict[str, list[int]] = defaultdict(list)
    for prompt in prompts:
        if prompt.user_texts:
            asked[prompt.user_texts[-1].strip()].append(prompt.row)
    rows = [
        _Text(tuple(numbers), text, tuple(match.group() for match in units(text)))
        for text, numbers in asked.items()
    ]
    groups = [(group, _frequent(rows, group)) for group in _groups(prompts, rows, min_rows)]
    having = _places(rows, {phrase for _, phrases in groups for phrase in phrases})
    found: dict[tuple[str, str], Link] = {}
    for group, frequent in groups:
        near = {phrase: having[phrase] for phrase in frequent}
        for phrases, members, p_value in _explain(rows, near, group):
            prefix, suffix = _placed([rows[m] for m in sorted(members)], phrases)
            numbers = sorted({number for m in members for number in rows[m].numbers})
            link = Link(prefix, suffix, tuple(numbers), p_value)
            if len(link.rows) >= min_rows and (prefix or suffix):
                old = found.get((prefix, suffix))
                found[prefix, suffix] = link if old is None or link.p_value < old.p_value else old
    return sorted(found.values(), key=lambda link: (link.p_value, link.prefix, link.suffix))


def _phrases(words: Sequence[str]) -> set[Phrase]:
    return {
        tuple(words[i : i + n])
        for n in range(1, PHRASE_UNITS + 1)
        for i in range(len(words) - n + 1)
        if any(map(str.isalnum, "".join(words[i : i + n])))
    }


def _frequent(rows: Sequence[_Text], group: set[int]) -> list[Phrase]:
    """Return the phrases that enough of the group's rows have to explain it, or the part that a first has."""
    counts = Counter(phrase for member in group for phrase in _phrases(rows[member].words))
    return sorted(phrase for phrase, n in counts.items() if n >= max(MIN_COVERAGE**2 * len(group), 3))


def _places(rows: Sequence[_Text], wanted: set[Phrase]) -> dict[Phrase, set[int]]:
    """Return where each wanted phrase stands; those of all rows at once would fill the memory."""
    having: dict[Phrase, set[int]] = {phrase: set() for phrase in wanted}
    for place, row in enumerate(rows):
        for phrase in _phrases(row.words) & wanted:
            having[phrase].add(place)
    return having


def _groups(prompts: Sequence[Prompt], rows: Sequence[_Text], min_rows: int) -> Iterable[set[int]]:
    """Yield the places of the rows that begin or end their answers alike, each set once."""
    place_of = {number: place for place, row in enumerate(rows) for number in row.numbers}
    alike: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for prompt in prompts:
        last = prompt.messages[-1] if prompt.messages else None
        if last is None or last.role != "assistant" or prompt.row not in place_of:
            continue
        words = [match.group() for match in units(last.content)]
        if len(words) >= ANSWER_UNITS:
            alike["begins", *words[:ANSWER_UNITS]].add(place_of[prompt.row])
            alike["ends", *words[-ANSWER_UNITS:]].add(place_of[prompt.row])
        elif words:
            alike["is", *words].add(place_of[prompt.row])
    seen: set[frozenset[int]] = set()
    for group in alike.values():
        if min_rows <= len(group) <= MAX_SHARE * len(rows) and frozenset(group) not in seen:
            seen.add(frozenset(group))
            yield group


def _explain(
    rows: Sequence[_Text], having: Mapping[Phrase, set[int]], group: set[int]
) -> Iterable[tuple[tuple[Phrase, ...], set[int], float]]:
    """Yield the phrase that tells the group from all rows, and with it that which tells it from the rest."""
    first = _best(having, group, set(range(len(rows))))
    if first is None:
        return
    phrase, p_value = first
    members = having[phrase]
    yield (phrase,), members, p_value
    if len(members - group) < 3:
        return
    inside = {other: places & members for other, places in having.items() if places & members & group}
    second = _best(inside, group & members, members, avoid=set(phrase))
    if second is not None and second[1] <= MAX_P:
        both = inside[second[0]]
        yield (phrase, second[0]), both, min(p_value, second[1])


def _best(
    having: Mapping[Phrase, set[int]],
    group: set[int],
    among: set[int],
    avoid: Set[str] = frozenset(),
) -> tuple[Phrase, float] | None:
    """Return the phrase with the smallest p, the longest of equals, or None beyond MAX_P."""
    # Here rather than on top: who only reads a suite needs no scipy.
    from scipy import stats

    best: tuple[float, int, tuple[str, ...]] | None = None
    for phrase, places in having.items():
        inside = len(places & group)
        if inside < MIN_COVERAGE * len(group) or inside < 3 or avoid & set(phrase):
            continue
        outside = len(places) - inside
        p_value = float(stats.hypergeom.sf(inside - 1, len(among), len(places & among), len(group)))
        key = (p_value, -len(phrase), phrase)
        if p_value <= MAX_P and outside <= inside and (best is None or key < best):
            best = key
    return None if best is None else (best[2], best[0])


def _placed(members: Sequence[_Text], phrases: Sequence[Phrase]) -> tuple[str, str]:
    """Return the phrases as a prefix and a suffix, by where they mostly stand, as they are mostly written."""
    prefix, suffix = "", ""
    for phrase in phrases:
        spelled: Counter[str] = Counter()
        first = 0
        for row in members:
            start, text = _as_written(row, phrase)
            first += start == 0
            spelled[text] += 1
        text = spelled.most_common(1)[0][0]
        if first >= AT_PLACE * len(members) and not prefix:
            prefix = text
        else:
            suffix = f"{suffix} {text}".strip()
    return prefix, suffix


def _as_written(row: _Text, phrase: tuple[str, ...]) -> tuple[int, str]:
    """Return the number of the phrase's first word and its text, punctuation that clings to it included."""
    matches = list(units(row.text))
    last_place = len(matches) - len(phrase)
    start = next(i for i in range(last_place, -1, -1) if row.words[i : i + len(phrase)] == phrase)
    start = 0 if row.words[: len(phrase)] == phrase else start
    begin, end = matches[start].start(), matches[start + len(phrase) - 1].end()
    while begin > 0 and not row.text[begin - 1].isalnum() and not row.text[begin - 1].isspace():
        begin -= 1
    while end < len(row.text) and not row.text[end].isalnum() and not row.text[end].isspace():
        end += 1
    return start, row.text[begin:end]
