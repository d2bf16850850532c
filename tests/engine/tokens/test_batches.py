import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ft_audit.engine.tokens.batches import Batch, BatchPlan, plan_batches
from ft_audit.errors import ConfigError

lengths_lists = st.lists(st.integers(1, 60), max_size=40)


def members(plan: BatchPlan) -> list[list[int]]:
    return [[p for batch in segment for p in batch.prompts] for segment in plan.segments]


@given(lengths=lengths_lists, batch=st.integers(1, 200), segment=st.integers(1, 400), reverse=st.booleans())
def test_every_plan_keeps_prompts_order_and_budgets(
    lengths: list[int], batch: int, segment: int, reverse: bool
) -> None:
    plan = plan_batches(lengths, batch, segment, reverse)
    assert [p for part in members(plan) for p in sorted(part)] == list(range(len(lengths)))
    for part in members(plan):
        assert sum(lengths[p] for p in part) <= segment or len(part) == 1
        ordered = [lengths[p] for p in part]
        assert ordered == sorted(ordered, reverse=reverse)
    for one in (b for part in plan.segments for b in part):
        assert one.length == max(lengths[p] for p in one.prompts)
        assert one.length * len(one.prompts) <= batch or len(one.prompts) == 1
    assert plan.num_tokens == sum(lengths)
    assert plan.num_padded >= plan.num_tokens


@given(lengths=lengths_lists, batch=st.integers(1, 200), segment=st.integers(1, 400))
def test_reverse_keeps_the_segments(lengths: list[int], batch: int, segment: int) -> None:
    plans = [plan_batches(lengths, batch, segment, reverse) for reverse in (False, True)]
    assert [set(part) for part in members(plans[0])] == [set(part) for part in members(plans[1])]


def test_segments_fill_up_and_batches_stay_within_their_budget() -> None:
    plan = plan_batches(np.array([5, 3, 3, 9, 2, 30, 1]), tokens_per_batch=10, tokens_per_segment=20)
    assert plan.segments == (
        (Batch((1, 2), 3), Batch((0,), 5), Batch((3,), 9)),
        (Batch((4,), 2),),
        (Batch((5,), 30),),
        (Batch((6,), 1),),
    )
    assert plan.padding_share == 0.0


def test_reverse_gives_prompts_other_neighbours() -> None:
    lengths = [20, 20, 20, 30]
    plain, reverse = (plan_batches(lengths, 60, 1000, reverse) for reverse in (False, True))
    assert [b.prompts for b in plain.segments[0]] == [(0, 1, 2), (3,)]
    assert [b.prompts for b in reverse.segments[0]] == [(3, 2), (1, 0)]
    assert plain.sha256 != reverse.sha256


def test_padding_share_counts_what_is_computed_for_nothing() -> None:
    plan = plan_batches([2, 4], 8, 100)
    assert (plan.num_padded, plan.padding_share) == (8, 0.25)
    assert plan_batches([], 8, 100).padding_share == 0.0


def test_hash_is_the_plan_s() -> None:
    one = plan_batches([5, 3, 8, 2], 16, 100)
    assert one.sha256 == plan_batches(np.array([5, 3, 8, 2], np.int32), 16, 100).sha256
    assert one.sha256 != plan_batches([5, 3, 8, 2], 8, 100).sha256
    assert one.sha256 != plan_batches([5, 3, 8, 2], 16, 8).sha256


@pytest.mark.parametrize(
    ("batch", "segment", "name"), [(0, 9, "tokens_per_batch"), (9, -1, "tokens_per_segment")]
)
def test_budgets_that_hold_nothing_are_refused(batch: int, segment: int, name: str) -> None:
    with pytest.raises(ConfigError, match=f"precompute.{name}: .* give at least 1"):
        plan_batches([1], batch, segment)


def cheapest(sizes: list[int], budget: int, price: int) -> int:
    """Least of padded positions and prices over every way to cut rising sizes."""
    if not sizes:
        return 0
    return min(
        price + sizes[n - 1] * n + cheapest(sizes[n:], budget, price)
        for n in range(1, len(sizes) + 1)
        if n == 1 or sizes[n - 1] * n <= budget
    )


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9), batch=st.integers(1, 4000))
def test_padding_and_batches_cost_least_together(lengths: list[int], batch: int) -> None:
    plan = plan_batches(lengths, batch, 10_000)
    price = max(16, round(batch / 64))
    assert plan.num_padded + price * len(plan.segments[0]) == cheapest(sorted(lengths), batch, price)


def test_a_batch_ends_where_padding_would_cost_more_than_another_batch() -> None:
    lengths = [10] * 20 + [50] * 4
    (segment,) = plan_batches(lengths, 4096, 10_000).segments
    assert [(len(b.prompts), b.length) for b in segment] == [(20, 10), (4, 50)]
