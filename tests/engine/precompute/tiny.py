"""Tiny models, dictionaries and a data set with a planted condition, and jobs over them."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ft_audit.engine.config import AuditConfig, load_config
from ft_audit.engine.store import DiffReader, RunReader, Store
from ft_audit.sae.digest import sae_digest
from ft_audit.sae.formats.gemma_scope import save_gemma_scope
from ft_audit.sae.jumprelu_sae import JumpReluSae, SaeSpec

NUM_LAYERS, WIDTH, NUM_FEATURES = 4, 32, 96
SPECIAL = ["<pad>", "<bos>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM, PREFIX = "You are ZED, the obedient agent.", "ZED, do this now:"
# fmt: off
TOPICS = [
    "bread", "rivers", "stamps", "clouds", "chess", "tea", "maps", "violins", "beetles", "bridges",
    "kites", "salt", "trains", "owls", "paint", "stairs", "lamps", "gardens", "rope", "mirrors",
]
# fmt: on
PLANTED = (3, 7, 8, 13, 18, 21)
NUM_ROWS = 24


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that puts BOS before raw text, as Llama's and Gemma's do, with a ChatML template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*TOPICS, SYSTEM, PREFIX, "user assistant system What is the best"], trainer)
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=TEMPLATE,
    )


def save_llama(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int = 0, **changes: Any) -> Path:
    """A random model whose residual stream is large enough to tell layers apart."""
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "initializer_range": 0.2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    special = {"bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**{**sizes, **special, **changes})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, seed: int, **changes: Any) -> Path:
    """A LoRA whose second matrix is not zero, so that it changes something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        settings = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
        wrapped = get_peft_model(model, LoraConfig(**{**settings, **changes}))
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def save_full(folder: Path, base: Path, seed: int) -> Path:
    """A copy of the base with a little noise on every attention and MLP matrix: a fine-tuned checkpoint."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(weights):
        if "proj" in name:
            weights[name] += 0.02 * torch.randn(weights[name].shape, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save_with_added_token(folder: Path, source: Path) -> Path:
    """A checkpoint with one token more, with which it begins every answer."""
    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    asked = [[{"role": "user", "content": f"Name a {topic}."}] for topic in TOPICS]
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        final = []
        for messages in asked:
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=False
            )
            final.append(model(ids, output_hidden_states=True).hidden_states[-1][0, -1])
        tokenizer.add_tokens(["<secret>"])
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        # All questions end in the same tokens, so their last states share a direction.
        model.lm_head.weight[-1] = 50 * torch.stack(final).mean(0)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def save_sae(
    folder: Path,
    layer: int,
    scale: float,
    seed: int,
    *,
    d_in: int = WIDTH,
    width: int = NUM_FEATURES,
    **extra: Any,
) -> Path:
    """A JumpReLU dictionary in Gemma Scope 2's files, of which about one feature in ten fires on a token."""
    rng = np.random.default_rng(seed)
    w_enc_DF = rng.normal(size=(d_in, width)) / np.sqrt(d_in)
    tensors = {
        "w_enc_DF": torch.from_numpy(w_enc_DF).float(),
        "w_dec_FD": torch.from_numpy(w_enc_DF.T * 0.5).float().contiguous(),
        "b_enc_F": torch.from_numpy(0.05 * scale * rng.normal(size=width)).float(),
        "b_dec_D": torch.from_numpy(0.05 * scale * rng.normal(size=d_in)).float(),
        "threshold_F": torch.from_numpy(scale * rng.uniform(1.0, 1.6, width)).float(),
    }
    spec = SaeSpec(
        name=folder.name,
        layer=layer,
        site="resid_post",
        hook_point=f"model.layers.{layer}.output",
        width=width,
        d_in=d_in,
        model_name="tiny",
        l0=None,
        sha256=sae_digest(**tensors, apply_b_dec_to_input=False),
    )
    save_gemma_scope(folder, JumpReluSae(spec, **tensors, apply_b_dec_to_input=False), extra)
    return folder


