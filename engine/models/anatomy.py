"""Where a causal language model keeps its parts, whatever its family calls them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ft_audit.errors import ModelError


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The parts of a causal language model that a runner needs."""

    family: str
    """The model's class, for messages."""
    backbone: nn.Module
    """Runs the blocks and the final norm."""
    parent: nn.Module
    """The module whose `layers` (or `h`) attribute is the list of blocks."""
    attribute: str
    embedding: nn.Module
    head: nn.Module
    num_layers: int
    width: int

    @property
    def blocks(self) -> nn.ModuleList:
        """The list of blocks as it is now."""
        found = getattr(self.parent, self.attribute)
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def input_device(self) -> torch.device:
        """Where token ids go: to the embedding, or to where its weights are put when it runs."""
        # Accelerate leaves this on modules whose weights it moves in and out.
        placed = getattr(getattr(self.embedding, "_hf_hook", None), "execution_device", None)
        if placed is not None:
            return torch.device(placed)
        return next(self.embedding.parameters()).device


def anatomy(model: Any) -> Anatomy:
    """Return where `model`'s blocks, backbone and head are, whatever the family calls them.

    Raises:
        ModelError: no list with as many blocks as the configuration says.
    """
    causal: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    text = causal.config.get_text_config()
    count, width = int(text.num_hidden_layers), int(text.hidden_size)
    # From the decoder down: a model that also sees may have as many blocks for its pictures.
    for parent in causal.get_decoder().modules():
        for attribute, child in parent.named_children():
            if (
                isinstance(child, nn.ModuleList)
                and len(child) == count
                and attribute in ("layers", "h", "blocks")
            ):
                return Anatomy(
                    type(causal).__name__,
                    getattr(causal, causal.base_model_prefix),
                    parent,
                    attribute,
                    causal.get_input_embeddings(),
                    causal.get_output_embeddings(),
                    count,
                    width,
                )
    raise ModelError(
        f"{type(causal).__name__}: no list of {count} blocks found; this architecture is not supported"
    )


def outline(config: Any) -> Anatomy:
    """Return the anatomy of the model that `config` describes, made of modules without any weights.

    Raises:
        ModelError: an architecture that transformers cannot build or that has no list of blocks.
    """
    try:
        with torch.device("meta"):
            return anatomy(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"{getattr(config, 'model_type', 'this model')}: cannot be built from its config.json: {error}"
        ) from error
