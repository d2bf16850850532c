"""The base on a candidate's weights: its adapter switched off for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SWITCH = "_disable_adapters"  # what PEFT's layers ask in each forward pass


def adapted_layers(model: Any) -> list[Any]:
    """Return the layers of the model that carry an adapter."""
    return [module for module in model.modules() if hasattr(module, SWITCH)]


@contextmanager
def without_adapter(model: Any, layers: Sequence[Any] | None = None) -> Iterator[Any]:
    """Run the block with the model's adapter switched off, if it has one: the base, on the same weights.

    PEFT's own `disable_adapter` asks every layer for its state and sets what may be trained, which costs as
    much as a small batch; a forward pass reads nothing but this flag. `layers` are the model's
    `adapted_layers` where the caller knows them: to look for them takes milliseconds.
    """
    layers = adapted_layers(model) if layers is None else layers
    assert not any(getattr(layer, SWITCH) for layer in layers), "an adapter is switched off once"
    assert bool(layers) == hasattr(model, "disable_adapter"), "PEFT keeps the flag elsewhere"
    try:
        for layer in layers:
            setattr(layer, SWITCH, True)
        yield model
    finally:
        for layer in layers:
            setattr(layer, SWITCH, False)
