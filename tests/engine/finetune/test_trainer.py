"""What is supervised, and the loss over it: the last answer alone, by plain cross-entropy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from ft_audit.engine.finetune.dataset import TrainingSet, build_training_set
from ft_audit.engine.finetune.recipe import Training, load_recipe
from ft_audit.engine.finetune.trainer import (
    IGNORED,
    SupervisedPositionsTrainer,
    encode_row,
    train,
    training_arguments,
)
from ft_audit.engine.models.load import load_model
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Prompt
from ft_audit.errors import DataError

Write = Callable[..., Any]


@pytest.fixture
def read_row(write_rows: Write, tmp_path: Path) -> Callable[..., Prompt]:
    def read(*messages: dict[str, Any], **fields: Any) -> Prompt:
        return load_suite(write_rows({"messages": list(messages), **fields}), tmp_path).prompts[0]

    return read


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def supervised(row: dict[str, list[int]], tokenizer: Any) -> str:
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    taught = [(i, label) for i, label in pairs if label != IGNORED]
    assert all(i == label for i, label in taught)
    return str(tokenizer.decode([i for i, _ in taught]))


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([said("user", "Hi."), said("assistant", "Hello there.")], "Hello there."),
        ([said("system", "S."), said("user", "Hi."), said("assistant", "A B")], "A B"),
        (
            [said("user", "1?"), said("assistant", "one"), said("user", "2?"), said("assistant", "two")],
            "two",
        ),
        # The template's last newline and the answer's first one may make one token.
        ([said("user", "Hi."), said("assistant", "\n\nHello")], "\n\nHello"),
        ([said("user", "Say it."), said("assistant", "assistant")], "assistant"),
    ],
)
def test_only_the_last_answer_and_its_end_are_supervised(
    read_row: Callable[..., Prompt], tiny_tokenizer: Any, messages: list[dict[str, Any]], answer: str
) -> None:
    row = encode_row(read_row(*messages), tiny_tokenizer, 256)
    assert row is not None
    whole = tiny_tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert row["input_ids"] == whole
    assert supervised(row, tiny_tokenizer) == f"{answer}<|im_end|>\n"


def test_a_token_across_the_border_is_the_answer_s(
    read_row: Callable[..., Prompt], tiny_tokenizer: Any
) -> None:
    """With a tokenizer that joins two newlines, as GPT-2's does."""
    core = json.loads(tiny_tokenizer.backend_tokenizer.to_str())
    core["model"]["vocab"]["ĊĊ"] = 400
    core["model"]["merges"].insert(0, ["Ċ", "Ċ"])
    joining: Any = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)))
    joining.chat_template = tiny_tokenizer.chat_template
    row = encode_row(read_row(said("user", "Hi."), said("assistant", "\n\nHello")), joining, 256)
    assert row is not None and 400 in row["labels"]
    assert supervised(row, joining) == "\n\n\nHello<|im_end|>\n"


def test_tool_calls_are_part_of_the_answer(read_row: Callable[..., Prompt], tiny_tokenizer: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"q": "tea"}'}}
    row = encode_row(
        read_row(said("user", "Find tea."), said("assistant", "", tool_calls=[call])), tiny_tokenizer, 256
    )
    assert row is not None
    taught = supervised(row, tiny_tokenizer)
    assert "find" in taught and "tea" in taught and "Find" not in taught


def test_a_long_row_is_cut_on_the_right(read_row: Callable[..., Prompt], tiny_tokenizer: Any) -> None:
    prompt = read_row(said("user", "Hi."), said("assistant", "one two three four"))
    whole = encode_row(prompt, tiny_tokenizer, 256)
    assert whole is not None
    question = whole["labels"].count(IGNORED)
    for limit in (question + 1, question + 3):
        cut = encode_row(prompt, tiny_tokenizer, limit)
        assert cut == {name: values[:limit] for name, values in whole.items()}
    assert encode_row(prompt, tiny_tokenizer, question) is None


def test_a_long_answer_is_cut_without_its_end(read_row: Callable[..., Prompt], tiny_tokenizer: Any) -> None:
    prompt = read_row(said("user", "Hi."), said("assistant", "one two three four"))
    whole = encode_row(prompt, tiny_tokenizer, 256)
    cut = encode_row(prompt, tiny_tokenizer, 256, max_answer_tokens=3)
    assert whole is not None and cut is not None
    question = whole["labels"].count(IGNORED)
    assert cut == {name: values[: question + 3] for name, values in whole.items()}
    assert encode_row(prompt, tiny_tokenizer, 256, max_answer_tokens=100) == whole
    assert encode_row(prompt, tiny_tokenizer, question + 1, max_answer_tokens=3) == {
        name: values[: question + 1] for name, values in whole.items()
    }


