"""What the tests of weight evidence share: the dense definition of every figure."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def dense() -> Any:
    """The module beside this file; tests are collected in a mode in which they cannot import each other."""
    spec = importlib.util.spec_from_file_location("weights_dense", Path(__file__).with_name("dense.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
