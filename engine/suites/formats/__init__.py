"""One module per file format (who yields the rows) and per row shape (what a row means)."""
