"""Sparse decoding on every backend, against the product in float64 and the bound of float32 sums."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ft_audit.errors import ConfigError
from ft_audit.kernels.decode import decode, squared_errors
from ft_audit.kernels.sparse_rows import SparseRows

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
UNIT = 2.0**-24  # half a unit in the last place of float32
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
BACKENDS = ("naive", "cpu", pytest.param("triton", marks=needs_triton))


@pytest.fixture(autouse=True)
def _poisoned() -> Iterator[None]:
    """Memory that nobody has written yet holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert bool(torch.empty(8).isnan().all())
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def device_of(backend: str) -> str:
    return "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"


def make_rows(
    num_rows: int, num_features: int, density: float, seed: int = 0, device: str = "cpu"
) -> SparseRows:
    """Random rows, of which one in four is empty and one dense."""
    generator = torch.Generator().manual_seed(seed)
    fires_TF = torch.rand(num_rows, num_features, generator=generator) < density
    fires_TF[1::4] = False
    fires_TF[num_rows // 2 : num_rows // 2 + 1] = density > 0
    indptr_T1 = torch.zeros(num_rows + 1, dtype=torch.int64)
    indptr_T1[1:] = fires_TF.sum(1).cumsum(0)
    value_N = 3.0 * torch.rand(int(indptr_T1[-1]), generator=generator)
    tensors = indptr_T1, fires_TF.nonzero()[:, 1].int(), value_N.bfloat16()
    return SparseRows(*(tensor.to(device) for tensor in tensors), num_features)


def normal(*shape: int, dtype: torch.dtype = FLOAT32, seed: int = 1, device: str = "cpu") -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def exact_and_bound(rows: SparseRows, w_dec_FD: Tensor, b_dec_D: Tensor | None) -> tuple[Tensor, Tensor]:
    """The reconstruction in float64, and the most by which adding it in float32 may be off.

    In any order, n products and a bias pass n + 1 roundings: a product's and the sums' (Higham, 3.1).
    """
    acts_TF, w_FD = rows.dense().double(), w_dec_FD.double()
    exact_TD, size_TD = acts_TF @ w_FD, acts_TF @ w_FD.abs()
    if b_dec_D is not None:
        exact_TD, size_TD = exact_TD + b_dec_D.double(), size_TD + b_dec_D.double().abs()
    roundings_T1 = rows.indptr_T1.diff()[:, None] + 1
    return exact_TD, 1.01 * UNIT * roundings_T1 * size_TD


def check(rows: SparseRows, x_TD: Tensor, w_dec_FD: Tensor, b_dec_D: Tensor | None, backend: str) -> None:
    exact_TD, bound_TD = exact_and_bound(rows, w_dec_FD, b_dec_D)
    decoded_TD = decode(rows, w_dec_FD, b_dec_D, backend)
    assert decoded_TD.dtype == FLOAT32 and decoded_TD.shape == x_TD.shape
    assert bool(((decoded_TD.double() - exact_TD).abs() <= bound_TD).all())

    error_T, square_T = squared_errors(rows, x_TD, w_dec_FD, b_dec_D, backend)
    assert error_T.dtype == square_T.dtype == FLOAT32
    # A component off by `bound` changes its square by at most 2 |x - r| bound + bound^2; then one rounding.
    off_TD = (x_TD.double() - exact_TD).abs()
    exact_T = off_TD.square().sum(1)
    off_T = (2 * off_TD * bound_TD + bound_TD.square()).sum(1)
    assert bool(((error_T.double() - exact_T).abs() <= off_T + 1.01 * UNIT * (exact_T + off_T)).all())
    total_T = x_TD.double().square().sum(1)
    assert bool(((square_T.double() - total_T).abs() <= 1.01 * UNIT * total_T).all())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("num_rows", "d_in", "num_features", "density"),
    [
        (0, 8, 20, 0.5),
        (1, 1, 1, 1.0),
        (3, 7, 63, 0.2),
        (5, 577, 130, 0.1),
        (2, 1100, 40, 0.5),
        (9, 64, 100, 0.0),
    ],
)
def test_agrees_with_the_exact_product_at_any_size(
    backend: str, num_rows: int, d_in: int, num_features: int, density: float
) -> None:
    device = device_of(backend)
    rows = make_rows(num_rows, num_features, density, device=device)
    x_TD, w_dec_FD = normal(num_rows, d_in, device=device), normal(num_features, d_in, seed=2, device=device)
    check(rows, x_TD, w_dec_FD, normal(d_in, seed=3, device=device), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weight_dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize("input_dtype", [FLOAT32, BFLOAT16, torch.float16])
def test_agrees_with_the_exact_product_in_every_precision(
    backend: str, input_dtype: torch.dtype, weight_dtype: torch.dtype, biased: bool
) -> None:
    device = device_of(backend)
    rows = make_rows(4, 50, 0.3, device=device)
    w_dec_FD = normal(50, 40, dtype=weight_dtype, seed=2, device=device)
    b_dec_D = normal(40, seed=3, device=device) if biased else None
    check(rows, normal(4, 40, dtype=input_dtype, device=device), w_dec_FD, b_dec_D, backend)


@settings(max_examples=60, deadline=None)
@given(
    num_rows=st.integers(0, 40),
    d_in=st.integers(1, 70),
    num_features=st.integers(1, 90),
    density=st.sampled_from([0.0, 0.1, 0.9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_draws_agree_with_the_exact_product(
    num_rows: int, d_in: int, num_features: int, density: float, seed: int
) -> None:
    rows = make_rows(num_rows, num_features, density, seed)
    x_TD, w_dec_FD = normal(num_rows, d_in, seed=seed), normal(num_features, d_in, seed=seed + 1)
    for backend in ("naive", "cpu"):
        check(rows, x_TD, w_dec_FD, normal(d_in, seed=seed + 2), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_on_which_nothing_fires_is_the_bias(backend: str) -> None:
    device = device_of(backend)
    indptr_T1, index_N = torch.tensor([0, 0, 1, 1]), torch.tensor([7], dtype=torch.int32)
    rows = SparseRows(*(t.to(device) for t in (indptr_T1, index_N, torch.tensor([2.0]).bfloat16())), 20)
    w_dec_FD, b_dec_D = normal(20, 6, device=device), normal(6, seed=2, device=device)
    decoded_TD = decode(rows, w_dec_FD, b_dec_D, backend)
    assert torch.equal(decoded_TD[[0, 2]], b_dec_D.expand(2, 6))
    error_T, _ = squared_errors(rows, decoded_TD, w_dec_FD, b_dec_D, backend)
    assert error_T.tolist() == [0.0, 0.0, 0.0]  # the reconstruction inside is the one that `decode` gives


def test_the_number_of_threads_changes_no_bit(set_threads: Callable[[int], None]) -> None:
    rows, x_TD = make_rows(101, 200, 0.2), normal(101, 33)
    w_dec_FD, b_dec_D = normal(200, 33, seed=2), normal(33, seed=3)
    results = []
    for threads in (1, 3):
        set_threads(threads)
        results.append(
            (decode(rows, w_dec_FD, b_dec_D, "cpu"), *squared_errors(rows, x_TD, w_dec_FD, b_dec_D, "cpu"))
        )
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_weights_that_are_being_trained_and_views_decode_too() -> None:
    rows = make_rows(5, 30, 0.3)
    w_dec_DF = normal(12, 30, seed=2).requires_grad_()
    decoded_TD = decode(rows, w_dec_DF.t(), None, "cpu")
    assert not decoded_TD.requires_grad
    torch.testing.assert_close(decoded_TD, rows.dense() @ w_dec_DF.detach().t())


def test_what_does_not_fit_together_is_refused() -> None:
    rows, x_TD, w_dec_FD = make_rows(3, 20, 0.5), normal(3, 6), normal(20, 6)
    beyond = SparseRows(rows.indptr_T1, rows.index_N + 1, rows.value_N, 20)
    short = SparseRows(rows.indptr_T1[:-1], rows.index_N, rows.value_N, 20)
    for broken in (beyond, short):
        with pytest.raises(AssertionError):
            decode(broken, w_dec_FD, None, "cpu")
    with pytest.raises(AssertionError):
        decode(rows, w_dec_FD[:-1], None)
    with pytest.raises(AssertionError):
        decode(rows, w_dec_FD, normal(5))
    with pytest.raises(AssertionError):
        squared_errors(rows, x_TD[:-1], w_dec_FD, None)
    with pytest.raises(ConfigError):
        decode(rows, w_dec_FD, None, "quick")


def device_rows(num_rows: int, num_features: int, l0: int) -> SparseRows:
    """Random rows of exactly `l0` features, made on the GPU."""
    generator = torch.Generator("cuda").manual_seed(0)
    step = num_features // l0
    offset_TN = torch.randint(step, (num_rows, l0), generator=generator, device="cuda")
    index_TN = offset_TN + step * torch.arange(l0, device="cuda")
    value_N = 3.0 * torch.rand(num_rows * l0, generator=generator, device="cuda")
    indptr_T1 = l0 * torch.arange(num_rows + 1, device="cuda")
    return SparseRows(indptr_T1, index_TN.flatten().int(), value_N.bfloat16(), num_features)


@pytest.mark.gpu
@pytest.mark.parametrize("weight_dtype", [FLOAT32, BFLOAT16])
@pytest.mark.parametrize(("num_features", "d_in"), [(16_384, 1152), (65_536, 640)])
def test_agrees_with_the_exact_product_at_a_real_size(
    num_features: int, d_in: int, weight_dtype: torch.dtype
) -> None:
    rows = device_rows(16_384, num_features, 64)
    x_TD = normal(16_384, d_in, device="cuda")
    w_dec_FD = normal(num_features, d_in, dtype=weight_dtype, seed=2, device="cuda")
    b_dec_D = normal(d_in, seed=3, device="cuda")
    decoded_TD = decode(rows, w_dec_FD, b_dec_D, "triton")
    error_T, square_T = squared_errors(rows, x_TD, w_dec_FD, b_dec_D, "triton")
    # The dense product of a thousand rows, from the middle, fits.
    part = slice(8_000, 9_000)
    some = SparseRows(
        rows.indptr_T1[8_000:9_001] - rows.indptr_T1[8_000],
        rows.index_N[8_000 * 64 : 9_000 * 64],
        rows.value_N[8_000 * 64 : 9_000 * 64],
        num_features,
    )
    check(some, x_TD[part], w_dec_FD, b_dec_D, "triton")
    assert torch.equal(decode(some, w_dec_FD, b_dec_D, "triton"), decoded_TD[part])
    for whole_T, part_T in zip(
        (error_T, square_T), squared_errors(some, x_TD[part], w_dec_FD, b_dec_D, "triton"), strict=True
    ):
        assert torch.equal(whole_T[part], part_T)


@pytest.mark.gpu
def test_errors_neither_wait_for_the_device_nor_read_from_it() -> None:
    rows, x_TD = device_rows(4096, 16_384, 64), normal(4096, 640, device="cuda")
    w_dec_FD, b_dec_D = normal(16_384, 640, seed=2, device="cuda"), normal(640, seed=3, device="cuda")
    first = squared_errors(rows, x_TD, w_dec_FD, b_dec_D)  # compiles, which may wait
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = squared_errors(rows, x_TD, w_dec_FD, b_dec_D)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
