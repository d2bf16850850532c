"""How fast is precompute? The loops people write, the bare forward and ours, in turn over the same prompts.

Shapes: B prompts of a batch, L padded positions, T real tokens, D width of the residual stream, F features.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.engine.config import AuditConfig, load_config
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.models.load import DTYPES, load_model, without_adapter
from ft_audit.engine.precompute.observe import Reader
from ft_audit.engine.precompute.plan import Job, open_job
from ft_audit.engine.precompute.run_suite import RunSpeed, run_suite
from ft_audit.engine.runners.residuals import ResidualRunner
from ft_audit.engine.store import RunReader, decode_bf16
from ft_audit.engine.tokens.batches import BatchPlan, plan_batches
from ft_audit.engine.tokens.padded import pad_batch
from ft_audit.engine.tokens.tokenize import TokenizedSuite
from ft_audit.kernels.jumprelu import Encoder
from ft_audit.sae.jumprelu_sae import JumpReluSae

CORPUS = "package:chatterbot_corpus/data/english"
PLAIN_BATCH = 16
ROUNDS = 4  # the prompts are cut into so many parts, and every way runs over each part in turn
CHECKED_TOKENS = 2000


@dataclass(frozen=True, slots=True)
class Part:
    """One round's prompts, tokenised and planned."""

    tokens: TokenizedSuite
    plan: BatchPlan
    lengths_P: np.ndarray


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=100_000, help="at least so many tokens per model")
        parser.add_argument(
            "--memory-tokens", type=int, default=20_000, help="so many and ten times as many, for memory"
        )
        parser.add_argument("--child", type=int, metavar="TOKENS", help=argparse.SUPPRESS)

    if argv is None and "--child" in sys.argv:
        return _child(int(sys.argv[sys.argv.index("--child") + 1]))
    return run_benchmark("precompute", measure, argv, options)


def job_over(store: Path) -> Job:
    """Return the demo's needle job with the corpus as its only suite."""
    demo = load_config("configs:demo_needle.yaml")
    raw = demo.model_dump(mode="json") | {
        "suites": [CORPUS],
        "dataset": None,
        "elicit": None,
        "generate": None,
    }
    raw["store"] = str(store)
    raw["precompute"]["control"] = False
    config = AuditConfig.model_validate_json(json.dumps(raw))
    config._base_dir = demo.base_dir
    return open_job(config)


def cut(tokens: TokenizedSuite, num_tokens: int, job: Job) -> list[Part]:
    """Return ROUNDS parts of the suite's prompts, repeated until `num_tokens` are reached."""
    lengths = np.diff(tokens.indptr_P1)
    order = np.resize(np.arange(len(lengths)), int(np.ceil(num_tokens / lengths.sum()) * len(lengths)))
    order = order[: int(np.searchsorted(np.cumsum(lengths[order]), num_tokens)) + 1]
    return [_part(tokens, chosen, job) for chosen in np.array_split(order, ROUNDS)]


def _part(tokens: TokenizedSuite, chosen: np.ndarray, job: Job) -> Part:
    lengths = np.diff(tokens.indptr_P1)[chosen]
    picked = np.concatenate([np.arange(tokens.indptr_P1[p], tokens.indptr_P1[p + 1]) for p in chosen])
    part = TokenizedSuite(
        suite=tokens.suite,
        ids_T=tokens.ids_T[picked],
        role_T=tokens.role_T[picked],
        mask_T=tokens.mask_T[picked],
        indptr_P1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        num_truncated=0,
    )
    settings = job.config.precompute
    return Part(part, plan_batches(lengths, settings.tokens_per_batch, settings.tokens_per_segment), lengths)


