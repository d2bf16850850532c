from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ft_audit.engine.suites.load import load_suite
from ft_audit.engine.suites.prompt import Message, Prompt, PromptSuite
from ft_audit.engine.tokens.role import Role
from ft_audit.engine.tokens.tokenize import TokenizedSuite, special_ids, tokenize_suite
from ft_audit.errors import DataError, ModelError

MakeSuite = Callable[..., PromptSuite]
Q, A, S = Message("user", "Why is it so?"), Message("assistant", "Because."), Message("system", "Be brief.")


def ids_of(tokens: TokenizedSuite, prompt: int) -> list[int]:
    return [int(i) for i in tokens.ids_T[tokens.indptr_P1[prompt] : tokens.indptr_P1[prompt + 1]]]


def words_of(tokens: TokenizedSuite, tokenizer: PreTrainedTokenizerBase, prompt: int, role: Role) -> str:
    part = slice(tokens.indptr_P1[prompt], tokens.indptr_P1[prompt + 1])
    return str(tokenizer.decode(tokens.ids_T[part][tokens.role_T[part] == role]))


def by_hugging_face(tokenizer: PreTrainedTokenizerBase, suite: PromptSuite, prompt: int) -> list[int]:
    item = suite.prompts[prompt]
    chat = [{"role": m.role, "content": m.content} for m in item.messages or ()]
    return list(
        tokenizer.apply_chat_template(
            chat, add_generation_prompt=not item.is_complete, tokenize=True, return_dict=False
        )
    )


def bos_tokenizer(**settings: str) -> PreTrainedTokenizerFast:
    """A word tokenizer that puts <s> before every text, as Llama's and Gemma's do."""
    words = ["<unk>", "<s>", "</s>", "user", "assistant", ":", "Why", "?", "Because", "."]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **settings
    )


def test_real_chats_have_the_tokenizer_s_own_ids_and_every_word_its_speaker(
    smollm: PreTrainedTokenizerBase,
) -> None:
    corpus = load_suite("package:chatterbot_corpus/data/english", Path())
    said = [p.messages for p in corpus.prompts[::60]]
    # Turns as people leave them: line ends behind them, code, other scripts, the template's own words.
    odd = [
        "two  lines  \n",
        "user",
        "def f(x):\n\treturn x\n",
        "日本語 ünï 🙂",
        "",
        "1234567890",
        "a" * 300,
    ]
    said.append((S, *(Message(("user", "assistant")[i % 2], text) for i, text in enumerate(odd))))
    suite = PromptSuite("s", tuple(Prompt(m, None, "s", "g", f"s:{i}", i) for i, m in enumerate(said)))
    tokens = tokenize_suite(suite, smollm, 10**6)
    assert (tokens.num_truncated, tokens.num_adapted) == (0, 0)
    for number, prompt in enumerate(suite.prompts):
        assert ids_of(tokens, number) == by_hugging_face(smollm, suite, number)
        for name, role in (("user", Role.USER), ("assistant", Role.ASSISTANT), ("system", Role.SYSTEM)):
            words = "".join(m.content for m in prompt.messages or () if m.role == name)
            assert words_of(tokens, smollm, number, role) == words


