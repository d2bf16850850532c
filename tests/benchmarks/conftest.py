"""The tiny model that the engine's tests make, for the benchmarks that train or measure one."""

import runpy
from pathlib import Path

_ENGINE = runpy.run_path(str(Path(__file__).parents[1] / "engine" / "conftest.py"))
tiny_tokenizer, make_model, tiny_base = (_ENGINE[n] for n in ("tiny_tokenizer", "make_model", "tiny_base"))
