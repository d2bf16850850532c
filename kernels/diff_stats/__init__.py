"""Mergeable statistics of two models' sparse features over the same tokens.

`accumulator` is imported by its own name: it brings torch, which who only reads stored segments does without.
"""

from ft_audit.kernels.diff_stats.cpu import group_moments, pair_moments
from ft_audit.kernels.diff_stats.moments import PairMoments, empty, merge
from ft_audit.kernels.diff_stats.prompt_differences import PromptDifferences, prompt_differences
from ft_audit.kernels.diff_stats.rows import PairRows, SideRows

__all__ = [
    "PairMoments",
    "PairRows",
    "PromptDifferences",
    "SideRows",
    "empty",
    "group_moments",
    "merge",
    "pair_moments",
    "prompt_differences",
]
