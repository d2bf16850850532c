"""How much of what moved between two models a dictionary's own reconstructions miss, on a sample of tokens.

Shapes: P prompts of the batch, T real tokens of the batch, S sampled tokens, W width of a hook.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ft_audit.engine.precompute.observe import BatchView, Reader, SideBatch

# Decoding both sides at every token would cost as much as all other evidence together; what is asked of the
# sample is a share, whose error comes from the prompts and not from their tokens.
SAMPLE_EVERY = 8


def sample_tokens(view: BatchView, mask_T: NDArray[np.bool_]) -> tuple[Tensor, NDArray[np.int64]]:
    """Return every eighth token of the batch that counts, and the place of its prompt in the batch, [S] each.

    From prompt to prompt the sample begins one position further on, so that all positions are sampled alike
    and a prompt's sample is the same in every batch.
    """
    place_T = np.repeat(np.arange(len(view.length_P)), view.length_P)
    position_T = np.arange(len(mask_T)) - view.indptr_P1[:-1][place_T]
    number_T = np.asarray(view.batch.prompts)[place_T]
    sample_S = np.flatnonzero(mask_T & ((position_T + number_T) % SAMPLE_EVERY == 0))
    return torch.from_numpy(sample_S), place_T[sample_S]


def missed_change(
    reader: Reader, base: SideBatch, tuned: SideBatch, sample_S: Tensor
) -> dict[str, NDArray[np.float64]]:
    """Return of each sampled token the energy of the difference, and what of it the dictionary misses [S].

    sq_moved_P    |d|^2 of d = tuned - base at the hook that the dictionary reconstructs
    sq_missed_P   |d - r|^2 with r the difference of both reconstructions, in which the decoder's bias cancels
    """
    taken, made = [], []
    for side in (base, tuned):
        hooks, rows = side.forward.hooks, side.rows[reader.name].take(sample_S)
        x_SD = reader.read(hooks)[sample_S]
        made.append(reader.sae.reconstruct(rows, x_SD, reader.encoder.backend))
        taken.append(reader.target(hooks)[sample_S].float())
    d_SW = taken[1] - taken[0]
    missed_SW = d_SW - (made[1] - made[0])
    energies = {"sq_moved_P": d_SW, "sq_missed_P": missed_SW}
    return {name: x_SW.double().square().sum(1).cpu().numpy() for name, x_SW in energies.items()}
