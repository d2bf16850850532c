"""What answers do: refusals, read from text."""
