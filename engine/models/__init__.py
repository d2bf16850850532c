"""Where models come from: folders, hub ids, GGUF files and adapters, as checked, hashed pairs."""
