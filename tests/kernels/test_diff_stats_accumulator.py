"""The accumulated diff statistics: every backend, batch after batch, against the dense formula to the bit."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ft_audit.kernels.diff_stats import PairMoments, PairRows, naive
from ft_audit.kernels.diff_stats.accumulator import PairAccumulator
from ft_audit.kernels.diff_stats.batch import PairBatch
from ft_audit.kernels.sparse_rows import SparseRows

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
TRITON = pytest.param("triton", marks=needs_triton)
BACKENDS = ("naive", "cpu", TRITON)


@dataclass(frozen=True)
class Case:
    """Prompt lengths of each batch, and how the rows look."""

    lengths: Sequence[Sequence[int]]
    num_features: int
    density: float = 0.3
    masked: float = 0.2
    num_groups: int = 1


CASES = {
    "one token, one feature": Case([[1]], 1, density=1.0, masked=0.0),
    "one feature, long prompts": Case([[17, 30]], 1, density=0.9),
    "63 features": Case([[5, 0, 9, 1], [3]], 63),
    "130 features, batches of several sizes": Case([[4], [], [1, 2, 3], [6, 2]], 130, density=0.1),
    "every feature on every token, rows longer than a step": Case([[3, 2], [1]], 300, density=1.0),
    "nothing fires": Case([[4, 3]], 40, density=0.0),
    "nothing counts": Case([[4, 3]], 40, masked=1.0),
    "no tokens": Case([[0, 0], []], 10),
    "three groups": Case([[3, 1, 4], [1, 5, 2]], 65, num_groups=3),
}


def device_of(backend: str) -> str:
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


def random_rows(rng: np.random.Generator, shared_TF: np.ndarray) -> SparseRows:
    """Rows whose values span so many powers of two that fp64 sums depend on their order."""
    fires_TF = torch.from_numpy(shared_TF & (rng.random(shared_TF.shape) < 0.7 + 0.3 * shared_TF.all()))
    size = (int(fires_TF.sum()),)
    value_N = torch.from_numpy(np.exp2(rng.uniform(-40.0, 16.0, size))).bfloat16()
    indptr_T1 = torch.zeros(shared_TF.shape[0] + 1, dtype=torch.int64)
    indptr_T1[1:] = fires_TF.sum(1).cumsum(0)
    return SparseRows(indptr_T1, fires_TF.nonzero()[:, 1].int(), value_N, shared_TF.shape[1])


def random_batches(case: Case, seed: int = 0) -> list[PairBatch]:
    rng = np.random.default_rng(seed)
    batches = []
    for lengths in case.lengths:
        num_tokens = sum(lengths)
        shared_TF = rng.random((num_tokens, case.num_features)) < case.density
        batches.append(
            PairBatch(
                base=random_rows(rng, shared_TF),
                tuned=random_rows(rng, shared_TF),
                prompt_indptr_P1=torch.tensor([0, *lengths]).cumsum(0),
                mask_T=torch.from_numpy(rng.random(num_tokens) >= case.masked),
                groups_GP=torch.from_numpy(
                    rng.random((case.num_groups, len(lengths))) < (0.6 if case.num_groups > 1 else 1.0)
                ),
            )
        )
    return batches


def moved(rows: SparseRows, device: str) -> SparseRows:
    tensors = (tensor.to(device) for tensor in (rows.indptr_T1, rows.index_N, rows.value_N))
    return SparseRows(*tensors, rows.num_features)


def add(accumulator: PairAccumulator, batch: PairBatch) -> None:
    device = str(accumulator.device)
    sides = moved(batch.base, device), moved(batch.tuned, device)
    accumulator.add(*sides, batch.prompt_indptr_P1, batch.mask_T, batch.groups_GP)


def accumulated(case: Case, batches: Sequence[PairBatch], backend: str) -> list[PairMoments]:
    accumulator = PairAccumulator(case.num_features, case.num_groups, backend, device_of(backend))
    assert accumulator.backend == backend
    for batch in batches:
        add(accumulator, batch)
    return accumulator.result()


def from_the_formula(case: Case, batches: Sequence[PairBatch]) -> list[PairMoments]:
    on_host = [batch.on_host() for batch in batches]
    rows = PairRows.concatenate([PairRows.nothing(case.num_features), *(rows for rows, _ in on_host)])
    no_groups = np.empty((case.num_groups, 0), dtype=bool)
    return naive.group_moments(rows, np.concatenate([no_groups, *(groups for _, groups in on_host)], axis=1))


def assert_same_bits(got: Sequence[PairMoments], expected: Sequence[PairMoments]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert (one.num_tokens, one.num_prompts) == (other.num_tokens, other.num_prompts)
        for name, array in other.arrays().items():
            assert one.arrays()[name].dtype == array.dtype, name
            bits = one.arrays()[name].view(np.int64), array.view(np.int64)
            np.testing.assert_array_equal(*bits, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_backend_gives_the_bits_of_the_formula(case: Case, backend: str) -> None:
    batches = random_batches(case)
    assert_same_bits(accumulated(case, batches, backend), from_the_formula(case, batches))


@pytest.mark.parametrize(
    ("backend", "examples"), [("cpu", 60), pytest.param("triton", 6, marks=needs_triton)]
)
def test_random_draws_give_the_bits_of_the_formula(backend: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        lengths=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=3),
        num_features=st.sampled_from([1, 2, 63, 64, 65]),
        density=st.sampled_from([0.05, 0.5, 1.0]),
        masked=st.sampled_from([0.0, 0.3]),
        num_groups=st.integers(1, 3),
    )
    def check(
        seed: int,
        lengths: list[list[int]],
        num_features: int,
        density: float,
        masked: float,
        num_groups: int,
    ) -> None:
        case = Case(lengths, num_features, density, masked, num_groups)
        batches = random_batches(case, seed)
        assert_same_bits(accumulated(case, batches, backend), from_the_formula(case, batches))

    check()


def test_these_draws_tell_one_order_of_adding_from_another() -> None:
    case = Case([[40]], 8, density=0.9, masked=0.0)
    rows, _ = random_batches(case)[0].on_host()
    dense_TF = naive.dense(rows.base, 8)
    forward, backward = naive.in_order(dense_TF), naive.in_order(dense_TF[::-1])
    np.testing.assert_allclose(forward, backward, rtol=1e-12)
    assert (forward != backward).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_result_in_between_changes_nothing(backend: str) -> None:
    case = Case([[2, 3], [4]], 20)
    batches = random_batches(case)
    accumulator = PairAccumulator(20, 1, backend, device_of(backend))
    add(accumulator, batches[0])
    first = accumulator.result()
    add(accumulator, batches[1])
    assert_same_bits(first, from_the_formula(case, batches[:1]))
    assert_same_bits(accumulator.result(), from_the_formula(case, batches))


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_groups_each_holds_every_prompt(backend: str) -> None:
    batch = random_batches(Case([[2, 3]], 20))[0]
    device = device_of(backend)
    accumulator = PairAccumulator(20, 2, backend, device)
    sides = moved(batch.base, device), moved(batch.tuned, device)
    accumulator.add(*sides, batch.prompt_indptr_P1, batch.mask_T)
    assert_same_bits(accumulator.result(), 2 * from_the_formula(Case([[2, 3]], 20), [batch]))


@needs_triton
def test_waves_of_few_slots_give_the_same_bits() -> None:
    from ft_audit.kernels.diff_stats.triton_totals import BYTES_A_FEATURE, TritonTotals

    case = Case([[2], [3, 1, 0, 2, 4], [1, 1, 1]], 70, num_groups=2)
    batches = random_batches(case)
    device = torch.device(device_of("triton"))
    # Room for two and a half slots, so two; then for less than one, and one there must be.
    for scratch_bytes in (70 * BYTES_A_FEATURE * 5 // 2, 1):
        totals = TritonTotals(70, 2, device, scratch_bytes)
        for batch in batches:
            sides = moved(batch.base, str(device)), moved(batch.tuned, str(device))
            totals.add(PairBatch(*sides, batch.prompt_indptr_P1, batch.mask_T, batch.groups_GP))
        assert_same_bits(totals.result(), from_the_formula(case, batches))


def test_what_does_not_fit_together_is_refused() -> None:
    batch = random_batches(Case([[2, 3]], 20))[0]
    pointers, mask_T = batch.prompt_indptr_P1, batch.mask_T
    with pytest.raises(AssertionError):
        PairAccumulator(21).add(batch.base, batch.tuned, pointers, mask_T)
    with pytest.raises(AssertionError):
        PairAccumulator(20, 2).add(batch.base, batch.tuned, pointers, mask_T, batch.groups_GP)
    with pytest.raises(AssertionError):
        PairAccumulator(20).add(batch.base, batch.tuned, pointers, mask_T[:-1])
    with pytest.raises(AssertionError):
        PairAccumulator(20).add(batch.base, batch.tuned, pointers.int(), mask_T)
    with pytest.raises(AssertionError):
        PairAccumulator(20).add(batch.base, batch.tuned, pointers - 1, mask_T)
    with pytest.raises(AssertionError):
        PairAccumulator(20).add(batch.base, batch.tuned, pointers[[0, 2, 1, 2]], mask_T)


COMPILE = """
import re
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from ft_audit.kernels.diff_stats.triton_kernels import add_prompts_fwd_kernel as kernel

