"""Where the tools are, and which of them a profile has."""

from types import ModuleType

from ft_audit.agent.tools import (
    addressed,
    behavior,
    data,
    decipher,
    features,
    live,
    logits,
    overview,
    report,
    requests,
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
    behavior,
    requests,
    logits,
    features,
    weights,
    report,
)
"""In the order in which an investigator would meet them."""


def all_tools() -> list[Tool]:
    """Return every tool that needs nothing but the store."""
    return [one for room in ROOMS for name in _own(room) if (one := registered(name)) is not None]


def tools_of(profile: Profile, config: AuditConfig | None = None) -> dict[str, Tool]:
    """Return a profile's tools by name, the live ones among them where the config has servers for them."""
    offered = all_tools()
    if config is not None and config.audit.live is not None:
        offered += [one for name in _own(live) if (one := registered(name)) is not None]
    return {one.name: one for one in offered if one.kind in PROFILES[profile]}


def _own(room: ModuleType) -> list[str]:
    return [name for name, value in vars(room).items() if getattr(value, "__module__", "") == room.__name__]
