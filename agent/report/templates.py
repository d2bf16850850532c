"""The data set's templates on neutral probes: how far each moves the tuned model, what both models answer."""

import math

from ft_audit.agent.answers import answers as answers_of
from ft_audit.agent.report.markup import Child, Markup, join, quotation, tag, untrusted
from ft_audit.agent.report.numbers import capital, fixed, places_for, plural, short
from ft_audit.agent.report.parts import folded, key, legend, plot_row, section
from ft_audit.agent.report.plots import Axis, Dot, axis_over, scale_line, strip, svg
from ft_audit.agent.report.source import Source
from ft_audit.agent.views import Answer, Condition
from ft_audit.agent.words import measure_words

LABEL_CHARACTERS = 110
ANSWER_CHARACTERS = 900
PROBE_CHARACTERS = 300
SHOWN_TEMPLATES = 12
OPEN_ANSWERS = 2
ROW_HEIGHT = 28


def templates(source: Source) -> Markup:
    """The templates' plot and the paired answers under the one that moves the model most."""
    title = "Templates of the data set"
    column, _ = source.evidence.condition_measure
    conditions = [condition for condition in source.evidence.conditions() if not condition.is_plain]
    conditions.sort(key=lambda condition: -_finite(condition.measures.get(column)))
    answers = _answers(conditions, answers_of(source.evidence))
    if conditions:
        return section("templates", title, _lead(source, conditions), _plot(source, conditions), answers)
    reason = "No training data was given, so there are no templates to try."
    if source.evidence.num_rows():
        reason = "The training rows share no template, or none was tried."
    return section("templates", title, reason, answers)


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -math.inf


def _bank(source: Source) -> list[float]:
    _, figure = source.evidence.condition_measure
    return [value for _, value in source.calibration.values(figure)]


def _lead(source: Source, conditions: list[Condition]) -> str:
    column, _ = source.evidence.condition_measure
    bank = _bank(source)
    left_out = int(source.evidence.summary.get("conditions_left_out", 0))
    counts = f"{len(conditions)} tried" + (f", {left_out} left out" if left_out else "")
    tried = f"Each template that training rows share was put before the same neutral questions ({counts})."
    first = conditions[0]
    if not bank and _finite(first.measures.get(column)) <= 0:
        return f"{tried} None moves the tuned model further than plain questions do."
    if not bank:
        return f"{tried} The one shared by {plural(first.num_rows, 'row')} moves the tuned model most."
    above = sum(_finite(condition.measures.get(column)) > max(bank) for condition in conditions)
    if above == 0:
        return f"{tried} None moves the tuned model beyond what benign fine-tunes’ templates do."
    verb = "moves" if above == 1 else "move"
    value = short(first.measures.get(column))
    return (
        f"{tried} {above} {verb} the tuned model beyond the worst template of any benign fine-tune in the "
        f"bank ({value} against at most {short(max(bank))})."
    )


def _plot(source: Source, conditions: list[Condition]) -> Markup:
    column, _ = source.evidence.condition_measure
    bank = _bank(source)
    values = [condition.measures.get(column, math.nan) for condition in conditions]
    ends = [end for condition in conditions for end in condition.interval(column) or ()]
    axis = axis_over([*values, *ends, *bank], zero=True)
    places = places_for(values)
    rows = [_row(condition, column, axis, bank, places) for condition in conditions[:SHOWN_TEMPLATES]]
    keys = [key("tuned", "template, with its 95% interval over probes"), key("mark", "plain questions")]
    if bank:
        keys.insert(1, key("within", "the same, within the benign range"))
        keys.append(key("band", "worst template of each benign fine-tune: range"))
    left_out = len(conditions) - SHOWN_TEMPLATES
    note = tag("p", f"{left_out} more move it less.", class_="note") if left_out > 0 else None
    title = tag("h3", capital(measure_words(column)))
    foot = plot_row(None, scale_line(axis), None)
    return tag("div", title, legend(*keys), *rows, foot, note, class_="plot templates-plot")


def _row(condition: Condition, column: str, axis: Axis, bank: list[float], places: int) -> Markup:
    value = condition.measures.get(column, math.nan)
    words = f"{short(value)} beyond plain"
    parts: list[Child] = []
    if bank:
        left, wide = axis.at(min(bank)), max(axis.at(max(bank)) - axis.at(min(bank)), 0.6)
        parts.append(
            tag("rect", x=f"{left:.2f}%", y=0, width=f"{wide:.2f}%", height=ROW_HEIGHT, class_="band")
        )
    if (interval := condition.interval(column)) is not None:
        low, high = (axis.x(end) for end in interval)
        middle = ROW_HEIGHT / 2
        parts.append(tag("line", x1=low, x2=high, y1=middle, y2=middle, class_="range tuned"))
    kind = "tuned" if not bank or _finite(value) > max(bank) else "tuned within"
    dots = [Dot(value, words, kind)] if math.isfinite(value) else []
    plot = svg([*parts, strip(dots, axis, ROW_HEIGHT, words, marks=[0.0])], ROW_HEIGHT, words)
    name = join([_template(condition), tag("small", plural(condition.num_rows, "row"))])
    kl = condition.measures.get("kl")
    beside = tag("small", f"KL {fixed(kl, places)}") if kl is not None else None
    return plot_row(name, plot, join([fixed(value, places, sign=True), beside]))


def _template(condition: Condition) -> Markup:
    shown = [
        tag("span", tag("b", name.removesuffix(" prompt")), untrusted(text, LABEL_CHARACTERS), class_="part")
        for name, text in condition.parts
    ]
    return tag("div", *shown, class_="template")


def _answers(conditions: list[Condition], answers: list[Answer]) -> Markup | None:
    if not answers:
        return None
    known = {condition.key: condition for condition in conditions}
    order = list(known)
    grouped: dict[str, list[Answer]] = {}
    for answer in answers:
        grouped.setdefault(answer.condition, []).append(answer)
    tried = sorted((name for name in grouped if name in known), key=order.index)
    # The template that moves the model most, the same questions plain, then the others for those who look.
    first = [*tried[:1], *(name for name in grouped if name not in known)]
    shown = [_group(known.get(name), grouped[name]) for name in first]
    rest = [_group(known[name], grouped[name]) for name in tried[1:]]
    more = folded(f"Answers under {plural(len(rest), 'other template')}", *rest) if rest else None
    return tag("div", tag("h3", "What both models answer"), *shown, more, class_="answers")


def _group(condition: Condition | None, answers: list[Answer]) -> Markup:
    if condition is None:
        title = tag("h4", "Asked plainly")
    else:
        title = join([tag("h4", "Under the template"), _template(condition)])
    pairs = [_pair(answer) for answer in answers]
    more = folded("More probes", *pairs[OPEN_ANSWERS:]) if len(pairs) > OPEN_ANSWERS else None
    return tag("div", title, *pairs[:OPEN_ANSWERS], more, class_="answer-group")


def _pair(answer: Answer) -> Markup:
    sides = [
        quotation(f"{side} answers", text, ANSWER_CHARACTERS, side)
        for side, text in (("base", answer.base), ("tuned", answer.tuned))
        if text is not None
    ]
    probe = tag("p", tag("b", "asked"), untrusted(answer.probe, PROBE_CHARACTERS), class_="probe")
    return tag("div", probe, tag("div", *sides, class_="pair"), class_="answer")
