"""Owns the choice of a backend: explicit names are honoured or refused, `auto` becomes a concrete one."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec

import torch

from ft_audit.errors import ConfigError

BACKENDS = ("auto", "triton", "cpu", "naive")


def resolve_backend(name: str, device: torch.device) -> str:
    """The concrete backend (`triton`, `cpu`, `naive`) for tensors on `device`.

    Raises ConfigError for what cannot run there, with what can; never falls back.
    """
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if name == "triton":
        _check_triton(device)
    if name == "cpu" and device.type != "cpu":
        raise ConfigError(f"backend 'cpu' cannot read tensors on {device}; use 'auto', or device 'cpu'")
    if name == "auto":
        if device.type == "cuda":
            return "triton" if has_triton() else "naive"
        return "cpu" if device.type == "cpu" else "naive"
    return name


def arithmetic(backend: str, device: torch.device, d_in: int, width: int, product_dtype: torch.dtype) -> str:
    """What the bits of a result depend on beside its inputs, on one kind of device.

    The CPU's are those of exact sums, whatever screens; Triton's also depend on its compiler and the plan.
    """
    if backend != "triton":
        return backend
    from ft_audit.kernels.jumprelu.triton_plans import choose_plan

    plan = choose_plan(device, d_in, width, str(product_dtype).removeprefix("torch."))
    return f"triton {version('triton')}: {plan}"


def has_triton() -> bool:
    """Whether Triton is installed; it is loaded only by what uses it."""
    return find_spec("triton") is not None


def _check_triton(device: torch.device) -> None:
    # Triton's interpreter runs the same programs on the processor: for tests, hundreds of times slower.
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device.type != "cuda" and not interpreted:
        raise ConfigError(
            "backend 'triton': no GPU is in use here; use backend 'auto', which picks what can run"
        )
    if not has_triton():
        raise ConfigError(
            "backend 'triton': the package triton is not installed; "
            "pip install triton, or use backend 'auto', which picks what can run"
        )
