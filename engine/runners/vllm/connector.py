"""The KV connector that hands hidden states over where there is no GPU; it runs in vLLM's own processes.

vLLM's example connector copies on a CUDA stream; without a GPU it writes nothing, and its reader waits for
ever.
"""

import os
from typing import Any

import torch
from safetensors.torch import save_file
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    PendingSave,
    extract_from_kv_cache,
)


class _Done:
    """Stands where a CUDA event is asked whether the copy is made: a copy on the processor is."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class CpuHiddenStatesConnector(ExampleHiddenStatesConnector):  # type: ignore[misc]  # vLLM may be absent
    """vLLM's example connector with a plain copy: same files, same locks, same bookkeeping."""

    def _submit_async_write(self, pending: PendingSave) -> None:
        """Copy one request's states out of the cache, and give the writing to a thread."""
        if not self._is_tp_rank_zero:
            return
        assert self._kv_cache is not None
        blocks = torch.tensor(pending.block_ids, dtype=torch.long)
        slots = (blocks[:, None] * self._block_size + torch.arange(self._block_size)).flatten()
        states_TKD = extract_from_kv_cache(self._kv_cache, slots, pending.token_ids.shape[0])
        tensors = {"hidden_states": states_TKD.contiguous(), "token_ids": pending.token_ids.clone()}
        assert pending.req_id not in self._req_futures, "vLLM finishes a request once"
        future = self._executor.submit(
            _write, tensors, pending.filename, self._lock_fds.pop(pending.req_id, None)
        )
        self._req_copy_events[pending.req_id] = _Done()
        self._req_futures[pending.req_id] = future
        future.add_done_callback(lambda done, request=pending.req_id: self._on_write_done(request, done))


def _write(tensors: dict[str, Any], filename: str, lock: int | None) -> None:
    """Write the file, then let its reader in; a failed write lets it in too, to find no file."""
    try:
        save_file(tensors, filename)
    finally:
        if lock is not None:
            os.close(lock)
