"""The pair of models of one job, loaded only when a run is missing."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.models.load import DTYPES, attach_adapter, load_model, load_tokenizer, pick_device
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.tokens.compat import check_pair
from ft_audit.errors import ModelError

SHAPE_KEYS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@dataclass
class ModelPair:
    """Base and tuned: sources, tokenizers and findings at once, weights on first use."""

    config: AuditConfig
    base: ModelSource
    tuned: ModelSource
    device: torch.device
    base_tokenizer: PreTrainedTokenizerBase
    tuned_tokenizer: PreTrainedTokenizerBase
    findings: list[str] = field(default_factory=list)

    @cached_property
    def base_model(self) -> PreTrainedModel:
        """The base on the device; an adapter that is the candidate sits on it and must be switched off."""
        model = load_model(self.base, DTYPES[self.config.models.dtype], self.device)
        return attach_adapter(model, self.tuned) if self.tuned.adapter is not None else model

    @cached_property
    def tuned_model(self) -> PreTrainedModel:
        """The candidate: the same resident weights when it is an adapter."""
        if self.tuned.adapter is not None:
            return self.base_model
        return load_model(self.tuned, DTYPES[self.config.models.dtype], self.device)


def open_pair(config: AuditConfig) -> ModelPair:
    """Return the checked pair of a config; no weights are loaded yet.

    Raises:
        ModelError: another architecture, another shape or an incompatible vocabulary, or unreadable files.
    """
    base = resolve_model(config.models.base, config.base_dir)
    tuned = resolve_model(config.models.tuned, config.base_dir, base)
    _check_shapes(base, tuned)
    base_tokenizer, tuned_tokenizer = load_tokenizer(base), load_tokenizer(tuned)
    same = base.tokenizer_sha256 == tuned.tokenizer_sha256
    findings = [] if same else [str(found) for found in check_pair(base_tokenizer, tuned_tokenizer)]
    return ModelPair(
        config,
        base,
        tuned,
        pick_device(config.models.device),
        base_tokenizer,
        tuned_tokenizer,
        findings,
    )


def _check_shapes(base: ModelSource, tuned: ModelSource) -> None:
    if tuned.adapter is not None:
        return
    ours, theirs = base.config, tuned.config
    ours, theirs = ours.get("text_config", ours), theirs.get("text_config", theirs)
    for key in SHAPE_KEYS:
        # More rows in the vocabulary are added tokens, which the tokenizer check reports.
        if key != "vocab_size" and ours.get(key) != theirs.get(key):
            raise ModelError(
                f"models.tuned {tuned.ref!r} is not a fine-tune of models.base {base.ref!r}: {key} is "
                f"{theirs.get(key)!r} there and {ours.get(key)!r} in the base"
            )
