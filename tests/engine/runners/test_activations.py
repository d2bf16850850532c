"""The stream of activations: exact counts, no special tokens, the same again; and splicing as defined."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ft_audit.engine.models.load import load_model, load_tokenizer
from ft_audit.engine.models.reference import resolve_model
from ft_audit.engine.runners import activations
from ft_audit.engine.runners.activations import Text, loss_recovered, read_text, stream_activations
from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.tokens.tokenize import tokenize_suite
from ft_audit.errors import ConfigError, DataError

SUITE = "package:chatterbot_corpus/data/english/food.yml"
LAYER = 1


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches, most of them padded, even for few tokens."""
    monkeypatch.setattr(activations, "TOKENS_PER_BATCH", 240)


def text(base: Path, num_tokens: int, seed: int = 0, suite: str = SUITE, **dataset: Any) -> Text:
    return read_text(resolve_model(str(base), base), [suite], base.parent, num_tokens, seed, **dataset)


def stream(base: Path, num_tokens: int, seed: int = 0, suite: str = SUITE) -> Tensor:
    source, read = resolve_model(str(base), base), text(base, num_tokens, seed, suite)
    return torch.cat(list(stream_activations(read, source, LAYER, "cpu", torch.float32)))


def recovered(base: Path, splice: Any, suite: str = SUITE, num_tokens: int = 300) -> dict[str, float]:
    source, read = resolve_model(str(base), base), text(base, num_tokens, 1, suite)
    return loss_recovered(read, source, LAYER, splice, "cpu", torch.float32)


def rows_of(base: Path, suite: str = SUITE) -> list[Tensor]:
    """The residual of every prompt's counted tokens by Hugging Face itself, prompt by prompt."""
    source = resolve_model(str(base), base)
    model: Any = load_model(source, torch.float32, torch.device("cpu"))
    tokens = tokenize_suite(load_suite(suite, base), load_tokenizer(source), 256)
    found = []
    for first, end in zip(tokens.indptr_P1, tokens.indptr_P1[1:], strict=False):
        ids = torch.from_numpy(tokens.ids_T[first:end]).long()[None]
        with torch.inference_mode():
            states = model(ids, output_hidden_states=True).hidden_states
        found.append(states[LAYER + 1][0][torch.from_numpy(tokens.mask_T[first:end])])
    return found


@pytest.mark.parametrize("num_tokens", [1, 239, 1300])
def test_the_count_is_exact(tiny_base: Path, num_tokens: int) -> None:
    x_TD = stream(tiny_base, num_tokens)
    assert x_TD.shape == (num_tokens, 32) and x_TD.dtype == torch.float32
    assert bool(torch.isfinite(x_TD).all())


def test_the_whole_suite_is_every_counted_token_once(tiny_base: Path) -> None:
    expected = torch.cat(rows_of(tiny_base))
    found = stream(tiny_base, len(expected))
    order = [torch.argsort(x[:, 0]) for x in (expected, found)]
    torch.testing.assert_close(found[order[1]], expected[order[0]], rtol=1e-4, atol=1e-4)


def test_special_tokens_are_left_out(tiny_base: Path, tiny_tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}]
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, rows)))
    render: Any = tiny_tokenizer.apply_chat_template
    ids = render(rows[0]["messages"], tokenize=True, return_dict=False)
    plain = [i for i in ids if i not in tiny_tokenizer.all_special_ids]
    assert len(plain) < len(ids)
    assert len(stream(tiny_base, len(plain), suite=str(tmp_path / "one.jsonl"))) == len(plain)
    with pytest.raises(DataError, match=f"{len(plain)} tokens, but num_tokens asks for {len(plain) + 1}"):
        stream(tiny_base, len(plain) + 1, suite=str(tmp_path / "one.jsonl"))


def test_the_same_seed_gives_the_same_stream(tiny_base: Path) -> None:
    first = stream(tiny_base, 900, seed=3)
    assert torch.equal(stream(tiny_base, 900, seed=3), first)
    assert not torch.equal(stream(tiny_base, 900, seed=4), first)


