"""How much of the difference between two models lies along chosen directions, from the stored sketch.

Shapes: W width of a hook, R directions that the sketch resolves, M directions chosen, C of a chunk.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.diff.chunks import chunk_rows
from ft_audit.engine.diff.pair_sums import SCALARS, FloatArray, nystrom, total
from ft_audit.engine.store import RunReader

RANDOM_SEED = 577_215
# A direction that adds less than this of its own length to the span of those before it adds nothing.
DEPENDENT = 1e-6


@dataclass(frozen=True, slots=True)
class Spread:
    """The summed outer products of tuned - base over tokens: what the sketch resolves, the rest evenly.

    The matrix is `sum_r energy_r u_r u_r' + rest I`, as in probabilistic PCA (Tipping and Bishop 1999), and
    its trace is the summed square of the differences. A direction outside of what the sketch resolves so has
    its fair share of the rest, and no M directions hold more than the M leading ones (Fan 1949).
    """

    energy_R: FloatArray  # largest first
    direction_RW: FloatArray  # unit vectors
    rest: float

    @property
    def total(self) -> float:
        """The summed square of the differences."""
        return float(self.energy_R.sum()) + self.rest * int(self.direction_RW.shape[1])

    def along(self, direction_CW: FloatArray) -> FloatArray:
        """Return the energy along each direction, of any length [C]; -1 along one without length."""
        square_C = np.square(direction_CW).sum(1)
        resolved_C = np.square(direction_CW @ self.direction_RW.T) @ self.energy_R
        return np.where(square_C > 0, resolved_C / np.where(square_C > 0, square_C, 1.0) + self.rest, -1.0)

    def share_within(self, direction_MW: FloatArray) -> FloatArray:
        """Return the share of all energy in the span of the first 1, 2, … M directions [M]."""
        if not self.total:
            return np.full(len(direction_MW), np.nan)
        added_M = np.maximum(self.along(_new_parts(direction_MW)), 0.0)
        return np.minimum(np.cumsum(added_M) / self.total, 1.0)

    def best_share(self, num_directions: int) -> FloatArray:
        """Return the largest share that 1, 2, … M directions can hold [M]: that of the leading ones."""
        if not self.total:
            return np.full(num_directions, np.nan)
        energy_M = np.zeros(num_directions)
        kept = self.energy_R[:num_directions]
        energy_M[: len(kept)] = kept
        return np.minimum(np.cumsum(energy_M + self.rest) / self.total, 1.0)


def _new_parts(direction_MW: FloatArray) -> FloatArray:
    """Return what each direction adds to the span of those before it, as a unit vector, or zeros [M, W]."""
    basis_MW = np.zeros(direction_MW.shape)
    for row, direction_W in enumerate(direction_MW):
        new_W = direction_W
        for _ in range(2):  # what rounding leaves of the others after the first time goes with the second
            new_W = new_W - (basis_MW[:row] @ new_W) @ basis_MW[:row]
        length = float(np.linalg.norm(new_W))
        if length > DEPENDENT * float(np.linalg.norm(direction_W)):
            basis_MW[row] = new_W / length
    return basis_MW


def spread_at(run: RunReader, hook: str) -> Spread:
    """Return the spread of the differences at a hook over the tokens that count, from a pair's run."""
    sums = total(run, [f"pair/{hook}/sketch_WR", f"pair/{hook}/scalars"])
    sq_moved = dict(zip(SCALARS, sums[f"pair/{hook}/scalars"].tolist(), strict=True))["sq_moved"]
    return spread_of(sums[f"pair/{hook}/sketch_WR"], sq_moved)


def spread_of(sketch_WR: FloatArray, sum_squares: float) -> Spread:
    """Return the spread of which this is the sketch and the trace; one without energy where nothing moved."""
    width = sketch_WR.shape[0]
    if not sum_squares > 0 or not np.isfinite(sketch_WR).all():
        return Spread(np.zeros(0), np.zeros((0, width)), 0.0)
    if not sketch_WR.any():
        return Spread(np.zeros(0), np.zeros((0, width)), sum_squares / width)
    energy_R, direction_RW = nystrom(sketch_WR)
    return Spread(energy_R, direction_RW, max(sum_squares - float(energy_R.sum()), 0.0) / width)


def strongest(spread: Spread, chunks: Iterable[FloatArray], num: int) -> tuple[NDArray[np.int64], FloatArray]:
    """Return the numbers [M] and directions [M, W] of those along which most energy lies, strongest first.

    At most `num`; the chunks [C, W] are looked at one by one, and their rows numbered from 0.
    """
    number_M, energy_M = np.zeros(0, dtype=np.int64), np.zeros(0)
    direction_MW = np.zeros((0, spread.direction_RW.shape[1]))
    start = 0
    for chunk_CW in chunks:
        number = np.concatenate([number_M, np.arange(start, start + len(chunk_CW))])
        energy = np.concatenate([energy_M, spread.along(chunk_CW)])
        kept = np.argsort(-energy, kind="stable")[:num]
        kept = kept[energy[kept] >= 0]
        number_M, energy_M = number[kept], energy[kept]
        direction_MW = np.concatenate([direction_MW, chunk_CW])[kept]
        start += len(chunk_CW)
    return number_M, direction_MW


def random_directions(num: int, width: int) -> Iterator[FloatArray]:
    """Yield as many directions, uniform over the sphere and of random length; always the same numbers."""
    rows = chunk_rows(width)
    for start in range(0, num, rows):
        yield np.random.default_rng((RANDOM_SEED, start)).standard_normal((min(rows, num - start), width))
