"""The folders' rules: rooms without an __init__.py, links that reach them, no code among the data."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ft_audit"
ROOMS = ("agent", "benchmarks", "configs", "engine", "kernels", "sae")


def test_no_room_is_a_regular_package() -> None:
    # A regular package `kernels` on sys.path would shadow Hugging Face's and break transformers' models.
    assert [room for room in ROOMS if (ROOT / room / "__init__.py").exists()] == []


def test_the_package_folder_holds_only_the_front_door_and_links() -> None:
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert entries <= {"__init__.py", "py.typed", "cli.py", "errors.py", *ROOMS}
    for room in ROOMS:
        link = PACKAGE / room
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == ROOT / room


def test_configs_hold_no_code_but_the_notebook_s_script() -> None:
    assert [path.name for path in (ROOT / "configs").rglob("*.py")] == ["analysis.py"]


def test_tests_are_no_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_hugging_face_kernels_is_not_shadowed() -> None:
    spec = importlib.util.find_spec("kernels")
    assert spec is None or spec.origin is None or ROOT not in Path(spec.origin).parents
