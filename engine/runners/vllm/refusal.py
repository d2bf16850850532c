"""Models from which vLLM cannot extract, told by vLLM's own class for them; it runs in vLLM's own process."""

from typing import Any


class Refusal(Exception):
    """A model that vLLM cannot be asked for; the message completes "model X: ..."."""


def refuse_model_class(model_config: Any) -> None:
    """Raise Refusal unless vLLM's class for the model can hand out its hidden states.

    `model_config` is vLLM's; nothing is loaded yet.
    """
    from vllm.model_executor.models.interfaces import supports_eagle3
    from vllm.model_executor.models.registry import ModelRegistry

    name = str(model_config.architecture)
    if model_config.use_mla:
        raise Refusal(f"vLLM cannot extract hidden states beside the latent attention of {name}")
    if model_config.is_hybrid or model_config.is_attention_free:
        # vLLM has given all-zero states for such models without a word.
        raise Refusal(f"{name} has blocks without attention, from which vLLM does not extract reliably")
    found, _ = ModelRegistry.resolve_model_cls(model_config.architectures, model_config)
    if not supports_eagle3(found):
        raise Refusal(f"vLLM's {name} has no way to hand out hidden states (SupportsEagle3)")
