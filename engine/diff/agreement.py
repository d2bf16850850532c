"""Which differences survive in another dictionary: matched features, and whether they changed alike.

Shapes: N leading features, G width of the other dictionary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from ft_audit.engine.diff.directions import Directions
from ft_audit.engine.diff.matching import Matches, match_features
from ft_audit.engine.diff.parts import SuiteFeatures, union_of_leading
from ft_audit.engine.store import DiffWriter

# Features of dictionaries trained from two seeds count as shared from here on in Paulo and Belrose 2025
# (Sparse Autoencoders Trained on the Same Data Learn Different Features).
MIN_COSINE = 0.7
LEADING = 50  # changed features of a dictionary and suite that are looked for in the others
CONFIDENCE = 0.95

MATCHES_SCHEMA = pa.schema(
    [
        ("sae", pa.string()),
        ("feature", pa.int64()),
        ("other", pa.string()),
        ("match", pa.int64()),
        ("cosine", pa.float64()),
        ("mutual", pa.bool_()),
    ]
)
AGREEMENT_SCHEMA = pa.schema(
    [
        ("sae", pa.string()),
        ("other", pa.string()),
        ("suite", pa.string()),
        ("num_leading", pa.int64()),
        ("num_matched", pa.int64()),
        ("num_agreeing", pa.int64()),
        ("agreement", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("shuffled", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many leading changed features of a dictionary have a match in another that changed alike."""

    num_leading: int
    num_matched: int
    """Those with a decoder cosine of at least MIN_COSINE to some feature of the other."""
    num_agreeing: int
    """Those whose match passes the same tests and has the same sign of effect."""
    agreement: float
    """num_agreeing / num_leading; NaN, as all that follows, where nothing leads."""
    low: float
    high: float
    """The share's 95 % interval (Wilson 1927), as if features were drawn independently."""
    shuffled: float
    """The share to expect were the matches dealt out anew among the other's tested features: the mean over
    all shuffles."""


def put_agreement(
    writer: DiffWriter, directions: Mapping[str, Directions], features: Sequence[SuiteFeatures]
) -> None:
    """Write the tables `matches` and `agreement` of every two dictionaries that can be compared.

    `directions` by the dictionaries' names, in the order of the tables.
    """
    matches: list[dict[str, Any]] = []
    agreements: list[dict[str, Any]] = []
    pairs = [
        pair for pair in permutations(directions, 2) if directions[pair[0]].comparable(directions[pair[1]])
    ]
    for sae, other in pairs:
        ours = [found for found in features if found.sae == sae]
        theirs = {found.suite: found for found in features if found.sae == other}
        leading = union_of_leading(ours, LEADING)
        found = match_features(leading, directions[sae].decoder_FW, directions[other].decoder_FW)
        matches += _match_rows(sae, other, found)
        for suite_features in ours:
            suite = suite_features.suite
            agreed = agreement(suite_features, theirs[suite], found)
            agreements.append({"sae": sae, "other": other, "suite": suite, **asdict(agreed)})
    if pairs:
        writer.put_table("matches", pa.Table.from_pylist(matches, schema=MATCHES_SCHEMA))
        writer.put_table("agreement", pa.Table.from_pylist(agreements, schema=AGREEMENT_SCHEMA))


def agreement(ours: SuiteFeatures, theirs: SuiteFeatures, matches: Matches) -> Agreement:
    """Return how far the leading features of one dictionary on a suite agree with their matches in another.

    `matches` holds at least those features.
    """
    leading = ours.leading(LEADING)
    place = {int(feature): index for index, feature in enumerate(matches.feature_N)}
    chosen_N = np.array([place[feature] for feature in leading], dtype=np.int64)
    match_N = matches.match_N[chosen_N]
    matched_N = matches.cosine_N[chosen_N] >= MIN_COSINE
    sign_N = np.sign(np.asarray(ours.arrays["effect"])[leading])
    moved_G = np.where(theirs.passes(), np.sign(np.asarray(theirs.arrays["effect"])), 0.0)
    agreeing_N = matched_N & (moved_G[match_N] == sign_N)
    tested_G = np.isfinite(np.asarray(theirs.arrays["q"]))
    alike_N = [np.mean(moved_G[tested_G] == sign) if tested_G.any() else 0.0 for sign in sign_N]
    count, num_agreeing = len(leading), int(agreeing_N.sum())
    if not count:
        nan = float("nan")
        return Agreement(0, 0, 0, nan, nan, nan, nan)
    low, high = stats.binomtest(num_agreeing, count).proportion_ci(CONFIDENCE, method="wilson")
    shuffled = float((matched_N * alike_N).sum()) / count
    matched = int(matched_N.sum())
    return Agreement(count, matched, num_agreeing, num_agreeing / count, float(low), float(high), shuffled)


def _match_rows(sae: str, other: str, found: Matches) -> list[dict[str, Any]]:
    columns = (found.feature_N, found.match_N, found.cosine_N, found.mutual_N)
    names = ("feature", "match", "cosine", "mutual")
    return [
        {"sae": sae, "other": other, **dict(zip(names, values, strict=True))}
        for values in zip(*(column.tolist() for column in columns), strict=True)
    ]
