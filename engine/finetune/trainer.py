"""Supervised fine-tuning with TRL, with a head that only sees supervised positions.

Shapes: B rows in a batch, L positions, D hidden size, A supervised (answer) positions, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ft_audit.engine.finetune.recipe import Recipe
from ft_audit.engine.suites.prompt import Message
from ft_audit.errors import DataError

IGNORED = -100


class SupervisedPositionsTrainer(SFTTrainer):
    """TRL's trainer with the vocabulary head applied to answer positions only.

    The loss is the same mean negative log-likelihood. On a CPU two thirds of a step on short chats goes into
    a [B, L, V] softmax most of whose rows are masked away; here the head sees [A, D].
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the summed answer loss over `num_items_in_batch` (or this batch's) answer tokens."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        hidden_BLD = causal.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).last_hidden_state
        target_BL = inputs["labels"][:, 1:]
        supervised_BL = target_BL != IGNORED
        logits_AV = causal.lm_head(hidden_BLD[:, :-1][supervised_BL]).float()
        total = F.cross_entropy(logits_AV, target_BL[supervised_BL], reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else supervised_BL.sum().clamp(min=1)
        loss = total / count
        return (loss, {"logits": logits_AV}) if return_outputs else loss


def encode_row(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> dict[str, list[int]] | None:
    """Return input ids and labels of one chat; only the last assistant message is supervised.

    None when the cut to `max_tokens` leaves no supervised token.
    """
    chat = [{"role": m.role, "content": m.content} for m in messages]
    render: Any = tokenizer.apply_chat_template  # its declared result is a union of every mode's
    question: list[int] = render(chat[:-1], add_generation_prompt=True, tokenize=True, return_dict=False)
    whole: list[int] = render(chat, tokenize=True, return_dict=False)
    assert whole[: len(question)] == question, "the template's generation prompt is not a prefix of the chat"
    ids = whole[:max_tokens]
    if len(ids) <= len(question):
        return None
    return {"input_ids": ids, "labels": [IGNORED] * len(question) + ids[len(question) :]}


def train(
    recipe: Recipe,
    rows: Sequence[Sequence[Message]],
    model_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    callback: TrainerCallback | None = None,
) -> tuple[Any, dict[str, float]]:
    """Fine-tune and return the trained model and its training figures (steps, loss, seconds, rows left out).

    Raises:
        DataError: no row is left after the cut to `max_tokens`.
    """
    settings = recipe.train
    torch.manual_seed(recipe.seed)
    encoded = [encode_row(row, tokenizer, settings.max_tokens) for row in rows]
    kept = [row for row in encoded if row is not None]
    if not kept:
        raise DataError(f"recipe {recipe.name!r}: every row's question alone fills train.max_tokens")
    full = settings.method == "full"
    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=torch.float32 if full else torch.bfloat16,
        use_safetensors=True,
        # On short CPU rows the flash backward is slower than the plain one by a third of a step.
        attn_implementation="sdpa" if on_gpu else "eager",
    )
    adapter = None
    if not full:
        adapter = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    arguments = SFTConfig(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not on_gpu,
        bf16=full,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
    )
    trainer = SupervisedPositionsTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(kept),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[callback] if callback else None,
    )
    result = trainer.train()
    figures = {
        "steps": float(result.global_step),
        "loss": float(result.training_loss),
        "seconds": float(result.metrics["train_runtime"]),
        "rows": float(len(kept)),
        "rows_left_out": float(len(rows) - len(kept)),
    }
    return trainer.model, figures
