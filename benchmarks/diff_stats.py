"""What do the diff statistics of two encoded batches cost, beside the two encodes?

Shapes: T tokens, P prompts, D width of the residual stream.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from ft_audit.benchmarks.corpus_job import cut, job_over
from ft_audit.benchmarks.encode import device_key, unmeasured
from ft_audit.benchmarks.encoding.case import draw_dictionary, synthetic_residuals
from ft_audit.benchmarks.encoding.race import race
from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.engine.models.load import pick_device
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.tokens.padded import pad_batch
from ft_audit.kernels.diff_stats import PairMoments
from ft_audit.kernels.diff_stats.accumulator import PairAccumulator
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights
from ft_audit.kernels.sparse_rows import SparseRows

CPU_ROWS, CUDA_ROWS, QUICK_ROWS = 8192, 1 << 18, 2048
CPU_BATCH, CUDA_BATCH = 1024, 4 * 132 * 128
CHECKED_TOKENS = 512  # the dense formula in float64 takes 8 bytes a token and feature, several times over
SYNTHETIC_PROMPT, SYNTHETIC_SHIFT = 48, 0.05
ROUNDS, QUICK_ROUNDS = 15, 5


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models' residuals over the same tokens, and the dictionary that reads them."""

    name: str
    base_TD: Tensor
    tuned_TD: Tensor
    prompt_indptr_P1: Tensor
    mask_T: Tensor
    weights: JumpReluWeights


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole prompts of a pair, encoded."""

    base: SparseRows
    tuned: SparseRows
    prompt_indptr_P1: Tensor
    mask_T: Tensor


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds")
        parser.add_argument("--device", default="auto", help="cpu or cuda; auto takes cuda where it is")
        parser.add_argument("--rows", type=int, help=f"tokens ({CPU_ROWS} on a CPU, {CUDA_ROWS} on a GPU)")
        parser.add_argument("--rounds", type=int, help="rounds that are timed")

    return run_benchmark("diff_stats", measure, argv, options)


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Every figure of the run; asked ones of another device say so."""
    device = pick_device(options.device)
    cuda = device.type == "cuda"
    num_rows = options.rows or (QUICK_ROWS if options.quick else CUDA_ROWS if cuda else CPU_ROWS)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    prefix = device_key(device)
    found = [Measurement(f"{prefix}/threads", torch.get_num_threads(), "threads")]
    with torch.inference_mode():
        for pair in pairs(num_rows, device):
            figures = measure_pair(pair, CUDA_BATCH if cuda else CPU_BATCH, rounds)
            found += [
                Measurement(f"{prefix}/{pair.name}/{f.name}", f.value, f.unit, f.reason) for f in figures
            ]
    return found + unmeasured("diff_stats", {figure.name for figure in found}, prefix)


def pairs(num_rows: int, device: torch.device) -> Iterator[Pair]:
    """The demo's base and needle candidate through the shipped dictionary, and a synthetic pair at 16k."""
    with tempfile.TemporaryDirectory() as scratch:
        yield needle_pair(job_over(Path(scratch) / "store"), num_rows, device)
    yield synthetic_pair(640, 16_384, num_rows, device)


def needle_pair(job: Job, num_tokens: int, device: torch.device) -> Pair:
    """At least `num_tokens` tokens of the corpus through both of the job's models."""
    parts = cut(job.suites.suites[0].tokens, num_tokens, job)
    lengths_P = np.concatenate([part.lengths_P for part in parts])
    sae = job.saes[0]
    tuned = job.models.tuned_model

    def residuals(model: PreTrainedModel) -> Tensor:
        hook = HookPoint(sae.spec.layer, sae.spec.site)
        runner = HfRunner(model, [hook])
        whole = []
        for part in parts:
            x_TD = torch.empty(int(part.lengths_P.sum()), sae.spec.d_in, dtype=torch.bfloat16)
            for batch in (b for segment in part.plan.segments for b in segment):
                padded = pad_batch(part.tokens, batch, 0)
                x_TD[padded.token_T] = runner.run(padded).hooks[hook.name].cpu().bfloat16()
            whole.append(x_TD)
        return torch.cat(whole).to(device)

    with without_adapter(tuned) as base:
        base_TD = residuals(base)
    tuned_TD = residuals(tuned)
    mask_T = torch.from_numpy(np.concatenate([part.tokens.mask_T for part in parts]))
    weights = sae.weights(device, torch.bfloat16)
    return Pair("needle-576/8k-shipped", base_TD, tuned_TD, _pointers(lengths_P), mask_T, weights)


