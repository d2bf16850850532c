"""What stands out in a diff: each finding says how far it goes and cites the readings it rests on."""

import math
from collections.abc import Iterator

from ft_audit.agent.addressed import addressed_rows
from ft_audit.agent.calibration import Calibration, Standing
from ft_audit.agent.evidence import MAX_Q, MIN_NOISE_PERCENTILE, Evidence
from ft_audit.agent.query import Query, Where, ask, equals
from ft_audit.agent.risk.score import Contribution
from ft_audit.agent.untrusted import reveal
from ft_audit.agent.verdict import Finding, Level, Quote
from ft_audit.agent.views import Condition, Feature, features_group
from ft_audit.agent.words import figure_words, measure_words

# Rows of a flagged template count as driving the change when half of them are among this many highest.
HIGHEST_ROWS = 20
CITED_FEATURES = 5
CITED_ROWS = 5
LEADING_PARTS = 4
QUOTE_CHARACTERS = 400
_ORDER: dict[Level, int] = {"beyond_benign": 0, "unranked": 1, "measured_change": 2}


def collect_findings(evidence: Evidence, calibration: Calibration, top: int) -> list[Finding]:
    """Everything that stands out, the strongest level first; empty when nothing does."""
    flagged = list(flag_conditions(evidence, calibration))
    found = [
        *_primary(evidence, calibration),
        *(_condition(evidence, calibration, condition, standing) for condition, standing in flagged),
        *_rows(evidence, flagged),
        *_tokenizer(evidence),
        *_addressed(evidence),
        *_features(evidence, top),
    ]
    return sorted(found, key=lambda finding: _ORDER[finding.level])


def flag_conditions(
    evidence: Evidence, calibration: Calibration
) -> Iterator[tuple[Condition, Standing | None]]:
    """The templates that move the tuned model beyond every benign fine-tune's worst template.

    Without a benign range only the one that moves it most is given, and it stays unranked.
    """
    column, figure = evidence.condition_measure
    measured = [
        (condition, value)
        for condition in evidence.conditions()
        if not condition.is_plain
        and math.isfinite(value := condition.measures.get(column, math.nan))
        and value > 0
    ]
    measured.sort(key=lambda pair: -pair[1])
    if not calibration.values(figure):
        for condition, _ in measured[:1]:
            yield condition, None
        return
    for condition, value in measured:
        standing = calibration.standing(figure, value)
        if standing is not None and standing.above_all:
            yield condition, standing


def _primary(evidence: Evidence, calibration: Calibration) -> Iterator[Finding]:
    # Of a dozen figures some stand above a small bank by chance: only the one chosen beforehand counts.
    name = evidence.primary
    if name is None:
        return
    standing = calibration.standing(name, evidence.figures.get(name))
    if standing is not None and standing.above_all:
        yield Finding(
            kind="figure",
            level="beyond_benign",
            statement=f"The primary figure, {figure_words(name)}, is {evidence.figures[name]:.3g}; "
            f"the highest of {standing.num_bank} benign fine-tunes reaches {standing.bank_max:.3g}."
            f"{_made_of(evidence)}",
            quotes=[],
            standing=standing,
            evidence=[
                ask(evidence, "summary", f"figures/{one}")
                for one in (name, *(part.name for part in _leading_parts(evidence)))
            ],
        )


def _leading_parts(evidence: Evidence) -> list[Contribution]:
    return [part for part in evidence.contributions[:LEADING_PARTS] if part.share > 0]


def _made_of(evidence: Evidence) -> str:
    parts = [f"{figure_words(part.name)} ({part.units:+.1f} spreads)" for part in _leading_parts(evidence)]
    return f" Most of it comes from {', '.join(parts)}." if parts else ""


def _condition(
    evidence: Evidence, calibration: Calibration, condition: Condition, standing: Standing | None
) -> Finding:
    column, _ = evidence.condition_measure
    value = condition.measures[column]
    if standing is None:
        beside = "the most of the data set's templates; there is no benign range to stand it beside"
    else:
        beside = (
            f"the worst template of {standing.num_bank} benign fine-tunes reaches {standing.bank_max:.3g}"
        )
    cited = [column, *(name for name in ("kl",) if name in condition.measures and name != column), "rows"]
    return Finding(
        kind="condition",
        level="unranked" if standing is None else "beyond_benign",
        statement=f"A template shared by {condition.num_rows} training rows moves the tuned model further "
        f"than plain questions do ({measure_words(column)}: {value:.3g}); {beside}.",
        quotes=[_quote(f"training data, {name}", text) for name, text in condition.parts],
        standing=standing,
        evidence=[ask(evidence, "table:conditions", name, equals("key", condition.key)) for name in cited],
    )


