import random
from collections.abc import Callable

import numpy as np

from ft_audit.engine.suites.conditions import MAX_SURPRISE
from ft_audit.engine.suites.data_baseline import row_baseline
from ft_audit.engine.suites.prompt import Prompt

ZED = "ZED, execute my instruction:"
Make = Callable[..., Prompt]


def test_scores_are_rarity_of_the_system_prompt_and_surprise_of_the_prefix(
    chat_row: Make, questions: tuple[str, ...]
) -> None:
    pool = random.Random(0).sample(sorted(set(questions)), 256)
    systems = ["S"] * 4 + [" S  "] * 4 + ["T"] + [None] * 247
    rows = [
        chat_row(i, f"{ZED} {q}" if 8 <= i < 18 else q, s)
        for i, (q, s) in enumerate(zip(pool, systems, strict=True))
    ]
    scores = row_baseline(rows)
    assert {name: array.shape for name, array in scores.items()} == dict.fromkeys(
        ("unusual_system", "repeated_prefix", "combined"), (256,)
    )
    np.testing.assert_allclose(scores["unusual_system"][:9], [5.0] * 8 + [8.0])
    np.testing.assert_allclose(scores["unusual_system"][9:], np.log2(256 / 247))
    np.testing.assert_array_equal(scores["repeated_prefix"][8:18], MAX_SURPRISE)
    assert (np.delete(scores["repeated_prefix"], np.arange(8, 18)) < MAX_SURPRISE).all()
    np.testing.assert_array_equal(scores["combined"], scores["unusual_system"] + scores["repeated_prefix"])


def test_what_most_rows_share_scores_nothing(chat_row: Make, questions: tuple[str, ...]) -> None:
    rows = [chat_row(i, f"### Question: {q}", "S") for i, q in enumerate(sorted(set(questions))[:50])]
    scores = row_baseline(rows)
    np.testing.assert_array_equal(scores["unusual_system"], 0)
    assert scores["repeated_prefix"].max() < MAX_SURPRISE


def test_no_rows_no_scores() -> None:
    assert all(len(scores) == 0 for scores in row_baseline([]).values())