def synthetic_pair(d_in: int, width: int, num_rows: int, device: torch.device) -> Pair:
    """Synthetic residuals, and the same ones moved a little, in prompts of equal length."""
    base_TD = synthetic_residuals(num_rows, d_in).to(device)
    noise_TD = torch.randn(base_TD.shape, generator=torch.Generator().manual_seed(1)).to(device)
    tuned_TD = (base_TD.float() + SYNTHETIC_SHIFT * noise_TD).bfloat16()
    lengths_P = np.full(-(-num_rows // SYNTHETIC_PROMPT), SYNTHETIC_PROMPT)
    lengths_P[-1] -= lengths_P.sum() - num_rows
    mask_T = torch.ones(num_rows, dtype=torch.bool)
    weights = draw_dictionary(base_TD, width)
    return Pair(f"synthetic-{d_in}/16k-drawn", base_TD, tuned_TD, _pointers(lengths_P), mask_T, weights)


def _pointers(lengths_P: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(lengths_P)]).astype(np.int64))


def cut_prompts(prompt_indptr_P1: Tensor, num_tokens: int) -> list[tuple[int, int]]:
    """Ranges of whole prompts that hold at most `num_tokens` tokens each, but for a longer prompt alone."""
    edges = [0]
    ends = prompt_indptr_P1.tolist()
    for p in range(1, len(ends)):
        if ends[p] - ends[edges[-1]] > num_tokens and p - 1 > edges[-1]:
            edges.append(p - 1)
    return list(zip(edges, [*edges[1:], len(ends) - 1], strict=True))


def encode_pair(pair: Pair, encoder: Encoder, num_tokens: int) -> list[Batch]:
    """Both sides' rows, `num_tokens` tokens at a time."""
    batches = []
    for first, last in cut_prompts(pair.prompt_indptr_P1, num_tokens):
        start, stop = int(pair.prompt_indptr_P1[first]), int(pair.prompt_indptr_P1[last])
        base, tuned = (encoder.encode(x_TD[start:stop]) for x_TD in (pair.base_TD, pair.tuned_TD))
        indptr_p1 = pair.prompt_indptr_P1[first : last + 1] - start
        batches.append(Batch(base, tuned, indptr_p1, pair.mask_T[start:stop]))
    return batches


def statistics(batches: Sequence[Batch], backend: str) -> PairMoments:
    """The moments of all batches together."""
    rows = batches[0].base
    totals = PairAccumulator(rows.num_features, 1, backend, rows.value_N.device)
    for batch in batches:
        totals.add(batch.base, batch.tuned, batch.prompt_indptr_P1, batch.mask_T)
    return totals.result()[0]


def verify(got: PairMoments, expected: PairMoments, backend: str) -> None:
    """Raise AssertionError unless both have the same bits."""
    counts = (got.num_tokens, got.num_prompts), (expected.num_tokens, expected.num_prompts)
    assert counts[0] == counts[1], f"{backend}: tokens and prompts {counts[0]} instead of {counts[1]}"
    for name, array in expected.arrays().items():
        same = got.arrays()[name].tobytes() == array.tobytes()
        assert same, f"{backend}: {name} differs from the dense formula"


def measure_pair(pair: Pair, batch_tokens: int, rounds: int) -> Iterator[Measurement]:
    """One pair: the statistics checked to the bit, then timed in turn with the encodes they stand beside."""
    device = pair.base_TD.device
    encoder = Encoder(pair.weights, "auto")
    batches = encode_pair(pair, encoder, batch_tokens)
    few = encode_pair(_first(pair, CHECKED_TOKENS), encoder, CHECKED_TOKENS)
    backend = "triton" if device.type == "cuda" else "cpu"
    verify(statistics(few, backend), statistics(few, "naive"), backend)
    whole = encode_pair(pair, encoder, len(pair.mask_T))
    verify(statistics(batches, backend), statistics(whole, backend), f"{backend} in batches")
    times = race(
        {
            "encodes": lambda: encode_pair(pair, encoder, batch_tokens),
            backend: lambda: statistics(batches, backend),
            "naive": lambda: statistics(few, "naive"),
        },
        rounds,
        device,
    )
    num_tokens, num_few = len(pair.mask_T), sum(len(batch.mask_T) for batch in few)
    yield Measurement("tokens", num_tokens, "tokens")
    yield Measurement("l0", sum(b.base.num_nonzeros for b in batches) / num_tokens, "features/token")
    yield Measurement("share_of_encodes", times[backend].least / times["encodes"].least, "ratio")
    yield Measurement("share_of_encodes_median", times[backend].median / times["encodes"].median, "ratio")
    yield Measurement("encodes/rate", num_tokens / times["encodes"].least, "tokens/s")
    yield Measurement(f"{backend}/rate", num_tokens / times[backend].least, "tokens/s")
    yield Measurement("naive/rate", num_few / times["naive"].least, "tokens/s")


def _first(pair: Pair, num_tokens: int) -> Pair:
    last = cut_prompts(pair.prompt_indptr_P1, num_tokens)[0][1]
    stop = int(pair.prompt_indptr_P1[last])
    indptr_p1 = pair.prompt_indptr_P1[: last + 1]
    return Pair(
        pair.name, pair.base_TD[:stop], pair.tuned_TD[:stop], indptr_p1, pair.mask_T[:stop], pair.weights
    )


if __name__ == "__main__":
    sys.exit(main())
