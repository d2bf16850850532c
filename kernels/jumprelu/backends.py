"""Owns the choice of a backend: explicit names are honoured or refused, `auto` becomes a concrete one."""

from __future__ import annotations

import torch

from ft_audit.errors import ConfigError

BACKENDS = ("auto", "triton", "cpu", "naive")


def resolve_backend(name: str, device: torch.device) -> str:
    """The concrete backend (`cpu`, `naive`) for tensors on `device`; raises ConfigError, never falls back."""
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    if name == "triton":
        have = "no GPU is in use here" if device.type != "cuda" else "this version has no Triton path yet"
        raise ConfigError(f"backend 'triton': {have}; use backend 'auto', which picks what can run")
    if name == "cpu" and device.type != "cpu":
        raise ConfigError(f"backend 'cpu' cannot read tensors on {device}; use 'auto', or device 'cpu'")
    if name == "auto":
        return "cpu" if device.type == "cpu" else "naive"
    return name
