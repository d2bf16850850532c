"""Running models: residuals under hooks, and answers."""
