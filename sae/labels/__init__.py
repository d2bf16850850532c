"""Labels that others have published for a dictionary's features."""
