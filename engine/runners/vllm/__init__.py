"""vLLM as a runner: hidden states by its own `extract_hidden_states`, and answers in batches.

vLLM pins its own torch and transformers, so it lives in an environment of its own. Importing this alone
needs no vLLM.
"""

from ft_audit.engine.runners.vllm.answers import VllmGenerator, open_vllm_generator
from ft_audit.engine.runners.vllm.engine import vllm_version
from ft_audit.engine.runners.vllm.runner import VllmRunner
from ft_audit.engine.runners.vllm.start import open_vllm_runner

__all__ = ["VllmGenerator", "VllmRunner", "open_vllm_generator", "open_vllm_runner", "vllm_version"]
