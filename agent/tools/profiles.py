"""Which kinds of tools an investigator has, for ablations."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    # The command line names the profiles, and loads nothing heavy for it.
    from ft_audit.engine.config import Profile

Kind = Literal["session", "data", "behavior", "logits", "internals", "joined"]
"""What a tool looks at; `joined` tools put data and model together."""

PROFILES: "dict[Profile, frozenset[Kind]]" = {
    "data_only": frozenset({"session", "data"}),
    "behavior_only": frozenset({"session", "behavior"}),
    "greybox": frozenset({"session", "data", "behavior", "logits"}),
    "whitebox": frozenset({"session", "data", "logits", "internals", "joined"}),
    "full": frozenset({"session", "data", "behavior", "logits", "internals", "joined"}),
}

DETECTOR_KINDS: dict[str, Kind] = {
    "data set": "data",
    "weights": "internals",
    "next token": "logits",
    "residual": "internals",
    "SAE features": "internals",
    "elicited": "behavior",
    "guard": "behavior",
    "templates": "behavior",
    "answers": "behavior",
}
"""What the figures of each detector look at; those of none, the score among them, look at everything."""


def sees(profile: "Profile", detector: str | None) -> bool:
    """Whether a profile may see a detector's figures; of none, whether it sees everything."""
    if detector is None:
        return profile == "full"
    return DETECTOR_KINDS[detector] in PROFILES[profile]
