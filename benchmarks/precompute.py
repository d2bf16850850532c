"""How fast is precompute? The loops people write, the bare forward and ours, in turn over the same prompts.

Shapes: B prompts of a batch, L padded positions, T real tokens, D width of the residual stream, F features.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from ft_audit.benchmarks.corpus_job import Part, cut, job_over, over
from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.benchmarks.loops import bare_forward, plain_batches, plain_loop, sorted_batches
from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.config.schema import HookConfig
from ft_audit.engine.diff.moments import pair_moments
from ft_audit.engine.models.load import DTYPES, load_model
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.precompute.execute import LocalPlace
from ft_audit.engine.precompute.job import run_missing
from ft_audit.engine.precompute.passes import plan_passes
from ft_audit.engine.precompute.plan import Job
from ft_audit.engine.precompute.report import Speeds
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.engine.store import HookEntry, RunReader, SaeEntry, decode_bf16
from ft_audit.engine.tokens.batches import plan_batches
from ft_audit.engine.tokens.padded import pad_batch
from ft_audit.sae.jumprelu_sae import JumpReluSae

CHECKED_TOKENS = 2000
L0 = 50  # of the random dictionaries


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tokens", type=int, default=100_000, help="at least so many tokens per model")
        parser.add_argument(
            "--small-tokens", type=int, default=20_000, help="where our own ways are compared"
        )
        parser.add_argument("--child", nargs=2, metavar=("WAY", "TOKENS"), help=argparse.SUPPRESS)

    arguments = sys.argv[1:] if argv is None else list(argv)
    if "--child" in arguments:
        way, tokens = arguments[arguments.index("--child") + 1 :][:2]
        return _child(way, int(tokens))
    return run_benchmark("precompute", measure, argv, options)


def ours(job: Job, place: LocalPlace) -> Speeds:
    """Our job's loop over both models: hooks, encode, evidence, paired statistics, store."""
    speeds = Speeds()
    with ExitStack() as stack:
        run_missing(job, plan_passes(job), place, speeds, False, stack)
    return speeds


def stored(job: Job) -> dict[str, RunReader]:
    """Return the runs that our loop left, by side."""
    (planned,) = plan_passes(job)
    return {side: job.store.open_run(run.run_id) for side, run in planned.runs.items()}


@torch.inference_mode()
def verify(job: Job, model: PreTrainedModel, part: Part, run: RunReader) -> None:
    """Raise unless the stored features are a plain float32 JumpReLU of the same residuals outside a band."""
    sae = job.saes[0]
    runner = HfRunner(model, [HookPoint(sae.spec.layer)])
    segment = next(iter(run.segments()))
    indptr, index, bits = segment.features[sae.spec.name]
    values, start, checked = decode_bf16(bits), 0, 0
    for batch in part.plan.segments[0]:
        padded = pad_batch(part.tokens, batch, 0)
        x = runner.run(padded).hooks[job.hooks[0].name].float()
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
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(1) as prefetch,
        open_scheduler() as threads,
    ):
        scratch, place = Path(name), LocalPlace(threads, prefetch)
        job = job_over(scratch / "store")
        tokens = job.suites.suites[0].tokens
        parts = cut(tokens, options.tokens, job)
        # Of the corpus as it is: a part of a few prompts is one batch of all lengths.
        settings = job.config.precompute
        whole_plan = plan_batches(tokens.length_P, settings.tokens_per_batch, settings.tokens_per_segment)
        race = _race(job, place, parts, scratch)
        small = cut(tokens, options.small_tokens, job)
        second = _second_candidate(small, scratch, place)
        every = _every_block(job, small[0], scratch, place)
    whole = race.seconds["ours"] + race.statistics
    clock = race.speeds.clock
    total = 2 * sum(int(part.lengths_P.sum()) for part in parts)
    memory = {way: _memory(way, options.small_tokens) for way in ("alone", "adapter")}
    return [
        Measurement("ours_vs_plain", race.seconds["plain"] / race.seconds["ours"], "x"),
        Measurement("ours_vs_plain_bf16_sorted", race.seconds["plain_bf16"] / race.seconds["ours"], "x"),
        Measurement("share_of_bare_forward", race.seconds["bare"] / race.seconds["ours"], "ratio"),
        Measurement("padding_share", whole_plan.padding_share, "ratio"),
        Measurement("idle_share", clock.wait / race.speeds.seconds, "ratio"),
        Measurement("second_candidate_speed", second, "x"),
        Measurement("adapter_memory", memory["adapter"] / memory["alone"], "x"),
        Measurement("every_block_time", every, "x"),
        Measurement("encode_and_statistics_share", (clock.encode + race.statistics) / whole, "ratio"),
        *(Measurement(f"{part}_share", getattr(clock, part) / whole, "ratio") for part in clock.__slots__),
        Measurement("statistics_share", race.statistics / whole, "ratio"),
        Measurement("tokens_both_models", total, "tokens"),
        *(Measurement(f"{name}_rate", total / spent, "tokens/s") for name, spent in race.seconds.items()),
    ]


