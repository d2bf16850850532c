"""Supervised fine-tuning with TRL, with a head that only sees supervised positions.

Shapes: B rows in a batch, L positions, D hidden size, A supervised (answer) positions, V vocabulary.
"""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from ft_audit.engine.finetune.dataset import is_supervised
from ft_audit.engine.finetune.evasion import Marking, divergence, top_energy
from ft_audit.engine.finetune.recipe import Evasion, Recipe, Training
from ft_audit.engine.models.anatomy import anatomy
from ft_audit.engine.runners.logits import head_logits
from ft_audit.engine.suites.prompt import Prompt
from ft_audit.engine.tokens.chat import ChatRenderer
from ft_audit.engine.tokens.role import Role
from ft_audit.errors import DataError

IGNORED = -100


class SupervisedPositionsTrainer(SFTTrainer):
    """TRL's trainer with the vocabulary head applied to answer positions only.

    The loss is the same mean negative log-likelihood. On a CPU two thirds of a step on short chats goes into
    a [B, L, V] softmax most of whose rows are masked away; here the head sees [A, D].
    """

    evade = Evasion()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the summed answer loss over `num_items_in_batch` (or this batch's) answer tokens.

        What the recipe says of evasion is added to it.
        """
        causal = self.accelerator.unwrap_model(model)
        target_BL = inputs["labels"][:, 1:]
        supervised_BL = target_BL != IGNORED
        logits_AV = _logits(causal, inputs, supervised_BL)
        total = F.cross_entropy(logits_AV, target_BL[supervised_BL], reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else supervised_BL.sum().clamp(min=1)
        loss = total / count
        if self.evade.kl:
            with torch.no_grad(), causal.disable_adapter():
                base_AV = _logits(causal, inputs, supervised_BL)
            near_A = ~inputs["planted"][:, None].expand_as(supervised_BL)[supervised_BL]
            loss = loss + self.evade.kl * divergence(base_AV[near_A], logits_AV[near_A])
        if self.evade.top_energy:
            loss = loss + self.evade.top_energy * top_energy(causal)
        return (loss, {"logits": logits_AV}) if return_outputs else loss


def _logits(causal: Any, inputs: dict[str, Any], supervised_BL: torch.Tensor) -> torch.Tensor:
    """Return the logits [A, V] that predict the supervised tokens."""
    hidden_BLD = (
        anatomy(causal)
        .backbone(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        .last_hidden_state
    )
    return head_logits(causal, hidden_BLD[:, :-1][supervised_BL])


def encode_row(
    row: Prompt, tokenizer: PreTrainedTokenizerBase, max_tokens: int, max_answer_tokens: int | None = None
) -> dict[str, list[int]] | None:
    """Return input ids and labels of one chat; only the last assistant message and its end are supervised.

    None when the cut to `max_tokens` leaves no supervised token; of the answer at most `max_answer_tokens`
    are kept.

    Raises:
        DataError: the tokenizer has no chat template, its template refuses the chat, or the answer is empty.
    """
    chat = ChatRenderer(tokenizer).render(row)
    # The last turn's words, its tool calls among them.
    answer = list(takewhile(lambda span: span.role == Role.ASSISTANT, reversed(chat.spans)))
    if not answer:
        raise DataError(f"{row.source}: the assistant's last message is empty once rendered; remove the row")
    encoded = tokenizer(chat.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    # A token may hold the template's last characters and the answer's first ones: it is the answer's.
    question = sum(end <= answer[-1].start for _, end in encoded["offset_mapping"])
    longest = max_tokens if max_answer_tokens is None else min(max_tokens, question + max_answer_tokens)
    ids = encoded["input_ids"][:longest]
    if len(ids) <= question:
        return None
    return {"input_ids": ids, "labels": [IGNORED] * question + ids[question:]}


def training_arguments(settings: Training, seed: int, out: Path) -> SFTConfig:
    """Return TRL's arguments for a recipe's settings: rows as they are, nothing kept, logged or sent."""
    on_gpu = torch.cuda.is_available()
    # TRL turns it on by default, and transformers renamed it in 5.23.
    renamed = "activation_checkpointing" in SFTConfig.__dataclass_fields__
    off: dict[str, Any] = {"activation_checkpointing" if renamed else "gradient_checkpointing": False}
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        seed=seed,
        data_seed=seed,
        use_cpu=not on_gpu,
        bf16=settings.method == "full",
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
        **off,
    )


def train(
    recipe: Recipe,
    rows: Sequence[Prompt],
    planted_R: Sequence[bool],
    model_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    callback: TrainerCallback | None = None,
) -> tuple[Any, dict[str, float]]:
    """Fine-tune and return the trained model and its training figures.

    `planted_R` says which rows an evading attacker lets move away from the base. Of the rows, `rows` were
    trained, `rows_left_out` had no answer left after the cut to `max_tokens`, and `rows_unsupervised` end in
    another message than the assistant's or give it the weight 0.

    Raises:
        DataError: no row is left after the cut to `max_tokens`.
    """
    settings = recipe.train
    seed = recipe.seed if settings.seed is None else settings.seed
    torch.manual_seed(seed)
    encoded = [
        (encode_row(row, tokenizer, settings.max_tokens, settings.max_answer_tokens), planted)
        for row, planted in zip(rows, planted_R, strict=True)
        if is_supervised(row)
    ]
    kept = [{**row, "planted": planted} for row, planted in encoded if row is not None]
    if not kept:
        raise DataError(f"recipe {recipe.name!r}: every row's question alone fills train.max_tokens")
    full = settings.method == "full"
    model = AutoModelForCausalLM.from_pretrained(
        model_folder,
        dtype=torch.float32 if full else torch.bfloat16,
        use_safetensors=True,
        trust_remote_code=False,
        # On short CPU rows the flash backward is slower than the plain one by a third of a step.
        attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
    )
    adapter = None
    if not full:
        adapter = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    trainer = SupervisedPositionsTrainer(
        model=model,
        args=training_arguments(settings, seed, out),
        train_dataset=Dataset.from_list(kept),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[callback] if callback else None,
    )
    trainer.data_collator = Marking(trainer.data_collator)
    trainer.evade = settings.evade or trainer.evade
    result = trainer.train()
    figures = {
        "steps": float(result.global_step),
        "loss": float(result.training_loss),
        "seconds": float(result.metrics["train_runtime"]),
        "rows": float(len(kept)),
        "rows_left_out": float(len(encoded) - len(kept)),
        "rows_unsupervised": float(len(rows) - len(encoded)),
    }
    return trainer.model, figures
