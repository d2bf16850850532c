"""The two models' weights side by side, from their files alone."""

from ft_audit.engine.weights.evidence import WeightEvidence, put_weights, weight_evidence
from ft_audit.engine.weights.shared_blocks import identical_blocks

__all__ = ["WeightEvidence", "identical_blocks", "put_weights", "weight_evidence"]
