"""The tiny project that the tests of the precompute job share, and its jobs, each run once a session."""

import contextlib
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ft_audit import cli
from ft_audit.engine.precompute import run_precompute

RunJob = Callable[..., Any]


def load_tiny() -> ModuleType:
    """The module beside this file; tests are collected in a mode in which they cannot import each other."""
    spec = importlib.util.spec_from_file_location("precompute_tiny", Path(__file__).with_name("tiny.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny() -> Any:
    return load_tiny()


@pytest.fixture(scope="session")
def world(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def run_job(tiny: Any, world: Any) -> RunJob:
    """Run a job over the world's files into a store and return it; sections change the config."""

    def run(store: Path, **sections: Any) -> Any:
        config = world.config(store, **sections)
        return tiny.Job(config, run_precompute(config, progress=False))

    return run


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the jobs that tests only read."""
    return tmp_path_factory.mktemp("shared") / "store"


@pytest.fixture(scope="session")
def adapter_job(tiny: Any, world: Any, shared_store: Path) -> Any:
    """The world's own config, run by the command line."""
    path = world.write(shared_store)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["precompute", str(path), "--json", "--no-progress"])
    assert (code, err.getvalue()) == (0, "")
    return tiny.Job(world.config(shared_store), json.loads(out.getvalue()))


@pytest.fixture(scope="session")
def full_job(run_job: RunJob, shared_store: Path, adapter_job: Any) -> Any:
    """The full checkpoint, after the adapter: it finds the base's runs in the store."""
    return run_job(shared_store, models={"tuned": "./full"})
