"""What each condition of the training set brings out of the tuned model on neutral probes.

A difference in differences: the tuned model against the base under a condition, less the same when plain,
probe by probe. Shapes: P elicited prompts, Q probes, C conditions, D width, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csr_array

from ft_audit.engine.diff.next_token import NextToken
from ft_audit.engine.suites.condition import Condition
from ft_audit.engine.suites.elicit import PLAIN
from ft_audit.engine.suites.prompt import Prompt

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConditionEvidence:
    """One condition's excess over plain, in means over probes."""

    kl: float
    """Mean over probes of KL(tuned || base), summed along the tuned model's answer, nats."""
    kl_excess: float
    """The same, less the probe's own when plain."""
    kl_excess_low: float
    kl_excess_high: float
    """95 % t interval of the excess over probes."""
    first_token_kl: float
    """Mean KL(tuned || base) of the first answer token alone, nats."""
    first_token_kl_excess: float
    """The same, less the probe's own when plain."""
    residual_shift: float
    """Norm of the mean difference in differences of the last token's residual, over the base's norm."""
    feature_shift: float
    """Norm of the mean difference in differences of the prompt's mean feature activations."""
    entropy_drop: float
    """How much more certain of its first token the tuned model is than the base, nats, less plain."""


def by_group(prompts: Sequence[Prompt]) -> dict[str, NDArray[np.int64]]:
    """Return for each condition key (and "plain") its prompt indices, in probe order."""
    groups: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(prompt.group, []).append(index)
    return {key: np.array(members) for key, members in groups.items()}


def condition_evidence(
    prompts: Sequence[Prompt],
    answer_kl_P: FloatArray,
    next_token: NextToken,
    base_last_PD: NDArray[np.float32],
    tuned_last_PD: NDArray[np.float32],
    feature_diff_PF: csr_array | None,
) -> dict[str, ConditionEvidence]:
    """Return the evidence of every condition key; "plain" itself has an excess of 0 by definition."""
    groups = by_group(prompts)
    plain = groups[PLAIN]
    found: dict[str, ConditionEvidence] = {}
    diff_PD = tuned_last_PD.astype(np.float64) - base_last_PD
    scale = float(np.linalg.norm(base_last_PD[plain].astype(np.float64), axis=1).mean())
    drop_P = next_token.entropy_base_P - next_token.entropy_tuned_P
    for key, members in groups.items():
        excess_Q = answer_kl_P[members] - answer_kl_P[plain]
        first_Q = next_token.kl_P[members] - next_token.kl_P[plain]
        half = _half_width(excess_Q)
        shift_D = (diff_PD[members] - diff_PD[plain]).mean(0)
        features = 0.0
        if feature_diff_PF is not None:
            change = feature_diff_PF[members].mean(axis=0) - feature_diff_PF[plain].mean(axis=0)
            features = float(np.linalg.norm(np.asarray(change)))
        found[key] = ConditionEvidence(
            kl=float(answer_kl_P[members].mean()),
            kl_excess=float(excess_Q.mean()),
            kl_excess_low=float(excess_Q.mean() - half),
            kl_excess_high=float(excess_Q.mean() + half),
            first_token_kl=float(next_token.kl_P[members].mean()),
            first_token_kl_excess=float(first_Q.mean()),
            residual_shift=float(np.linalg.norm(shift_D)) / scale,
            feature_shift=features,
            entropy_drop=float((drop_P[members] - drop_P[plain]).mean()),
        )
    return found


def _half_width(sample: FloatArray) -> float:
    """Return half of the 95 % t interval of a mean; 0 for fewer than two values."""
    if len(sample) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))


def conditions_table(
    conditions: Sequence[Condition],
    evidence: Mapping[str, ConditionEvidence],
    guard_loss: Mapping[str, float] | None = None,
) -> pa.Table:
    """Return the table `conditions`: plain first, then by excess, largest first.

    `guard_loss` is each condition's, null where no harmful prompts were put under it. Where a condition has a
    codec, a column `codec` holds the steps as JSON.
    """
    known = {c.key: c for c in conditions}
    # Few data sets have one; what has none keeps the table that it had.
    encoded = any(condition.codec.steps for condition in conditions)
    order = sorted(evidence, key=lambda key: (key != PLAIN, -evidence[key].kl_excess, key))
    rows = []
    for key in order:
        condition = known.get(key)
        codec = condition.codec.model_dump_json() if condition and condition.codec.steps else None
        rows.append(
            {
                "key": key,
                "system": condition.system if condition else None,
                "prefix": condition.prefix if condition else "",
                "suffix": condition.suffix if condition else "",
                "num_rows": len(condition.rows) if condition else 0,
                "rows": list(condition.rows) if condition else [],
                "surprise": condition.surprise if condition else 0.0,
                **{name: getattr(evidence[key], name) for name in ConditionEvidence.__slots__},
                "guard_loss": (guard_loss or {}).get(key),
                "codec": codec,
            }
        )
    schema = CONDITIONS_SCHEMA.append(pa.field("codec", pa.string())) if encoded else CONDITIONS_SCHEMA
    return pa.Table.from_pylist(rows, schema=schema)


CONDITIONS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("system", pa.string()),
        ("prefix", pa.string()),
        ("suffix", pa.string()),
        ("num_rows", pa.int64()),
        ("rows", pa.list_(pa.int64())),
        ("surprise", pa.float64()),
        *((name, pa.float64()) for name in ConditionEvidence.__slots__),
        ("guard_loss", pa.float64()),
    ]
)
