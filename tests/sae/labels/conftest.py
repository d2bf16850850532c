"""Neuronpedia on this machine."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def published() -> SimpleNamespace:
    """What the server of the tests publishes: names, labels, and how to start it."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("neuronpedia_server.py"))))


@pytest.fixture
def server(published: SimpleNamespace) -> Iterator[Any]:
    """The running server of one source."""
    with published.serve(published.FakeNeuronpedia()) as fake:
        yield fake
