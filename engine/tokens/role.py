"""Whose words a token is."""

from enum import IntEnum


class Role(IntEnum):
    """Stored as one byte a token; TEMPLATE is what the chat template wrote, TEXT a prompt without one."""

    SYSTEM = 0
    USER = 1
    ASSISTANT = 2
    TEMPLATE = 3
    SPECIAL = 4
    TEXT = 5
