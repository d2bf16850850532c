"""How far what the dictionaries say reaches: their fit, what they see of the change, where they agree."""

import math

from ft_audit.agent.dictionaries import agreements, coverages
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.movement import fvus
from ft_audit.agent.report.markup import Markup, join, tag
from ft_audit.agent.report.numbers import share, short
from ft_audit.agent.report.parts import key, legend, plot_row, section
from ft_audit.agent.report.plots import Axis, Dot, bar, scale_line, span, strip
from ft_audit.agent.views import Agreement, Coverage, FeatureCount, Fvu

PERCENT = Axis(0.0, 100.0)
FVU_NOTE = (
    "FVU is the share of variance the dictionary leaves unexplained: if it rises in tuned, part of the "
    "change lies where no feature looks."
)
SEEN_NOTE = (
    "Seen is 1 − Σ|d − r|² / Σ|d|² over a sample of tokens: d is what moved between the models, r what moved "
    "between the dictionary’s reconstructions of them. Where they miss more than all of it, r is further "
    "from d than nothing is: most of the change lies in what the reconstructions leave out."
)
AGREEMENT_NOTE = (
    "A match is the feature of the other dictionary whose decoder direction is nearest, at a cosine of 0.7 "
    "or more. It agrees if it passes the same tests and changed in the same direction. “Dealt at random” is "
    "what the same count would be with matches shuffled among the other’s tested features."
)


def dictionaries(evidence: Evidence) -> Markup:
    """What share of the change the features can speak of, and which of them survive another dictionary."""
    counts = evidence.counts()
    title = "What the dictionaries see"
    if not counts:
        return section("dictionaries", title, "No dictionary was read: the figures rest on residuals alone.")
    seen = coverages(evidence)
    agreed = [found for found in agreements(evidence) if found.num_leading]
    return section(
        "dictionaries",
        title,
        _lead(seen),
        _seen(evidence, seen) if seen else None,
        _directions(evidence, seen) if seen else None,
        _fits(evidence, counts),
        _agreement(agreed) if agreed else None,
    )


def _lead(seen: list[Coverage]) -> str:
    known = [found for found in seen if math.isfinite(found.seen)]
    if not known:
        return "How much of the change they see was not measured."
    least = min(known, key=lambda found: found.seen)
    if least.seen == 0:
        return (
            f"Of what moved on {least.suite}, the reconstructions of {least.sae} account for nothing: "
            f"most of it lies where its features do not look, whatever these did beside it."
        )
    return (
        f"Of what moved on {least.suite}, the reconstructions of {least.sae} account for "
        f"{share(least.seen)}. What features say is said of that part; a change may also sit in the rest."
    )


def _name(evidence: Evidence, found: Coverage) -> Markup:
    several = evidence.has_several_places
    return join([found.suite, tag("small", found.sae) if several else None])


def _seen(evidence: Evidence, seen: list[Coverage]) -> Markup:
    rows = []
    for found in seen:
        low, middle, high = (100 * value for value in (found.seen_low, found.seen, found.seen_high))
        words = f"{share(found.seen)} seen, from {share(found.seen_low)} to {share(found.seen_high)}"
        known = math.isfinite(middle)
        if not math.isfinite(low):
            low = high = middle
        plot = span(low, middle, high, PERCENT, "tuned", words) if known else None
        ends = tag("small", f"{share(found.seen_low)} to {share(found.seen_high)}")
        missed = tag("small", f"misses {short(found.missed)} of it")
        rows.append(plot_row(_name(evidence, found), plot, join([share(found.seen), ends, missed])))
    title = tag("h3", "Share of the change that the dictionary’s own reconstructions account for")
    keys = legend(key("tuned", "seen, with its 95% interval over prompts"))
    foot = plot_row(None, scale_line(PERCENT, "%"), None)
    return tag("div", title, keys, *rows, foot, tag("p", SEEN_NOTE, class_="note"), class_="plot")


