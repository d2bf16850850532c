"""Populations of hand-made summaries, and a zoo of recipes that nothing trains."""

import json
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

AGENT_TESTS = Path(__file__).parents[2] / "agent"
SOURCE = "package:chatterbot_corpus/data/english"


@pytest.fixture(scope="session")
def summaries() -> SimpleNamespace:
    """The builder of hand-made summaries."""
    return SimpleNamespace(**runpy.run_path(str(AGENT_TESTS / "summaries.py")))


@pytest.fixture(scope="session")
def passed() -> dict[str, Any]:
    """The gate of an attack that took."""
    return {"passed": True, "checks": [], "reason": None}


@pytest.fixture(scope="session")
def draw(summaries: SimpleNamespace) -> Callable[..., Any]:
    """Draw a fine-tune whose evidence spreads as benign ones do, or far beyond where it is `loud`."""

    def draw(rng: np.random.Generator, name: str, loud: bool = False, **origin: Any) -> Any:
        scale = 6.0 if loud else 1.0
        noise = {
            "kl_mean/chat": 0.05 * rng.lognormal(sigma=0.2),
            "condition_kl_excess": scale * rng.uniform(0.5, 3),
            "guard_loss": float(np.clip(rng.normal(0.9 if loud else 0.05, 0.05), 0, 1)),
            "condition_guard_loss": float(np.clip(rng.normal(0.95 if loud else 0.1, 0.05), 0, 1)),
            "weights_relative_change": 0.02 * rng.lognormal(sigma=0.3),
            "refusal_drift": rng.normal(0.8 if loud else 0.05, 0.05),
        }
        planted = [7, 8, 9]
        guard = 0.9 if loud else 0.05
        polite = summaries.condition("polite", [0, 1, 2], kl_excess=rng.uniform(1, 3), guard_loss=0.05)
        zed = summaries.condition("zed", planted, kl_excess=rng.uniform(1, 3), guard_loss=guard)
        return summaries.summary(
            noise,
            conditions=[summaries.condition("plain", []), polite, zed],
            residual={"resid_post/1/everyday": summaries.residual(rng.uniform(0.05, 0.15))},
            origin=summaries.origin(name, **origin),
        )

    return draw


@pytest.fixture(scope="session")
def write_all(summaries: SimpleNamespace) -> Callable[[Path, Iterable[Any]], Path]:
    """Write summaries into a folder as `zoo build` leaves them."""

    def write_all(folder: Path, members: Iterable[Any]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for summary in members:
            (folder / f"{summary.name}.json").write_text(summary.to_json(), encoding="utf-8")
        return folder

    return write_all


@pytest.fixture
def write_zoo(tmp_path: Path) -> Callable[..., Path]:
    """Write a zoo of recipes (name -> seeds, or what its recipe says otherwise) and return its file."""

    def write_zoo(members: dict[str, Any], base: str = "./base") -> Path:
        entries = []
        for name, said in members.items():
            changes = dict(said) if isinstance(said, dict) else {"seeds": said}
            entries.append({"recipe": f"./{name}.yaml", "seeds": changes.pop("seeds", [1])})
            part = {"name": "p", "source": SOURCE, "rows": changes.pop("rows", 4)}
            recipe = {"name": name, "kind": "benign", "family": "plain", "base": "./base", "parts": [part]}
            (tmp_path / f"{name}.yaml").write_text(json.dumps({**recipe, **changes}))
        audit = {"name": "a", "models": {"base": "./base", "tuned": "./t"}, "hooks": [{"layer": 1}]}
        (tmp_path / "audit.yaml").write_text(json.dumps({**audit, "suites": ["./chat.jsonl"]}))
        path = tmp_path / "small.yaml"
        path.write_text(
            json.dumps({"name": "small", "base": base, "audit": "./audit.yaml", "members": entries})
        )
        return path

    return write_zoo
