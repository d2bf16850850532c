"""Facts about this machine: processor, memory, disk and accelerators, as far as each can be asked."""

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What makes bfloat16 fast on a processor, by the names that Linux and macOS use.
LINUX_FEATURES = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "sve")
MAC_FEATURES = {"FEAT_BF16": "bf16", "FEAT_SME": "sme"}


def processor() -> dict[str, Any]:
    """Return the processor's name, the cores this process may use, and the features that matter here."""
    return {"name": _cpu_name(), "cores": usable_cores(), "features": _features()}


def memory_bytes() -> int | None:
    """Return the physical memory, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def disk(path: Path) -> dict[str, Any]:
    """Return the free space at the path and whether files can be made there, creating nothing that stays."""
    there = _nearest_existing(path)
    return {
        "path": str(path),
        "exists": path.exists(),
        "writable": os.access(there, os.W_OK | os.X_OK),
        "free_bytes": shutil.disk_usage(there).free,
    }


def accelerators(import_torch: Callable[[], Any]) -> dict[str, Any]:
    """Return what torch sees: its version, cuda devices and mps; `problem` says why it cannot be imported."""
    try:
        torch = import_torch()
    except (ImportError, OSError) as error:
        # OSError: a wheel for another system, or a shared library of it that is missing.
        return {"problem": f"{type(error).__name__}: {error}", "cuda": [], "mps": False}
    cuda = torch.cuda
    devices = (
        [cuda.get_device_properties(i) for i in range(cuda.device_count())] if cuda.is_available() else []
    )
    return {
        "problem": None,
        "cuda": [{"name": device.name, "memory_bytes": device.total_memory} for device in devices],
        "cuda_build": torch.version.cuda,
        "mps": bool(torch.backends.mps.is_available()),
    }


def _nearest_existing(path: Path) -> Path:
    path = path.expanduser().absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def usable_cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    names = [value for key, value in _cpuinfo() if key == "model name"]
    return names[0] if names else _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"


def _features() -> list[str]:
    if platform.system() == "Darwin":
        return [ours for theirs, ours in MAC_FEATURES.items() if _sysctl(f"hw.optional.arm.{theirs}") == "1"]
    flags = {
        flag for key, value in _cpuinfo() if key.lower() in {"flags", "features"} for flag in value.split()
    }
    return [feature for feature in LINUX_FEATURES if feature in flags]


def _cpuinfo() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            yield key.strip(), value.strip()


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], check=False, capture_output=True, text=True)
    return done.stdout.strip()