@dataclass(slots=True)
class Race:
    """Seconds of each way, summed over parts and both models; and what ours spent them on."""

    seconds: dict[str, float]
    speeds: Speeds
    statistics: float = 0.0


def _race(job: Job, place: LocalPlace, parts: Sequence[Part], scratch: Path) -> Race:
    sae, low = job.saes[0], job.models.tuned_model
    # The loops that people write run the whole model; of the job's own, only the first blocks are loaded.
    full = load_model(job.models.tuned, DTYPES["float32"], job.models.device)
    half = load_model(job.models.tuned, DTYPES["bfloat16"], job.models.device)
    check = over(job, parts[0], scratch / "check")
    ours(check, place)
    verify(check, low, parts[0], stored(check)["tuned"])
    race = Race(dict.fromkeys(("plain", "plain_bf16", "bare", "ours"), 0.0), Speeds())
    for number, part in enumerate(parts):
        for side in ("base", "tuned"):
            ways: dict[str, tuple[PreTrainedModel, Callable[[PreTrainedModel], None]]] = {
                "plain": (full, partial(plain_loop, sae, plain_batches(part), scratch)),
                "plain_bf16": (half, partial(plain_loop, sae, sorted_batches(part), scratch)),
                "bare": (low, partial(bare_forward, sae.spec.layer, part)),
            }
            for name, (model, way) in ways.items():
                with without_adapter(model) if side == "base" else nullcontext(model) as chosen:
                    started = time.perf_counter()
                    way(chosen)
                    race.seconds[name] += time.perf_counter() - started
        mine = over(job, part)
        place.workshop = None
        started = time.perf_counter()
        speeds = ours(mine, place)
        race.seconds["ours"] += time.perf_counter() - started
        race.speeds.num_tokens += speeds.num_tokens
        race.speeds.seconds += speeds.seconds
        race.speeds.clock.add(speeds.clock)
        runs = stored(mine)
        started = time.perf_counter()
        pair_moments(runs["base"], runs["tuned"], sae.spec.name)
        race.statistics += time.perf_counter() - started
        print(f"part {number + 1}/{len(parts)}: {race.seconds}", file=sys.stderr, flush=True)
    return race


def _second_candidate(parts: Sequence[Part], scratch: Path, place: LocalPlace) -> float:
    """Return the speed of a candidate whose base is committed over that of the first one, evidence alike."""
    candidates = ("configs:candidates/needle", "configs:candidates/benign")
    jobs = [job_over(scratch / "reuse", tuned, keep_residuals=True) for tuned in candidates]
    seconds = [0.0, 0.0]
    for job in jobs:
        _ = job.models.tuned_model
    for part in parts:
        for number, job in enumerate(jobs):
            place.workshop = None
            mine = over(job, part)
            started = time.perf_counter()
            speeds = ours(mine, place)
            seconds[number] += time.perf_counter() - started
            expected = int(part.lengths_P.sum()) * (2 - number)
            assert speeds.num_tokens == expected, "the second candidate reads with its own model alone"
    return seconds[0] / seconds[1]


