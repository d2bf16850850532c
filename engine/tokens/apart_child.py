"""The process of `apart`: answers a question a line, with a limit on its memory and on the time for each.

It is started by its path and imports nothing of this package.
"""

import json
import math
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


def match(question: dict[str, Any]) -> Answer:
    """Match every expression with every name."""
    for pattern in map(re.compile, question["patterns"]):
        for name in question["names"]:
            pattern.match(name)
    return {}


def tokenizer(question: dict[str, Any]) -> Answer:
    """Build a tokenizer from its file, add tokens to it as transformers does, and use it."""
    from tokenizers import AddedToken, Tokenizer

    built = Tokenizer.from_file(question["path"])
    built.add_tokens([AddedToken(**token) for token in question["tokens"]])
    for text in question["texts"]:
        built.decode(built.encode(text).ids)
    return {}


def render(question: dict[str, Any]) -> Answer:
    """Render one chat as transformers does."""
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered: Any = render_jinja_template(  # its declared result is a text, but it is a pair of lists
            conversations=[question["chat"]],
            tools=question["tools"],
            chat_template=question["template"],
            add_generation_prompt=question["generate"],
            **question["variables"],
        )
    except MemoryError:
        raise
    except (TemplateError, TypeError) as error:
        return {"refused": str(error)}
    except Exception as error:  # noqa: BLE001, what a template's own operations raise
        return {"refused": f"{type(error).__name__}: {error}"}
    text = rendered[0][0]
    if len(text) > question["characters"]:
        return {"failed": f"more than {question['characters']:,} characters for one chat"}
    return {"text": text}


KINDS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "match": match,
    "tokenizer": tokenizer,
    "render": render,
}


def limit_memory(num_bytes: int) -> None:
    """Let this process take so much more memory than it has now, where the system says how much that is."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + num_bytes)


def limit_time(seconds: float) -> None:
    """Let the system end this process after so many more seconds of processor time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds))


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> None:
    """Answer until there are no more questions."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    kind, num_bytes = KINDS[sys.argv[1]], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if kind is render:
        import transformers.utils.chat_template_utils  # noqa: F401, loaded before there is a limit
    elif kind is tokenizer:
        import tokenizers  # noqa: F401, loaded before there is a limit
    limit_memory(num_bytes)
    for line in sys.stdin.buffer:
        question = json.loads(line)
        limit_time(question["seconds"])
        start = time.process_time()
        try:
            answer = {**kind(question), "seconds": time.process_time() - start}
        except MemoryError:
            answer = {"memory": True}
        except BaseException as error:  # noqa: BLE001, the outermost edge; a panic in Rust is no Exception
            answer = {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
