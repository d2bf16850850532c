"""Where the tools are, and which of them a profile has."""

from types import ModuleType

from ft_audit.agent.tools import (
    addressed,
    behavior,
    contrasts,
    data,
    decipher,
    feature_triggers,
    features,
    lens,
    live,
    logits,
    one_feature,
    overview,
    report,
    requests,
    sandboxed,
    sessions,
    weights,
)
from ft_audit.agent.tools.profiles import PROFILES
from ft_audit.agent.tools.registry import Tool, registered
from ft_audit.engine.config import AuditConfig, Profile

ROOMS = (
    sessions,
    overview,
    data,
    addressed,
    decipher,
    sandboxed,
    behavior,
    requests,
    logits,
    features,
    one_feature,
    feature_triggers,
    contrasts,
    lens,
    weights,
    report,
)
"""In the order in which an investigator would meet them."""


def all_tools() -> list[Tool]:
    """Return every tool that needs nothing but the store."""
    return [one for room in ROOMS for name in _own(room) if (one := registered(name)) is not None]


def tools_of(profile: Profile, config: AuditConfig | None = None) -> dict[str, Tool]:
    """Return a profile's tools by name, without those that this machine cannot offer, and the live ones only
    where the config has servers for them."""
    offered = _of_kind(all_tools(), profile)
    if config is not None and config.audit.live is not None:
        offered += _of_kind([one for name in _own(live) if (one := registered(name)) is not None], profile)
    return {one.name: one for one in offered if one.refusal() is None}


def absent(profile: Profile) -> dict[str, str]:
    """Return the tools that a profile would have on another machine, and why it does not here."""
    found = ((one.name, one.refusal()) for one in _of_kind(all_tools(), profile))
    return {name: reason for name, reason in found if reason is not None}


def _of_kind(tools: list[Tool], profile: Profile) -> list[Tool]:
    return [one for one in tools if one.kind in PROFILES[profile]]


def _own(room: ModuleType) -> list[str]:
    return [name for name, value in vars(room).items() if getattr(value, "__module__", "") == room.__name__]
