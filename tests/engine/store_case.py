"""A small run and diff that tests of the store share; as a script it writes the run and dies on the way.

    python store_case.py STORE fsync|put COUNT     COUNT counts the calls of fsync, or the files put

P prompts, T tokens, D hidden width, N non-zeros.
"""

import os
import signal
import sys
from typing import Any

import numpy as np

from ft_audit.engine.store import HookEntry, RunManifest, SaeEntry, SegmentData, Store, encode_bf16
from ft_audit.engine.store.seal import TreeWriter

IDENTITY = {"model": {"sha256": "ab" * 32}, "plan": [3, 2], "dtype": "bfloat16"}
SAE = "demo/width_64"
HOOKS = [
    HookEntry(
        name="resid_post/3", layer=3, site="resid_post", saes=[SaeEntry(name=SAE, width=64, sha256="cd" * 32)]
    )
]
NUM_SEGMENTS = 4
NUM_PROMPTS = 6
SUMMARY = {"name": "demo", "figures": {"x": 1.5}, "suites": [{"name": "chat", "base_run": "a" * 16}]}


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
        tokens={"resid/3/bits_TD": rng.integers(0, 1 << 16, (num_tokens, 8)).astype(np.uint16)},
        stats={"resid/3/gram_DD": mean_PD.T @ mean_PD, "loss": np.array(rng.random())},
    )


def write_run(root: str) -> RunManifest:
    """Write the whole run, or what is missing of it."""
    with Store(root).run_writer(IDENTITY, HOOKS) as writer:
        for number in range(NUM_SEGMENTS):
            if number not in writer.committed:
                writer.write_segment(number, make_segment(number))
        return writer.finish()


def write_diff(root: str, identity: dict[str, Any], z: float = 0.5) -> str:
    """Write a diff of every kind of part and return its id."""
    import pyarrow as pa

    with Store(root).diff_writer(identity) as writer:
        writer.put_stats("features/demo/chat", {"z": np.array([z, np.nan]), "n": np.arange(2)})
        writer.put_stats("fvu/demo", {"base": np.zeros((2, 3), np.float32)})
        writer.put_table("rows", pa.table({"row": [1, 2], "tokens": [["a", "b"], []]}))
        sink = writer.array_sink("demo/token_N", np.uint32, chunk_elements=8)
        sink.append(np.arange(20, dtype=np.uint32))
        sink.close()
        return writer.finish(SUMMARY).diff_id


def contents(root: str, folder: str = "") -> dict[str, bytes]:
    """Return every file of a store by its key."""
    place = Store(root).place
    found = {file.key: place.read(file.key) for file in place.files(folder)}
    return {key: content for key, content in found.items() if content is not None}


def copy_store(root: str, target: str) -> str:
    """Copy a store and return where to."""
    place = Store(target).place
    for key, content in contents(root).items():
        place.replace(key, content)
    return target


def flip(root: str, key: str, bit: int | None = None) -> None:
    """Change one bit of a stored file, by default in its middle."""
    place = Store(root).place
    content = bytearray(place.read(key) or b"")
    bit = len(content) * 4 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    place.replace(key, bytes(content))


def die_at(kind: str, count: int) -> None:
    """Kill this process with SIGKILL just before its `count`-th fsync, or its `count`-th file."""
    owner, name = (os, "fsync") if kind == "fsync" else (TreeWriter, "_write")
    real, calls = getattr(owner, name), [0]

    def deadly(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)

    setattr(owner, name, deadly)


if __name__ == "__main__":
    die_at(sys.argv[2], int(sys.argv[3]))
    write_run(sys.argv[1])
