"""What a dictionary writes, as a diff needs it: its decoder's directions and where they lie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Sites whose activations are directions of the residual stream, so that two layers' can be compared.
STREAM_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True, slots=True)
class Directions:
    """The decoder of one dictionary."""

    hooks: tuple[str, ...]
    """The hooks that it reconstructs; several, side by side along W, for a crosscoder."""
    decoder_FW: NDArray[np.floating]

    def comparable(self, other: "Directions") -> bool:
        """Whether both write into the same space: at the same hooks, or anywhere in one residual stream."""
        if self.decoder_FW.shape[1] != other.decoder_FW.shape[1]:
            return False
        return self.hooks == other.hooks or (self._in_stream and other._in_stream)

    @property
    def _in_stream(self) -> bool:
        return len(self.hooks) == 1 and self.hooks[0].split("/")[0] in STREAM_SITES
