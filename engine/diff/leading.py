"""The table of leading features: of each dictionary, the ones that changed most on each suite."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ft_audit.engine.diff.parts import SuiteFeatures

LEADING_SCHEMA = pa.schema(
    [
        ("sae", pa.string()),
        ("feature", pa.int64()),
        ("suite", pa.string()),
        ("rank", pa.int64()),
        ("z", pa.float64()),
        ("effect", pa.float64()),
    ]
)


def leading_table(found: Sequence[SuiteFeatures], top: int) -> pa.Table:
    """Return up to `top` features of each dictionary and suite that pass the tests, largest |z| first."""
    rows = []
    for features in found:
        z_F, effect_F = np.asarray(features.arrays["z"]), np.asarray(features.arrays["effect"])
        rows += [
            {
                "sae": features.sae,
                "feature": f,
                "suite": features.suite,
                "rank": rank,
                "z": z_F[f],
                "effect": effect_F[f],
            }
            for rank, f in enumerate(features.leading(top), start=1)
        ]
    return pa.Table.from_pylist(rows, schema=LEADING_SCHEMA)
