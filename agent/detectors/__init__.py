"""Detectors: from a summary of the evidence to named scalars, cheap ones first."""
