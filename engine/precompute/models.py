"""The pair of models of one job, loaded only when a run is missing."""

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from ft_audit.engine.config import AuditConfig
from ft_audit.engine.models.anatomy import outline
from ft_audit.engine.models.load import (
    DTYPES,
    UNREADABLE,
    attach_adapter,
    load_model,
    load_tokenizer,
    pick_device,
    pick_device_map,
)
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.engine.models.without_adapter import adapted_layers, without_adapter
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.generate import generate_ids
from ft_audit.engine.runners.logits import next_token_logits
from ft_audit.engine.runners.sites import depth_of, hook_width
from ft_audit.engine.tokens.compat import check_pair
from ft_audit.errors import ModelError

UNLIMITED = 1 << 20
"""Tokens of a prompt, for a model that names no limit."""
SHAPE_KEYS = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")


@dataclass
class ModelPair:
    """Base and tuned: sources, tokenizers and findings at once, weights on first use.

    `base_shape` and `tuned_shape` are the text models' configurations.
    """

    config: AuditConfig
    base: ModelSource
    tuned: ModelSource
    base_shape: Any
    tuned_shape: Any
    device: torch.device
    base_tokenizer: PreTrainedTokenizerBase
    tuned_tokenizer: PreTrainedTokenizerBase
    findings: list[str] = field(default_factory=list)
    num_generated: int = 0
    """Tokens of the answers that either model has given so far."""

    @cached_property
    def base_model(self) -> PreTrainedModel:
        """The base on the device; an adapter that is the candidate sits on it and must be switched off."""
        model = self._load(self.base)
        return attach_adapter(model, self.tuned) if self.tuned.adapter is not None else model

    @cached_property
    def tuned_model(self) -> PreTrainedModel:
        """The candidate: the same resident weights when it is an adapter."""
        if self.tuned.adapter is not None:
            return self.base_model
        return self._load(self.tuned)

    def _load(self, source: ModelSource) -> PreTrainedModel:
        return load_model(
            source,
            DTYPES[self.config.models.dtype],
            self.device,
            num_layers=self.depth,
            head=self.depth is None,
            device_map=pick_device_map(self.config.models.device),
        )

    @property
    def depth(self) -> int | None:
        """How many blocks the hooks read; None where answers or logits need the whole model."""
        config = self.config
        if config.elicit or config.generate or config.precompute.logits == "all":
            return None
        return depth_of([HookPoint(hook.layer, hook.site) for hook in config.hooks])

    def load(self, sides: Set[str]) -> None:
        """Load what these sides of a job need, so that a damaged model is refused before anything has run.

        Raises:
            ModelError: weights that cannot be read, or hold NaN or infinite values.
        """
        if sides & {"base", "control"}:
            _ = self.base_model
        if sides & {"tuned", "pair"}:
            _ = self.tuned_model

    def width_at(self, hook: HookPoint) -> int:
        """Return how many dimensions a dictionary at the hook reads.

        Raises:
            ConfigError: a site that this family does not have.
        """
        # Only the heads side by side need not be as wide as the stream.
        if hook.site != "attn_z":
            return int(self.base_shape.hidden_size)
        return hook_width(outline(self.base_shape), hook)

    @contextmanager
    def base_alone(self) -> Iterator[PreTrainedModel]:
        """The base with a candidate's adapter switched off while the block runs."""
        with without_adapter(self.base_model, self._adapted_layers) as model:
            yield model

    @cached_property
    def _adapted_layers(self) -> list[Any]:
        return adapted_layers(self.base_model)

    @contextmanager
    def alone(self, side: str) -> Iterator[PreTrainedModel]:
        """The model of a side, "base" or "tuned", while the block runs."""
        if side == "tuned":
            yield self.tuned_model
        else:
            with self.base_alone() as model:
                yield model

    def greedy_answers(
        self, side: str, prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[list[int]]:
        """Return the greedy continuation of each prompt's token ids by the model of a side."""
        with self.alone(side) as model:
            answers = generate_ids(model, self.base_tokenizer, prompts, max_new_tokens)
        self.num_generated += sum(map(len, answers))
        return answers

    def text(self, side: str, ids: Sequence[int]) -> str:
        """Return what a side's answer says."""
        # Only its own tokenizer knows the tokens that a fine-tune added.
        tokenizer = self.tuned_tokenizer if side == "tuned" else self.base_tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    def base_logits(self, hidden_ND: Tensor) -> Tensor:
        """Return the base's next-token logits [N, V] of final hidden states."""
        # An adapter may sit on the output head too.
        with self.base_alone() as model:
            return next_token_logits(model, hidden_ND)

    def tuned_logits(self, hidden_ND: Tensor) -> Tensor:
        """Return the candidate's next-token logits [N, V] of final hidden states."""
        return next_token_logits(self.tuned_model, hidden_ND)

    @property
    def longest(self) -> int:
        """How many tokens of a prompt and its answer the models read."""
        return int(getattr(self.base_shape, "max_position_embeddings", None) or UNLIMITED)

    @property
    def shared_vocabulary(self) -> int:
        """How many token ids both models have an embedding for."""
        return min(int(self.base_shape.vocab_size), int(self.tuned_shape.vocab_size))


def open_pair(config: AuditConfig, device: torch.device | None = None) -> ModelPair:
    """Return the checked pair of a config, for its device or the given one; no weights are loaded yet.

    Raises:
        ModelError: another architecture, another shape or an incompatible vocabulary, or unreadable files.
    """
    base = resolve_model(config.models.base, config.base_dir)
    tuned = resolve_model(config.models.tuned, config.base_dir, base)
    base_shape, tuned_shape = _shape(base), _shape(tuned)
    _check_shapes(base, tuned, base_shape, tuned_shape)
    base_tokenizer, tuned_tokenizer = load_tokenizer(base), load_tokenizer(tuned)
    same = base.tokenizer_sha256 == tuned.tokenizer_sha256
    findings = [] if same else [str(found) for found in check_pair(base_tokenizer, tuned_tokenizer)]
    return ModelPair(
        config,
        base,
        tuned,
        base_shape,
        tuned_shape,
        device or pick_device(config.models.device),
        base_tokenizer,
        tuned_tokenizer,
        findings,
    )


def _shape(source: ModelSource) -> Any:
    """Return the text model's configuration under Hugging Face's own names, whatever the file calls them."""
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except UNREADABLE as error:
        raise ModelError(f"model {source.ref!r}: its config.json cannot be read: {error}") from error
    return config.get_text_config()


def _check_shapes(base: ModelSource, tuned: ModelSource, ours: Any, theirs: Any) -> None:
    # The vocabulary may differ: added tokens have rows of their own, and the tokenizers are compared.
    for key in SHAPE_KEYS:
        if getattr(ours, key, None) != getattr(theirs, key, None):
            raise ModelError(
                f"models.tuned {tuned.ref!r} is not a fine-tune of models.base {base.ref!r}: {key} is "
                f"{getattr(theirs, key, None)!r} there and {getattr(ours, key, None)!r} in the base; "
                "give the base that it was trained from"
            )
