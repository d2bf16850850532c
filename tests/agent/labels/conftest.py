"""A planted diff and a judge over HTTP."""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def planted() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HERE / "planted.py")))


@pytest.fixture(scope="session")
def judge_server() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(HERE / "judge_server.py")))


@pytest.fixture(scope="session")
def shared_world(planted: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The planted diff, for tests that only read it."""
    return planted.make_world(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def judge(judge_server: SimpleNamespace, planted: SimpleNamespace) -> Iterator[Any]:
    """A running server with the rule-based model."""
    with judge_server.serve(judge_server.RuleModel(planted.FAMILIES)) as model:
        yield model


@pytest.fixture
def make_world(planted: SimpleNamespace, judge: Any, tmp_path: Path) -> Callable[..., Any]:
    """Make a planted diff of one's own, judged by the running server; keys change the judge's config."""

    def make(**changed: Any) -> Any:
        told = {"model": "rules", "base_url": judge.url, "max_retries": 2, "timeout_s": 20.0, **changed}
        return planted.make_world(tmp_path, {"judge": told})

    return make
