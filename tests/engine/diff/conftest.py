"""Small runs in a real store with their activations kept dense beside them, for brute-force comparison.

Legend: P prompts, T tokens, F features, D model width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from ft_audit.engine.store import (
    HookEntry,
    RunReader,
    SaeEntry,
    SegmentData,
    Store,
    decode_bf16,
    encode_bf16,
)

SAE = "demo/width_30"


@dataclass(frozen=True)
class Corpus:
    """Prompts in suite order and what both models do on them; every activation is a bfloat16 value."""

    indptr_P1: np.ndarray
    token_T: np.ndarray
    mask_T: np.ndarray
    base_TF: np.ndarray
    tuned_TF: np.ndarray

    @property
    def num_prompts(self) -> int:
        return len(self.indptr_P1) - 1

    def prompt(self, p: int) -> slice:
        return slice(self.indptr_P1[p], self.indptr_P1[p + 1])

    def differences(self) -> np.ndarray:
        """d_p by its definition, [P, F]; NaN for a prompt of which no token counts."""
        d_PF = np.full((self.num_prompts, self.base_TF.shape[1]), np.nan)
        for p in range(self.num_prompts):
            counted_T = self.mask_T[self.prompt(p)]
            if counted_T.any():
                d_PF[p] = (self.tuned_TF - self.base_TF)[self.prompt(p)][counted_T].mean(0)
        return d_PF


def random_corpus(seed: int, num_prompts: int = 24, num_features: int = 30) -> Corpus:
    """Prompts of 1 to 12 tokens; features differ in how often they fire; no token of prompt 5 counts."""
    rng = np.random.default_rng(seed)
    indptr_P1 = np.concatenate([[0], np.cumsum(rng.integers(1, 13, num_prompts))]).astype(np.int64)
    num_tokens = int(indptr_P1[-1])
    rate_F = np.linspace(0, 0.9, num_features)
    fires_TF = rng.random((num_tokens, num_features)) < rate_F
    sides = []
    for shift in (1.0, 1.3):
        x_TF = rng.exponential(shift, fires_TF.shape) * (fires_TF & (rng.random(fires_TF.shape) < 0.8))
        sides.append(decode_bf16(encode_bf16(x_TF.astype(np.float32))))
    mask_T = rng.random(num_tokens) < 0.85
    mask_T[indptr_P1[5] : indptr_P1[6]] = False
    return Corpus(indptr_P1, rng.integers(0, 500, num_tokens).astype(np.int32), mask_T, *sides)


@dataclass(frozen=True)
class RunMaker:
    """Writes runs of a corpus into one store."""

    store: Store

    def __call__(
        self,
        tag: str,
        corpus: Corpus,
        x_TF: np.ndarray,
        segments: Sequence[Sequence[int]],
        dense: Mapping[str, np.ndarray] | None = None,
        sae: SaeEntry | None = None,
        stats: Mapping[str, np.ndarray] | None = None,
    ) -> RunReader:
        """Write each segment's prompts in the order given; `dense` holds arrays [P, ...] in suite order.

        `stats` are the sums of each segment: the same for all of them.
        """
        entry = sae or SaeEntry(name=SAE, width=x_TF.shape[1], sha256="cd" * 32)
        hooks = [HookEntry(name="resid_post/3", layer=3, site="resid_post", saes=[entry])]
        with self.store.run_writer({"tag": tag}, hooks) as writer:
            for number, prompts in enumerate(segments):
                data = make_segment(corpus, x_TF, np.array(prompts), dense or {}, entry.name)
                writer.write_segment(number, replace(data, stats=stats or {}))
            return self.store.open_run(writer.finish().run_id)


def make_segment(
    corpus: Corpus, x_TF: np.ndarray, prompt_P: np.ndarray, dense: Mapping[str, np.ndarray], sae_name: str
) -> SegmentData:
    tokens = np.concatenate([np.arange(corpus.indptr_P1[p], corpus.indptr_P1[p + 1]) for p in prompt_P])
    x_TF = x_TF[tokens]
    rows = np.concatenate([[0], np.cumsum((x_TF > 0).sum(1))]).astype(np.int64)
    features = (rows, np.nonzero(x_TF > 0)[1].astype(np.int32), encode_bf16(x_TF[x_TF > 0]))
    return SegmentData(
        prompt_P=prompt_P.astype(np.int64),
        prompt_indptr_P1=np.concatenate([[0], np.cumsum(np.diff(corpus.indptr_P1)[prompt_P])]),
        token_T=corpus.token_T[tokens],
        role_T=(tokens % 3).astype(np.uint8),
        mask_T=corpus.mask_T[tokens],
        features={sae_name: features},
        dense={name: array[prompt_P] for name, array in dense.items()},
    )


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> RunMaker:
    # One store for all tests: a run is written once and only read, and writing it waits for the disk.
    return RunMaker(Store(tmp_path_factory.mktemp("diff") / "store"))


@pytest.fixture(scope="session")
def make_corpus() -> Callable[..., Corpus]:
    return random_corpus


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return random_corpus(0)


@pytest.fixture(scope="session")
def segments(corpus: Corpus) -> list[list[int]]:
    """Five segments of different sizes, prompts out of suite order."""
    order = np.random.default_rng(1).permutation(corpus.num_prompts)
    return [part.tolist() for part in np.split(order, [7, 8, 13, 20])]


@pytest.fixture(scope="session")
def other_segments(corpus: Corpus) -> list[list[int]]:
    """The same prompts in three segments and another order."""
    order = np.random.default_rng(2).permutation(corpus.num_prompts)
    return [part.tolist() for part in np.split(order, [4, 15])]


@pytest.fixture(scope="session")
def two_segments(segments: list[list[int]]) -> list[list[int]]:
    """A plan that is written faster, for runs that a test makes for itself."""
    return [segments[0] + segments[1], segments[2] + segments[3] + segments[4]]


@pytest.fixture(scope="session")
def resid(corpus: Corpus) -> dict[str, dict[str, np.ndarray]]:
    """Residual evidence of both sides in suite order; the mean vector of prompt 5, of no tokens, is NaN."""
    rng = np.random.default_rng(4)
    shift_D = rng.normal(size=8)
    sides: dict[str, dict[str, np.ndarray]] = {"base": {}, "tuned": {}}
    for name in ("mean", "last"):
        base_PD = rng.normal(size=(corpus.num_prompts, 8))
        tuned_PD = base_PD + shift_D + 0.1 * rng.normal(size=base_PD.shape)
        for side, x_PD in (("base", base_PD), ("tuned", tuned_PD)):
            x_PD[5] = np.nan if name == "mean" else x_PD[5]
            sides[side][f"resid_post/3/{name}_PD"] = x_PD.astype(np.float32)
    for arrays in sides.values():
        arrays["resid_post/3/norm_P"] = rng.exponential(10, corpus.num_prompts).astype(np.float32)
    return sides


@pytest.fixture(scope="session")
def base(make_run: RunMaker, corpus: Corpus, segments: list[list[int]], resid: dict[str, Any]) -> RunReader:
    return make_run("base", corpus, corpus.base_TF, segments, resid["base"])


@pytest.fixture(scope="session")
def tuned(make_run: RunMaker, corpus: Corpus, segments: list[list[int]], resid: dict[str, Any]) -> RunReader:
    return make_run("tuned", corpus, corpus.tuned_TF, segments, resid["tuned"])


@pytest.fixture(scope="session")
def tuned_elsewhere(
    make_run: RunMaker, corpus: Corpus, other_segments: list[list[int]], resid: dict[str, Any]
) -> RunReader:
    """The tuned run with other segments, as a run with another batch order has them."""
    return make_run("tuned elsewhere", corpus, corpus.tuned_TF, other_segments, resid["tuned"])
