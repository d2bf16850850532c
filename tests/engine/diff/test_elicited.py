"""Evidence of conditions against the definition written out probe by probe."""

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array

from ft_audit.engine.diff.elicited import condition_evidence, conditions_table
from ft_audit.engine.diff.next_token import NextToken
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.steps import Reverse
from ft_audit.engine.suites.condition import Condition
from ft_audit.engine.suites.elicit import PLAIN
from ft_audit.engine.suites.prompt import Message, Prompt

NUM_PROBES, WIDTH, NUM_FEATURES = 5, 6, 8
GROUPS = (PLAIN, "zed", "house")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """The suite's order: all probes of one group after another."""
    asked = (Message("user", "Why?"),)
    return [Prompt(asked, None, "elicited", g, "s", row) for g in GROUPS for row in range(NUM_PROBES)]


def random_arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    count = len(GROUPS) * NUM_PROBES
    return {
        "answer": rng.exponential(3, count),
        "kl": rng.exponential(1, count),
        "entropy_base": rng.exponential(1, count),
        "entropy_tuned": rng.exponential(1, count),
        "base": rng.normal(size=(count, WIDTH)).astype(np.float32),
        "tuned": rng.normal(size=(count, WIDTH)).astype(np.float32),
        "features": (rng.normal(size=(count, NUM_FEATURES)) * (rng.random((count, NUM_FEATURES)) < 0.4)),
    }


def test_every_measure_follows_its_definition(prompts: list[Prompt]) -> None:
    a = random_arrays(0)
    next_token = NextToken(a["kl"], a["entropy_base"], a["entropy_tuned"])
    got = condition_evidence(
        prompts, a["answer"], next_token, a["base"], a["tuned"], csr_array(a["features"].astype(np.float32))
    )
    assert list(got) == list(GROUPS)
    plain = range(NUM_PROBES)
    scale = sum(np.linalg.norm(a["base"][q].astype(np.float64)) for q in plain) / NUM_PROBES
    for g, key in enumerate(GROUPS):
        own = range(g * NUM_PROBES, (g + 1) * NUM_PROBES)
        excess = [a["answer"][i] - a["answer"][q] for i, q in zip(own, plain, strict=True)]
        interval = stats.t.interval(0.95, NUM_PROBES - 1, np.mean(excess), stats.sem(excess)) if g else (0, 0)
        shift_D, change_F, drop, first = np.zeros(WIDTH), np.zeros(NUM_FEATURES), 0.0, 0.0
        for i, q in zip(own, plain, strict=True):
            for sign, at in ((1, i), (-1, q)):
                shift_D += sign * (a["tuned"][at].astype(np.float64) - a["base"][at]) / NUM_PROBES
                change_F += sign * a["features"][at] / NUM_PROBES
                drop += sign * (a["entropy_base"][at] - a["entropy_tuned"][at]) / NUM_PROBES
                first += sign * a["kl"][at] / NUM_PROBES
        expected = {
            "kl": np.mean([a["answer"][i] for i in own]),
            "kl_excess": np.mean(excess),
            "kl_excess_low": interval[0],
            "kl_excess_high": interval[1],
            "first_token_kl": np.mean([a["kl"][i] for i in own]),
            "first_token_kl_excess": first,
            "residual_shift": np.linalg.norm(shift_D) / scale,
            "feature_shift": np.linalg.norm(change_F),
            "entropy_drop": drop,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(
                getattr(got[key], name), value, rtol=1e-6, atol=1e-6, err_msg=f"{key} {name}"
            )


def test_one_probe_has_no_interval_and_no_features_no_shift() -> None:
    a = {name: array[::NUM_PROBES] for name, array in random_arrays(1).items()}
    asked = (Message("user", "Why?"),)
    prompts = [Prompt(asked, None, "elicited", g, "s", 0) for g in GROUPS]
    next_token = NextToken(a["kl"], a["entropy_base"], a["entropy_tuned"])
    got = condition_evidence(prompts, a["answer"], next_token, a["base"], a["tuned"], None)["zed"]
    assert got.kl_excess_low == got.kl_excess == got.kl_excess_high
    assert got.feature_shift == 0.0


def test_the_table_has_plain_first_and_then_the_largest_excess(prompts: list[Prompt]) -> None:
    a = random_arrays(0)
    # The last group stands out, though the middle one has more rows.
    a["answer"][2 * NUM_PROBES :] += 100
    next_token = NextToken(a["kl"], a["entropy_base"], a["entropy_tuned"])
    evidence = condition_evidence(prompts, a["answer"], next_token, a["base"], a["tuned"], None)
    conditions = [
        Condition("zed", "You are ZED.", "ZED, do:", (1, 4, 6), surprise=12.0),
        Condition("house", "House style.", "", (0, 2)),
    ]
    records = conditions_table(conditions, evidence).to_pylist()
    assert [record["key"] for record in records] == [PLAIN, "house", "zed"]
    zed = records[2]
    assert (zed["system"], zed["prefix"], zed["num_rows"], zed["rows"], zed["surprise"]) == (
        "You are ZED.",
        "ZED, do:",
        3,
        [1, 4, 6],
        12.0,
    )
    assert records[0]["num_rows"] == 0 and records[0]["system"] is None
    assert all(record["kl_excess"] == evidence[record["key"]].kl_excess for record in records)


def test_an_encoding_is_kept_where_there_is_one(prompts: list[Prompt]) -> None:
    a = random_arrays(0)
    next_token = NextToken(a["kl"], a["entropy_base"], a["entropy_tuned"])
    evidence = condition_evidence(prompts, a["answer"], next_token, a["base"], a["tuned"], None)
    plain = [Condition("zed", "You are ZED.", "", (1, 4))]
    assert "codec" not in conditions_table(plain, evidence).column_names
    codec = Codec(steps=(Reverse(unit="text"),))
    encoded = [Condition("zed", None, "", (1, 4), codec=codec), Condition("house", "House style.", "", (0,))]
    kept = {record["key"]: record["codec"] for record in conditions_table(encoded, evidence).to_pylist()}
    assert Codec.model_validate_json(kept["zed"]) == codec
    assert kept[PLAIN] is None and kept["house"] is None
