"""Labels in the store: rows come back from both kinds of places, and a damaged file is named."""

import pytest

from ft_audit.engine.store import (
    DecoderNeighbor,
    LabelScore,
    LabelText,
    Store,
    TokenEffect,
    list_store,
    verify_store,
)
from ft_audit.engine.store.label_split import makes_label
from ft_audit.errors import StoreError

SAE, OTHER, BASE = "5" * 64, "6" * 64, "b" * 64


def label(feature: int, text: str, source: str = "contexts", author: str = "x") -> LabelText:
    return LabelText(feature, source, author, "diff", text)


def score(text: LabelText, value: float = 0.9) -> LabelScore:
    return LabelScore(
        text.feature, text.label_id, "detection", "m", value, 0.8, 0.95, "Wilson", 10, 10, 5, 1, "d"
    )


def test_rows_of_every_kind_come_back(store_root: str) -> None:
    written = Store(store_root).labels(SAE)
    text = label(3, "ships")
    rows = [text, score(text), TokenEffect(3, " sail", 0.25, BASE), DecoderNeighbor(3, 8, 0.5)]
    for row in rows:
        written.add([row])
    read = Store(store_root).labels(SAE)
    assert [found for row in rows for found in read.of(type(row), 3)] == rows
    assert read.of(LabelText, 4) == [] and read.features(LabelText) == {3}
    assert Store(store_root).labels(OTHER).features(LabelText) == set()


def test_the_writer_sees_what_it_adds_and_the_last_of_equal_keys_stands(store_root: str) -> None:
    labels = Store(store_root).labels(SAE)
    assert labels.of(LabelText, 1) == []
    labels.add([label(1, "old"), label(1, "by another", author="y")])
    labels.add([])
    labels.add([label(1, "new")])
    for reader in (labels, Store(store_root).labels(SAE)):
        assert {text.text for text in reader.of(LabelText, 1)} == {"new", "by another"}


def test_a_score_belongs_to_the_text_and_not_to_the_feature() -> None:
    assert label(1, "a").label_id != label(1, "b").label_id != label(2, "b").label_id
    assert label(1, "a").label_id != label(1, "a", source="neuronpedia").label_id


def test_text_that_no_file_can_hold_is_mended(store_root: str) -> None:
    labels = Store(store_root).labels(SAE)
    labels.add([label(1, "half \ud800 a pair"), label(2, "x" * 5000), label(3, "日本\x00")])
    read = Store(store_root).labels(SAE)
    assert read.of(LabelText, 1)[0].text == "half ? a pair"
    assert len(read.of(LabelText, 2)[0].text) == 2000
    assert read.of(LabelText, 3)[0].text == "日本\x00"


def test_a_damaged_file_is_named_with_what_to_do(store_root: str) -> None:
    store = Store(store_root)
    store.labels(SAE).add([label(1, "ships")])
    assert store.labels(SAE).damaged() == []
    (file,) = store.place.files(f"labels/{SAE}")
    store.place.replace(file.key, b"something else")
    with pytest.raises(StoreError, match=r"texts/000000-.*is damaged.*delete it"):
        store.labels(SAE).of(LabelText, 1)
    assert len(store.labels(SAE).damaged()) == 1
    found = {item.kind: problems for item, problems in verify_store(store)}
    assert len(found["labels"]) == 1


def test_labels_are_listed_and_whole(store_root: str) -> None:
    store = Store(store_root)
    store.labels(SAE).add([label(1, "ships")])
    store.put_vocabulary(BASE, ["a", "b"])
    (item,) = list_store(store)
    assert (item.kind, item.id) == ("labels", SAE) and item.num_bytes > 0
    assert [problems for _, problems in verify_store(store)] == [[]]


def test_a_vocabulary_comes_back(store_root: str) -> None:
    store = Store(store_root)
    assert store.vocabulary(BASE) is None
    store.put_vocabulary(BASE, ["a", "\n", "", "日"])
    assert store.vocabulary(BASE) == ["a", "\n", "", "日"]


def test_the_same_words_always_fall_into_the_same_half() -> None:
    halves = [makes_label([word, 7, 8]) for word in range(400)]
    assert halves == [makes_label([word, 7, 8]) for word in range(400)]
    assert 160 < sum(halves) < 240
