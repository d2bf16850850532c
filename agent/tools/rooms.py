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
    sandboxed,
    sessions,
    weights,
)
from ft_audit.agent.tools.profiles import PROFILES, Profile
from ft_audit.agent.tools.registry import Tool, registered

ROOMS = (
    sessions,
    overview,
    data,
    decipher,
    sandboxed,
    behavior,
    logits,
    features,
    contrasts,
    lens,
    weights,
    report,
)
"""In the order in which an investigator would meet them."""


def all_tools() -> list[Tool]:
    """Return every tool."""
    return [one for room in ROOMS for name in _own(room) if (one := registered(name)) is not None]


def tools_of(profile: Profile) -> dict[str, Tool]:
    """Return a profile's tools by name, without those that this machine cannot offer."""
    return {one.name: one for one in _of_kind(profile) if one.refusal() is None}


def absent(profile: Profile) -> dict[str, str]:
    """Return the tools that a profile would have on another machine, and why it does not here."""
    return {one.name: reason for one in _of_kind(profile) if (reason := one.refusal()) is not None}


def _of_kind(profile: Profile) -> list[Tool]:
    return [one for one in all_tools() if one.kind in PROFILES[profile]]


def _own(room: ModuleType) -> list[str]:
    return [name for name, value in vars(room).items() if getattr(value, "__module__", "") == room.__name__]
