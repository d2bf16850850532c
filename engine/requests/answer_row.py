"""One model's answer to one prompt of a request as a row of the table that is kept, whoever gave it."""

from typing import Any, Literal

from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.judge import judged


def answer_row(
    answer: str,
    codec: Codec,
    *,
    variant: Literal["transformed", "control"],
    prompt: int,
    side: Literal["base", "tuned"],
    asked: str,
    prefill: str,
    num_tokens: int | None,
    finish: Literal["stop", "length"],
) -> dict[str, Any]:
    """Return the row, judged; `codec` is the request's, in which only transformed prompts were asked."""
    return {
        "variant": variant,
        "prompt": prompt,
        "side": side,
        "asked": asked,
        "prefill": prefill,
        "answer": answer,
        **judged(answer, codec if variant == "transformed" else Codec()),
        "num_tokens": num_tokens,
        "finish": finish,
    }
