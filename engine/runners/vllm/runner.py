"""Activations from vLLM: the residual stream before and after blocks, by vLLM's `extract_hidden_states`.

Shapes: T real tokens in prompt order, K extraction ids, D width of the residual stream.
"""

import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ft_audit.engine.runners.forward import Forward, HookPoint
from ft_audit.engine.runners.vllm.engine import VllmEngine
from ft_audit.engine.runners.vllm.messages import Sampling
from ft_audit.engine.runners.vllm.support import OTHER_RUNNER, extraction_id, text_config
from ft_audit.engine.tokens.padded import PaddedBatch
from ft_audit.errors import ConfigError, ModelError

PROBE_TOKENS = 8
COMPANY = 0.1  # how far a prompt's states may move with what is computed beside them, relative


class VllmRunner:
    """One model in vLLM, ready to read batches at hooks; close it, or use it in a `with`.

    Several runners can share one engine (`at`, `base`), which then belongs to the first of them.

    Raises:
        ConfigError: a hook that the engine was not started for.
    """

    def __init__(
        self,
        engine: VllmEngine,
        hooks: Sequence[HookPoint],
        ids: Sequence[int],
        *,
        device: torch.device,
        adapter: Path | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        self.hooks = tuple(hooks)
        self.device = device
        self.engine = engine
        self._ids = tuple(ids)
        self._adapter, self._norm = adapter, norm
        num_layers = int(text_config(engine.source).num_hidden_layers)
        self._columns = {hook.name: self._column(hook, num_layers) for hook in self.hooks}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine, for every runner on it."""
        self.engine.close()

    def at(self, hooks: Sequence[HookPoint]) -> "VllmRunner":
        """Return a runner on the same engine at some of its hooks."""
        return VllmRunner(
            self.engine, hooks, self._ids, device=self.device, adapter=self._adapter, norm=self._norm
        )

    def base(self) -> "VllmRunner":
        """Return a runner on the same engine and at the same hooks, without the adapter."""
        return VllmRunner(self.engine, self.hooks, self._ids, device=self.device, norm=self._norm)

    @torch.inference_mode()
    def run(self, batch: PaddedBatch, *, final: bool = False, prefix_BLD: Tensor | None = None) -> Forward:
        """Return the activations of one batch on `device`, in the model's dtype.

        Raises:
            ModelError: states that are zero or not finite, or the engine died.
        """
        assert prefix_BLD is None, "vLLM begins at the tokens"
        assert not final or self._norm is not None, "an engine is started for final states or not"
        prompts = _prompts(batch)
        columns = sorted({*self._columns.values(), *([len(self._ids) - 1] if final else [])})
        kept = self._states(prompts, columns)
        found = {name: kept[column] for name, column in self._columns.items()}
        if not final:
            return Forward(found)
        assert self._norm is not None
        return Forward(found, self._norm(kept[len(self._ids) - 1]))

    def _column(self, hook: HookPoint, num_layers: int) -> int:
        wanted = extraction_id(hook, num_layers)
        if wanted not in self._ids:
            raise ConfigError(
                f"hooks: this vLLM engine was not started for {hook.name}; open one with all hooks"
            )
        return self._ids.index(wanted)

    def _states(self, prompts: Sequence[Sequence[int]], columns: Sequence[int]) -> dict[int, Tensor]:
        """Return column of the extraction -> stream [T, D] in prompt order, on `device`."""
        starts = [0]
        for ids in prompts:
            starts.append(starts[-1] + len(ids))
        kept: dict[int, Tensor] = {}
        for index, states_TKD in self._extract(prompts):
            for column in columns:
                rows_TD = states_TKD[:, column]
                if column not in kept:
                    kept[column] = rows_TD.new_empty((starts[-1], rows_TD.shape[1]))
                kept[column][starts[index] : starts[index + 1]] = rows_TD
        for column, x_TD in kept.items():
            self._check_rows(x_TD, self._ids[column])
        return {column: x_TD.to(self.device) for column, x_TD in kept.items()}

    def _extract(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of the prompt, its states [T, K, D]); each file is removed once it is read."""
        sampling = [Sampling()] * len(prompts)
        for done in self.engine.ask(prompts, sampling, self._adapter):
            assert done.path is not None, "the engine was started to hand out states"
            try:
                found = take_states(Path(done.path))
            except (OSError, SafetensorError) as error:
                raise ModelError(
                    f"model {self.engine.source.ref!r}: vLLM's states of a prompt cannot be read ({error}); "
                    f"see that there is room in {self.engine.scratch}, or lower precompute.tokens_per_batch"
                ) from error
            if found["token_ids"].tolist() != list(prompts[done.prompt]):
                raise self._untrue("it gave the states of another prompt")
            yield done.prompt, found["hidden_states"]

    def _check_rows(self, x_TD: Tensor, number: int) -> None:
        """Raise ModelError for rows that no forward pass leaves: vLLM has given zeros without a word."""
        largest_T = x_TD.abs().amax(dim=1)
        if not bool(torch.isfinite(largest_T).all()):
            raise self._untrue(f"the states of extraction id {number} are not finite")
        # The embedding of a padding token may well be zero.
        if number > 0 and bool((largest_T == 0).any()):
            raise self._untrue(f"states of extraction id {number} are all zero")

    def probe(self) -> None:
        """Read a few different tokens twice, in company and alone, and check what is sure of any model.

        Raises:
            ModelError: states that are zero, not finite, the same for different tokens or at different ids,
                or that depend on the company.
        """
        vocabulary = int(text_config(self.engine.source).vocab_size)
        # Special and unused tokens, whose embeddings may be alike, stand at the ends of a vocabulary.
        ids = [vocabulary // 10 + i * vocabulary // (2 * PROBE_TOKENS) for i in range(PROBE_TOKENS)]
        everything = range(len(self._ids))
        both = self._states([ids, ids[::-1]], everything)
        alone = self._states([ids], everything)
        for column in everything:
            x_TD, again_TD = both[column][:PROBE_TOKENS].float(), alone[column].float()
            if any(torch.equal(x_TD[row], x_TD[row - 1]) for row in range(1, PROBE_TOKENS)):
                raise self._untrue(f"different tokens have the same states at id {self._ids[column]}")
            if column and torch.equal(x_TD, both[column - 1][:PROBE_TOKENS].float()):
                raise self._untrue(
                    f"ids {self._ids[column - 1]} and {self._ids[column]} have the same states"
                )
            # The first token's activations are massive, and would hide the others'.
            if float((x_TD - again_TD)[1:].norm()) > COMPANY * float(again_TD[1:].norm()):
                raise self._untrue(f"a prompt's states at id {self._ids[column]} depend on its company")

    def _untrue(self, what: str) -> ModelError:
        return ModelError(
            f"model {self.engine.source.ref!r}: vLLM's hidden states are wrong: {what}; {OTHER_RUNNER}"
        )


def take_states(path: Path) -> dict[str, Tensor]:
    """Return what vLLM wrote for one prompt, once it is written, and remove it.

    The writer holds a lock on a file beside it until then, and loses it if it dies.
    """
    lock = path.with_name(f"{path.name}.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
    found = load_file(path)
    path.unlink()
    lock.unlink()
    return found


def _prompts(batch: PaddedBatch) -> list[list[int]]:
    """Return the batch's prompts without their padding, in order."""
    counts = torch.bincount(batch.row_T, minlength=batch.ids_BL.shape[0]).tolist()
    return [ids[:count] for ids, count in zip(batch.ids_BL.tolist(), counts, strict=True)]
