"""From named scalars to one score, a conformal p-value and a risk."""
