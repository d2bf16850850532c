"""What the tests of detectors share: a scalar of a summary by name."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from ft_audit.agent.detectors.registry import scalars_of


@pytest.fixture(scope="session")
def value_of() -> Callable[[Any, str], float]:
    """Return a scalar's value, NaN where the detectors give none."""

    def value(summary: Any, name: str) -> float:
        found = scalars_of(summary)
        return found[name].value if name in found else math.nan

    return value