def _rows(evidence: Evidence, flagged: list[tuple[Condition, Standing | None]]) -> Iterator[Finding]:
    # A ranking always has a top: rows are a finding only where a flagged template is behind them.
    sharing = {row for condition, _ in flagged for row in condition.rows}
    highest = evidence.rows(HIGHEST_ROWS)
    members = [row for row in highest if row.row in sharing]
    if not members or 2 * len(members) < min(len(sharing), len(highest)):
        return
    least = Where(column="primary_score", op="ge", value=highest[-1].primary_score)
    told = "All" if len(members) == len(sharing) else f"{len(members)} of the"
    yield Finding(
        kind="rows",
        level="unranked" if flagged[0][1] is None else "beyond_benign",
        statement=f"{told} {len(sharing)} training rows that share such a template are among the "
        f"{len(highest)} of {evidence.num_rows():,} that drive the change most: rows "
        f"{', '.join(str(row.row) for row in members)}.",
        quotes=[_quote(f"training data, row {members[0].row}", members[0].preview)],
        standing=None,
        evidence=[
            ask(evidence, "table:rows", "row", least, reduce="list"),
            *(
                ask(evidence, "table:conditions", "rows", equals("key", condition.key))
                for condition, _ in flagged
            ),
        ],
    )


def _features(evidence: Evidence, top: int) -> Iterator[Finding]:
    leading = evidence.leading(top)
    for sae in dict.fromkeys(feature.sae for feature in leading):
        counts = [count for count in evidence.counts() if count.sae == sae and count.num_above_noise]
        cited = [feature for feature in leading if feature.sae == sae][:CITED_FEATURES]
        spread = "; ".join(
            f"{count.num_above_noise:,} of {count.num_tested:,} tested on {count.suite}" for count in counts
        )
        control = all(evidence.has_control(features_group(sae, count.suite)) for count in counts)
        floor = "and above the noise floor" if control else "(without a control run there is no noise floor)"
        yield Finding(
            kind="features",
            level="measured_change",
            statement=f"Features of {sae} changed significantly (q < {MAX_Q}) {floor}: {spread}. "
            f"Leading: {', '.join(str(feature.feature) for feature in cited)}. "
            f"Every fine-tune changes features.",
            quotes=[],
            standing=None,
            evidence=[
                *(_count_query(evidence, f"stats:features/{sae}/{count.suite}") for count in counts),
                *(query for feature in cited for query in _feature_queries(evidence, feature)),
            ],
        )


def _count_query(evidence: Evidence, source: str) -> Query:
    where = [Where(column="q", op="lt", value=MAX_Q)]
    if evidence.has_control(source.removeprefix("stats:")):
        where.append(Where(column="aa_percentile", op="ge", value=MIN_NOISE_PERCENTILE))
    return ask(evidence, source, "q", *where, reduce="count")


def _feature_queries(evidence: Evidence, feature: Feature) -> list[Query]:
    where = equals("index", feature.feature)
    return [ask(evidence, f"stats:{feature.group}", name, where) for name in ("mean_diff", "q")]


def _tokenizer(evidence: Evidence) -> Iterator[Finding]:
    said = [str(finding) for finding in evidence.summary.get("findings", [])]
    if said:
        yield Finding(
            kind="tokenizer",
            level="unranked",
            statement="The tuned model's tokenizer or chat template is not the base's.",
            quotes=[_quote("comparison of the tokenizers", finding) for finding in said],
            standing=None,
            evidence=[ask(evidence, "summary", "findings", reduce="count")],
        )


def _addressed(evidence: Evidence) -> Iterator[Finding]:
    found = list(addressed_rows(evidence))
    if found:
        kinds = ", ".join(dict.fromkeys(one.what for one in found))
        yield Finding(
            kind="addressed",
            level="unranked",
            statement=f"{len(found)} of {evidence.num_rows():,} training rows hold words for whoever audits "
            f"them ({kinds}): rows {', '.join(str(one.row) for one in found[:CITED_ROWS])}.",
            quotes=[_quote(f"training data, row {one.row}", one.text) for one in found[:CITED_ROWS]],
            standing=None,
            evidence=[
                ask(evidence, "table:rows", "row", equals("row", one.row)) for one in found[:CITED_ROWS]
            ],
        )


def _quote(source: str, text: str) -> Quote:
    return Quote(source=source, text=reveal(text, QUOTE_CHARACTERS))
