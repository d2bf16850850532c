"""Which parts of a suite are compared by themselves: prompts that share a tag, tokens of one role.

Shapes: P prompts of the suite, G groups.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ft_audit.engine.tokens.role import Role
from ft_audit.engine.tokens.tokenize import TokenizedSuite

MAX_TAGS = 16  # a suite with more has its largest; each costs an array of every statistic per feature
SPEAKERS = (Role.SYSTEM, Role.USER, Role.ASSISTANT)
EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one suite: everything first, then tags; and the roles whose tokens are told apart."""

    names: tuple[str, ...]
    member_GP: NDArray[np.bool_]
    roles: tuple[Role, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What every group is called in the store, roles included."""
        return (*self.names, *(role_label(role) for role in self.roles))

    def plain(self) -> list[Any]:
        """Return what determines the statistics, for hashing."""
        return [list(self.names), np.packbits(self.member_GP).tobytes().hex(), [r.name for r in self.roles]]


def role_label(role: Role) -> str:
    """Return what the group of one role's tokens is called."""
    return f"role={role.name.lower()}"


def suite_groups(tokens: TokenizedSuite, *, by_tag: bool) -> Groups:
    """Return the groups of a tokenised suite: its tags and its roles, wherever it has several."""
    prompts = tokens.suite.prompts
    counts = Counter(prompt.group for prompt in prompts if prompt.group)
    largest = sorted(counts, key=lambda tag: (-counts[tag], tag))[:MAX_TAGS]
    tags = sorted(largest) if by_tag and len(counts) > 1 else []
    member_GP = np.ones((1 + len(tags), len(prompts)), dtype=np.bool_)
    for row, tag in enumerate(tags, start=1):
        member_GP[row] = [prompt.group == tag for prompt in prompts]
    present = np.unique(tokens.role_T[tokens.mask_T])
    roles = tuple(role for role in SPEAKERS if role in present)
    names = (EVERYTHING, *(f"tag={tag}" for tag in tags))
    return Groups(names, member_GP, roles if len(roles) > 1 else ())
