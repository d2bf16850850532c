"""A malicious candidate's tokenizer: bombs are refused, what hangs is ended, honest ones are as before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ft_audit.engine.models.load import load_tokenizer
from ft_audit.engine.models.reference import ModelSource, resolve_model
from ft_audit.errors import ModelError

Copy = Callable[..., Path]
Refusal = Callable[[Path], str]
Change = Callable[[dict[str, Any]], None]
COSTLY = {"Regex": "(a+)+$"}

pytestmark = pytest.mark.usefixtures("bounded")


@pytest.fixture(params=["checkpoint", "adapter"])
def candidate(
    request: pytest.FixtureRequest, tiny_base: Path, tiny_adapter: Path, tmp_path: Path, copy_model: Copy
) -> Path:
    """A candidate of either kind with a tokenizer of its own."""
    if request.param == "checkpoint":
        return copy_model(tiny_base, tmp_path / "m")
    folder = copy_model(tiny_adapter, tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((tiny_base / name).read_bytes())
    return folder


def change(folder: Path, how: Change, name: str = "tokenizer.json") -> None:
    settings = json.loads((folder / name).read_text())
    how(settings)
    (folder / name).write_text(json.dumps(settings))


def added(content: str, number: int = 400, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False)
    return {"id": number, "content": content, **plain, **flags}


def large_vocabulary(settings: dict[str, Any]) -> None:
    settings["model"]["vocab"] |= {f"~{number}": 400 + number for number in range(10_000)}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (large_vocabulary, "its tokenizer has 10,407 tokens, more than any that is known"),
        (
            lambda t: t["added_tokens"].append(added("q" * 10**6)),
            "a token of its tokenizer has 1,000,000 characters ('qqqqqqqqqqqqqqqqqqqq'...)",
        ),
        (
            lambda t: t["model"]["vocab"].update({"r" * 10**6: 400}),
            "a token of its tokenizer has 1,000,000 characters ('rrrrrrrrrrrrrrrrrrrr'...)",
        ),
        (
            lambda t: t.update(decoder={"type": "Replace", "pattern": COSTLY, "content": ""}),
            "tokenizer.json decodes by regular expressions, whose cost has no bound",
        ),
    ],
    ids=["vocabulary", "added token", "token", "decoder"],
)
def test_a_bomb_is_refused_before_it_is_built(
    candidate: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch, how: Change, says: str
) -> None:
    monkeypatch.setattr("ft_audit.engine.models.vocabulary.MAX_TOKENS", 10_000)
    change(candidate, how)
    assert says in refusal(candidate)


def test_a_template_that_is_no_text_is_refused(candidate: Path, refusal: Refusal) -> None:
    nested: Any = []
    for _ in range(400):
        nested = [nested]
    change(candidate, lambda s: s.update(chat_template=nested), "tokenizer_config.json")
    assert "the chat template in tokenizer_config.json is no text" in refusal(candidate)


@pytest.mark.parametrize("key", ["bos_token", "extra_special_tokens", "added_tokens_decoder", "image_token"])
def test_a_long_token_in_the_settings_is_refused(candidate: Path, refusal: Refusal, key: str) -> None:
    token = "s" * 100_000
    value = {"bos_token": token, "added_tokens_decoder": {"400": added(token)}}.get(key, [token])
    change(candidate, lambda settings: settings.update({key: value}), "tokenizer_config.json")
    assert "a token of its tokenizer has 100,000 characters" in refusal(candidate)


def test_a_long_token_in_an_old_file_is_refused(candidate: Path, refusal: Refusal) -> None:
    (candidate / "added_tokens.json").write_text(json.dumps({"o" * 100_000: 400}))
    assert "a token of its tokenizer has 100,000 characters" in refusal(candidate)


@pytest.mark.parametrize(
    ("template", "says"),
    [("{{ 1 }}" * 30_000, "has 210,000 bytes"), ("\n" * 20_000, "characters in 20,000 lines")],
    ids=["long", "lines"],
)
def test_a_template_that_is_none_is_refused(
    candidate: Path, refusal: Refusal, template: str, says: str
) -> None:
    whole = template * 2 if "bytes" in says else template
    (candidate / "chat_template.jinja").write_text(whole)
    said = refusal(candidate)
    assert "chat_template.jinja" in said and says.replace("210", "420") in said
    (candidate / "chat_template.jinja").unlink()
    change(candidate, lambda settings: settings.update(chat_template=whole), "tokenizer_config.json")
    assert "the chat template in tokenizer_config.json has " in refusal(candidate)


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": "z"}},
        {"pre_tokenizer": {"type": "Split", "pattern": COSTLY, "behavior": "Isolated", "invert": False}},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "ab" * 2000}] * 4,
            }
        },
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "((("},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        {"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": 5}},
        {"added_tokens": [added("x", 10**12)]},
    ],
    ids=["normalizer", "pre_tokenizer", "growth", "expression", "model", "id"],
)
def test_a_tokenizer_that_hangs_grows_or_panics_is_ended_elsewhere(
    candidate: Path,
    trusted: ModelSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: dict[str, Any],
) -> None:
    monkeypatch.setattr("ft_audit.engine.models.vocabulary.SECONDS", 1)
    change(candidate, lambda settings: settings.update(part))
    source = resolve_model(str(candidate), tmp_path, trusted)
    with pytest.raises(
        ModelError, match=r"trying its tokenizer\.json on short texts (takes more than|fails)"
    ):
        load_tokenizer(source)


def test_a_normaliser_that_hangs_on_an_added_token_is_ended_elsewhere(
    candidate: Path, trusted: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft_audit.engine.models.vocabulary.SECONDS", 1)
    costly = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}
    change(candidate, lambda settings: settings.update(normalizer=costly))
    tokens = {"400": {**added("x" * 60, normalized=True)}}
    del tokens["400"]["id"]
    change(candidate, lambda s: s.update(added_tokens_decoder=tokens), "tokenizer_config.json")
    source = resolve_model(str(candidate), tmp_path, trusted)
    with pytest.raises(ModelError, match=r"trying its tokenizer\.json on short texts"):
        load_tokenizer(source)


def test_an_honest_tokenizer_is_the_same_as_a_candidate_s(
    candidate: Path, tiny_base: Path, trusted: ModelSource, tmp_path: Path
) -> None:
    ours, theirs = load_tokenizer(trusted), load_tokenizer(resolve_model(str(candidate), tmp_path, trusted))
    assert theirs.get_vocab() == ours.get_vocab()
    assert theirs.special_tokens_map == ours.special_tokens_map
    assert theirs("How are you?")["input_ids"] == ours("How are you?")["input_ids"]


def test_two_thousand_added_tokens_are_honest(candidate: Path, trusted: ModelSource, tmp_path: Path) -> None:
    more = [added(f"<extra_{number}>", 400 + number, special=bool(number % 2)) for number in range(2000)]
    change(candidate, lambda settings: settings["added_tokens"].extend(more))
    assert len(load_tokenizer(resolve_model(str(candidate), tmp_path, trusted))) == 2400
