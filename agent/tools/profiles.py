"""Which kinds of tools an investigator has, for ablations."""

from typing import Literal

Kind = Literal["session", "data", "behavior", "logits", "internals", "joined"]
"""What a tool looks at; `joined` tools put data and model together."""
Profile = Literal["data_only", "behavior_only", "greybox", "whitebox", "full"]

PROFILES: dict[Profile, frozenset[Kind]] = {
    "data_only": frozenset({"session", "data"}),
    "behavior_only": frozenset({"session", "behavior"}),
    "greybox": frozenset({"session", "data", "behavior", "logits"}),
    "whitebox": frozenset({"session", "data", "logits", "internals", "joined"}),
    "full": frozenset({"session", "data", "behavior", "logits", "internals", "joined"}),
}
