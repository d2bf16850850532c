"""What both models answered to a request, as the table that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from ft_audit.engine.precompute.requested_prompts import AskedRequest
from ft_audit.engine.requests.answer_row import answer_row
from ft_audit.engine.store.request_record import SIDES, Side

ANSWERS_SCHEMA = pa.schema(
    [
        ("variant", pa.string()),  # "transformed" or "control"
        ("prompt", pa.int64()),  # its place among the request's prompts
        ("side", pa.string()),
        ("asked", pa.string()),  # the conversation, role by role, without the prefill
        ("prefill", pa.string()),  # what the answer was forced to begin with; no part of it
        ("answer", pa.string()),
        ("decoded", pa.string()),  # null where the answer is not in the request's encoding, or there is none
        ("refused", pa.bool_()),
        ("complied", pa.bool_()),
        ("broken", pa.bool_()),
        ("num_tokens", pa.int64()),
        ("finish", pa.string()),  # "stop" at an end token, or "length"
    ]
)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of one model."""

    text: str
    num_tokens: int
    finish: Literal["stop", "length"]


def answer_rows(
    asked: AskedRequest, said: Mapping[tuple[Side, tuple[int, ...]], Said]
) -> list[dict[str, Any]]:
    """Return the request's table row by row, prompt by prompt; `said` is by side and prompt's ids."""
    return [
        answer_row(
            said[side, prompt.ids].text,
            asked.request.transform.codec,
            variant=prompt.variant,
            prompt=prompt.prompt,
            side=side,
            asked=prompt.said,
            prefill=prompt.prefill,
            num_tokens=said[side, prompt.ids].num_tokens,
            finish=said[side, prompt.ids].finish,
        )
        for prompt in asked.prompts
        for side in SIDES
    ]
