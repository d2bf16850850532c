"""A small run that tests of the store share; as a script it writes that run and dies on the way.

    python store_case.py STORE DIE_AT     DIE_AT counts the calls of fsync

P prompts, T tokens, N non-zeros.
"""

import os
import signal
import sys

import numpy as np

from ft_audit.engine.store import HookEntry, RunManifest, SaeEntry, SegmentData, Store, encode_bf16

IDENTITY = {"model": {"sha256": "ab" * 32}, "plan": [3, 2], "dtype": "bfloat16"}
SAE = "demo/width_64"
HOOKS = [
    HookEntry(
        name="resid_post/3", layer=3, site="resid_post", saes=[SaeEntry(name=SAE, width=64, sha256="cd" * 32)]
    )
]
NUM_SEGMENTS = 4
NUM_PROMPTS = 6


def make_segment(number: int) -> SegmentData:
    """Return segment `number`: six prompts, stored longest first, with random sparse rows."""
    rng = np.random.default_rng(number)
    lengths_P = np.sort(rng.integers(1, 30, NUM_PROMPTS))[::-1]
    num_tokens = int(lengths_P.sum())
    fires_TF = rng.random((num_tokens, 64)) < 0.1
    # Rows without any feature, at the start, in the middle and at the end.
    fires_TF[[0, num_tokens // 2, -1]] = False
    index_N = np.nonzero(fires_TF)[1].astype(np.int32)
    mean_PD = rng.normal(size=(NUM_PROMPTS, 8)).astype(np.float32)
    return SegmentData(
        prompt_P=rng.permutation(NUM_PROMPTS) + NUM_PROMPTS * (NUM_SEGMENTS - 1 - number),
        prompt_indptr_P1=np.concatenate([[0], np.cumsum(lengths_P)]),
        token_T=rng.integers(0, 49_152, num_tokens).astype(np.int32),
        role_T=rng.integers(0, 6, num_tokens).astype(np.uint8),
        mask_T=rng.random(num_tokens) < 0.9,
        features={
            SAE: (
                np.concatenate([[0], np.cumsum(fires_TF.sum(axis=1))]).astype(np.int64),
                index_N,
                encode_bf16(rng.gamma(2.0, 3.0, index_N.size).astype(np.float32)),
            )
        },
        dense={"resid/3/mean_PD": mean_PD, "resid/3/norm_P": np.linalg.norm(mean_PD, axis=1)},
    )


def write_run(root: str) -> RunManifest:
    """Write the whole run, or what is missing of it."""
    with Store(root).run_writer(IDENTITY, HOOKS) as writer:
        for number in range(NUM_SEGMENTS):
            if number not in writer.committed:
                writer.write_segment(number, make_segment(number))
        return writer.finish()


def die_at_fsync(count: int) -> None:
    """Kill this process with SIGKILL just before its `count`-th fsync."""
    real, calls = os.fsync, [0]

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync


if __name__ == "__main__":
    die_at_fsync(int(sys.argv[2]))
    write_run(sys.argv[1])
