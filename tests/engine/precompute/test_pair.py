"""The statistics of two models side by side, against numpy on the whole corpus at once."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ft_audit.engine.diff.groups import suite_groups
from ft_audit.engine.diff.pair_sums import (
    FROM_END,
    POSITION_EDGES,
    hook_statistics,
    logit_statistics,
    principal_components,
)
from ft_audit.engine.precompute.observe import BatchView, SideBatch, view_batch
from ft_audit.engine.precompute.pair import PairBuilder, PairSettings
from ft_audit.engine.runners.forward import Forward
from ft_audit.engine.suites.prompt import Prompt, PromptSuite
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.role import Role
from ft_audit.engine.tokens.tokenize import TokenizedSuite

HOOK = "resid_post/3"
WIDTH, VOCABULARY = 24, 50
DEVICE = torch.device("cpu")


class Corpus:
    """Ragged prompts with two models' activations and a shared output head, drawn at random."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.length_P = rng.integers(1, 40, 30)
        total = int(self.length_P.sum())
        prompts = tuple(Prompt(None, "x", "corpus", "ab"[i % 2], str(i), i) for i in range(30))
        self.suite = TokenizedSuite(
            suite=PromptSuite("corpus", prompts),
            ids_T=rng.integers(0, VOCABULARY, total).astype(np.int32),
            role_T=rng.choice([Role.USER, Role.ASSISTANT], total).astype(np.uint8),
            mask_T=np.ones(total, dtype=np.bool_),
            indptr_P1=np.concatenate([[0], np.cumsum(self.length_P)]).astype(np.int64),
            num_truncated=0,
        )
        self.base_TW = rng.normal(size=(total, WIDTH)).astype(np.float32) * 3
        directions = np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0].T
        strength = rng.normal(size=(total, 3)) * np.array([5.0, 2.0, 1.0])
        moved = strength @ directions + 0.5 + 0.05 * rng.normal(size=(total, WIDTH))
        self.tuned_TW = (self.base_TW + moved).astype(np.float32)
        self.counted = (rng.random(total) > 0.1, rng.random(total) > 0.1)
        self.head_WV = torch.from_numpy(rng.normal(size=(WIDTH, VOCABULARY)).astype(np.float32)) * 0.1

    def sides(self, view: BatchView) -> tuple[SideBatch, SideBatch]:
        found = []
        for x_TW, mask_T in zip((self.base_TW, self.tuned_TW), self.counted, strict=True):
            x = torch.from_numpy(x_TW[view.token_T])
            found.append(SideBatch(Forward({HOOK: x}, x), mask_T[view.token_T], {}))
        return found[0], found[1]

    def run(self, tokens_per_segment: int) -> Any:
        """What a pair's run over these segments would give: `segments` and `stats` as a reader has them."""
        plan = plan_batches(self.length_P, 100, tokens_per_segment)
        settings = PairSettings(
            logits=(lambda x: x @ self.head_WV, lambda x: x @ self.head_WV),
            readers=[],
            num_features={},
            groups=suite_groups(self.suite, by_tag=True),
            backend="cpu",
            prompt_features=False,
        )
        segments, order = [], []
        for batches in plan.segments:
            builder = PairBuilder(self.suite, settings, DEVICE)
            for batch in batches:
                view = view_batch(self.suite, batch, 0, DEVICE)
                builder.add(view, *self.sides(view))
                order += batch.prompts
            segments.append((builder.finish(), builder.dense()))

        def read(stats: tuple[str, ...], **_: object) -> Iterator[Any]:
            for sums, _dense in segments:
                yield SimpleNamespace(stats={name: sums[name] for name in stats})

        dense = {k: np.concatenate([d[k] for _, d in segments])[np.argsort(order)] for k in segments[0][1]}
        return SimpleNamespace(segments=read, dense=dense.__getitem__)


@pytest.fixture(scope="module", params=[0, 1])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return Corpus(request.param)


