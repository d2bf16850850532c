"""Every claim can be asked again, and the answer is the same."""

from typing import Any

import pytest

from ft_audit.agent.query import Query, Where, ask, describe, equals, execute
from ft_audit.agent.verdict import Verdict
from ft_audit.errors import StoreError


def cited(verdict: Verdict) -> list[Query]:
    queries = [query for finding in verdict.findings for query in finding.evidence]
    return queries + [figure.evidence for figure in verdict.figures]


@pytest.mark.parametrize(
    "options", [{}, {"strength": 0.4}, {"bank": None}, {"dataset": False}, {"bank": {"weighed": True}}]
)
def test_every_cited_query_gives_its_value_again(make_case: Any, options: dict[str, Any]) -> None:
    case = make_case(**options)
    # From the file's text, as anyone else would have it.
    verdict = Verdict.model_validate_json(case.verdict.model_dump_json())
    queries = cited(verdict)
    assert len(queries) >= 10 or options
    for query in queries:
        assert query.diff == case.evidence.diff_id
        assert execute(case.evidence, query) == query.value, describe(query)


def test_a_changed_value_is_seen(needle: Any) -> None:
    query = ask(needle.evidence, "table:conditions", "kl", equals("key", "zed"))
    assert query.value == pytest.approx(6.09)
    forged = query.model_copy(update={"value": 0.1})
    assert execute(needle.evidence, forged) != forged.value


def test_reductions(needle: Any) -> None:
    evidence = needle.evidence
    group = "stats:features/demo-sae/chat"
    few = Where(column="index", op="lt", value=3)
    assert ask(evidence, group, "q", few, reduce="list").value == [1e-6] * 3
    assert ask(evidence, group, "q", Where(column="q", op="lt", value=0.05), reduce="count").value == 60
    assert ask(evidence, group, "effect", reduce="max").value == pytest.approx(2.4)
    assert ask(evidence, "table:conditions", "kl", reduce="median").value == pytest.approx(3.41)
    assert ask(evidence, "table:conditions", "rows", equals("key", "zed")).value == list(range(10))
    assert ask(evidence, "table:conditions", "system", equals("key", "plain")).value is None
    # NaN has no word in JSON.
    assert ask(evidence, group, "q", equals("index", 399)).value is None


@pytest.mark.parametrize(
    ("source", "column", "said"),
    [
        ("table:nothing", "kl", "no table 'nothing'"),
        ("table:conditions", "nothing", "no column 'nothing'"),
        ("stats:features/demo-sae/chat", "nothing", "nothing"),
        ("stats:nothing", "q", "nothing"),
        ("summary", "figures/nothing", "no 'figures/nothing'"),
        ("table:conditions", "kl", "found 5 rows, not one"),
    ],
)
def test_what_the_diff_does_not_hold_is_named(needle: Any, source: str, column: str, said: str) -> None:
    with pytest.raises(StoreError, match=said):
        ask(needle.evidence, source, column)


def test_a_query_reads_as_a_line(needle: Any) -> None:
    where = [Where(column="q", op="lt", value=0.05), equals("index", 1)]
    query = ask(needle.evidence, "stats:features/demo-sae/chat", "q", *where, reduce="count")
    assert describe(query) == "features/demo-sae/chat: count of q where q < 0.05 and index = 1"
