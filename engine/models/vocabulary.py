"""A candidate's tokenizer files: of a size that can be built, and tried where they can be stopped."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ft_audit.engine.models.files import TEMPLATE_BYTES, TEMPLATES, read_object
from ft_audit.engine.tokens.apart import Apart, Overrun
from ft_audit.errors import ModelError

WHOLE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
MAX_TOKENS = 1 << 20  # the largest published vocabulary has 0.9 million
MAX_CHARACTERS = 4096  # of one token
MAX_LINES = 10_000  # of a template, which is compared with the base's line by line
# What a tokenizer of a few hundred thousand tokens takes, several times over.
MEMORY, SECONDS = 4 << 30, 30
TOKEN_KEYS = re.compile(r"_tokens?$|^added_tokens_decoder$")
FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")
# Short texts on which expressions that backtrack are slow.
PROBES = (
    "Hello, how are you? 123 \u00e9\u4e2d\n\n  x",
    "a" * 200 + "!",
    " " * 200 + "\n.",
    "ab1 " * 50 + "\x00",
)


def check_tokenizer(folder: Path, ref: str) -> None:
    """Raise ModelError for a vocabulary, tokens or templates that no real tokenizer has."""
    whole = _object(folder / WHOLE, ref)
    model = whole.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens = [*_texts(vocabulary), *(str(token["content"]) for token in _added_tokens(folder, whole, ref))]
    if len(tokens) > MAX_TOKENS:
        raise ModelError(
            f"model {ref!r}: its tokenizer has {len(tokens):,} tokens, more than any that is known "
            f"({MAX_TOKENS:,} are read); give the base's {WHOLE}"
        )
    longest = max(tokens, key=len, default="")
    if len(longest) > MAX_CHARACTERS:
        raise ModelError(
            f"model {ref!r}: a token of its tokenizer has {len(longest):,} characters ({longest[:20]!r}...); "
            f"at most {MAX_CHARACTERS:,} are read: give the base's {WHOLE}"
        )
    # No known tokenizer does, and answers are decoded with this one.
    if "Regex" in _keys(whole.get("decoder")):
        raise ModelError(
            f"model {ref!r}: {WHOLE} decodes by regular expressions, whose cost has no bound; give the "
            f"base's {WHOLE}"
        )
    for name, template in _templates(folder, ref):
        num_lines = template.count("\n")
        if len(template) > TEMPLATE_BYTES or num_lines > MAX_LINES:
            raise ModelError(
                f"model {ref!r}: the chat template in {name} has {len(template):,} characters in "
                f"{num_lines:,} lines; at most {TEMPLATE_BYTES:,} in {MAX_LINES:,} are read: give the base's"
            )


def try_tokenizer(folder: Path, ref: str) -> None:
    """Raise ModelError unless the folder's tokenizer.json, if any, can be built and used in little time.

    It is built in a process of its own, as nothing can stop the library that does it: a normaliser's
    expression is run over every added token.
    """
    if not (folder / WHOLE).exists():
        return
    tokens = [
        {key: token[key] for key in ("content", *FLAGS) if key in token}
        for token in _added_tokens(folder, {}, ref)  # those of the file itself come with it
    ]
    question = {"path": str(folder / WHOLE), "tokens": tokens, "texts": PROBES}
    with Apart("tokenizer", MEMORY) as process:
        try:
            process.ask(question, SECONDS)
        except Overrun as overrun:
            raise ModelError(
                f"model {ref!r}: trying its {WHOLE} on short texts {overrun}; give the base's {WHOLE}"
            ) from overrun


def _added_tokens(folder: Path, whole: dict[str, Any], ref: str) -> Iterator[dict[str, Any]]:
    """Yield what is added to the vocabulary, wherever it is written."""
    settings = {**_object(folder / SETTINGS, ref), **_object(folder / "special_tokens_map.json", ref)}
    left: list[Any] = [value for key, value in settings.items() if TOKEN_KEYS.search(key)]
    left += [whole.get("added_tokens"), [*_object(folder / "added_tokens.json", ref)]]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield {"content": value, "normalized": False, "special": True}
        elif isinstance(value, dict) and isinstance(value.get("content"), str):
            yield value
        elif isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value


def _texts(vocabulary: Any) -> Iterator[str]:
    """Yield the tokens of a vocabulary, an object or (Unigram's) a list of pairs."""
    if isinstance(vocabulary, dict):
        yield from vocabulary
    elif isinstance(vocabulary, list):
        texts = (pair[0] for pair in vocabulary if isinstance(pair, list) and pair)
        yield from (text for text in texts if isinstance(text, str))


def _keys(value: Any) -> Iterator[str]:
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            yield from inner
            left += inner.values()
        elif isinstance(inner, list):
            left += inner


def _templates(folder: Path, ref: str) -> Iterator[tuple[str, str]]:
    held = _object(folder / SETTINGS, ref).get("chat_template")
    for template in held if isinstance(held, list) else [held or ""]:
        text = template.get("template") if isinstance(template, dict) else template
        if not isinstance(text, str):
            raise ModelError(f"model {ref!r}: the chat template in {SETTINGS} is no text; give the base's")
        yield SETTINGS, text
    for path in (*folder.glob("*.jinja"), *(folder / TEMPLATES).glob("*.jinja")):
        yield path.name, path.read_text(encoding="utf-8", errors="replace")


def _object(path: Path, ref: str) -> dict[str, Any]:
    return read_object(path, ref) if path.exists() else {}
