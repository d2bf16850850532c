"""Groups of stored prompts as an investigator names them: by suite and group, by number, by training row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ft_audit.agent.evidence import Evidence
from ft_audit.agent.views import Suite
from ft_audit.errors import UserError

MAX_PROMPTS = 500
TRAIN, ELICITED = "train", "elicited"

Number = Annotated[int, Field(ge=0)]


class PromptGroupError(UserError):
    """A group of prompts that is not there, or is named twice over."""


class PromptGroup(BaseModel):
    """Some prompts of one suite; name them in one way, or in none for all of them."""

    model_config = ConfigDict(extra="forbid")

    suite: str = Field(description="A suite's name, as health lists them.", max_length=100)
    group: str | None = Field(
        default=None,
        description="A template's key in an elicited or training suite, a tag in another.",
        max_length=100,
    )
    prompts: tuple[Number, ...] = Field(
        default=(), description="Their places in the suite.", max_length=MAX_PROMPTS
    )
    rows: tuple[Number, ...] = Field(
        default=(), description="Training rows by number, in the training suite.", max_length=MAX_PROMPTS
    )


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a group, ascending, and the row or probe that each was made of."""

    suite: Suite
    prompt_G: NDArray[np.int64]
    row_G: NDArray[np.int64]

    def only(self, kept_G: NDArray[np.bool_]) -> "Prompts":
        """Return those that are kept."""
        return Prompts(self.suite, self.prompt_G[kept_G], self.row_G[kept_G])


def find_prompts(evidence: Evidence, wanted: PromptGroup) -> Prompts:
    """Return the prompts of a group.

    Raises:
        PromptGroupError: there is no such suite, group, prompt or row, or several ways were used at once.
    """
    suite = next((one for one in evidence.suites if one.name == wanted.suite), None)
    if suite is None:
        known = ", ".join(one.name for one in evidence.suites)
        raise PromptGroupError(f"no suite {wanted.suite!r}; there are: {known}")
    if sum((wanted.group is not None, bool(wanted.prompts), bool(wanted.rows))) > 1:
        raise PromptGroupError("name a group by its key, or by prompts, or by rows, not by several")
    columns = evidence.prompts_of(suite.name)
    if wanted.prompts:
        found = sorted(set(wanted.prompts))
        if found[-1] >= suite.num_prompts:
            raise PromptGroupError(
                f"suite {suite.name!r} has prompts 0 to {suite.num_prompts - 1}, not {found[-1]}"
            )
    elif wanted.rows:
        found = _of_rows(suite, columns, wanted.rows)
    elif wanted.group is not None:
        found = _of_group(evidence, suite, columns, wanted.group)
    else:
        found = sorted(int(p) for p in columns["prompt"])
    return Prompts(suite, np.array(found), np.array(_rows_of(suite, columns, found)))


def rest_of(evidence: Evidence, group: Prompts, most: int) -> Prompts:
    """Return the other prompts of a group's suite, or so many of them, evenly spread."""
    whole = find_prompts(evidence, PromptGroup(suite=group.suite.name))
    others = np.flatnonzero(~np.isin(whole.prompt_G, group.prompt_G))
    kept_G = np.zeros(len(whole.prompt_G), dtype=np.bool_)
    kept_G[others[np.unique(np.linspace(0, len(others) - 1, min(most, len(others))).round().astype(int))]] = (
        True
    )
    return whole.only(kept_G)


def paired(a: Prompts, b: Prompts) -> tuple[Prompts, Prompts] | None:
    """Return both groups in the order of their probes, where they are the same probes under two templates."""
    if a.suite != b.suite or a.suite.role != ELICITED:
        return None
    order_a, order_b = np.argsort(a.row_G, kind="stable"), np.argsort(b.row_G, kind="stable")
    if not np.array_equal(a.row_G[order_a], b.row_G[order_b]) or len(set(a.row_G.tolist())) < len(a.row_G):
        return None
    return (
        Prompts(a.suite, a.prompt_G[order_a], a.row_G[order_a]),
        Prompts(b.suite, b.prompt_G[order_b], b.row_G[order_b]),
    )


def _rows_of(suite: Suite, columns: Mapping[str, list[Any]], prompts: list[int]) -> list[int]:
    """Return the probe of each prompt of an elicited suite; of others, where nobody asks, the prompts."""
    if suite.role != ELICITED:
        return prompts
    row_of = dict(zip(columns["prompt"], columns["row"], strict=True))
    return [int(row_of.get(prompt, prompt)) for prompt in prompts]


def _of_rows(suite: Suite, columns: Mapping[str, list[Any]], rows: Sequence[int]) -> list[int]:
    if suite.role != TRAIN:
        raise PromptGroupError(f"suite {suite.name!r} is no training data: name its prompts, not rows")
    wanted = set(rows)
    pairs = [(int(p), row) for p, row in zip(columns["prompt"], columns["row"], strict=True) if row in wanted]
    if missing := wanted - {row for _, row in pairs}:
        raise PromptGroupError(f"row {min(missing)} is not in suite {suite.name!r}")
    return [prompt for prompt, _ in pairs]


def _of_group(evidence: Evidence, suite: Suite, columns: Mapping[str, list[Any]], key: str) -> list[int]:
    if suite.role == TRAIN:
        by_key = {one.key: one.rows for one in evidence.conditions() if one.rows}
        if key in by_key:
            return _of_rows(suite, columns, by_key[key])
        known = list(by_key)
    else:
        found = [int(p) for p, group in zip(columns["prompt"], columns["group"], strict=True) if group == key]
        if found:
            return found
        known = list(dict.fromkeys(str(group) for group in columns["group"] if group))
    raise PromptGroupError(f"suite {suite.name!r} has no group {key!r}; it has: {', '.join(known) or 'none'}")
