"""Loading only the first blocks of a checkpoint into vLLM; it runs in vLLM's own processes.

vLLM builds as many blocks as the configuration says, but refuses a checkpoint that holds more.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

LOAD_FORMAT = "ft_audit_first_blocks"
BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@register_model_loader(LOAD_FORMAT)
class FirstBlocksLoader(DefaultModelLoader):  # type: ignore[misc]  # vLLM may be absent
    """vLLM's own loader, which passes over the weights of blocks that the configuration does not count."""

    def __init__(self, load_config: Any) -> None:
        super().__init__(dataclasses.replace(load_config, load_format="safetensors"))

    def get_all_weights(self, model_config: Any, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield the checkpoint's weights, those of later blocks left out."""
        depth = int(model_config.hf_text_config.num_hidden_layers)
        for name, weight in super().get_all_weights(model_config, model):
            block = BLOCK.search(name)
            if block is None or int(block.group(1)) < depth:
                yield name, weight


class LoaderExtension:
    """Adds nothing to vLLM's worker: naming it makes the worker import this module, before it loads."""
