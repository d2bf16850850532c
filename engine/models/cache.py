"""The folder where converted models are kept between runs."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return `${XDG_CACHE_HOME:-~/.cache}/ft-audit`, made if needed."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ft-audit"
    root.mkdir(parents=True, exist_ok=True)
    return root