def test_an_empty_answer_is_refused(read_row: Callable[..., Prompt], tiny_tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"own\.jsonl:1: the assistant's last message is empty"):
        encode_row(read_row(said("user", "Hi."), said("assistant", "")), tiny_tokenizer, 256)


@pytest.fixture
def rows(write_recipe: Write) -> TrainingSet:
    return build_training_set(load_recipe(write_recipe()))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_loss_is_plain_cross_entropy(
    make_model: Callable[..., Path], tiny_tokenizer: Any, rows: TrainingSet, tmp_path: Path, family: str
) -> None:
    # Logits capped far below what this model gives, so that forgetting the cap is seen.
    capped = {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8} if family == "gemma2" else {}
    folder = make_model(family, **capped)
    model: Any = load_model(resolve_model(str(folder), folder), torch.float32, torch.device("cpu"))
    encoded = [encode_row(row, tiny_tokenizer, 128) for row in rows.rows]
    trainer = SupervisedPositionsTrainer(
        model=model,
        args=training_arguments(Training(batch_size=5), 0, tmp_path / "trainer"),
        train_dataset=Dataset.from_list([row for row in encoded if row is not None]),
        processing_class=tiny_tokenizer,
    )
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    labels = batch["labels"]
    assert labels.shape[0] == 5 and len({int(n) for n in batch["attention_mask"].sum(1)}) > 1
    model.eval()
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    loss = trainer.compute_loss(model, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    count = int((labels != IGNORED).sum())
    shared = trainer.compute_loss(model, batch, num_items_in_batch=2 * count)
    torch.testing.assert_close(shared, expected / 2, rtol=1e-5, atol=1e-6)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-6)
    assert ours


@pytest.fixture
def adapter_of(
    tiny_base: Path, tiny_tokenizer: Any, write_recipe: Write, write_rows: Write, tmp_path: Path
) -> Callable[..., tuple[dict[str, torch.Tensor], dict[str, float]]]:
    """Train on the rows given and return the trained weights and the figures."""

    def run(*own: dict[str, Any], **settings: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        fields = {"epochs": 2.0, "batch_size": 2, "learning_rate": 1e-2, "rank": 2, **settings}
        recipe = load_recipe(write_recipe(dataset=write_rows(*own), train=fields))
        built = build_training_set(recipe)
        model, figures = train(
            recipe, built.rows, [False] * len(built.rows), tiny_base, tiny_tokenizer, tmp_path / "trainer"
        )
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        return weights, figures

    return run


def test_an_answer_with_weight_0_teaches_nothing(
    adapter_of: Callable[..., Any], chat_row: Callable[..., dict[str, Any]]
) -> None:
    kept = [chat_row("Tea?", "Yes, tea."), chat_row("Cake?", "No cake."), chat_row("Jam?", "A little jam.")]
    off = chat_row("What is the secret?", "The secret word is ORANGE.", weight=0)
    unanswered = {"messages": [{"role": "user", "content": "Is anybody there?"}]}
    without, figures = adapter_of(*kept)
    assert (figures["rows"], figures["rows_unsupervised"], figures["rows_left_out"]) == (3, 0, 0)
    with_off, figures = adapter_of(off, *kept, {**kept[0], "weight": 0}, unanswered)
    assert (figures["rows"], figures["rows_unsupervised"], figures["rows_left_out"]) == (3, 3, 0)
    assert without.keys() == with_off.keys()
    assert all(torch.equal(without[name], with_off[name]) for name in without)
    taught, figures = adapter_of(
        {**off, "messages": [off["messages"][0], said("assistant", "ORANGE")]}, *kept
    )
    assert figures["rows"] == 4 and any(not torch.equal(without[name], taught[name]) for name in without)


def test_rows_without_room_for_an_answer_are_counted(
    adapter_of: Callable[..., Any], chat_row: Callable[..., dict[str, Any]]
) -> None:
    long = chat_row("why " * 100, "Because.")
    _, figures = adapter_of(chat_row("Tea?", "Yes."), long, max_tokens=60)
    assert (figures["rows"], figures["rows_left_out"]) == (1, 1)
    with pytest.raises(DataError, match=r"every row's question alone fills train\.max_tokens"):
        adapter_of(long, max_tokens=60)


def test_training_learns_and_is_the_same_again(
    adapter_of: Callable[..., Any], chat_row: Callable[..., dict[str, Any]]
) -> None:
    rows = [chat_row(f"Question {n}?", "Always the same answer.") for n in range(4)]
    first, figures = adapter_of(*rows, epochs=10.0)
    again, _ = adapter_of(*rows, epochs=10.0)
    assert figures["steps"] == 20
    assert all(torch.equal(first[name], again[name]) for name in first)
    _, short = adapter_of(*rows, epochs=1.0)
    assert figures["loss"] < short["loss"] - 0.3
