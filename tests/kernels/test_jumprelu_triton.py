"""The Triton encoder's own promises: exact overflow, clean buffers, the same bits, the table."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ft_audit.kernels.jumprelu import JumpReluWeights
from ft_audit.kernels.jumprelu.triton_encoder import TritonEncoder
from ft_audit.kernels.jumprelu.triton_folding import fold
from ft_audit.kernels.jumprelu.triton_paths import FusedPath
from ft_audit.kernels.jumprelu.triton_plans import (
    CANDIDATES,
    TABLE,
    FusedPlan,
    MatmulPlan,
    Plan,
    Row,
    choose_plan,
    nearest_row,
)
from ft_audit.kernels.jumprelu.triton_tune import num_wrong, tune
from ft_audit.kernels.sparse_rows import SparseRows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FUSED, MATMUL = FusedPlan(64, 64, 32, 4, 2), MatmulPlan(50, 130)
BOTH = pytest.mark.parametrize("plan", [FUSED, MATMUL], ids=["fused", "matmul"])


def drawn(
    num_rows: int,
    d_in: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    *,
    cut: float = 1.5,
    seed: int = 0,
) -> tuple[Tensor, JumpReluWeights]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    w_enc_DF = (normal(d_in, width) / d_in**0.5).to(DEVICE, dtype)
    b_enc_F, threshold_F = (0.1 * normal(width)).to(DEVICE), (cut + 0.2 * normal(width)).to(DEVICE)
    return normal(num_rows, d_in).to(DEVICE, dtype), JumpReluWeights(w_enc_DF, b_enc_F, threshold_F, None)


def same(a: SparseRows, b: SparseRows) -> bool:
    return (
        torch.equal(a.indptr_T1, b.indptr_T1)
        and torch.equal(a.index_N, b.index_N)
        and torch.equal(a.value_N.view(torch.int16), b.value_N.view(torch.int16))
    )


@settings(max_examples=200, deadline=None)
@given(
    bias=st.floats(-(2.0**100), 2.0**100, width=32),
    threshold=st.floats(-1.0, 2.0**100, width=32) | st.just(float("inf")),
)
def test_the_folded_threshold_decides_as_the_rounded_sum_does(bias: float, threshold: float) -> None:
    bias_F, threshold_F = torch.tensor([bias]), torch.tensor([threshold])
    folded = fold(JumpReluWeights(torch.ones(1, 1), bias_F, threshold_F, None))
    cut_F = threshold_F.clamp_min(0.0)
    assert torch.equal(folded.bias_F, bias_F)
    assert bool(folded.cut_F + bias_F <= cut_F)
    if threshold < float("inf"):
        assert bool(torch.nextafter(folded.cut_F, torch.tensor(float("inf"))) + bias_F > cut_F)


def test_the_folded_bias_is_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    w_enc_DF, b_dec_D = torch.randn(300, 9000, generator=generator), torch.randn(300, generator=generator)
    folded = fold(JumpReluWeights(w_enc_DF, torch.ones(9000), torch.ones(9000), b_dec_D))
    exact_F = 1.0 - b_dec_D.double() @ w_enc_DF.double()
    # Float64 sums differ by order; rounded to float32 they are neighbours at most.
    assert bool(((folded.bias_F.double() - exact_F).abs() <= 2.0**-24 * exact_F.abs() * 1.001 + 1e-12).all())


@BOTH
@pytest.mark.parametrize(
    ("capacity", "num_finds"), [(37, 1), (36, 2), (3, 2)], ids=["full", "one over", "far"]
)
def test_a_row_past_its_capacity_is_found_again_whole(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, capacity: int, num_finds: int
) -> None:
    # Row 1 of every three fires on 37 features, the others on one.
    width = 150
    w_enc_DF = torch.zeros(2, width)
    w_enc_DF[0, 3:150:4] = 1.0
    w_enc_DF[1, 70] = 1.0
    x_MD = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 1.0]]).repeat(40, 1)
    weights = JumpReluWeights(w_enc_DF, torch.zeros(width), torch.full((width,), 0.5), None)
    weights = JumpReluWeights(
        *(each.to(DEVICE) for each in (w_enc_DF, weights.b_enc_F, weights.threshold_F)), None
    )
    encoder = TritonEncoder(weights, 120, capacity, plan, at_work=1)
    calls: list[int] = []
    path = encoder._path(torch.float32)
    find: Callable[..., Tensor] = path.find

    def counted(x_MD: Tensor, *args: object) -> Tensor:
        calls.append(x_MD.shape[0])
        return find(x_MD, *args)

    monkeypatch.setattr(path, "find", counted)
    rows = encoder.encode(x_MD.to(DEVICE))
    expected_MF = (x_MD @ w_enc_DF).to(DEVICE)
    assert torch.equal(rows.dense(), expected_MF)
    assert len(calls) == num_finds
    if num_finds == 2 and isinstance(plan, FusedPlan):
        assert calls == [120, 40]  # only the rows that overflowed


@BOTH
@pytest.mark.parametrize("capacity", [512, 5])
def test_stale_and_poisoned_buffers_never_show(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, capacity: int
) -> None:
    x_MD, weights = drawn(70, 40, 200)
    expected = TritonEncoder(weights, 100, capacity, plan).encode(x_MD)
    empty = torch.empty

    def poisoned(*args: object, **options: object) -> Tensor:
        return empty(*args, **options).fill_(-7)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", poisoned)
    encoder = TritonEncoder(weights, 100, capacity, plan)
    encoder.encode(50.0 * drawn(100, 40, 1, seed=9)[0])
    encoder._slots.index_E.fill_(-7)
    encoder._slots.value_E.fill_(float("nan"))
    assert same(encoder.encode(x_MD), expected)


def test_a_row_does_not_depend_on_neighbours_splits_blocks_or_capacity() -> None:
    x_MD, weights = drawn(101, 160, 200)
    whole = TritonEncoder(weights, 128, plan=FUSED, at_work=1).encode(x_MD)
    assert whole.num_nonzeros > 1000
    for at_work, capacity in ((1, 512), (100, 512), (100, 4)):
        encoder = TritonEncoder(weights, 128, capacity, FUSED, at_work)
        assert same(encoder.encode(x_MD), whole)
        parts = [encoder.encode(x_md) for x_md in x_MD.split([1, 63, 37])]
        assert same(SparseRows.concatenate(parts), whole)


def test_the_same_block_gives_the_same_bits_on_the_vendors_product() -> None:
    x_MD, weights = drawn(101, 160, 300)
    encoder = TritonEncoder(weights, 128, plan=MATMUL)
    first = encoder.encode(x_MD)
    assert same(encoder.encode(x_MD), first)
    assert same(TritonEncoder(weights, 128, plan=MATMUL, capacity=4).encode(x_MD), first)


def test_reserved_memory_does_not_grow_with_the_rows() -> None:
    x_MD, weights = drawn(16, 8, 300)
    encoder = TritonEncoder(weights, 16, capacity=32, plan=FUSED, at_work=4)
    for stop in (16, 3, 1, 16):
        encoder.encode(x_MD[:stop])
        # A split multiplies the sub-rows, up to the programs at work.
        assert encoder._slots.index_E.numel() <= 4 * 16 * 32


@pytest.mark.parametrize("width", [1, 64, 65, 1000, 16384])
@pytest.mark.parametrize("at_work", [1, 3, 132, 10**6])
@pytest.mark.parametrize("num_rows", [1, 64, 65, 100_000])
def test_no_split_is_empty_and_together_they_fill_the_device(width: int, at_work: int, num_rows: int) -> None:
    weights = drawn(1, 1, width)[1]
    splits = FusedPath(weights.w_enc_DF, fold(weights), FUSED, at_work).splits(num_rows)
    num_tiles, num_blocks = -(-width // 64), -(-num_rows // 64)
    tiles_a_split = -(-num_tiles // splits)
    assert (splits - 1) * tiles_a_split < num_tiles <= splits * tiles_a_split
    assert splits == 1 or splits * num_blocks <= at_work


def test_the_nearest_row_of_the_table_is_taken() -> None:
    def row(capability: tuple[int, int], d_in: int, width: int) -> Row:
        return Row(capability, "bfloat16", d_in, width, MatmulPlan(d_in, width), measured=True)

    table = (row((8, 0), 1152, 16384), row((9, 0), 640, 16384), row((9, 0), 2304, 65536))
    assert nearest_row(table, (8, 9), 9, 9, "bfloat16") is table[0]
    assert nearest_row(table, (7, 5), 9, 9, "bfloat16") is table[0]
    assert nearest_row(table, (9, 0), 896, 16384, "bfloat16") is table[1]
    assert nearest_row(table, (10, 0), 2304, 262144, "bfloat16") is table[2]
    for dtype in ("bfloat16", "float32"):
        assert isinstance(choose_plan(DEVICE, 1152, 16384, dtype), FusedPlan | MatmulPlan)


def test_tuning_checks_and_ranks_every_candidate() -> None:
    x_TD, weights = drawn(40, 24, 130)
    tried = tune(weights, x_TD, candidates=(FUSED, MATMUL), repeats=1)
    assert {each.row.plan for each in tried} == {FUSED, MATMUL}
    rates = [each.tokens_per_second or 0.0 for each in tried]
    assert rates == sorted(rates, reverse=True) and min(rates) > 0
    assert {(each.row.dtype, each.row.d_in, each.row.width) for each in tried} == {("float32", 24, 130)}
    rows = TritonEncoder(weights, 40, plan=FUSED).encode(x_TD)
    assert num_wrong(rows, x_TD[:30], weights) == 0
    rows.index_N[3] = (rows.index_N[3] + 1) % 130
    assert num_wrong(rows, x_TD[:30], weights) > 0


@pytest.mark.slow
def test_every_plan_of_the_table_compiles_without_spilling_its_accumulators() -> None:
    """Compiled for the device, as the interpreter never does; needs no GPU."""
    script = Path(__file__).with_name("compile_case.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(script)], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(compiled) == len([row for row in TABLE if isinstance(row.plan, FusedPlan)])
    for each in compiled:
        cores_memory = {8: 164, 9: 228}[each["capability"][0]] * 1024
        # A program's own memory and 1 KiB that the device keeps for it.
        assert (each["shared_bytes"] + 1024) * each["programs_a_core"] <= cores_memory, each
        # 128 accumulators of a thread are 512 bytes: a layout that moves the tile spills thousands.
        assert each["stack_bytes"] <= 512, each
        assert each["registers"] * each["threads"] * each["programs_a_core"] <= 65536, each


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
@pytest.mark.parametrize("num_rows", [1, 63, 1000, 20_000])
@pytest.mark.parametrize(("d_in", "width"), [(576, 16384), (1152, 16384), (1152, 65536), (2304, 32768)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("plan", [None, MatmulPlan(1536, 2816)], ids=["table", "matmul"])
def test_natively_at_real_sizes(
    dtype: torch.dtype, d_in: int, width: int, num_rows: int, plan: Plan | None
) -> None:
    x_MD, weights = drawn(num_rows, d_in, width, dtype, cut=2.7)
    encoder = TritonEncoder(weights, 20_000, plan=plan)
    rows = encoder.encode(x_MD)
    assert num_wrong(rows, x_MD[:256], weights) == 0
    assert same(encoder.encode(x_MD), rows)
    assert same(TritonEncoder(weights, 20_000, capacity=20, plan=plan).encode(x_MD), rows)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
@pytest.mark.parametrize("plan", CANDIDATES, ids=str)
def test_every_candidate_natively(plan: Plan) -> None:
    x_MD, weights = drawn(3000, 1152, 16384, torch.bfloat16, cut=2.7)
    (tried,) = tune(weights, x_MD, candidates=(plan,), repeats=1)  # checks before it times
    assert tried.problem is None or "out of resource" in tried.problem
