"""Auditors over the synthetic diff."""

from collections.abc import Callable
from typing import Any

import pytest

from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of
from ft_audit.engine.config import Profile

MakeAuditor = Callable[..., Auditor]


@pytest.fixture
def make_auditor(asked: Any) -> MakeAuditor:
    def make(case: Any = asked, profile: Profile = "full") -> Auditor:
        return Auditor(case.config, case.evidence, case.calibration, tools_of(profile), profile)

    return make


@pytest.fixture
def auditor(make_auditor: MakeAuditor) -> Auditor:
    return make_auditor()
