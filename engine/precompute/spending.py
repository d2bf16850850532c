"""Where a job's time and tokens go, as they are spent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from ft_audit.engine.store.ledger import Ledger

Part = Literal["texts", "forward", "answers", "weights", "statistics"]


@dataclass(slots=True)
class Spending:
    """Counts each second to one part: a part within another stops the outer one's clock."""

    seconds: dict[Part, float] = field(default_factory=dict)
    num_generated: int = 0
    _open: list[Part] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the block's seconds to one part."""
        self._lap()
        self._open.append(name)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()

    def ledger(self, device: str, tokens: int, tokens_read: int) -> Ledger:
        """Return what was spent on a job of so many tokens, of which some were read now."""
        return Ledger(
            device=device,
            seconds={name: round(value, 3) for name, value in self.seconds.items()},
            tokens_read=tokens_read,
            tokens_reused=max(
                tokens - tokens_read, 0
            ),  # a base whose activations were not kept is read again
            tokens_generated=self.num_generated,
        )

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
