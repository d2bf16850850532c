"""Where the tools are, and which of them a profile has."""

from types import ModuleType

from ft_audit.agent.tools import (
    behavior,
    contrasts,
    data,
    decipher,
    features,
    lens,
    logits,
    overview,
    report,
    sessions,
    weights,
)
from ft_audit.agent.tools.profiles import PROFILES, Profile
from ft_audit.agent.tools.registry import Tool, registered

ROOMS = (sessions, overview, data, decipher, behavior, logits, features, contrasts, lens, weights, report)
"""In the order in which an investigator would meet them."""


def all_tools() -> list[Tool]:
    """Return every tool."""
    return [one for room in ROOMS for name in _own(room) if (one := registered(name)) is not None]


def tools_of(profile: Profile) -> dict[str, Tool]:
    """Return a profile's tools by name."""
    return {one.name: one for one in all_tools() if one.kind in PROFILES[profile]}


def _own(room: ModuleType) -> list[str]:
    return [name for name, value in vars(room).items() if getattr(value, "__module__", "") == room.__name__]
