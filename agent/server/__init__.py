"""The tools over the Model Context Protocol, for Codex, Claude Code, Gemini CLI and any other client."""
