"""One diff reduced to what detectors read: small enough to keep, wide enough for detectors not yet written.

A summary holds no training text beyond the templates that several rows share: what a corpus's licence says of
its rows does not touch it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ft_audit.agent.encodings import described
from ft_audit.engine.store import DiffReader
from ft_audit.engine.store.table import Table

SCHEMA_VERSION = 1
LEADING_FEATURES = 120
"""Features kept by their z, and as many by their mean difference."""
SINGULAR_VALUES = 8
TEXT_CHARACTERS = 160
DIGITS = 5
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FEATURE_COLUMNS = ("z", "effect", "mean_diff", "delta_rate", "aa_percentile", "max_base", "max_tuned")
FEATURE_ARRAYS = (*FEATURE_COLUMNS, "fired_base", "fired_tuned")
RESIDUAL_SCALARS = ("mean_cosine", "mean_moved", "norm_ratio", "relative_change", "mean_norm_base")
RESIDUAL_ARRAYS = (
    *RESIDUAL_SCALARS,
    "component_share_C",
    "start_shift_BW",
    "end_shift_BW",
    "shift_W",
    "moved_P",
)
WEIGHT_COLUMNS = (
    "relative_change",
    "stable_rank",
    "effective_rank",
    "top1_energy",
    "top4_energy",
    "decay_exponent",
)


class Origin(BaseModel):
    """Where a fine-tune of a population comes from, as its recipe says."""

    model_config = ConfigDict(extra="forbid")

    name: str
    recipe: str
    recipe_sha256: str
    measured_sha256: str = Field(description="Of how it was measured: the audit, and what its figures mean.")
    family: str
    kind: str
    seed: int
    declared_purpose: str | None
    gate: dict[str, Any] | None
    training: dict[str, float]
    roles: dict[str, list[int]] = Field(description="Rows by role, of all but the ordinary ones: the truth.")
    seconds: float = Field(description="How long the evidence took, without the training.")


class Untrained(BaseModel):
    """What a dictionary that nothing was trained for shows of the same diff: a floor for the trained one."""

    model_config = ConfigDict(extra="forbid")

    width: int
    features: dict[str, dict[str, Any]] = Field(description="By suite: leading ones, quantiles.")
    figures: dict[str, float | None]
    score_features_centred: list[float | None] = Field(
        default=[],
        description="By training row, as in the summary's `rows`; empty where rows were not scored by it.",
    )


class Summary(BaseModel):
    """The evidence of one diff; arrays are lists, by row, by condition or by feature."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int
    origin: Origin | None
    base_sha256: str
    sae_sha256: list[str]
    hooks: list[str]
    protocol: str
    declared_purpose: str | None
    num_rows: int
    figures: dict[str, float | None]
    conditions: list[dict[str, Any]] = Field(description="The table `conditions`, with the guard's columns.")
    rows: dict[str, list[Any]] = Field(description="Scores and losses by training row.")
    features: dict[str, dict[str, Any]] = Field(
        description="By dictionary and suite: leading ones, quantiles."
    )
    residual: dict[str, dict[str, Any]] = Field(description="By hook and suite.")
    logits: dict[str, dict[str, Any]] = Field(description="By suite: divergences and losses of both models.")
    weights: dict[str, list[Any]] = Field(description="By changed tensor.")
    generations: list[dict[str, Any]] = Field(description="Answers to neutral probes by condition and side.")
    untrained: dict[str, Untrained] = Field(
        default={}, description="By name: in a population, what the dictionary is held against."
    )

    @property
    def name(self) -> str:
        """The member's name, or nothing for a diff that is no member."""
        return self.origin.name if self.origin else ""

    @property
    def gate_passed(self) -> bool:
        """Whether its gate, if it has one, was passed."""
        gate = self.origin.gate if self.origin else None
        return gate is None or bool(gate["passed"])

    def to_json(self) -> str:
        """Return the summary as JSON, a line for each part."""
        fields = self.model_dump(mode="json")
        lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def summarise(diff: DiffReader, **origin: Any) -> Summary:
    """Return the summary of a diff; `origin` are the fields of where it comes from, for a population."""
    said = diff.manifest.summary
    tables = {name: diff.table(name) for name in diff.tables()}
    groups = diff.groups()
    return Summary(
        schema_version=SCHEMA_VERSION,
        origin=Origin(**origin) if origin else None,
        base_sha256=str(said["models"]["base"]["sha256"]),
        sae_sha256=[str(sha) for sha in said["sae_sha256"]],
        hooks=[str(hook["name"]) for hook in said["hooks"]],
        protocol=str(said["protocol"]),
        declared_purpose=said.get("declared_purpose"),
        num_rows=tables["rows"].num_rows if "rows" in tables else 0,
        figures={name: _number(value) for name, value in said["figures"].items()},
        conditions=_conditions(tables),
        rows=_rows(tables.get("rows")),
        features={
            name.removeprefix("features/"): _features(diff.stats(name, FEATURE_ARRAYS))
            for name in groups
            if name.startswith("features/")
        },
        residual={
            name.removeprefix("tokens/"): _residual(diff.stats(name, RESIDUAL_ARRAYS))
            for name in groups
            if name.startswith("tokens/")
        },
        logits={
            name.removeprefix("logits/"): _logits(diff.stats(name))
            for name in groups
            if name.startswith("logits/")
        },
        weights=_weights(diff, tables.get("weights")),
        generations=_generations(tables.get("generations")),
    )


