"""Statistics that the engine and its readers share; numpy alone."""