def plain_batches(part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and attention mask [B, L] in the data set's order, PLAIN_BATCH prompts at a time."""
    starts = part.tokens.indptr_P1
    for first in range(0, len(part.lengths_P), PLAIN_BATCH):
        rows = [
            torch.from_numpy(part.tokens.ids_T[starts[p] : starts[p + 1]].astype(np.int64))
            for p in range(first, min(first + PLAIN_BATCH, len(part.lengths_P)))
        ]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
        yield ids, mask


def sorted_batches(part: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and attention mask [B, L] of our length-sorted batches."""
    for batch in (b for segment in part.plan.segments for b in segment):
        padded = pad_batch(part.tokens, batch, 0)
        mask = torch.zeros_like(padded.ids_BL)
        mask[padded.row_T, padded.position_T] = 1
        yield padded.ids_BL, mask


@torch.inference_mode()
def plain_loop(
    sae: JumpReluSae, batches: Iterator[tuple[Tensor, Tensor]], out: Path, model: PreTrainedModel
) -> None:
    """The loop people write: full model with head, all hidden states, dense encode, nonzero, torch.save."""
    layer = sae.spec.layer
    dtype = next(model.parameters()).dtype
    w_enc, b_enc, threshold = (t.to(dtype) for t in (sae.w_enc_DF, sae.b_enc_F, sae.threshold_F))
    for number, (ids, mask) in enumerate(batches):
        hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer + 1]
        x = hidden[mask.bool()]
        pre = x @ w_enc + b_enc
        acts = torch.relu(pre) * (pre > threshold)
        where = acts.nonzero()
        torch.save({"where": where, "value": acts[where[:, 0], where[:, 1]]}, out / f"{number}.pt")


def bare_forward(layer: int, part: Part, model: PreTrainedModel) -> None:
    """The truncated forward alone, without hooks, over our batches."""
    runner = ResidualRunner(model, [layer])
    for batch in (b for segment in part.plan.segments for b in segment):
        runner.run_bare(pad_batch(part.tokens, batch, 0).ids_BL)


def ours(job: Job, side: str, part: Part, number: int, model: PreTrainedModel) -> tuple[str, RunSpeed]:
    """Our job's loop over one part, hooks, encode, evidence, store: the run's id and what it cost."""
    sae = job.saes[0]
    identity = {"benchmark": side, "part": number}
    readers = [Reader(sae, Encoder(sae.weights(job.models.device, torch.bfloat16), job.backend))]
    with job.store.run_writer(identity, list(job.hooks)) as writer:
        speed = run_suite(
            writer, model, [sae.spec.layer], readers, part.tokens, part.plan, 0,
            to_the_end=False, on_tokens=lambda _n: None,
        )  # fmt: skip
        return writer.run_id, speed


@torch.inference_mode()
def verify(job: Job, model: PreTrainedModel, part: Part, stored: RunReader) -> None:
    """Raise unless the stored features are a plain float32 JumpReLU of the same residuals outside a band."""
    sae = job.saes[0]
    runner = ResidualRunner(model, [sae.spec.layer])
    segment = next(iter(stored.segments()))
    indptr, index, bits = segment.features[sae.spec.name]
    values, start, checked = decode_bf16(bits), 0, 0
    for batch in part.plan.segments[0]:
        padded = pad_batch(part.tokens, batch, 0)
        x = runner.run(padded.ids_BL)[0][sae.spec.layer][padded.row_T, padded.position_T].float()
        # What the encoder multiplies: bfloat16 weights; the sum below is float32.
        pre = x @ sae.w_enc_DF.bfloat16().float() + sae.b_enc_F
        band = 1e-2 + 1e-3 * pre.abs()
        mask = torch.from_numpy(part.tokens.mask_T[padded.token_T.numpy()])
        dense = torch.zeros_like(pre)
        for t in range(len(pre)):
            span = slice(indptr[start + t], indptr[start + t + 1])
            dense[t, torch.from_numpy(index[span].astype(np.int64))] = torch.from_numpy(values[span])
        sure = ((pre - sae.threshold_F).abs() > band) & mask[:, None]
        expected = torch.relu(pre) * (pre > sae.threshold_F)
        wrong = sure & ((dense - expected).abs() > 1e-2 + 2**-7 * expected.abs())
        if bool(wrong.any()):
            raise AssertionError(f"{int(wrong.sum())} stored activations differ from a plain JumpReLU")
        start, checked = start + len(pre), checked + len(pre)
        if checked >= CHECKED_TOKENS:
            return


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Check what is stored, then time each way over each part and return the ratios of summed times."""
    with tempfile.TemporaryDirectory() as scratch:
        job = job_over(Path(scratch) / "store")
        parts = cut(job.suites.suites[0].tokens, options.tokens, job)
        tuned = job.models.tuned_model
        full = load_model(job.models.tuned, DTYPES["float32"], job.models.device)
        verify(job, tuned, parts[0], job.store.open_run(ours(job, "check", parts[0], 0, tuned)[0]))
        bare_forward(job.saes[0].spec.layer, parts[0], tuned)
        seconds, features = _race(job, parts, tuned, full, Path(scratch))
    tokens = 2 * sum(int(part.lengths_P.sum()) for part in parts)
    growth = _memory(10 * options.memory_tokens) / _memory(options.memory_tokens)
    whole = seconds["ours"] + features["statistics"]
    return [
        Measurement("ours_vs_plain", seconds["plain"] / seconds["ours"], "x"),
        Measurement("ours_vs_plain_bf16_sorted", seconds["plain_bf16"] / seconds["ours"], "x"),
        Measurement("share_of_bare_forward", seconds["bare"] / seconds["ours"], "ratio"),
        Measurement("memory_growth_10x", growth, "x"),
        Measurement("encode_and_statistics_share", sum(features.values()) / whole, "ratio"),
        Measurement("encode_share", features["encode"] / whole, "ratio"),
        Measurement("statistics_share", features["statistics"] / whole, "ratio"),
        Measurement("tokens_both_models", tokens, "tokens"),
        *(Measurement(f"{name}_rate", tokens / spent, "tokens/s") for name, spent in seconds.items()),
    ]


def _race(
    job: Job, parts: Sequence[Part], low: PreTrainedModel, full: PreTrainedModel, scratch: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of each way, summed over parts and over both models, and of features in ours."""
    sae = job.saes[0]
    seconds = dict.fromkeys(("plain", "plain_bf16", "bare", "ours"), 0.0)
    features = {"encode": 0.0, "statistics": 0.0}
    for number, part in enumerate(parts):
        runs: list[RunReader] = []
        for side in ("base", "tuned"):
            ways: dict[str, tuple[PreTrainedModel, Callable[[PreTrainedModel], Any]]] = {
                "plain": (full, partial(plain_loop, sae, plain_batches(part), scratch)),
                "plain_bf16": (low, partial(plain_loop, sae, sorted_batches(part), scratch)),
                "bare": (low, partial(bare_forward, sae.spec.layer, part)),
                "ours": (low, partial(ours, job, side, part, number)),
            }
            for name, (model, way) in ways.items():
                with without_adapter(model) if side == "base" else nullcontext(model) as chosen:
                    started = time.perf_counter()
                    done = way(chosen)
                    seconds[name] += time.perf_counter() - started
            run_id, speed = done  # ours is the last way
            runs.append(job.store.open_run(run_id))
            features["encode"] += speed.clock.encode
            print(f"part {number + 1}/{len(parts)}, {side}: {seconds}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        pair_moments(runs[0], runs[1], sae.spec.name)
        features["statistics"] += time.perf_counter() - started
    return seconds, features


def _memory(num_tokens: int) -> float:
    """Return the peak resident bytes of a process that runs our loop over so many tokens."""
    command = [sys.executable, "-m", "ft_audit.benchmarks.precompute", "--child", str(num_tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def _child(num_tokens: int) -> int:
    import resource

    with tempfile.TemporaryDirectory() as scratch:
        job = job_over(Path(scratch) / "store")
        tokens = job.suites.suites[0].tokens
        whole = cut(tokens, num_tokens, job)
        with without_adapter(job.models.base_model) as model:
            for number, part in enumerate(whole):
                ours(job, "memory", part, number, model)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


if __name__ == "__main__":
    sys.exit(main())