types = ["*fp64", "*fp64", "*u8", "*i64", "*u8", "*fp64", *["i32"] * 5, "constexpr"]
source = ASTSource(kernel, dict(zip(kernel.arg_names, types)), {(len(types) - 1,): 64})
for fused in (True, False):
    options = {"num_warps": 2, "enable_fp_fusion": fused}
    text = compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    print(len(re.findall(r"fma\\.\\w+\\.f64", text)), len(re.findall(r"div\\.rn\\.f64", text)))
"""


@needs_triton
def test_squares_of_differences_are_compiled_without_fused_multiply_add(tmp_path: Path) -> None:
    # For Hopper, on any machine: compiled code needs no GPU to be read, but an interpreter that is off.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    compiled = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr
    # d * d and r * r, which fusion would take; both quotients rounded as IEEE 754 says.
    assert compiled.stdout.split() == ["2", "2", "0", "2"]


def device_rows(num_tokens: int, num_features: int, l0: int, seed: int) -> SparseRows:
    """Random rows of exactly `l0` features, made on the GPU."""
    generator = torch.Generator("cuda").manual_seed(seed)
    step = num_features // l0
    offset_TN = torch.randint(step, (num_tokens, l0), generator=generator, device="cuda")
    index_TN = offset_TN + step * torch.arange(l0, device="cuda")
    value_TN = torch.exp2(56 * torch.rand(num_tokens, l0, generator=generator, device="cuda") - 40)
    indptr_T1 = l0 * torch.arange(num_tokens + 1, device="cuda")
    return SparseRows(indptr_T1, index_TN.flatten().int(), value_TN.flatten().bfloat16(), num_features)


def device_prompts(num_tokens: int, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    edges = np.unique(rng.integers(1, num_tokens, num_tokens // 100))
    prompt_indptr_P1 = torch.from_numpy(np.concatenate([[0], edges, [num_tokens]]))
    mask_T = torch.from_numpy(rng.random(num_tokens) > 0.1)
    return prompt_indptr_P1, mask_T, torch.from_numpy(rng.random((num_groups, len(edges) + 1)) < 0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("num_features", [16_384, 65_536, 1_048_576])
def test_batches_of_a_real_size_give_the_bits_of_the_cpu(num_features: int) -> None:
    num_tokens, num_groups = 16_384, 2
    on_device = PairAccumulator(num_features, num_groups, "triton", "cuda")
    on_host = PairAccumulator(num_features, num_groups, "cpu")
    prompts = device_prompts(num_tokens, num_groups)
    for seed in (0, 2):
        base, tuned = (device_rows(num_tokens, num_features, 64, seed + side) for side in range(2))
        on_device.add(base, tuned, *prompts)
        on_host.add(moved(base, "cpu"), moved(tuned, "cpu"), *prompts)
    assert_same_bits(on_device.result(), on_host.result())


@pytest.mark.gpu
def test_adding_neither_waits_for_the_device_nor_reads_from_it() -> None:
    accumulator = PairAccumulator(16_384, 2, "auto", "cuda")
    assert accumulator.backend == "triton"
    base, tuned = (device_rows(4096, 16_384, 64, seed) for seed in range(2))
    prompts = device_prompts(4096, 2)
    accumulator.add(base, tuned, *prompts)  # compiles, which may wait
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")  # a copy to the host is one that waits
    try:
        accumulator.add(base, tuned, *prompts)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert accumulator.result()[0].num_prompts > 0