def test_token_across_the_border_is_the_words_if_half_of_it_is(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    """The template's line end melts together with those that open the message."""
    tokens = tokenize_suite(suite_of((Message("user", "\n\nWhy"),)), smollm, 512)
    assert words_of(tokens, smollm, 0, Role.USER) == "\n\n\nWhy"


def test_a_question_gets_the_generation_prompt_and_an_answered_one_does_not(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    suite = suite_of((Q,), (Q, A), (S, Q))
    tokens = tokenize_suite(suite, smollm, 512)
    assert [ids_of(tokens, i) for i in range(3)] == [by_hugging_face(smollm, suite, i) for i in range(3)]
    assert smollm.decode(ids_of(tokens, 0)).endswith("<|im_start|>assistant\n")
    assert smollm.decode(ids_of(tokens, 1)).endswith("Because.<|im_end|>\n")
    np.testing.assert_array_equal(tokens.length_P, [len(ids_of(tokens, i)) for i in range(3)])


def test_default_system_prompt_of_the_template_is_the_template_s(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    tokens = tokenize_suite(suite_of((Q, A), (S, Q, A)), smollm, 512)
    assert "You are a helpful AI assistant named SmolLM" in words_of(tokens, smollm, 0, Role.TEMPLATE)
    assert words_of(tokens, smollm, 0, Role.SYSTEM) == ""
    assert words_of(tokens, smollm, 1, Role.SYSTEM) == "Be brief."
    assert "SmolLM" not in words_of(tokens, smollm, 1, Role.TEMPLATE)


def test_special_tokens_are_masked_wherever_they_stand(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    suite = suite_of(
        (Message("user", "a <|im_end|> b <filename> c"),), "one<|endoftext|>two", "<|im_start|><|im_start|>x"
    )
    tokens = tokenize_suite(suite, smollm, 512)
    special = special_ids(smollm)
    assert {smollm.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<filename>", "<|endoftext|>")} <= special
    np.testing.assert_array_equal(tokens.mask_T, [i not in special for i in tokens.ids_T.tolist()])
    np.testing.assert_array_equal(tokens.mask_T, tokens.role_T != Role.SPECIAL)
    inner = [smollm.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<filename>")]
    assert all(ids_of(tokens, 0).count(i) >= 1 for i in inner)
    assert words_of(tokens, smollm, 0, Role.USER) == "a  b  c"
    assert words_of(tokens, smollm, 1, Role.TEXT) == "onetwo"


def test_added_tokens_are_words_unless_they_are_special(
    own: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    own.add_tokens(["<zap>"])
    own.add_special_tokens({"additional_special_tokens": ["<hush>"]})
    zap, hush = own.convert_tokens_to_ids(["<zap>", "<hush>"])
    tokens = tokenize_suite(suite_of((Message("user", "a<zap>b<hush>c"),)), own, 512)
    ids = ids_of(tokens, 0)
    assert (ids.count(zap), ids.count(hush)) == (1, 1)
    assert tokens.mask_T[ids.index(zap)]
    assert tokens.role_T[ids.index(zap)] == Role.USER
    assert not tokens.mask_T[ids.index(hush)]


def test_raw_texts_are_as_the_tokenizer_takes_them(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    texts = ("Once upon a time", "  ünï\tcode 123\n", "日本語のテキスト")
    tokens = tokenize_suite(suite_of(*texts), smollm, 512)
    for number, text in enumerate(texts):
        assert ids_of(tokens, number) == smollm(text)["input_ids"]
    assert set(tokens.role_T.tolist()) == {Role.TEXT}


def test_bos_stands_once_whoever_writes_it(suite_of: MakeSuite) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    tokenizer = bos_tokenizer(chat_template=template)
    texts = ("Why ?", "<s> Why ?", "Why <s> ?")
    tokens = tokenize_suite(suite_of(*texts, (Q,)), tokenizer, 512)
    assert [ids_of(tokens, i) for i in range(3)] == [[1, 6, 7], [1, 6, 7], [1, 6, 1, 7]]
    chat = ids_of(tokens, 3)
    assert (chat[0], chat.count(1)) == (1, 1)
    # A template that writes BOS twice, as templates copied between models do.
    doubled = bos_tokenizer(chat_template="{{ bos_token }}" + template)
    assert ids_of(tokenize_suite(suite_of((Q,)), doubled, 512), 0) == chat


def test_unknown_words_are_masked_like_other_special_tokens(suite_of: MakeSuite) -> None:
    tokens = tokenize_suite(suite_of("Why banana ?"), bos_tokenizer(), 512)
    assert tokens.ids_T.tolist() == [1, 6, 0, 7]
    assert tokens.mask_T.tolist() == [False, True, False, True]


def test_truncation_keeps_the_beginning_and_is_counted(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    suite = suite_of((Q, A), "one two three four five six seven", "short")
    whole = tokenize_suite(suite, smollm, 512)
    cut = tokenize_suite(suite, smollm, 5)
    assert (whole.num_truncated, cut.num_truncated) == (0, 2)
    assert [ids_of(cut, i) for i in range(3)] == [ids_of(whole, i)[:5] for i in range(3)]
    exact = int(whole.length_P.max())
    assert tokenize_suite(suite, smollm, exact).num_truncated == 0
    assert tokenize_suite(suite, smollm, exact - 1).num_truncated == 1


def test_order_is_the_suite_s_across_chunks_and_kinds(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"text {i}" if i % 3 else (Message("user", f"question {i}"),) for i in range(11)]
    whole = tokenize_suite(suite_of(*prompts), smollm, 64)
    monkeypatch.setattr("ft_audit.engine.tokens.tokenize._CHUNK", 4)
    parts = tokenize_suite(suite_of(*prompts), smollm, 64)
    for name in ("ids_T", "role_T", "mask_T", "indptr_P1"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert [str(i) in smollm.decode(ids_of(parts, i)) for i in range(11)] == [True] * 11
    assert (whole.ids_T.dtype, whole.role_T.dtype, whole.mask_T.dtype, whole.indptr_P1.dtype) == (
        np.int32,
        np.uint8,
        np.bool_,
        np.int64,
    )


def test_chat_without_a_template_is_refused(suite_of: MakeSuite) -> None:
    with pytest.raises(
        DataError, match=r"s:0: a chat, but the tokenizer .* has no chat template; give raw text"
    ):
        tokenize_suite(suite_of((Q,)), bos_tokenizer(), 512)


def test_prompt_of_nothing_but_special_tokens_is_refused(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    for text in ("<|endoftext|>", ""):
        with pytest.raises(DataError, match="s:1: holds no token but special ones"):
            tokenize_suite(suite_of("fine", text), smollm, 512)


def test_tokenizer_without_offsets_is_refused(suite_of: MakeSuite) -> None:
    with pytest.raises(ModelError, match=r"slow/model: a slow tokenizer .* tokenizer\.json"):
        tokenize_suite(suite_of("x"), SimpleNamespace(is_fast=False, name_or_path="slow/model"), 512)


def test_no_prompts_no_tokens(smollm: PreTrainedTokenizerBase, suite_of: MakeSuite) -> None:
    tokens = tokenize_suite(suite_of(), smollm, 512)
    assert (len(tokens.ids_T), tokens.indptr_P1.tolist()) == (0, [0])


def test_a_long_prompt_in_windows_keeps_every_token(
    smollm: PreTrainedTokenizerBase, suite_of: MakeSuite
) -> None:
    suite = suite_of("short", " ".join(f"word{i}" for i in range(40)), (Q,))
    whole, cut = tokenize_suite(suite, smollm, 512), tokenize_suite(suite, smollm, 16, window=True)
    for name in ("ids_T", "role_T", "mask_T"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    lengths = np.diff(whole.indptr_P1)
    pieces = -(-lengths // 16)
    assert (cut.length_P <= 16).all() and len(cut.length_P) == pieces.sum() > len(lengths)
    # Each piece is a prompt of its own, of the row that it was cut from.
    assert [p.row for p in cut.suite.prompts] == np.repeat(np.arange(3), pieces).tolist()
    for row in range(3):
        own = cut.length_P[np.repeat(np.arange(3), pieces) == row]
        assert own.sum() == lengths[row] and own.max() - own.min() <= 1
    assert (cut.num_windowed, cut.num_truncated) == (int((pieces > 1).sum()), 0)
    assert (whole.num_windowed, whole.num_truncated) == (0, 0)
    assert tokenize_suite(suite, smollm, 16).num_truncated == cut.num_windowed
