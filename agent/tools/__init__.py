"""What an investigator may ask of the stored evidence: typed functions for MCP and chat models alike."""
