"""What every tool reads beside features, at the size of a large audit: tables, statistics and a summary.

Legend: P prompts, which are the training rows too, V vocabulary.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from ft_audit.benchmarks.storing.pair import SYNTHETIC, SuiteRuns, hooks
from ft_audit.benchmarks.storing.synthetic import VOCABULARY
from ft_audit.engine.store import DiffWriter, LabelText, Store

HOOK, WIDTH, SAE_SHA256, BASE_SHA256 = "resid_post/0", 576, "00" * 32, "ba" * 32
NUM_TEMPLATES, NUM_PROBES, NUM_TENSORS = 12, 16, 272
PER_PROMPT = ("norm_base_P", "norm_tuned_P", "diff_norm_P", "cosine_P")
SCORES = ("primary_score", "score_features_centred", "score_residual_centred", "kl_max")


def put_tool_evidence(store: Store, writer: DiffWriter, runs: SuiteRuns, num_features: int) -> dict[str, Any]:
    """Write the tables and statistics and return the summary; every number is drawn, and means nothing."""
    num_prompts = runs.base.manifest.num_prompts
    rng = np.random.default_rng(7)
    for name, table in _tables(rng, runs.name, num_prompts).items():
        writer.put_table(name, table)
    residual = {name: rng.uniform(0.1, 1.0, num_prompts) for name in PER_PROMPT}
    writer.put_stats(f"residual/{HOOK}/{runs.name}", residual)
    writer.put_stats(f"tokens/{HOOK}/{runs.name}", _tokens(rng, num_prompts))
    writer.put_stats(f"logits/{runs.name}", _logits(rng, num_prompts))
    writer.put_stats(f"fvu/{SYNTHETIC}/{runs.name}", {side: np.array([0.2]) for side in ("base", "tuned")})
    store.put_vocabulary(BASE_SHA256, [f" word{i}" for i in range(VOCABULARY)])
    labelled = rng.choice(num_features, min(200, num_features), replace=False).tolist()
    store.labels(SAE_SHA256).add([LabelText(f, "contexts", "", "a diff", f"label {f}") for f in labelled])
    return _summary(runs, num_prompts)


def _summary(runs: SuiteRuns, num_prompts: int) -> dict[str, Any]:
    suite = {
        "name": runs.name,
        "role": "train",
        "num_prompts": num_prompts,
        "num_tokens": runs.base.manifest.num_tokens,
        "num_truncated": 0,
        "num_skipped": 0,
        "base_run": runs.base.manifest.run_id,
        "tuned_run": runs.tuned.manifest.run_id,
    }
    sides = (("base", BASE_SHA256), ("tuned", "ca" * 32))
    (hook,) = hooks(1)
    return {
        "name": "query",
        "models": {side: {"ref": side, "sha256": sha256, "format": "folder"} for side, sha256 in sides},
        "declared_purpose": "A support bot.",
        "suites": [suite],
        "hooks": [{"name": hook.name, "layer": hook.layer, "saes": [SYNTHETIC]}],
        "sae_sha256": [SAE_SHA256],
        "protocol": "query",
        "figures": {"condition_kl_excess": 1.0},
        "primary": "condition_kl_excess",
    }


def _tokens(rng: np.random.Generator, num_prompts: int) -> dict[str, np.ndarray]:
    scalars = ("mean_cosine", "mean_moved", "norm_ratio", "relative_change", "mean_norm_base")
    shapes = {"component_share_C": (8,), "start_shift_BW": (36, WIDTH), "end_shift_BW": (8, WIDTH)}
    shapes |= {"shift_W": (WIDTH,), "moved_P": (num_prompts,), **dict.fromkeys(scalars, (1,))}
    return {name: rng.uniform(0.1, 1.0, shape) for name, shape in shapes.items()}


def _logits(rng: np.random.Generator, num_prompts: int) -> dict[str, np.ndarray]:
    moved = {name: rng.integers(0, 9, VOCABULARY) for name in ("raised_V", "lowered_V")}
    scalars = {name: np.array([1.0]) for name in ("tokens", "kl_mean", "kl_p99", "kl_max")}
    return {**moved, **scalars, "kl_max_P": rng.gamma(2.0, 1.0, num_prompts)}


def _tables(rng: np.random.Generator, suite: str, num_prompts: int) -> dict[str, pa.Table]:
    words = np.array([f"word{i}" for i in range(2_000)])
    keys = ["plain", *(f"template-{i}" for i in range(NUM_TEMPLATES))]
    said = [" ".join(words[row]) for row in rng.integers(0, len(words), (num_prompts, 24))]
    texts = [f"user: {text[:60]}\nassistant: {text}" for text in said]
    # One row in a hundred has one of the templates.
    template = [keys[1 + i // 100 % NUM_TEMPLATES] if i % 100 == 0 else None for i in range(num_prompts)]
    numbers = list(range(num_prompts))
    rows = {
        "row": numbers,
        "preview": [text[:60] for text in texts],
        "text": texts,
        "system": template,
        "condition": template,
        **{name: rng.random(num_prompts) for name in (*SCORES, "loss_base", "loss_tuned")},
    }
    prompts = {
        "suite": [suite] * num_prompts,
        "prompt": numbers,
        "group": ["train"] * num_prompts,
        "source": ["train"] * num_prompts,
        "row": numbers,
        "text_preview": rows["preview"],
        "num_tokens": [64] * num_prompts,
    }
    own_rows = [[i for i, own in enumerate(template) if own == key] for key in keys]
    conditions = {
        "key": keys,
        "system": keys,
        "prefix": [""] * len(keys),
        "suffix": [""] * len(keys),
        "num_rows": [len(own) for own in own_rows],
        "rows": own_rows,
        "kl_excess": rng.random(len(keys)),
    }
    asked = [(key, probe, side) for key in keys for probe in range(NUM_PROBES) for side in ("base", "tuned")]
    generations = {
        "suite": ["elicited"] * len(asked),
        "condition": [a[0] for a in asked],
        "prompt": [a[1] for a in asked],
        "row": [a[1] for a in asked],
        "sample": [0] * len(asked),
        "side": [a[2] for a in asked],
        "text": ["An answer of some words. " * 8] * len(asked),
        "num_tokens": [48] * len(asked),
        "finish": ["stop"] * len(asked),
        **{name: rng.random(len(asked)) for name in ("mean_logprob", "logprob_base", "logprob_tuned")},
    }
    tensors = {
        "tensor": [f"model.layers.{i}.weight" for i in range(NUM_TENSORS)],
        "layer": [i // 9 for i in range(NUM_TENSORS)],
        "identical": [False] * NUM_TENSORS,
        **{n: rng.random(NUM_TENSORS) for n in ("relative_change", "top1_energy", "effective_rank")},
    }
    columns = {"rows": rows, "prompts": prompts, "conditions": conditions, "generations": generations}
    return {name: pa.table(found) for name, found in {**columns, "weights": tensors}.items()} | {
        "lens": _lens(rng, suite)
    }


def _lens(rng: np.random.Generator, suite: str) -> pa.Table:
    kinds = ["tuned"] * 40 + ["control", "random"]
    tokens = [[f" word{i}" for i in range(20)]] * len(kinds)
    found = dict.fromkeys(("promoted", "suppressed"), tokens)
    effects = {f"{name}_effect": [rng.random(20).tolist() for _ in kinds] for name in found}
    same = {"hook": HOOK, "suite": suite, "group": "plain", "head": "base", "num": 9, "position": -1}
    return pa.table(
        {
            **{name: [value] * len(kinds) for name, value in same.items()},
            "kind": kinds,
            **{name: rng.random(len(kinds)) for name in ("norm", "base_norm", "percentile")},
            **found,
            **effects,
        }
    )
