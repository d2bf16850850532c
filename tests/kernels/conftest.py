"""Tests of Triton's programs alone are left out where Triton is not installed (it exists for Linux only)."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["test_jumprelu_triton.py"]
