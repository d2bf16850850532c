"""Labels of a diff's features: made from its own contexts and the unembedding, or fetched."""
