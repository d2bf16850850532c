"""Which backend encodes, what it says of itself, and what no backend accepts."""

import re
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from ft_audit.errors import ConfigError, ModelError, SaeError
from ft_audit.kernels.jumprelu import Encoder, JumpReluWeights, arithmetic, backends, encode, resolve_backend
from ft_audit.kernels.sparse_rows import SparseRows

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # or Triton's interpreter


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
BACKENDS = ("cpu", "naive", pytest.param("triton", marks=needs_triton))


def make_weights(device: torch.device | None = None) -> JumpReluWeights:
    """Of 16 features that read 8 dimensions."""
    w_enc_DF = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).to(device)
    return JumpReluWeights(w_enc_DF, torch.zeros(16, device=device), torch.ones(16, device=device), None)


def encode_with(x_TD: Tensor, backend: str) -> SparseRows:
    device = GPU if backend == "triton" else torch.device("cpu")
    return encode(x_TD.to(device), make_weights(device), backend)


# The interpreter multiplies what a device would: infinity by zero.
@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_numbers_are_refused(backend: str, bad: float) -> None:
    x_TD = torch.ones(20, 8)
    x_TD[13, 3] = bad
    with pytest.raises(ModelError, match="row 13 of 20"):
        encode_with(x_TD, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_width_is_refused(backend: str) -> None:
    with pytest.raises(SaeError, match="reads 8 dimensions, the activations have 9"):
        encode_with(torch.ones(3, 9), backend)


def test_auto_becomes_a_concrete_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_backend("auto", torch.device("cpu")) == "cpu"
    assert resolve_backend("auto", torch.device("mps")) == "naive"
    assert resolve_backend("auto", torch.device("cuda")) == "triton"
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert resolve_backend("auto", torch.device("cuda")) == "naive"
    assert Encoder(make_weights()).backend == "cpu"


def test_an_encoder_says_what_it_chose() -> None:
    weights = make_weights()
    assert Encoder(weights, "naive").describe() == "naive"
    assert re.fullmatch("cpu: (int8|bfloat16|float32) screening", Encoder(weights, "cpu").describe())
    assert re.fullmatch(r"triton: fused \d+x\d+x\d+", Encoder(make_weights(GPU), "triton").describe())


@pytest.mark.parametrize(
    ("name", "device", "says"),
    [
        ("triton", "cpu", "no GPU is in use here; use backend 'auto'"),
        ("triton", "mps", "no GPU is in use here; use backend 'auto'"),
        ("cpu", "cuda", "cannot read tensors on cuda"),
        ("fast", "cpu", "'fast' is unknown; choose one of auto, triton, cpu, naive"),
    ],
)
def test_a_backend_that_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str, says: str
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match=says):
        resolve_backend(name, torch.device(device))


def test_triton_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="package triton is not installed; pip install triton, or use"):
        resolve_backend("triton", torch.device("cuda"))


def test_the_bits_of_triton_depend_on_its_plan_and_those_of_the_cpu_on_nothing() -> None:
    cpu, wide = torch.device("cpu"), (576, 16384, torch.bfloat16)
    assert arithmetic("cpu", cpu, *wide) == "cpu"
    assert arithmetic("naive", cpu, *wide) == "naive"
    pytest.importorskip("triton")
    assert re.fullmatch(r"triton \d[\w.+]*: fused \d+x\d+x\d+", arithmetic("triton", cpu, *wide))