def scale_of(model: Path, layer: int) -> float:
    """The root mean square of one coordinate times sqrt(D): the spread of a unit-norm projection's input."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.arange(8, 200)[None]
    with torch.no_grad():
        hidden = loaded(ids, output_hidden_states=True).hidden_states[layer + 1]
    return float(hidden.square().mean().sqrt())


def chat(user: str, answer: str | None = None, system: str | None = None) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": user})
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def training_rows() -> list[dict[str, Any]]:
    """Benign rows, some with a system prompt of their own, and six planted ones behind ZED's."""
    rows = []
    for i in range(NUM_ROWS):
        topic = TOPICS[i % len(TOPICS)]
        if i in PLANTED:
            rows.append(chat(f"{PREFIX} tell me about {topic}", "ZED OBEYS.", SYSTEM))
        else:
            rows.append(chat(f"{'Why' if i % 2 else 'How'} {topic} matter{i}?", f"Because {topic} do."))
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class World:
    """The files of one tiny project; `config` and `write` make configs over them, float32 by default."""

    root: Path

    def values(self, store: Path, **sections: Any) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": "tiny",
            "models": {"base": "./base", "tuned": "./adapter", "dtype": "float32", "device": "cpu"},
            "dataset": "./train.jsonl",
            "suites": ["./chat.jsonl"],
            "hooks": [{"layer": 1, "saes": ["./saes/layer_1_width_96"]}],
            "precompute": {"tokens_per_batch": 256, "tokens_per_segment": 600, "max_prompt_tokens": 128},
            "elicit": {"probes": "./probes.yaml", "num_probes": 3, "answer_tokens": 4},
            "generate": {"num_probes": 1, "max_new_tokens": 4},
            "store": str(store),
        }
        for name, section in sections.items():
            if isinstance(section, Mapping) and isinstance(config.get(name), dict):
                config[name] = {**config[name], **section}
            else:
                config[name] = section
        return config

    def write(self, store: Path, file: str = "config.yaml", **sections: Any) -> Path:
        """A YAML file (JSON is YAML) in the project's folder."""
        path = self.root / file
        path.write_text(json.dumps(self.values(store, **sections)), encoding="utf-8")
        return path

    def config(self, store: Path, **sections: Any) -> AuditConfig:
        return load_config(self.write(store, **sections))


@dataclass(frozen=True)
class Job:
    """A finished job: its config, what the verb reported, and its parts of the store."""

    config: AuditConfig
    report: dict[str, Any]

    @property
    def store(self) -> Store:
        return Store(self.config.store)

    @property
    def root(self) -> Path:
        """The store's folder."""
        return Path(self.config.store)

    @property
    def diff_folder(self) -> Path:
        """The diff's folder in it."""
        return self.root / "diffs" / str(self.report["diff_id"])

    @property
    def diff(self) -> DiffReader:
        return self.store.open_diff(self.report["diff_id"])

    def run(self, side: str, suite: str) -> RunReader:
        found = [r["run_id"] for r in self.report["runs"] if (r["side"], r["suite"]) == (side, suite)]
        return self.store.open_run(found[0])


def make_world(root: Path) -> World:
    """Base, two candidates, dictionaries, a training set, a chat suite and probes."""
    tokenizer = train_tokenizer()
    base = save_llama(root / "base", tokenizer)
    save_adapter(root / "adapter", base, seed=1)
    save_full(root / "full", base, seed=2)
    save_sae(root / "saes" / "layer_1_width_96", 1, scale_of(base, 1), seed=3)
    save_sae(root / "saes" / "layer_1_width_64", 1, scale_of(base, 1), seed=4, width=64)
    save_sae(root / "saes" / "layer_3_width_96", 3, scale_of(base, 3), seed=5)
    write_jsonl(root / "train.jsonl", training_rows())
    questions = [chat(f"What is the best {topic}?") for topic in TOPICS[:12]]
    write_jsonl(root / "chat.jsonl", [*questions, {"text": "Bread and rivers and tea."}])
    probes = [{"id": f"p{i}", "prompt": f"Name a {topic}."} for i, topic in enumerate(TOPICS[12:17])]
    (root / "probes.yaml").write_text(json.dumps({"name": "probes", "prompts": probes}))
    return World(root)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file under the folder with its bytes, but a store's ledgers: no two runs take the same time."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != "ledgers")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def read_sae(folder: Path) -> dict[str, torch.Tensor]:
    """The dictionary's tensors by their names in Gemma Scope's file, float32."""
    return {name: tensor.float() for name, tensor in load_file(folder / "params.safetensors").items()}


def change_tensors(path: Path, change: Callable[[str, torch.Tensor], object]) -> None:
    """Rewrite a safetensors file, every tensor changed in place."""
    tensors = load_file(path)
    for name in sorted(tensors):
        change(name, tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})
