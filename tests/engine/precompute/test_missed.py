"""What a dictionary misses of a planted difference, and which tokens are asked."""

from typing import Any

import numpy as np
import pytest
import torch

from ft_audit.engine.precompute.missed import SAMPLE_EVERY, missed_change, sample_tokens
from ft_audit.engine.precompute.observe import BatchView, Reader, SideBatch, view_batch
from ft_audit.engine.runners.forward import Forward
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.tokenize import TokenizedSuite
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec

D_IN, WIDTH, HOOK = 16, 10, "resid_post/3"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reader() -> Reader:
    """Feature f is dimension f; the last six dimensions are nobody's."""
    spec = SaeSpec("axes", 3, "resid_post", "model.layers.3.output", WIDTH, D_IN, "tiny", None, "5" * 64)
    axes_DF = torch.eye(D_IN)[:, :WIDTH].contiguous()
    sae = JumpReluSae(
        spec,
        axes_DF,
        axes_DF.T.contiguous(),
        torch.zeros(WIDTH),
        torch.full((D_IN,), 0.25),
        torch.full((WIDTH,), 0.5),
        apply_b_dec_to_input=False,
    )
    return Reader(sae, Encoder(sae.weights(CPU), "naive"))


def side(reader: Reader, x_TD: torch.Tensor) -> SideBatch:
    rows = {"axes": reader.encoder.encode(x_TD)}
    return SideBatch(Forward({HOOK: x_TD}, None), np.ones(len(x_TD), dtype=np.bool_), rows)


@pytest.mark.parametrize(
    ("dimension", "missed"),
    [(3, 0.0), (12, 1.0)],
    ids=["along a feature", "outside of all features"],
)
def test_only_what_no_feature_writes_is_missed(reader: Reader, dimension: int, missed: float) -> None:
    # Multiples of an eighth, so that nothing is rounded.
    base_TD = torch.randint(8, 40, (30, D_IN), generator=torch.Generator().manual_seed(1)) / 8
    tuned_TD = base_TD.clone()
    tuned_TD[:, dimension] += 2.0
    sample_S = torch.tensor([2, 5, 29])
    found = missed_change(reader, side(reader, base_TD), side(reader, tuned_TD), sample_S)
    assert found["sq_moved_P"].tolist() == [4.0] * 3
    assert found["sq_missed_P"].tolist() == [4.0 * missed] * 3


def test_a_feature_below_its_threshold_in_one_model_is_missed_as_far_as_that(reader: Reader) -> None:
    base_TD = torch.full((1, D_IN), 0.25)  # silent: below the threshold of 0.5
    tuned_TD = torch.full((1, D_IN), 0.25)
    tuned_TD[0, 4] = 1.0
    found = missed_change(reader, side(reader, base_TD), side(reader, tuned_TD), torch.tensor([0]))
    # It moved by 0.75 and is said to have moved by 1.
    assert found["sq_moved_P"].tolist() == [0.75**2] and found["sq_missed_P"].tolist() == [0.25**2]


def suite_of(length_P: np.ndarray) -> TokenizedSuite:
    total = int(length_P.sum())
    prompts = tuple(Prompt(None, "x", "s", "g", str(i), i) for i in range(len(length_P)))
    return TokenizedSuite(
        suite=PromptSuite("s", prompts),
        ids_T=np.arange(total, dtype=np.int32),
        role_T=np.zeros(total, dtype=np.uint8),
        mask_T=np.ones(total, dtype=np.bool_),
        indptr_P1=np.concatenate([[0], np.cumsum(length_P)]).astype(np.int64),
        num_truncated=0,
    )


def sampled(suite: TokenizedSuite, tokens_per_batch: int, mask_T: Any = None) -> dict[int, list[int]]:
    """The sampled tokens of each prompt, as the suite numbers them."""
    found: dict[int, list[int]] = {}
    for batches in plan_batches(suite.length_P, tokens_per_batch, 10_000).segments:
        for batch in batches:
            view: BatchView = view_batch(suite, batch, 0, CPU)
            counted_T = np.ones(len(view.token_T), np.bool_) if mask_T is None else mask_T[view.token_T]
            sample_S, prompt_S = sample_tokens(view, counted_T)
            for token, place in zip(view.token_T[sample_S.numpy()], prompt_S, strict=True):
                found.setdefault(batch.prompts[place], []).append(int(token))
    return found


def test_the_sample_does_not_depend_on_batches_and_covers_all_positions() -> None:
    suite = suite_of(np.random.default_rng(3).integers(1, 60, 200))
    found = sampled(suite, 64)
    assert found == sampled(suite, 900)
    tokens = np.concatenate(list(found.values()))
    assert len(set(tokens.tolist())) == len(tokens)
    assert len(tokens) / suite.length_P.sum() == pytest.approx(1 / SAMPLE_EVERY, rel=0.1)
    positions = {token - int(suite.indptr_P1[prompt]) for prompt, ones in found.items() for token in ones}
    assert set(range(50)) <= positions


def test_only_tokens_that_count_are_sampled() -> None:
    suite = suite_of(np.full(40, 30))
    mask_T = np.random.default_rng(4).random(1200) < 0.5
    tokens = [token for ones in sampled(suite, 300, mask_T).values() for token in ones]
    every = [token for ones in sampled(suite, 300).values() for token in ones]
    assert tokens == [token for token in every if mask_T[token]] and 0 < len(tokens) < len(every)