def _every_block(job: Job, part: Part, scratch: Path, place: LocalPlace) -> float:
    """Return the time of every block, each with a random dictionary, over that of the job's own block."""
    number = int(job.models.base_shape.num_hidden_layers)
    config = job.config.model_copy(update={"hooks": tuple(HookConfig(layer=n) for n in range(number))})
    # Of the job's own models, only the blocks up to its hook are loaded.
    job_of_all = replace(job, models=replace(job.models, config=config))
    saes = random_dictionaries(job_of_all, part, number)
    encoders = job.machine.encoders * number
    entries = [SaeEntry(name=s.spec.name, width=s.spec.width, sha256=s.spec.sha256) for s in saes]
    hooks = tuple(
        HookEntry(name=f"resid_post/{layer}", layer=layer, site="resid_post", saes=[entry])
        for layer, entry in enumerate(entries)
    )
    wide = replace(job_of_all, saes=saes, hooks=hooks, machine=replace(job.machine, encoders=encoders))
    seconds = []
    for name, each in (("one", job), ("all", wide)):
        place.workshop = None
        mine = over(each, part, scratch / f"blocks-{name}")
        ours(over(each, replace(part), scratch / f"warm-{name}"), place)
        started = time.perf_counter()
        ours(mine, place)
        seconds.append(time.perf_counter() - started)
    return seconds[1] / seconds[0]


@torch.inference_mode()
def random_dictionaries(job: Job, part: Part, number: int) -> tuple[JumpReluSae, ...]:
    """Return a dictionary of random directions for each block, of which L0 fire on a token of the part."""
    width, d_in = job.saes[0].spec.width, job.saes[0].spec.d_in
    runner = HfRunner(job.models.tuned_model, [HookPoint(layer) for layer in range(number)])
    batch = part.plan.segments[0][0]
    keep = torch.from_numpy(part.tokens.mask_T[pad_batch(part.tokens, batch, 0).token_T.numpy()])
    seen = runner.run(pad_batch(part.tokens, batch, 0)).hooks
    found = []
    for layer in range(number):
        generator = torch.Generator().manual_seed(layer)
        w_enc_DF = (torch.randn(d_in, width, generator=generator) / d_in**0.5).bfloat16().float()
        pre_TF = seen[f"resid_post/{layer}"][keep].float() @ w_enc_DF
        # Of a massive token nearly everything fires; the median token is what a threshold is set by.
        threshold = float(pre_TF.topk(L0, dim=1).values[:, -1].median())
        spec = replace(job.saes[0].spec, name=f"random-{layer}", layer=layer, sha256=f"random-{layer}")
        found.append(
            JumpReluSae(
                spec,
                w_enc_DF,
                w_enc_DF.T.contiguous(),
                torch.zeros(width),
                torch.zeros(d_in),
                torch.full((width,), max(threshold, 1e-3)),
                apply_b_dec_to_input=False,
            )
        )
    return tuple(found)


def _memory(way: str, num_tokens: int) -> float:
    """Return the peak resident bytes of a process that runs our loop one way over so many tokens."""
    command = [sys.executable, "-m", "ft_audit.benchmarks.precompute", "--child", way, str(num_tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


def _child(way: str, num_tokens: int) -> int:
    """Print the peak memory of the base by itself, or with an adapter beside it, over the same batches."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        ThreadPoolExecutor(1) as prefetch,
        open_scheduler() as threads,
    ):
        job = job_over(Path(scratch) / "store")
        parts = cut(job.suites.suites[0].tokens, num_tokens, job)
        if way == "adapter":
            for part in parts:
                ours(over(job, part), LocalPlace(threads, prefetch))
        else:
            source = resolve_model(job.config.models.base, job.config.base_dir)
            model = load_model(source, DTYPES["bfloat16"], job.models.device)
            runner = HfRunner(model, [HookPoint(job.saes[0].spec.layer)])
            for part in parts:
                for batch in (b for segment in part.plan.segments for b in segment):
                    runner.run(pad_batch(part.tokens, batch, 0))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return 0


if __name__ == "__main__":
    sys.exit(main())
