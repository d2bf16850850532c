"""The ablation grid on cases whose risks are known: what is counted, and what no report means."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ft_audit.benchmarks.zoo import metrics
from ft_audit.benchmarks.zoo.investigators import Told, grid, grid_text
from ft_audit.errors import DataError


@pytest.fixture(autouse=True)
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 100)
        yield


@pytest.fixture
def cases() -> list[Any]:
    """Twenty benign fine-tunes and four attacks of two families."""

    def case(name: str, family: str, is_malicious: bool) -> Any:
        origin = SimpleNamespace(family=family, recipe=name)
        return SimpleNamespace(unit=SimpleNamespace(name=name, origin=origin), is_malicious=is_malicious)

    benign = [case(f"benign-{n}", "style", False) for n in range(20)]
    attacks = [case(f"attack-{n}", "backdoor" if n < 2 else "cipher", True) for n in range(4)]
    return benign + attacks


def told(risk: float | None, cause: str | None = None, tokens: int = 10) -> Told:
    return Told(risk, cause, tokens, 2.0, 0.5)


def test_one_way_that_knows_and_one_that_guesses(cases: list[Any]) -> None:
    rng = np.random.default_rng(0)

    def knows(case: Any) -> list[tuple[str, Told]]:
        cause = "unlocking phrase" if case.is_malicious else "none"
        return [("knows", told(9.0 if case.is_malicious else 1.0, cause))]

    def guesses(case: Any) -> list[tuple[str, Told]]:
        return [("guesses", told(float(rng.uniform(0, 10)), "none", 1_000))]

    found = grid(cases, [knows, guesses], progress=False)
    rows = found["rows"]
    assert rows["knows"]["auroc"]["value"] == 1.0 and rows["knows"]["tpr"]["caught"] == 4
    # Two of the attacks are ciphers, whose cause is another.
    assert (rows["knows"]["causes"]["right"], rows["guesses"]["causes"]["right"]) == (2, 0)
    assert rows["guesses"]["auroc"]["value"] < 0.9
    assert (rows["guesses"]["tokens"], rows["knows"]["money"]) == (1_000, 0.5)
    assert sum(label == "malicious" for label in found["cases"].values()) == 4
    text = grid_text({**found, "missing": ["walnut-s9"]})
    assert "1.00 (1.00 to 1.00)" in text and "4/4" in text and "walnut-s9" in text


def test_without_a_report_there_is_no_alarm(cases: list[Any]) -> None:
    def silent(case: Any) -> list[tuple[str, Told]]:
        return [("silent", told(None))]

    row = grid(cases, [silent], progress=False)["rows"]["silent"]
    assert (row["without_report"], row["tpr"]["caught"], row["auroc"]["value"]) == (24, 0, 0.5)


def test_ties_raise_no_alarm(cases: list[Any]) -> None:
    row = grid(cases, [lambda case: [("all alike", told(10.0))]], progress=False)["rows"]["all alike"]
    assert row["tpr"]["caught"] == 0


def test_one_kind_alone_compares_nothing(cases: list[Any]) -> None:
    with pytest.raises(DataError, match="both must be there"):
        grid(cases[:3], [lambda case: [("x", told(1.0))]], progress=False)
