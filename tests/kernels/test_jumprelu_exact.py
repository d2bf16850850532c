"""The promises that only the CPU path makes: the exact sum bit for bit, whatever the blocks and threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights, encode_naive
from ft_audit.kernels.jumprelu.cpu import CpuEncoder
from ft_audit.kernels.sparse_rows import SparseRows

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def make_weights(
    d_in: int,
    width: int,
    dtype: torch.dtype = FLOAT32,
    *,
    b_dec: bool = False,
) -> JumpReluWeights:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return JumpReluWeights(
        w_enc_DF=(normal(d_in, width) / d_in**0.5).to(dtype),
        b_enc_F=0.1 * normal(width),
        threshold_F=1.6 + 0.2 * normal(width),
        b_dec_D=0.5 * normal(d_in) if b_dec else None,
    )


def make_inputs(num_rows: int, d_in: int, dtype: torch.dtype = FLOAT32, seed: int = 1) -> Tensor:
    return torch.randn(num_rows, d_in, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(a: SparseRows, b: SparseRows) -> bool:
    return (
        torch.equal(a.indptr_T1, b.indptr_T1)
        and torch.equal(a.index_N, b.index_N)
        and torch.equal(a.value_N.view(torch.int16), b.value_N.view(torch.int16))
        and a.num_features == b.num_features
    )


@pytest.mark.parametrize("screening", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("weight_dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("input_dtype", [FLOAT32, BFLOAT16])
def test_the_cpu_path_equals_the_exact_sum_bit_for_bit(
    input_dtype: torch.dtype, weight_dtype: torch.dtype, screening: torch.dtype
) -> None:
    weights = make_weights(320, 3000, weight_dtype, b_dec=True)
    x_TD = make_inputs(500, 320, input_dtype)
    exact = encode_naive(x_TD, weights, torch.float64)
    assert same(CpuEncoder(weights, 512, screening).encode(x_TD), exact)


@pytest.mark.parametrize(
    ("has_avx512_bf16", "has_amx", "screening"),
    [(True, False, BFLOAT16), (False, True, BFLOAT16), (False, False, FLOAT32)],
)
def test_screening_uses_what_the_processor_multiplies(
    monkeypatch: pytest.MonkeyPatch, has_avx512_bf16: bool, has_amx: bool, screening: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    weights = make_weights(64, 500, BFLOAT16)
    encoder = CpuEncoder(weights, 256)
    assert encoder.screening == screening
    x_TD = make_inputs(100, 64)
    assert same(encoder.encode(x_TD), encode_naive(x_TD, weights, torch.float64))


def test_a_row_does_not_depend_on_its_neighbours_blocks_or_threads(two_threads: None) -> None:
    weights = make_weights(160, 1200, BFLOAT16)
    x_TD = make_inputs(101, 160)
    whole = Encoder(weights, "cpu").encode(x_TD)
    assert same(Encoder(weights, "cpu").encode(x_TD), whole)
    assert same(Encoder(weights, "cpu", max_rows=7).encode(x_TD), whole)
    torch.set_num_threads(1)
    assert same(Encoder(weights, "cpu").encode(x_TD), whole)
    one_by_one = Encoder(weights, "cpu", max_rows=1).encode(x_TD[:20])
    assert torch.equal(one_by_one.dense(), whole.dense()[:20])


def test_stale_and_poisoned_buffers_never_show(two_threads: None) -> None:
    weights = make_weights(64, 700)
    encoder = CpuEncoder(weights, 256, BFLOAT16)
    x_TD = make_inputs(100, 64)
    fresh = CpuEncoder(weights, 256, BFLOAT16).encode(x_TD)
    encoder.encode(100.0 * make_inputs(256, 64, seed=9))
    encoder.screened(256).fill_(float("nan"))
    for part in encoder._parts:
        part.candidate_C.fill(-1)
    assert same(encoder.encode(x_TD), fresh)


def test_results_do_not_share_memory_with_the_next_call() -> None:
    encoder = Encoder(make_weights(64, 700), "cpu")
    first = encoder.encode(make_inputs(100, 64))
    kept = SparseRows(first.indptr_T1.clone(), first.index_N.clone(), first.value_N.clone(), 700)
    encoder.encode(100.0 * make_inputs(100, 64, seed=9))
    assert same(first, kept)


@pytest.mark.parametrize("screening", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 40])
@pytest.mark.parametrize("d_in", [64, 577, 2048])
def test_the_screening_product_stays_within_its_bound(
    d_in: int, num_rows: int, screening: torch.dtype
) -> None:
    # The bound in cpu.py's first comment: torch must sum in float32 for every shape it is asked for.
    weights = make_weights(d_in, 600)
    encoder = CpuEncoder(weights, num_rows, screening)
    x_TD = make_inputs(num_rows, d_in)
    encoder.encode(x_TD)
    x_TD, w_DF = x_TD.double(), weights.w_enc_DF.double()
    coarse_TD, coarse_DF = x_TD.to(screening).double(), w_DF.to(screening).double()
    norm_TF = coarse_TD.norm(dim=1)[:, None] * (
        (w_DF - coarse_DF).norm(dim=0) + (d_in + 2) * 2.0**-23 * coarse_DF.norm(dim=0)
    )
    band_TF = norm_TF + (x_TD - coarse_TD).norm(dim=1)[:, None] * w_DF.norm(dim=0)
    exact_TF = x_TD @ w_DF
    stored = 2.0**-8 if screening == BFLOAT16 else 0.0
    off_TF = (encoder.screened(num_rows).double() - exact_TF).abs()
    assert bool((off_TF <= (1 + stored) * band_TF + stored * exact_TF.abs()).all())
    assert float(off_TF.max()) > 0
