"""The verdict in the formats of other tools, and a page over many verdicts."""
