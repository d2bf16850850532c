"""One line on stderr that says how far a long verb is; the plain install brings no library for it."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
EVERY_S = 1.0


def counted(items: Iterable[Item], total: int, title: str, *, shown: bool) -> Iterator[Item]:
    """Yield the items, saying every second how many are done and how long the rest may take."""
    start = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if shown and done and now - said >= EVERY_S:
            said = now
            left = (now - start) / done * (total - done)
            print(f"{title}: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)
        yield item
