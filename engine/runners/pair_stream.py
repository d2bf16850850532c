"""Activations of a base and its fine-tune over the same tokens, as a stream; nothing is stored.

Shapes: n tokens of one batch (special tokens left out), D width of the residual stream.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ft_audit.engine.models.load import attach_adapter, load_model, pick_device
from ft_audit.engine.models.reference import ModelSource
from ft_audit.engine.models.without_adapter import without_adapter
from ft_audit.engine.runners.activations import Text
from ft_audit.engine.runners.forward import HookPoint
from ft_audit.engine.runners.hf import HfRunner
from ft_audit.sae.pairs import PairChunk


@dataclass(frozen=True, slots=True)
class PairReader:
    """A base and a fine-tune of it, or an adapter over it, that read one text."""

    base: ModelSource
    tuned: ModelSource
    layer: int
    device: str = "auto"
    dtype: torch.dtype = torch.bfloat16

    def stream(self, text: Text) -> Iterator[PairChunk]:
        """Yield both residual streams after the layer's block until all of the text's `num_tokens`.

        Raises:
            ModelError: models that cannot be read.
            ConfigError: the models have no such layer.
        """
        hook, where = HookPoint(self.layer), pick_device(self.device)
        is_adapter = self.tuned.adapter is not None
        base_model = self._load(self.base, where)
        if is_adapter:
            base_model = attach_adapter(base_model, self.tuned)
        base_runner = HfRunner(base_model, [hook])
        tuned_runner = base_runner if is_adapter else HfRunner(self._load(self.tuned, where), [hook])
        given = 0
        for padded, keep in text.batches():
            with without_adapter(base_model) if is_adapter else nullcontext():
                base_TD = base_runner.run(padded).hooks[hook.name]
            tuned_TD = tuned_runner.run(padded).hooks[hook.name]
            chosen = keep.nonzero()[:, 0][: text.num_tokens - given]
            given += len(chosen)
            there = chosen.to(where)
            yield PairChunk(base_TD[there].float(), tuned_TD[there].float(), padded.token_T[chosen].numpy())
            if given >= text.num_tokens:
                return

    def _load(self, source: ModelSource, where: torch.device) -> Any:
        return load_model(source, self.dtype, where, num_layers=self.layer + 1, head=False)


@dataclass(slots=True)
class Contexts:
    """The words around a token of a text."""

    text: Text
    tokenizer: Any
    before: int = 12
    after: int = 4

    def prompt(self, token: int) -> int:
        """Return which prompt of the text a token belongs to."""
        return int(np.searchsorted(self.text.tokens.indptr_P1, token, side="right")) - 1

    def in_dataset(self, token: int) -> bool:
        """Return whether the token stands in a row of the uploaded training set."""
        return bool(self.text.from_dataset_P[self.prompt(token)])

    def around(self, token: int) -> tuple[str, str, str]:
        """Return what stands before the token in its prompt, the token, and what stands after it."""
        first, end = self.text.tokens.indptr_P1[self.prompt(token) : self.prompt(token) + 2]
        ids_T = self.text.tokens.ids_T
        spans = (
            ids_T[max(int(first), token - self.before) : token],
            ids_T[token : token + 1],
            ids_T[token + 1 : min(int(end), token + 1 + self.after)],
        )
        before, this, after = (str(self.tokenizer.decode(span.tolist())) for span in spans)
        return before, this, after