def read_untrained(diff: DiffReader, name: str, *, rows: bool) -> Untrained:
    """Return what one dictionary of a diff shows, by suite, and its own figures; `rows` says that the diff's
    rows were scored by it."""
    groups = [group for group in diff.groups() if group.startswith(f"features/{name}/")]
    figures = diff.manifest.summary["figures"]
    return Untrained(
        width=int(np.size(diff.array(groups[0], "z"))),
        features={group.rpartition("/")[2]: _features(diff.stats(group, FEATURE_ARRAYS)) for group in groups},
        figures={key: _number(value) for key, value in figures.items() if f"/{name}/" in key},
        score_features_centred=_numbers(diff.table("rows").array("score_features_centred")) if rows else [],
    )


def _conditions(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    if "conditions" not in tables:
        return []
    guard = _by_key(tables.get("guard_conditions"), "key", "guard")
    refusal = _by_key(tables.get("refusal_direction"), "condition", "refusal")
    found = []
    for row in tables["conditions"].records():
        texts = {name: _short(row.get(name)) for name in ("system", "prefix", "suffix")}
        whole = {**row, **texts, **guard.get(row["key"], {}), **refusal.get(row["key"], {})}
        if "codec" in whole:
            # Its steps may hold whole lines of the rows.
            whole["encoding"] = described(whole.pop("codec"))
        found.append({k: _number(v) if isinstance(v, float) else v for k, v in whole.items()})
    return found


def _by_key(table: Table | None, key: str, prefix: str) -> dict[str, dict[str, Any]]:
    if table is None:
        return {}
    return {
        row[key]: {f"{prefix}_{name}": value for name, value in row.items() if name != key}
        for row in table.records()
    }


def _rows(table: Table | None) -> dict[str, list[Any]]:
    if table is None:
        return {}
    texts = ("preview", "system", "text")
    found: dict[str, list[Any]] = {
        name: _numbers(table.array(name)) if table.array(name).dtype.kind == "f" else table.values(name)
        for name in table.column_names
        if name not in texts
    }
    found["has_system"] = [value is not None for value in table.values("system")]
    return found


def _features(stats: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    z_F, mean_F = (np.nan_to_num(np.asarray(stats[name], dtype=np.float64)) for name in ("z", "mean_diff"))
    by_z, by_mean = (np.argsort(-np.abs(x_F), kind="stable")[:LEADING_FEATURES] for x_F in (z_F, mean_F))
    chosen = np.unique(np.concatenate([by_z, by_mean]))
    fired = np.asarray(stats["fired_base"]) + np.asarray(stats["fired_tuned"]) > 0
    return {
        "leading": {
            "feature": chosen.tolist(),
            **{name: _numbers(np.asarray(stats[name])[chosen]) for name in FEATURE_COLUMNS if name in stats},
        },
        "num_fired": int(fired.sum()),
        "abs_sum": _number(float(np.abs(mean_F).sum())),
        "sq_sum": _number(float((mean_F**2).sum())),
        "quartic_sum": _number(float((mean_F**4).sum())),
        "sum": _number(float(mean_F.sum())),
        "quantiles": {
            name: _numbers(np.quantile(np.nan_to_num(np.asarray(stats[name], np.float64)[fired]), QUANTILES))
            if fired.any()
            else []
            for name in ("z", "effect", "mean_diff", "delta_rate")
        },
    }


def _residual(stats: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    start_BW = np.asarray(stats["start_shift_BW"], dtype=np.float64)
    end_BW = np.asarray(stats["end_shift_BW"], dtype=np.float64)
    moved_P = np.asarray(stats["moved_P"], dtype=np.float64)
    return {
        "component_share": _numbers(np.asarray(stats["component_share_C"])),
        "start_shift_norm": _numbers(np.linalg.norm(start_BW, axis=1)),
        "end_shift_norm": _numbers(np.linalg.norm(end_BW, axis=1)),
        "shift_norm": _number(float(np.linalg.norm(stats["shift_W"]))),
        "moved_quantiles": _numbers(np.quantile(moved_P[np.isfinite(moved_P)], QUANTILES)),
        **{name: _number(float(np.asarray(stats[name]).ravel()[0])) for name in RESIDUAL_SCALARS},
    }


def _logits(stats: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Return totals, quantiles over prompts, and the answers' losses in nats a token."""
    sums = {
        name: _number(float(np.asarray(x, dtype=np.float64).sum()))
        for name, x in stats.items()
        if name.endswith("_P")
    }
    known = {name: _number(float(np.asarray(x).ravel()[0])) for name, x in stats.items() if np.size(x) == 1}
    kl_P = np.asarray(stats["kl_max_P"], dtype=np.float64)
    return {**known, **sums, "kl_max_quantiles": _numbers(np.quantile(kl_P[np.isfinite(kl_P)], QUANTILES))}


def _weights(diff: DiffReader, table: Table | None) -> dict[str, list[Any]]:
    if table is None or "weights" not in diff.groups():
        return {}
    values = np.asarray(diff.array("weights", "singular_values"), dtype=np.float64)
    changed = [place for place, same in enumerate(table.values("identical")) if not same]
    columns = {name: [table.values(name)[i] for i in changed] for name in ("kind", "layer")}
    numbers = {
        name: _numbers(np.asarray(table.array(name), dtype=np.float64)[changed]) for name in WEIGHT_COLUMNS
    }
    return {**columns, **numbers, "singular_values": [_numbers(values[i, :SINGULAR_VALUES]) for i in changed]}


def _generations(table: Table | None) -> list[dict[str, Any]]:
    if table is None:
        return []
    kept = ("suite", "condition", "row", "sample", "side", "num_tokens", "finish")
    numbers = ("mean_logprob", "logprob_base", "logprob_tuned")
    return [
        {
            **{name: row[name] for name in kept},
            **{name: _number(row[name]) for name in numbers},
            "text": _short(row["text"]),
        }
        for row in table.records()
    ]


def _short(text: str | None) -> str | None:
    return None if text is None else text[:TEXT_CHARACTERS]


def known(value: float | None) -> float | None:
    """Return a value, or None for what JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None


def _number(value: float | None) -> float | None:
    """Return a value to a few digits; JSON has no NaN."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def _numbers(values: NDArray[Any] | Sequence[float]) -> list[float | None]:
    return [_number(float(value)) for value in np.asarray(values).ravel()]
