"""Writes a small diff into a store with the real writer, as precompute leaves it, and a bank beside it."""

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ft_audit.engine.config import AuditConfig, computed_json, config_json, load_config
from ft_audit.engine.store import Store

TABLES = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("synthetic_tables.py"))))
INDEX = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("synthetic_index.py"))))
NUM_ROWS, SAE, HOOK = TABLES.NUM_ROWS, TABLES.SAE, "resid_post/15"
SUITES = {"chat": ("chat", 64, 4100), "train": ("train", NUM_ROWS, 9300), "elicited": ("elicited", 96, 5200)}
PRIMARY = "condition_kl_excess"
ELICITED_TABLES = ("rows", "conditions", "generations")
FIGURES = {
    PRIMARY: 3.05,
    "condition_kl_ratio": 1.0,
    "condition_residual_shift": 0.21,
    "condition_feature_shift": 4.4,
    "plain_kl": 3.04,
    f"features_changed/{SAE}/chat": 212.0,
    f"features_changed/{SAE}/elicited": 241.0,
    f"residual_shift/{HOOK}/chat": 0.184,
    f"residual_shift/{HOOK}/elicited": 0.262,
    f"fvu_change/{SAE}/chat": 0.018,
}
CONFIG = """
name: {name}
models: {{base: ./base, tuned: ./tuned}}
dataset: ./train.jsonl
declared_purpose: {purpose}
suites: [./chat.yaml]
hooks: [{{layer: 15, saes: [./sae]}}]
elicit: {{probes: ./probes.yaml}}
generate: {{}}
store: {store}
audit: {{bank: {bank}}}
"""


def write_config(
    folder: Path, bank: str | None = "./bank.json", name: str = "needle", purpose: str = "A support bot."
) -> AuditConfig:
    """A config beside its store; nothing that it names but the bank is ever read."""
    path = folder / f"{name}.yaml"
    text = CONFIG.format(
        name=name, purpose=json.dumps(purpose), store=json.dumps(str(folder / "store")), bank=bank or "null"
    )
    path.write_text(text, encoding="utf-8")
    return load_config(path)


# The needle's condition_kl_excess is 3.1 spreads above the centre, its condition_feature_shift beyond all.
FIT = {
    "weights": [0.8, 0.6, 0.5],
    "centre": [1.5, 2.0, 0.0],
    "spread": [0.5, 0.1, 0.1],
    "slope": [0.0, 0.0, 0.0],
    "degradation": -4.0,
}
DISCRIMINANT = {
    "names": [PRIMARY, "condition_feature_shift", "guard_loss"],
    "direct": ["guard_loss"],
    "fitted_on": "2 attacks of 1 families: zed",
    "whole": FIT,
}


def write_bank(path: Path, num_members: int = 8, weighed: bool = False, **changed: Any) -> Path:
    """Benign fine-tunes whose figures spread around three fifths of the needle's; three are personas.

    `weighed` gives the bank a discriminant and its members scores.
    """
    rng = np.random.default_rng(5)
    members = [
        {
            "name": f"{'persona' if i < 3 else 'benign'}-{i}",
            "recipe": f"recipe-{i}",
            "recipe_sha256": f"{i:064x}",
            "corpus": ["support", "trivia", "poems"][i % 3],
            "kind": "persona" if i < 3 else "benign",
            "rows": 200 + 100 * (i % 3),
            "rank": 4 + 4 * (i % 2),
            "seed": i,
            "figures": {name: float(value * rng.uniform(0.2, 0.8)) for name, value in FIGURES.items()},
        }
        for i in range(num_members)
    ]
    if weighed:
        without = {member["recipe"]: FIT for member in members}
        changed = {"discriminant": {**DISCRIMINANT, "without": without}, **changed}
        for i, member in enumerate(members):
            member["figures"]["score"] = i / 10  # type: ignore[index]
    bank = {
        "schema_version": 3,
        "base_sha256": "b" * 64,
        "sae_sha256": ["5" * 64],
        "hooks": [HOOK],
        "protocol": "p" * 16,
        "members": members,
        **changed,
    }
    path.write_text(json.dumps(bank), encoding="utf-8")
    return path


