"""Mergeable statistics of two models' sparse features over the same tokens."""

from ft_audit.kernels.diff_stats.cpu import PromptDifferences, pair_moments, prompt_differences
from ft_audit.kernels.diff_stats.moments import PairMoments, empty, merge
from ft_audit.kernels.diff_stats.rows import PairRows, SideRows

__all__ = [
    "PairMoments",
    "PairRows",
    "PromptDifferences",
    "SideRows",
    "empty",
    "merge",
    "pair_moments",
    "prompt_differences",
]
