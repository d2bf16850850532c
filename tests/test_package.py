"""The distribution: what the wheel built from the sdist holds, and that every pinned version is allowed."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a wheel built from an sdist of the checkout, without the network."""
    out = tmp_path_factory.mktemp("dist")
    build = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert build.returncode == 0, build.stdout[-2000:] + build.stderr[-2000:]
    (wheel,) = out.glob("ft_audit-*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def shipped(room: str, pattern: str) -> set[str]:
    """Where a room's files must stand in the wheel."""
    return {
        f"ft_audit/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / room).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_installs_one_name(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ft_audit"}


@pytest.mark.slow
def test_the_wheel_holds_every_module(wheel_names: set[str]) -> None:
    modules = {
        name for room in ("agent", "benchmarks", "engine", "kernels", "sae") for name in shipped(room, "*.py")
    }
    assert modules
    assert modules | {"ft_audit/__init__.py", "ft_audit/cli.py", "ft_audit/errors.py"} <= wheel_names


@pytest.mark.slow
def test_the_wheel_holds_the_data(wheel_names: set[str]) -> None:
    data = (
        shipped("configs", "*") | shipped("agent", "*.css") | shipped("agent", "*.js") | {"ft_audit/py.typed"}
    )
    assert data | {"ft_audit/benchmarks/asked.yaml"} <= wheel_names


@pytest.mark.slow
def test_the_wheel_holds_no_tests_and_no_leftovers(wheel_names: set[str]) -> None:
    leftovers = ("__pycache__", "tests/", ".pyc", ".tmp", "conftest")
    assert [name for name in sorted(wheel_names) if any(part in name for part in leftovers)] == []


def test_every_pin_is_a_version_that_the_project_allows() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parts = [line.split("==") for line in lines if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in parts}
    extras = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
    wanted = [Requirement(text) for text in (*PROJECT["dependencies"], *extras)]
    outside = [
        f"{one} is pinned to {pins[name]}"
        for one in wanted
        if (name := canonicalize_name(one.name)) in pins and not one.specifier.contains(pins[name])
    ]
    assert outside == []
    assert {canonicalize_name(one.name) for one in wanted} - pins.keys() <= {"ft-audit", "vllm"}


def test_the_plain_install_has_no_heavy_library() -> None:
    plain = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not plain & {
        "torch",
        "transformers",
        "vllm",
        "trl",
        "dask",
        "distributed",
        "numba",
        "scipy",
        "pandas",
    }


def test_the_extras_are_the_documented_ones() -> None:
    assert set(PROJECT["optional-dependencies"]) == {
        *("engine", "s3", "vllm", "train", "openai", "mcp", "demo", "bench", "dev")
    }