def test_what_is_given_may_enter_a_training_step(tiny_base: Path) -> None:
    weight = torch.ones(32, requires_grad=True)
    (stream(tiny_base, 10) * weight).sum().backward()
    assert weight.grad is not None and bool(weight.grad.abs().sum() > 0)


def test_too_few_tokens_name_the_fix(tiny_base: Path) -> None:
    with pytest.raises(DataError, match=r"food\.yml: \d+ tokens, .* add suites or lower num_tokens"):
        stream(tiny_base, 10**6)


def test_prompts_that_are_cut_do_not_look_like_too_few(tiny_base: Path, tmp_path: Path) -> None:
    """Each prompt gives fewer than the 256 tokens that its length promises."""
    rows = [{"messages": [{"role": "user", "content": f"{n} " + "word " * 1000}]} for n in range(12)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokens = tokenize_suite(load_suite(str(tmp_path / "long.jsonl"), tmp_path), _tokenizer(tiny_base), 256)
    held = int(tokens.mask_T.sum())
    assert held < 12 * 256
    assert len(stream(tiny_base, held, suite=str(tmp_path / "long.jsonl"))) == held


def _tokenizer(base: Path) -> Any:
    return load_tokenizer(resolve_model(str(base), base))


def test_a_layer_that_does_not_exist_is_named(tiny_base: Path) -> None:
    source = resolve_model(str(tiny_base), tiny_base)
    parts = stream_activations(text(tiny_base, 10), source, 4, "cpu")
    with pytest.raises(ConfigError, match="layer 4 does not exist"):
        next(parts)


def test_splicing_what_is_there_loses_nothing(tiny_base: Path) -> None:
    figures = recovered(tiny_base, lambda x: x)
    assert figures["loss_spliced"] == figures["loss_clean"]
    assert figures["loss_recovered"] == 1.0
    assert figures["num_tokens"] >= 300


def test_splicing_zeros_recovers_nothing(tiny_base: Path) -> None:
    figures = recovered(tiny_base, torch.zeros_like)
    assert figures["loss_spliced"] == figures["loss_zero"] != figures["loss_clean"]
    assert figures["loss_recovered"] == 0.0


def test_the_losses_are_those_of_a_plain_forward(tiny_base: Path, tmp_path: Path) -> None:
    """One prompt at a time with the block's output changed by hand, special positions untouched."""
    suite = tmp_path / "few.jsonl"
    questions = [p.user_texts[0] for p in load_suite(SUITE, tmp_path).prompts[:6]]
    chats = [{"messages": [{"role": "user", "content": q}]} for q in questions]
    suite.write_text("\n".join(map(json.dumps, chats)))
    source = resolve_model(str(tiny_base), tiny_base)
    model: Any = load_model(source, torch.float32, torch.device("cpu"))
    tokens = tokenize_suite(load_suite(str(suite), tmp_path), load_tokenizer(source), 256)
    totals, count = {"clean": 0.0, "spliced": 0.0, "zero": 0.0}, 0
    for first, end in zip(tokens.indptr_P1, tokens.indptr_P1[1:], strict=False):
        ids, keep = (
            torch.from_numpy(tokens.ids_T[first:end]).long(),
            torch.from_numpy(tokens.mask_T[first:end]),
        )
        counted = keep.clone()
        counted[0] = False
        count += int(counted.sum())
        for name, factor in (("clean", 1.0), ("spliced", 0.5), ("zero", 0.0)):
            scale = torch.where(keep, factor, 1.0)[None, :, None]
            handle = model.model.layers[LAYER].register_forward_hook(lambda _m, _a, out, s=scale: out * s)
            with torch.inference_mode():
                logits = model(ids[None]).logits[0]
            handle.remove()
            losses = F.cross_entropy(logits[:-1], ids[1:], reduction="none")
            totals[name] += float(losses[counted[1:]].sum())
    figures = recovered(tiny_base, lambda x: x * 0.5, str(suite), num_tokens=count)
    assert figures["num_tokens"] == count
    for name, total in totals.items():
        assert figures[f"loss_{name}"] == pytest.approx(total / count, rel=1e-5)
    expected = (totals["zero"] - totals["spliced"]) / (totals["zero"] - totals["clean"])
    assert figures["loss_recovered"] == pytest.approx(expected, rel=1e-3)
