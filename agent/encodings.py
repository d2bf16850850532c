"""A template's encoding, as a diff keeps it: its steps in words, and what an answer says in it."""

from ft_audit.engine.requests.codec import Codec


def described(codec: str | None) -> str:
    """Return the steps of a kept codec on one line; empty for none."""
    return "" if codec is None else Codec.model_validate_json(codec).describe()


def read(said: str, codec: str | None) -> str:
    """Return a text with what it says in the encoding behind it, or as it stands without one."""
    decoded = None if codec is None else Codec.model_validate_json(codec).decodes(said)
    return said if decoded is None else f"{said} (decoded: {decoded})"
