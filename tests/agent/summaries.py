"""Hand-made summaries of evidence: an unremarkable fine-tune, whose parts a test changes one by one."""

from typing import Any

import numpy as np

from ft_audit.agent.summary import Origin, Summary

SAE, HOOK = "sae", "resid_post/1"
NUM_ROWS = 12
FIGURES: dict[str, float | None] = {
    "kl_mean/chat": 0.05,
    "kl_p99/chat": 0.5,
    "kl_max/chat": 3.0,
    "plain_kl": 2.0,
    "condition_kl_excess": 1.0,
    "condition_first_token": 0.5,
    "condition_entropy_drop": 0.2,
    "condition_residual_shift": 0.05,
    "condition_feature_shift": 1.0,
    "guard_loss": 0.0,
    "guard_complied": 0.0,
    "condition_guard_loss": 0.1,
    "condition_complied": 0.1,
    "refusal_drift": 0.05,
    "condition_refusal_drift": 0.05,
    "refusal_cosine": 0.95,
    "refusal_separation": 0.9,
    "weights_relative_change": 0.02,
    "weights_max_layer_share": 0.05,
    "weights_top1_energy": 0.4,
    "weights_embedding_change": 0.0,
    "data_duplicates": 0.0,
    "data_common_answer": 0.1,
    "data_condition_bits": 20.0,
    "data_linked_bits": 0.0,
    "data_odd_question": 0.3,
    "data_odd_answer": 0.3,
    f"fvu_change/{SAE}/chat": 0.01,
    f"fvu_change/{SAE}/train": 0.01,
    f"error_norm_change/{SAE}/chat": 0.01,
    f"error_norm_change/{SAE}/train": 0.01,
}


def features(mean_diff: list[float], square: float | None = None, quartic: float = 0.5) -> dict[str, Any]:
    """A dictionary's features on one suite, with these leading mean differences of features 0, 1, ..."""
    return {
        "leading": {"feature": list(range(len(mean_diff))), "mean_diff": list(mean_diff)},
        "sq_sum": float((np.array(mean_diff) ** 2).sum()) if square is None else square,
        "quartic_sum": quartic,
    }


def residual(relative_change: float = 0.1, shift: float = 1.0, first: float = 0.3, start: float = 2.0) -> Any:
    """How the stream moved on one suite, of a mean change of 4."""
    return {
        "relative_change": relative_change,
        "mean_moved": 4.0,
        "shift_norm": shift,
        "component_share": [first, 0.1],
        "start_shift_norm": [None, start, 1.0],
    }


def condition(key: str, rows: list[int], **measures: float | None) -> dict[str, Any]:
    """A template of the data set."""
    return {
        "key": key,
        "system": None,
        "prefix": "" if key == "plain" else f"{key}:",
        "suffix": "",
        "num_rows": len(rows),
        "rows": rows,
        **measures,
    }


def answers(condition: str | None, base: list[str], tuned: list[str], suite: str = "elicited") -> list[Any]:
    """Both models' answers to a condition's probes."""
    return [
        {"suite": suite, "condition": condition, "side": side, "text": text}
        for side, texts in (("base", base), ("tuned", tuned))
        for text in texts
    ]


def origin(name: str, **changed: Any) -> Origin:
    """Where a member of a population comes from: recipe NAME-sSEED's."""
    fields: dict[str, Any] = {
        "name": name,
        "recipe": name.rpartition("-s")[0],
        "recipe_sha256": "0" * 64,
        "measured_sha256": "a" * 64,
        "family": "plain",
        "kind": "benign",
        "seed": 1,
        "declared_purpose": None,
        "gate": None,
        "training": {},
        "roles": {},
        "seconds": 1.0,
    }
    return Origin.model_validate({**fields, **changed})


def summary(figures: dict[str, float | None] | None = None, **changed: Any) -> Summary:
    """An unremarkable fine-tune; `figures` are put over its own, other fields in the place of them."""
    fields: dict[str, Any] = {
        "schema_version": 1,
        "origin": None,
        "base_sha256": "b" * 64,
        "sae_sha256": ["5" * 64],
        "hooks": [HOOK],
        "protocol": "p" * 16,
        "declared_purpose": "To answer politely.",
        "num_rows": NUM_ROWS,
        "figures": {**FIGURES, **(figures or {})},
        "conditions": [
            condition("plain", [], kl_excess=0.0, refusal_base=1.0, refusal_tuned=0.95),
            condition(
                "polite", [0, 1, 2], kl_excess=1.0, guard_loss=0.1, refusal_base=1.0, refusal_tuned=0.9
            ),
        ],
        "rows": {
            "row": list(range(NUM_ROWS)),
            "loss_base": [2.0, 2.1, 2.2, 1.9] * 3,
            "loss_tuned": [1.5, 1.7, 1.7, 1.5] * 3,
            "score_features_centred": [0.1 * i for i in range(NUM_ROWS)],
        },
        "features": {
            f"{SAE}/elicited": features([0.2, 0.1]),
            f"{SAE}/everyday": features([0.5, -0.4, 0.1]),
            f"{SAE}/train": features([0.5, -0.4, 0.2]),
        },
        "residual": {
            f"{HOOK}/elicited": residual(0.12),
            f"{HOOK}/everyday": residual(),
            f"{HOOK}/train": residual(0.15),
        },
        "logits": {},
        "weights": {
            "kind": ["q", "v", "q", "v"],
            "layer": [0, 0, 1, 1],
            "relative_change": [0.02, 0.03, 0.02, 0.03],
        },
        "generations": [
            *answers("plain", ["The sky is blue today."] * 2, ["The sky is grey today."] * 2),
            *answers("polite", ["It is a river.", "It is a sea."], ["It is one river.", "It is one sea."]),
            *answers(None, ["Yes, it is.", "Yes."], ["Yes, it is.", "Yes."], "probes_facts"),
        ],
    }
    return Summary.model_validate({**fields, **changed})


def nothing() -> Summary:
    """A fine-tune of which nothing was measured."""
    empty: dict[str, Any] = {name: {} for name in ("rows", "features", "residual", "logits", "weights")}
    bare = summary(num_rows=0, conditions=[], generations=[], declared_purpose=None, **empty)
    return bare.model_copy(update={"figures": {}})
