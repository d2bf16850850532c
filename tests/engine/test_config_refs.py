"""The contract of references: each form finds its file, and a wrong one says what would be right."""

import sys
from pathlib import Path

import pytest

from ft_audit.engine.config import resolve_path, resolve_ref
from ft_audit.errors import ConfigError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    for name in ("conf/train.jsonl", "conf/suite.yaml", "other.yaml"):
        (tmp_path / name).write_text("x")
    (tmp_path / "conf" / "folder").mkdir()
    return tmp_path / "conf"


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("./train.jsonl", "conf/train.jsonl"),
        ("train.jsonl", "conf/train.jsonl"),
        ("../other.yaml", "other.yaml"),
        ("./folder", "conf/folder"),
        (".", "conf"),
    ],
)
def test_relative_paths_start_at_the_file_that_names_them(base: Path, ref: str, expected: str) -> None:
    assert resolve_ref(ref, base) == (base.parent / expected).resolve()


def test_absolute_and_home_paths(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_ref(str(base / "suite.yaml"), Path("/nowhere")) == base / "suite.yaml"
    monkeypatch.setenv("HOME", str(base))
    assert resolve_ref("~/suite.yaml", Path("/nowhere")) == base / "suite.yaml"


@pytest.mark.parametrize(
    "ref",
    ["gpt2", "google/gemma-3-1b-it", "google/gemma-scope-2-1b-it/resid_post/layer_22", "nvidia/HelpSteer"],
)
def test_other_names_are_hub_ids(base: Path, ref: str) -> None:
    assert resolve_ref(ref, base) == ref
    assert resolve_ref(f"hub:{ref}", base) == ref


def test_a_name_that_could_be_both_must_say_which(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"write \./folder or hub:folder"):
        resolve_ref("folder", base)
    assert resolve_ref("hub:folder", base) == "folder"


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("./trian.jsonl", r"has no trian.jsonl: did you mean train.jsonl\?"),
        ("trian.jsonl", r"did you mean train.jsonl\?"),
        ("./zzz", r"it holds folder, suite.yaml, train.jsonl"),
        ("./nowhere/x.yaml", r"there is no folder .*nowhere"),
        ("two words", "neither a path nor a hub id"),
        ("a//b", "neither a path nor a hub id"),
        ("", "neither a path nor a hub id"),
        ("s3://bucket/x", "neither a path nor a hub id"),
        ("package:not_there_at_all/x.gguf", r"not installed: pip install not-there-at-all"),
        ("package:", "not a file of a package"),
        ("package:../x", "not a file of a package"),
        ("configs:suites/nope.yaml", "has no nope.yaml"),
    ],
)
def test_a_reference_to_nothing_says_what_is_there(base: Path, ref: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        resolve_ref(ref, base)
    assert repr(ref) in str(caught.value)


def test_a_hub_id_where_only_a_file_will_do(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"'a/b': no such file"):
        resolve_path("a/b", base)


def test_a_file_of_a_package_is_found_without_running_the_package(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "demo_weights_7"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "w.gguf").write_text("x")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("demo_weights_7", "demo-weights-7"):
        assert resolve_ref(f"package:{name}/data/w.gguf", base) == package / "data" / "w.gguf"
    assert resolve_ref("package:demo_weights_7/data", base) == package / "data"
    with pytest.raises(ConfigError, match=r"did you mean w.gguf\?"):
        resolve_ref("package:demo_weights_7/data/v.gguf", base)
    assert "demo_weights_7" not in sys.modules


def test_shipped_data_is_found_from_anywhere(base: Path) -> None:
    found = resolve_ref("configs:suites/minimal.yaml", base)
    assert isinstance(found, Path) and found.read_text().startswith("#")