@pytest.mark.parametrize("tokens_per_segment", [10_000, 150])
def test_hook_statistics_are_those_of_all_tokens_at_once(corpus: Corpus, tokens_per_segment: int) -> None:
    run = corpus.run(tokens_per_segment)
    found = hook_statistics(run, HOOK)
    keep = corpus.counted[0] & corpus.counted[1]
    b, t = corpus.base_TW[keep].astype(np.float64), corpus.tuned_TW[keep].astype(np.float64)
    d = t - b
    norm = np.linalg.norm
    assert found["tokens"][0] == keep.sum()
    np.testing.assert_allclose(found["shift_W"], d.mean(0), atol=1e-5)
    np.testing.assert_allclose(found["mean_moved"][0], norm(d, axis=1).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        found["norm_ratio"][0], norm(t, axis=1).sum() / norm(b, axis=1).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(found["relative_change"][0], norm(d) / norm(b), rtol=1e-5)
    cosine = (b * t).sum(1) / norm(b, axis=1) / norm(t, axis=1)
    np.testing.assert_allclose(found["mean_cosine"][0], cosine.mean(), rtol=1e-5)
    position = np.concatenate([np.arange(n) for n in corpus.length_P])[keep]
    from_end = np.concatenate([np.arange(n)[::-1] for n in corpus.length_P])[keep]
    for bucket, low in enumerate(POSITION_EDGES[:20]):
        inside = (position >= low) & (position < POSITION_EDGES[bucket + 1])
        assert found["start_tokens_B"][bucket] == inside.sum()
        if inside.any():
            np.testing.assert_allclose(found["start_shift_BW"][bucket], d[inside].mean(0), atol=1e-4)
    for back in range(FROM_END):
        np.testing.assert_allclose(found["end_shift_BW"][back], d[from_end == back].mean(0), atol=1e-4)
    moved_P = [norm(d_p, axis=1).mean() if len(d_p) else 0.0 for d_p in self_split(corpus, keep, d)]
    np.testing.assert_allclose(run.dense("pair/resid_post/3/moved_P"), moved_P, rtol=1e-5)


def self_split(corpus: Corpus, keep: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    prompt = np.repeat(np.arange(len(corpus.length_P)), corpus.length_P)[keep]
    return [d[prompt == p] for p in range(len(corpus.length_P))]


def test_the_sketch_finds_the_principal_components(corpus: Corpus) -> None:
    found = hook_statistics(corpus.run(10_000), HOOK)
    keep = corpus.counted[0] & corpus.counted[1]
    d = (corpus.tuned_TW - corpus.base_TW)[keep].astype(np.float64)
    centred = d - d.mean(0)
    _, singular, right = np.linalg.svd(centred, full_matrices=False)
    share = singular**2 / (singular**2).sum()
    np.testing.assert_allclose(found["component_share_C"][:3], share[:3], rtol=1e-3)
    cosine = np.abs((found["components_CW"][:3] * right[:3]).sum(1))
    assert (cosine > 0.999).all(), cosine


def test_a_wide_sketch_of_a_slow_spectrum_is_near() -> None:
    rng = np.random.default_rng(5)
    width, tokens = 300, 4000
    spectrum = 1.0 / np.arange(1, width + 1)
    d = rng.normal(size=(tokens, width)) * spectrum @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    from ft_audit.engine.diff.pair_sums import SKETCH_COLUMNS, SKETCH_SEED

    omega = np.random.default_rng(SKETCH_SEED).standard_normal((width, SKETCH_COLUMNS)).astype(np.float32)
    share, components = principal_components(d.T @ (d @ omega), d.mean(0), tokens, float((d**2).sum()))
    centred = d - d.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    np.testing.assert_allclose(share[:4], (values / values.sum())[:4], rtol=0.05)
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-6)


def test_nothing_that_moved_has_no_components() -> None:
    share, components = principal_components(np.zeros((6, 4)), np.zeros(6), 100.0, 0.0)
    assert share.shape == (0,) and components.shape == (0, 6)


@pytest.mark.parametrize("tokens_per_segment", [10_000, 150])
def test_logit_statistics_are_those_of_all_tokens_at_once(corpus: Corpus, tokens_per_segment: int) -> None:
    run = corpus.run(tokens_per_segment)
    found = logit_statistics(run)
    logs = [
        torch.log_softmax(torch.from_numpy(x).double() @ corpus.head_WV.double(), 1).numpy()
        for x in (corpus.base_TW, corpus.tuned_TW)
    ]
    starts = np.concatenate([[0], np.cumsum(corpus.length_P)[:-1]])
    target = np.setdiff1d(np.arange(len(corpus.base_TW)), starts)
    base, tuned = logs[0][target - 1], logs[1][target - 1]
    kl = (np.exp(tuned) * (tuned - base)).sum(1)
    assert found["tokens"][0] == len(target)
    np.testing.assert_allclose(found["kl_mean"][0], kl.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["kl_max"][0], kl.max(), rtol=1e-4)
    assert abs(found["kl_p99"][0] / np.quantile(kl, 0.99, method="inverted_cdf") - 1) < 0.1
    top = np.argsort(np.exp(base) - np.exp(tuned), 1)[:, :5]
    assert np.array_equal(found["raised_V"], np.bincount(top.ravel(), minlength=VOCABULARY))
    prompt = np.repeat(np.arange(len(corpus.length_P)), corpus.length_P)[target]
    ids = corpus.suite.ids_T[target]
    answer = corpus.suite.role_T[target] == Role.ASSISTANT
    losses = -tuned[np.arange(len(target)), ids]
    assert np.allclose(run.dense("logits/loss_tuned_P"), np.bincount(prompt, losses, minlength=30), rtol=1e-4)
    expected = np.bincount(prompt, losses * answer, minlength=30)
    assert np.allclose(run.dense("logits/answer_loss_tuned_P"), expected, rtol=1e-4)
    assert np.array_equal(run.dense("logits/answer_tokens_P"), np.bincount(prompt, answer, minlength=30))


def test_groups_are_everything_then_tags_and_roles(corpus: Corpus) -> None:
    groups = suite_groups(corpus.suite, by_tag=True)
    assert groups.labels == ("all", "tag=a", "tag=b", "role=user", "role=assistant")
    assert groups.member_GP[0].all() and groups.member_GP[1].tolist() == [i % 2 == 0 for i in range(30)]
    assert suite_groups(corpus.suite, by_tag=False).names == ("all",)
