"""Token-major sparse rows into feature-major ones: which tokens fired a feature, and where it peaked."""

from ft_audit.kernels.feature_index.cpu import merge_parts, prompt_peaks, sort_by_feature
from ft_audit.kernels.feature_index.feature_major import NO_PEAK, FeatureMajor

__all__ = ["NO_PEAK", "FeatureMajor", "merge_parts", "prompt_peaks", "sort_by_feature"]
