"""The doctor tells what works here, what does not, and what would change that."""

import json
from pathlib import Path

import pytest

from ft_audit.engine import doctor, machine


def can(report: dict) -> dict[str, dict]:
    return {ability["what"]: ability for ability in report["can"]}


def test_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    report = doctor.examine()
    assert json.loads(json.dumps(report)) == report
    assert report["processor"]["cores"] >= 1 and report["memory_bytes"] > 10**8
    assert report["store"] == {
        **report["store"],
        "path": str(tmp_path / "ft-audit" / "store"),
        "exists": False,
        "writable": True,
    }
    assert not (tmp_path / "ft-audit").exists()
    abilities = can(report)
    assert abilities["precompute on the processor"]["works"]
    text = doctor.render(report)
    assert all(ability["what"] in text for ability in report["can"]) and "libraries" in text


def test_without_torch_the_reader_s_side_works_and_the_rest_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "torch" else real(name))
    monkeypatch.setattr("ft_audit.engine.extras.version_of", doctor.version_of)
    monkeypatch.setattr(doctor, "accelerators", lambda _: pytest.fail("torch must not be imported"))
    report = doctor.examine()
    abilities = can(report)
    assert abilities["audit, top, report (read a store)"]["works"]
    for what in ("precompute on the processor", "precompute on cuda", "precompute on mps"):
        assert abilities[what] == {"what": what, "works": False, "note": "pip install 'ft-audit[engine]'"}
    assert abilities["finetune, calibrate"]["note"] == "pip install 'ft-audit[train]'"
    assert report["extras"]["engine"]["missing"] == ["torch>=2.11"]
    assert "engine lacks torch>=2.11" in doctor.render(report)


def test_a_torch_that_cannot_be_imported_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("libcudart.so.13: cannot open shared object file")

    devices = machine.accelerators(broken)
    monkeypatch.setattr(doctor, "accelerators", lambda _: devices)
    abilities = can(doctor.examine())
    assert "libcudart" in abilities["precompute on the processor"]["note"]
    assert not abilities["precompute on cuda"]["works"]


def test_a_store_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.access", lambda *_: False)
    report = doctor.examine()
    assert "cannot write" in can(report)["write the default store"]["note"]
    assert "NOT writable" in doctor.render(report)


def test_processor_features_are_read_from_linux_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [("model name", "Some CPU"), ("flags", "fpu avx2 amx_bf16 avx512_bf16 nope"), ("flags", "fpu")]
    monkeypatch.setattr(machine, "_cpuinfo", lambda: iter(lines))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    found = machine.processor()
    assert found["name"] == "Some CPU" and found["features"] == ["amx_bf16", "avx512_bf16", "avx2"]