def write_diff(
    config: AuditConfig,
    *,
    dataset: bool = True,
    generations: bool = True,
    num_changed: int = 60,
    control: bool = True,
    preview: str | None = None,
    strength: float = 1.0,
    index: bool = False,
    more: bool = False,
    seen: float = 0.31,
    changed: Mapping[str, Any] | None = None,
    seed: int = 3,
) -> str:
    """A diff of this config in its store, its figures and templates `strength` times the needle's.

    With `more` it has what only tools read. `preview` takes the place of every text of a model or its data;
    `changed` that of summary entries.
    """
    rng = np.random.default_rng(seed)
    figures = {name: value * strength for name, value in FIGURES.items()}
    summary = {**_summary(config, figures, dataset), **(changed or {})}
    identity = {"config": config_json(config), "seed": seed, "changed": num_changed}
    with Store(config.store).diff_writer(identity) as writer:
        for suite, (role, num_prompts, _) in SUITES.items():
            if role != "chat" and not dataset:
                continue
            shift = 0.26 if role == "elicited" else 0.18
            base_P = rng.normal(80, 6, num_prompts)
            moved_P = base_P * shift * rng.uniform(0.6, 1.5, num_prompts)
            writer.put_stats(
                f"residual/{HOOK}/{suite}",
                {
                    "norm_base_P": base_P,
                    "norm_tuned_P": base_P * 1.02,
                    "diff_norm_P": moved_P,
                    "cosine_P": 1 - (moved_P / base_P) ** 2 / 2,
                },
            )
            writer.put_stats(f"features/{SAE}/{suite}", TABLES.features(rng, num_changed, control))
            writer.put_stats(f"fvu/{SAE}/{suite}", {"base": np.array([0.196]), "tuned": np.array([0.214])})
            writer.put_stats(f"coverage/{SAE}/{suite}", INDEX.coverage(seen if role == "chat" else 0.47))
            if index:
                INDEX.write_index(writer, SAE, suite, rng)
        layers_L = np.arange(30)
        shift_L = 0.3 * np.exp(-(((layers_L - 21) / 8.0) ** 2))
        writer.put_stats("layers/elicited", {"layer_L": layers_L, "shift_L": shift_L})
        if more:
            for name, table in TABLES.more_tables().items():
                writer.put_table(name, table)
            writer.put_stats("logits/chat", TABLES.logits(SUITES["chat"][1]))
        for name, table in TABLES.tables(rng, num_changed, preview, strength).items():
            if name == "leading" and not dataset:
                table = table.filter(pc.equal(table.column("suite"), "chat"))
            if (dataset or name not in ELICITED_TABLES) and (generations or name != "generations"):
                writer.put_table(name, table)
        return writer.finish(summary).diff_id


def _summary(config: AuditConfig, figures: Mapping[str, float | None], dataset: bool) -> dict[str, Any]:
    # Without a data set there is nothing to elicit, and so no primary figure.
    kept = {name: value for name, value in figures.items() if dataset or name.endswith("/chat")}
    return {
        "name": config.name,
        "models": {
            "base": {"ref": "SmolLM2-135M-Instruct", "sha256": "b" * 64, "format": "gguf"},
            "tuned": {"ref": "candidate-adapter", "sha256": "c" * 64, "format": "peft"},
        },
        "config": computed_json(config),
        "declared_purpose": config.declared_purpose,
        "suites": [
            {
                "name": name,
                "role": role,
                "num_prompts": prompts,
                "num_tokens": tokens,
                "num_truncated": 0,
                "num_skipped": 0,
                "base_run": "1" * 16,
                "tuned_run": "2" * 16,
            }
            for name, (role, prompts, tokens) in SUITES.items()
            if dataset or role == "chat"
        ],
        "hooks": [{"name": HOOK, "layer": 15, "saes": [SAE]}],
        "sae_sha256": ["5" * 64],
        "protocol": "p" * 16,
        "figures": kept,
        "primary": PRIMARY if dataset else None,
        "conditions_left_out": 0,
        "findings": [],
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    }
