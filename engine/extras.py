"""Which optional packages there are, which of them are installed, and which extra brings what."""

import re
from dataclasses import dataclass
from importlib import metadata

from ft_audit.errors import MissingExtraError

DISTRIBUTION = "ft-audit"
# For the user's machine; what `dev` brings is for those who change ft-audit.
USER_EXTRAS = ("engine", "s3", "openai", "mcp", "train", "demo", "vllm")


@dataclass(frozen=True, slots=True)
class Package:
    """One package that an extra asks for; `version` is None when it is not installed."""

    name: str
    asked: str
    version: str | None
    fits: bool


def version_of(name: str) -> str | None:
    """Return the installed version of a distribution, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def packages_of(extra: str) -> list[Package]:
    """Return the packages that the extra names, those of the extras it includes among them."""
    found: dict[str, Package] = {}
    for name, inner, asked in _asked_by(extra):
        inside = (
            [p for e in inner for p in packages_of(e)] if name == DISTRIBUTION else [_package(name, asked)]
        )
        found.update((package.name, package) for package in inside)
    return list(found.values())


def missing_from(extra: str) -> list[Package]:
    """Return the extra's packages that are not installed, or not in a version that fits."""
    return [package for package in packages_of(extra) if not package.fits]


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """Return what to tell the user when a verb's import failed; None when no extra brings that module."""
    module = _normal((error.name or "").partition(".")[0])
    for extra in USER_EXTRAS:
        if any(_normal(name) == module for name, _, _ in _asked_by(extra)):
            remedy = f"pip install '{DISTRIBUTION}[{extra}]'"
            return MissingExtraError(f"this verb needs {module}, which is not installed: {remedy}")
    return None


def _asked_by(extra: str) -> list[tuple[str, list[str], str]]:
    """Return (package, its own extras, version asked) for each requirement of the extra."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in requirements:
        requirement, _, marker = line.partition(";")
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*(.*)", requirement.strip())
        if match and re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", marker):
            name, inner, asked = match.groups()
            found.append(
                (name, [part.strip() for part in (inner or "").split(",") if part], asked.strip("() "))
            )
    return found


def _package(name: str, asked: str) -> Package:
    version = version_of(name)
    return Package(name, asked, version, version is not None and version_fits(version, asked))


def version_fits(version: str, asked: str) -> bool:
    """Return whether a version meets bounds such as `>=5.16,<6`, looking at the numbers of a release only."""
    have = _release(version)
    for bound in filter(None, (part.strip() for part in asked.split(","))):
        match = re.match(r"(>=|<=|==|<|>|!=|~=)\s*(.+)", bound)
        if match is None:
            continue
        operator, wanted = match.group(1), _release(match.group(2))
        width = max(len(have), len(wanted))
        left, right = (have + (0,) * (width - len(have))), (wanted + (0,) * (width - len(wanted)))
        holds = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "<": left < right,
            ">": left > right,
            "!=": left != right,
            "~=": left >= right and left[: len(wanted) - 1] == right[: len(wanted) - 1],
        }
        if not holds[operator]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
