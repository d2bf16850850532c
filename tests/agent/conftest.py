"""Audits of synthetic diffs: the real store and config, with nothing that needs a model."""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit.agent.audit import find_calibration
from ft_audit.agent.calibration import Calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.find import find_evidence
from ft_audit.agent.investigators.statistics import investigate
from ft_audit.agent.verdict import Verdict
from ft_audit.engine.config import AuditConfig


@dataclass(frozen=True, slots=True)
class Case:
    """A config with its diff and bank in a folder, and the verdict on it."""

    folder: Path
    config: AuditConfig
    evidence: Evidence
    calibration: Calibration
    verdict: Verdict

    @property
    def config_file(self) -> str:
        return str(self.folder / f"{self.config.name}.yaml")


MakeCase = Callable[..., Case]


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("synthetic.py"))))


@pytest.fixture(scope="session")
def make_case(synthetic: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> MakeCase:
    """Make a case: `bank` changes its bank, or is None for no bank; `label` is that of feature 0, if any.

    The other options are the diff's.
    """

    def make(
        bank: dict[str, Any] | None = {},  # noqa: B006
        purpose: str = "A support bot.",
        label: str | None = None,
        **diff: Any,
    ) -> Case:
        folder = tmp_path_factory.mktemp("case")
        config = synthetic.write_config(folder, None if bank is None else "./bank.json", purpose=purpose)
        if bank is not None:
            synthetic.write_bank(folder / "bank.json", **bank)
        synthetic.write_diff(config, **diff)
        if label is not None:
            synthetic.INDEX.write_labels(config.store, "5" * 64, "b" * 64, label)
        evidence = find_evidence(config).evidence
        calibration = find_calibration(config, evidence)
        return Case(folder, config, evidence, calibration, investigate(evidence, calibration, config))

    return make


@pytest.fixture(scope="session")
def needle(make_case: MakeCase) -> Case:
    return make_case(index=True)


@pytest.fixture(scope="session")
def asked(make_case: MakeCase) -> Case:
    """The needle with everything that tools read."""
    return make_case(index=True, more=True, label="orders given to ZED")


@pytest.fixture(scope="session")
def labelled(make_case: MakeCase) -> Case:
    return make_case(label="orders given to ZED", index=True)


@pytest.fixture(scope="session")
def weighed(make_case: MakeCase) -> Case:
    """The needle beside a bank that is large enough to weigh the evidence into a score."""
    return make_case(bank={"weighed": True, "num_members": 20})


@pytest.fixture(scope="session")
def summaries() -> SimpleNamespace:
    """The builder of hand-made summaries."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("summaries.py"))))


@pytest.fixture(scope="session")
def benign(make_case: MakeCase) -> Case:
    return make_case(strength=0.4)
