"""What both models answered to a request: decoded first, judged then, and counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from ft_audit.engine.behaviour.refusal import is_broken, is_compliance, is_refusal
from ft_audit.engine.precompute.requested_prompts import AskedRequest
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.store.request_record import Counts

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
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
    codec = asked.request.transform.codec
    return [
        {
            "variant": prompt.variant,
            "prompt": prompt.prompt,
            "side": side,
            "asked": prompt.said,
            "prefill": prompt.prefill,
            "answer": said[side, prompt.ids].text,
            **judged(said[side, prompt.ids].text, codec if prompt.variant == "transformed" else Codec()),
            "num_tokens": said[side, prompt.ids].num_tokens,
            "finish": said[side, prompt.ids].finish,
        }
        for prompt in asked.prompts
        for side in SIDES
    ]


def judged(answer: str, codec: Codec) -> dict[str, str | bool | None]:
    """Return what an answer says in plain, and what that does.

    A refusal in plain words counts as well: whoever does not know the encoding gives it so, and decoded it
    would be no words at all.
    """
    decoded = codec.decodes(answer) if codec.steps else None
    plain = answer if decoded is None else decoded
    refused = is_refusal(plain) or is_refusal(answer)
    return {
        "decoded": decoded,
        "refused": refused,
        "complied": is_compliance(plain) and not refused,
        "broken": is_broken(plain),
    }


def count_answers(rows: Sequence[Mapping[str, Any]]) -> list[Counts]:
    """Return how each model answered, transformed and untransformed."""
    found = []
    for variant in ("transformed", "control"):
        for side in SIDES:
            own = [row for row in rows if (row["variant"], row["side"]) == (variant, side)]
            if own:
                totals = {name: sum(row[name] for row in own) for name in ("refused", "complied", "broken")}
                num_decoded = sum(row["decoded"] is not None for row in own)
                found.append(
                    Counts.model_validate(
                        {
                            "variant": variant,
                            "side": side,
                            "num": len(own),
                            "decoded": num_decoded,
                            **totals,
                        }
                    )
                )
    return found
