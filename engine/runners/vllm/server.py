"""vLLM's own process: starts the engine it is told to, and serves one conversation over a pipe.

Inside it vLLM runs without further processes of its own, unless several GPUs ask for them: those wait for
each other by spinning, which takes a core from a model on a processor, and requests reach them one by one, so
that what shares a step would depend on the moment.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from ft_audit.engine.runners.vllm.messages import Ask, Done, Failed, Ready, Sampling, Start
from ft_audit.engine.runners.vllm.refusal import Refusal, refuse_model_class

ROOM = Start.__module__.rpartition(".")[0]
CPU_BLOCK = 32  # tokens; the smallest for which vLLM's kernels on a processor are fast
MAX_MESSAGE = 400


def main(connection: Connection) -> None:
    """Start what the first message asks for, answer every `Ask`, and end with the other side."""
    start, llm = connection.recv(), None
    try:
        llm = _start(start)
        connection.send(Ready(_description(llm)))
        while True:
            _serve(llm, connection.recv(), connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the other side has gone
    except Refusal as error:
        connection.send(Failed(str(error)))
    except Exception as error:  # the edge of this process: whatever it is, the other side says it
        connection.send(Failed(f"vLLM failed: {one_line(error)}"))
        raise
    finally:
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        # Also when the other side was killed and cannot.
        shutil.rmtree(start.scratch, ignore_errors=True)


def _start(start: Start) -> Any:
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    arguments = {**start.arguments, "enforce_eager": on_cpu}  # compiling for a processor takes minutes
    if on_cpu:
        arguments["block_size"] = CPU_BLOCK
    if start.ids:
        arguments |= _extraction(start, on_cpu)
        kept = ("model", "dtype", "max_model_len", "hf_overrides", "skip_tokenizer_init")
        config = EngineArgs(**{name: arguments[name] for name in kept if name in arguments})
        refuse_model_class(config.create_model_config())
    return LLM(**arguments)


def _extraction(start: Start, on_cpu: bool) -> dict[str, Any]:
    """Return the arguments of vLLM's own way to hand out hidden states; ours only where there is no GPU."""
    own = {"kv_connector": "CpuHiddenStatesConnector", "kv_connector_module_path": f"{ROOM}.connector"}
    stock = {"kv_connector": "ExampleHiddenStatesConnector"}
    return {
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": list(start.ids)}},
        },
        "kv_transfer_config": {
            **(own if on_cpu else stock),
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {"shared_storage_path": start.scratch},
        },
    }


def _description(llm: Any) -> Mapping[str, Any]:
    config = llm.llm_engine.vllm_config
    return {
        "num_hidden_layers": config.model_config.hf_text_config.num_hidden_layers,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "model_class": config.model_config.architecture,
    }


def _serve(llm: Any, ask: Ask, connection: Connection) -> None:
    from vllm.inputs import TokensPrompt

    engine, lora = llm.llm_engine, _lora(ask.adapter)
    for index, (ids, sampling) in enumerate(zip(ask.prompts, ask.sampling, strict=True)):
        engine.add_request(
            str(index), TokensPrompt(prompt_token_ids=list(ids)), _params(sampling), lora_request=lora
        )
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                connection.send(_done(output))
    # A finished request's states leave the cache in the step after it.
    scheduler = engine.engine_core.engine_core.scheduler
    while scheduler.has_requests():
        engine.step()


def _params(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.num_samples,
        temperature=sampling.temperature,
        seed=sampling.seed,
        max_tokens=sampling.max_tokens,
        stop_token_ids=list(sampling.ends),
        logprobs=0 if sampling.logprobs else None,  # the sampled token's alone
        detokenize=False,
        # Otherwise the samples of a prompt come one by one.
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _done(output: Any) -> Done:
    answers = []
    for one in sorted(output.outputs, key=lambda answer: answer.index):
        ids = [int(token) for token in one.token_ids]
        each = zip(ids, one.logprobs or (), strict=one.logprobs is not None)
        answers.append((ids, [float(at[token].logprob) for token, at in each]))
    path = (output.kv_transfer_params or {}).get("hidden_states_path")
    return Done(int(output.request_id), path, answers)


def _lora(adapter: str | None) -> Any:
    if adapter is None:
        return None
    from vllm.lora.request import LoRARequest

    # An engine is started for one adapter, and used with it or without.
    return LoRARequest("tuned", 1, adapter)


def one_line(error: BaseException) -> str:
    """Return what an error of vLLM's says, on one line and without what pydantic adds to it."""
    text = " ".join(str(error).partition("[type=")[0].split())
    return text[:MAX_MESSAGE] if text else type(error).__name__


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
    # Everything is said, and taking the interpreter down would take longer than the work did.
    os._exit(0)
