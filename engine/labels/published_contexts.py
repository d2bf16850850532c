"""The contexts that a publisher put beside a dictionary, as contexts that a label may be made of."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ft_audit.engine.labels.contexts import NUM_CONTEXTS, WINDOW
from ft_audit.engine.store import Context
from ft_audit.sae.examples import EXAMPLES_FILE, Examples, open_examples


@contextmanager
def open_published(folder: Path) -> Iterator[Examples | None]:
    """Open the examples beside a dictionary; None where there are none, as most publish none."""
    if not (folder / EXAMPLES_FILE).is_file():
        yield None
        return
    with open_examples(folder) as examples:
        yield examples


def published_contexts(examples: Examples, feature: int) -> list[Context]:
    """Return the strongest contexts, strongest first; of their tokens only the peak is known to fire."""
    found = examples.feature(feature, num_contexts=NUM_CONTEXTS, before=WINDOW, after=WINDOW)
    return [
        Context(
            prompt=context.sequence,
            position=context.position,
            peak=context.activation,
            tokens=context.ids,
            activations=tuple(context.activation * (i == context.peak) for i in range(len(context.ids))),
        )
        for context in found.contexts
    ]
