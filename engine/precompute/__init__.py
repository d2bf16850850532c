"""The precompute job: models over suites into runs, and two runs into a diff."""

from ft_audit.engine.precompute.job import run_precompute

__all__ = ["run_precompute"]