def _directions(evidence: Evidence, seen: list[Coverage]) -> Markup:
    number = max(len(found.best) for found in seen)
    rows = []
    for found in seen:
        ends = [curve[-1] for curve in (found.leading, found.strongest, found.random, found.best) if curve]
        if len(ends) < 4 or not all(math.isfinite(end) for end in ends):
            continue
        leading, strongest, random, best = (100 * end for end in ends)
        dots = [
            Dot(leading, f"leading changed features: {leading:.1f}%", "tuned"),
            Dot(strongest, f"the dictionary’s strongest directions: {strongest:.1f}%", "tuned within"),
            Dot(random, f"as many of a random dictionary: {random:.1f}%", "benign"),
        ]
        words = "; ".join(dot.title for dot in dots) + f"; the most that any hold: {best:.1f}%"
        plot = strip(dots, PERCENT, 30, words, marks=[best])
        ends_shown = tag("small", f"random {share(random / 100)}, best {share(best / 100)}")
        rows.append(plot_row(_name(evidence, found), plot, join([share(leading / 100), ends_shown])))
    if not rows:
        return tag("div")
    title = tag("h3", f"Share of the change in the span of {number} directions")
    keys = legend(
        key("tuned", "leading changed features"),
        key("within", "the dictionary’s strongest"),
        key("benign", "the strongest of a random dictionary"),
        key("mark", "the most that any hold"),
    )
    return tag("div", title, keys, *rows, plot_row(None, scale_line(PERCENT, "%"), None), class_="plot")


def _fits(evidence: Evidence, counts: list[FeatureCount]) -> Markup:
    found = {(fvu.sae, fvu.suite): fvu for fvu in fvus(evidence)}
    rows = [_fit(count, found.get((count.sae, count.suite))) for count in counts]
    head = tag(
        "tr",
        tag("th", "Suite", scope="col"),
        tag("th", "Features changed, of those tested", scope="col"),
        tag("th", "FVU base", scope="col", class_="num"),
        tag("th", "FVU tuned", scope="col", class_="num"),
    )
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), class_="scroll")
    title = tag("h3", "Features and dictionary fit")
    return tag("div", title, table, tag("p", FVU_NOTE, class_="note"), class_="plot")


def _fit(count: FeatureCount, fvu: Fvu | None) -> Markup:
    part = count.num_above_noise / count.num_tested if count.num_tested else 0.0
    words = f"{count.num_above_noise:,} of {count.num_tested:,}"
    plot = bar(part, 1.0, "tuned", f"{share(part)} of the tested features")
    return tag(
        "tr",
        tag("th", count.suite, tag("small", count.sae), scope="row"),
        tag("td", words, plot, class_="barred"),
        tag("td", short(fvu.base if fvu else None), class_="num"),
        tag("td", short(fvu.tuned if fvu else None), class_="num"),
    )


def _agreement(agreed: list[Agreement]) -> Markup:
    rows = [_agrees(found) for found in agreed]
    title = tag("h3", "Leading features whose match in another dictionary changed alike")
    keys = legend(
        key("tuned", "agreeing, with Wilson’s 95% interval"), key("mark", "matches dealt at random")
    )
    foot = plot_row(None, scale_line(PERCENT, "%"), None)
    note = tag("p", AGREEMENT_NOTE, class_="note")
    return tag("div", title, keys, *rows, foot, note, class_="plot")


def _agrees(found: Agreement) -> Markup:
    count = f"{found.num_agreeing} of {found.num_leading}"
    words = f"{count} agree, {share(found.low)} to {share(found.high)}; at random {share(found.shuffled)}"
    low, middle, high = (100 * value for value in (found.low, found.agreement, found.high))
    marked = span(low, middle, high, PERCENT, "tuned", words, mark=100 * found.shuffled)
    name = join([found.suite, tag("small", f"{found.sae} in {found.other}")])
    beside = [tag("small", f"{found.num_matched} matched"), tag("small", f"random {share(found.shuffled)}")]
    return plot_row(name, marked, join([count, *beside]))
