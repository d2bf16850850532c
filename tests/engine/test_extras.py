"""What an extra brings, and whether an installed version fits what was asked."""

import pytest

from ft_audit.engine.extras import missing_extra, missing_from, packages_of, version_fits


@pytest.mark.parametrize(
    ("version", "asked", "fits"),
    [
        ("5.16.0", ">=5.16,<6", True),
        ("5.9", ">=5.16,<6", False),
        ("6.0.0", ">=5.16,<6", False),
        ("2.13.0+cpu", ">=2.7", True),
        ("1.3.3", "==1.3.3", True),
        ("1.3", "==1.3.0", True),
        ("1.3.4", "==1.3.3", False),
        ("1.4.9", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("2025.1", ">2025.1", False),
        ("0.9", "!=0.9", False),
        ("0.9", "<=0.9", True),
        ("0.1", "", True),
    ],
)
def test_versions(version: str, asked: str, fits: bool) -> None:
    assert version_fits(version, asked) is fits


def test_an_extra_includes_those_it_names() -> None:
    engine, train = ({package.name for package in packages_of(extra)} for extra in ("engine", "train"))
    assert {"torch", "transformers", "numba", "dask"} <= engine < train
    assert "ft-audit" not in train and "trl" in train - engine
    assert packages_of("no-such-extra") == []


def test_what_is_installed_here_is_not_missing() -> None:
    assert missing_from("engine") == []


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "engine"),
        ("torch.nn", "engine"),
        ("obstore.store", "s3"),
        ("chatterbot_corpus.data", "demo"),
        ("trl", "train"),
    ],
)
def test_a_missing_module_names_its_extra(module: str, extra: str) -> None:
    error = missing_extra(ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert error is not None and f"pip install 'ft-audit[{extra}]'" in str(error)
    assert str(error).startswith(f"this verb needs {module.partition('.')[0].replace('_', '-')}")


@pytest.mark.parametrize("module", ["no_such_module", "yaml", None])
def test_other_missing_modules_are_our_mistake(module: str | None) -> None:
    assert missing_extra(ModuleNotFoundError("x", name=module)) is None
