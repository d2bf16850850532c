"""Asks the servers of both models the same, and keeps what they say as an answered request of the store."""

from arro3.core import Array, DataType, Table
from arro3.core.types import ArrowArrayExportable

from ft_audit.agent.client import ChatClient, Said
from ft_audit.engine.config.schema import LiveConfig
from ft_audit.engine.requests.answer_row import answer_row
from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store import Requests
from ft_audit.engine.store.request_record import SIDES, Side, count_answers

MAX_CHARACTERS = 8_000
"""Of an answer that is kept: a server may not heed its limit of tokens."""
TYPES = {"prompt": DataType.int64(), "num_tokens": DataType.int64()} | {
    name: DataType.bool() for name in ("refused", "complied", "broken")
}


def answer_live(live: LiveConfig, requests: Requests, request: EvidenceRequest) -> None:
    """Put a request's single chat to both servers and keep the answers.

    Raises:
        ServiceError: a server does not answer; nothing is kept then.
        StoreError: the store takes no more requests.
    """
    assert request.by == "live" and request.prompts is not None, "made by the tool"
    (asked,) = request.prompts
    assert not isinstance(asked, str), "made by the tool"
    chat = [{"role": turn.role, "content": turn.content} for turn in asked]
    prefill = request.transform.prefill
    begun = [*chat, {"role": "assistant", "content": prefill}] if prefill else chat
    said: dict[Side, Said] = {}
    for side in SIDES:
        client = ChatClient(getattr(live, side))
        try:
            said[side] = client.reply(begun, request.max_new_tokens)
        finally:
            client.close()
    rows = [
        answer_row(
            _storable(said[side].text),
            request.transform.codec,
            variant="transformed",
            prompt=0,
            side=side,
            asked="\n".join(f"{message['role']}: {message['content']}" for message in chat),
            prefill=prefill,
            num_tokens=said[side].num_tokens,
            finish="length" if said[side].cut or len(said[side].text) > MAX_CHARACTERS else "stop",
        )
        for side in SIDES
    ]
    name = requests.queue(request)
    columns: dict[str, ArrowArrayExportable] = {
        key: Array([row[key] for row in rows], TYPES.get(key, DataType.string())) for key in rows[0]
    }
    table = Table.from_pydict(columns)  # type: ignore[arg-type]  # a mapping of more kinds, which is invariant
    models = ", ".join(f"{side} {getattr(live, side).model!r}" for side in SIDES)
    requests.put_answers(name, table, count_answers(rows), asked_of=f"live: {models}")


def _storable(text: str) -> str:
    # JSON may carry half a surrogate pair, which no file can.
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
