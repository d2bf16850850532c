"""Investigators: each turns the evidence of one diff into a verdict."""
