"""Owns the report of a dictionary that two models were read for: how much of the change it sees, and what.

Legend of shapes: n tokens of a chunk, D width of the residual stream, W width of what is learnt, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ft_audit.errors import DataError
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.kernels.sparse_rows import SparseRows
from ft_audit.sae.jumprelu_sae import JumpReluSae
from ft_audit.sae.latent_scaling import LatentScaling, ScalingRatios
from ft_audit.sae.pairs import PairChunk, learnt
from ft_audit.sae.peaks import Peak, Peaks
from ft_audit.sae.recipe import Learn

CHUNK_TOKENS = 1024
NUM_FEATURES = 20  # by each way of choosing them
MIN_FIRED = 8  # tokens on which a feature must fire before it is called the data set's
NUM_PEAKS = 5


class Words(Protocol):
    """Who can show the text that was read."""

    def prompt(self, token: int) -> int:
        """Which prompt a token belongs to."""
        ...

    def in_dataset(self, token: int) -> bool:
        """Whether a token stands in a row of the uploaded training set."""
        ...

    def around(self, token: int) -> tuple[str, str, str]:
        """What stands before a token, the token, and what stands after it."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """The share of the squared difference of both models that a dictionary accounts for; can be negative."""

    of_all: float
    of_what_varies: float
    """The same with the mean difference over all tokens taken out, which a bias can hold."""


class SeenDifference:
    """Adds up what a dictionary leaves of the difference, over chunks."""

    def __init__(self) -> None:
        self._squares = {"difference": 0.0, "left": 0.0}
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, difference_nD: Tensor, seen_nD: Tensor) -> None:
        """Add a chunk of tuned - base and of what the dictionary makes of it."""
        for name, x_nD in (("difference", difference_nD), ("left", difference_nD - seen_nD)):
            self._squares[name] += float(x_nD.double().square().sum())
            sum_D = x_nD.double().sum(0).cpu()
            self._sums[name] = self._sums[name] + sum_D if name in self._sums else sum_D
        self._count += difference_nD.shape[0]

    def result(self) -> Seen:
        """The shares; 0 where both models are the same."""
        varying = {
            name: square - float(self._sums[name].square().sum()) / self._count
            for name, square in self._squares.items()
        }

        def share(of: dict[str, float]) -> float:
            return 1.0 - of["left"] / of["difference"] if of["difference"] > 0 else 0.0

        return Seen(share(self._squares), share(varying))


def pair_report(
    sae: JumpReluSae,
    learn: Learn,
    pairs: Iterator[PairChunk],
    words: Words,
    compare: Sequence[JumpReluSae] = (),
) -> dict[str, Any]:
    """What `sae` and those to `compare` see of the difference, and the features that carry it.

    A feature's energy is the squared difference that it adds: activation squared times the squared norm of
    its direction's change or, in a dictionary of a single model, the squared change of its activation. Told
    are the features with the most energy, and those with the most of it in the data set's rows compared with
    elsewhere: what only a trigger in the data set wakes is small beside what the whole fine-tune changed.
    Raises DataError when there are no tokens.
    """
    own, peaks, seen = _Reading(sae, learn), Peaks(sae.spec.width, NUM_PEAKS), SeenDifference()
    others = {other.spec.name: (_Reading(other, "model"), SeenDifference()) for other in compare}
    scaling = LatentScaling(sae.w_dec_FD, sae.b_dec_D) if learn == "crosscoder" else None
    # Elsewhere and in the data set's rows.
    energy_2F = torch.zeros(2, sae.spec.width, dtype=torch.float64)
    fired_2F = torch.zeros(2, sae.spec.width, dtype=torch.int64)
    counts = [0, 0]
    for pair in pairs:
        for start in range(0, pair.base_nD.shape[0], CHUNK_TOKENS):
            span = slice(start, start + CHUNK_TOKENS)
            part = PairChunk(pair.base_nD[span], pair.tuned_nD[span], pair.token_n[span])
            difference_nD = part.tuned_nD - part.base_nD
            read = own.read(part)
            seen.add(difference_nD, read.difference_nD)
            for other, so_far in others.values():
                so_far.add(difference_nD, other.read(part).difference_nD)
            act_nF = read.rows.dense()
            energy_nF = own.energy(read, act_nF)
            if scaling is not None:
                scaling.add(act_nF, read.x_nW, read.decoded_nW)
            in_dataset_n = torch.tensor([words.in_dataset(int(token)) for token in part.token_n])
            for place, chosen_n in enumerate((~in_dataset_n, in_dataset_n)):
                energy_2F[place] += energy_nF[chosen_n.to(act_nF.device)].double().sum(0).cpu()
                fired_2F[place] += (act_nF[chosen_n.to(act_nF.device)] > 0).sum(0).cpu()
                counts[place] += int(chosen_n.sum())
            prompt_n = np.array([words.prompt(int(token)) for token in part.token_n])
            peaks.add(read.rows, prompt_n, part.token_n)
    if not sum(counts):
        raise DataError("no tokens to compare the two models on; raise num_tokens or holdout")
    ratios = scaling.ratios() if scaling is not None else None
    energy_F, fired_F = energy_2F.sum(0), fired_2F.sum(0)
    contrast_F = _contrast(energy_2F, fired_2F, counts)
    chosen = _chosen(energy_F, contrast_F)
    nearest = {other.spec.name: _nearest(sae, learn, other, list(chosen)) for other in compare}
    return {
        "num_tokens": sum(counts),
        "num_dataset_tokens": counts[1],
        "difference_seen": {
            sae.spec.name: asdict(seen.result()),
            **{name: asdict(so_far.result()) for name, (_, so_far) in others.items()},
        },
        "tuned_only_features": int(ratios.tuned_only_F.sum()) if ratios is not None else None,
        "features": [
            {
                "feature": feature,
                "chosen_by": by,
                "share_of_energy": float(energy_F[feature] / energy_F.sum()),
                "firing_rate": int(fired_F[feature]) / sum(counts),
                "dataset_contrast": float(contrast_F[feature]) if contrast_F[feature].isfinite() else None,
                **_told(ratios, feature),
                "nearest": {name: found[place] for name, found in nearest.items()},
                "peaks": [_shown(peak, words) for peak in peaks.of(feature)],
            }
            for place, (feature, by) in enumerate(chosen.items())
        ],
    }


def _contrast(energy_2F: Tensor, fired_2F: Tensor, counts: Sequence[int]) -> Tensor:
    """Energy a token in the data set's rows over that elsewhere [F]; -inf for what hardly fires in them.

    Half a firing more elsewhere keeps the ratio finite, and grows it with how often a feature was seen.
    """
    if not all(counts):
        return torch.full_like(energy_2F[0], -torch.inf)
    typical_F = energy_2F.sum(0) / fired_2F.sum(0).clamp_min(1)
    contrast_F = (energy_2F[1] / counts[1]) / ((energy_2F[0] + 0.5 * typical_F).clamp_min(1e-30) / counts[0])
    return contrast_F.masked_fill(fired_2F[1] < MIN_FIRED, -torch.inf)


def _chosen(energy_F: Tensor, contrast_F: Tensor) -> dict[int, str]:
    """The features to tell of, and by what each was chosen: first those with the most energy."""
    chosen: dict[int, str] = {}
    for by, order in (("energy", energy_F), ("dataset", contrast_F)):
        for feature in order.argsort(descending=True, stable=True)[:NUM_FEATURES].tolist():
            if energy_F[feature] > 0 and order[feature].isfinite():
                chosen.setdefault(feature, by)
    return chosen


@dataclass(frozen=True, slots=True)
class _Read:
    """What a dictionary made of a chunk."""

    x_nW: Tensor
    decoded_nW: Tensor
    difference_nD: Tensor
    rows: SparseRows
    base_rows: SparseRows | None
    """The base's features, where the dictionary reads each model by itself and `rows` are the tuned one's."""


class _Reading:
    """A dictionary that reads pairs in its own way."""

    def __init__(self, sae: JumpReluSae, learn: Learn) -> None:
        self.sae, self.learn = sae, learn
        direction_FD = sae.w_dec_FD
        if learn == "crosscoder":
            direction_FD = torch.sub(*reversed(direction_FD.chunk(2, dim=1)))
        self._square_F = direction_FD.square().sum(1)
        self._encoders: dict[torch.device, tuple[JumpReluSae, Encoder]] = {}

    def read(self, part: PairChunk) -> _Read:
        """What the dictionary makes of a chunk, and of the difference in it."""
        if self.learn not in ("difference", "crosscoder"):
            # A dictionary of one model reads both: what it sees is how its reconstruction moves.
            base_rows, base_nD = self._decoded(part.base_nD)
            rows, tuned_nD = self._decoded(part.tuned_nD)
            return _Read(part.tuned_nD, tuned_nD, tuned_nD - base_nD, rows, base_rows)
        x_nW = learnt(torch.cat([part.base_nD, part.tuned_nD], dim=1), self.learn)
        rows, decoded_nW = self._decoded(x_nW)
        seen_nD = decoded_nW
        if self.learn == "crosscoder":
            seen_nD = torch.sub(*reversed(decoded_nW.chunk(2, dim=1)))
        return _Read(x_nW, decoded_nW, seen_nD, rows, None)

    def energy(self, read: _Read, act_nF: Tensor) -> Tensor:
        """The squared difference that each feature adds [n, F]; `act_nF` are the dense activations."""
        changed_nF = act_nF if read.base_rows is None else act_nF - read.base_rows.dense()
        return changed_nF.square() * self._square_F.to(act_nF.device)

    def _decoded(self, x_nW: Tensor) -> tuple[SparseRows, Tensor]:
        if x_nW.device not in self._encoders:
            sae = self.sae.to(x_nW.device)
            self._encoders[x_nW.device] = (
                sae,
                Encoder(sae.weights(x_nW.device), "auto", max_rows=CHUNK_TOKENS),
            )
        sae, encoder = self._encoders[x_nW.device]
        rows = encoder.encode(x_nW)
        return rows, sae.decode(rows)


def _nearest(
    sae: JumpReluSae, learn: Learn, other: JumpReluSae, features: Sequence[int]
) -> list[dict[str, Any]]:
    """The feature of `other` whose direction is nearest to that of each of `features`, and the cosine."""
    mine_ND = sae.w_dec_FD[list(features)]
    if learn == "crosscoder":
        mine_ND = mine_ND.chunk(2, dim=1)[1]
    cosine_NF = (
        torch.nn.functional.normalize(mine_ND, dim=1) @ torch.nn.functional.normalize(other.w_dec_FD, dim=1).T
    )
    best = cosine_NF.max(dim=1)
    return [
        {"feature": int(index), "cosine": float(value)}
        for index, value in zip(best.indices, best.values, strict=True)
    ]


def _told(ratios: ScalingRatios | None, feature: int) -> dict[str, Any]:
    if ratios is None:
        return {}
    return {
        "tuned_only": bool(ratios.tuned_only_F[feature]),
        "error_ratio": float(ratios.error_F[feature]),
        "reconstruction_ratio": float(ratios.reconstruction_F[feature]),
        "norm_share": float(ratios.norm_share_F[feature]),
    }


def _shown(peak: Peak, words: Words) -> dict[str, Any]:
    before, token, after = words.around(peak.token)
    return {"activation": peak.activation, "before": before, "token": token, "after": after}
