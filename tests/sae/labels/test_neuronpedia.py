"""Labels over HTTP: one and many, polite, cached, offline, and only of the dictionary that was loaded."""

import json
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_audit.errors import SaeError, ServiceError
from ft_audit.sae.labels import neuronpedia
from ft_audit.sae.labels.bulk import BulkLabels
from ft_audit.sae.labels.http import PoliteHttp
from ft_audit.sae.labels.neuronpedia import Neuronpedia
from ft_audit.sae.labels.published import (
    Place,
    PublishedSae,
    check_feature,
    check_source,
    published_place,
)
from ft_audit.sae.labels.rows import FeatureRow, SourceRow

LOADED = PublishedSae(
    name="mine",
    layer=22,
    site="resid_post",
    width=64,
    place=Place("google/gemma-scope-2-1b-it", "resid_post/layer_22_width_16k_l0_medium"),
)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def http(waits: list[float]) -> PoliteHttp:
    """Notes how long it would have waited."""
    return PoliteHttp(requests_per_second=1000.0, key="secret", sleep=waits.append)


@pytest.fixture
def api(server: Any, http: PoliteHttp, published: SimpleNamespace, tmp_path: Path) -> Neuronpedia:
    return Neuronpedia(http, server.url, published.MODEL, published.SOURCE, tmp_path)


def texts(found: Any) -> dict[int, str]:
    return {
        index: row.explanations[0].description for index, row in found if row is not None and row.explanations
    }


def test_one_feature_is_read_and_then_kept(api: Neuronpedia, server: Any, published: SimpleNamespace) -> None:
    row = api.feature(3)
    assert row is not None and row.explanations[0].description == "ships at sea"
    assert row.explanations[0].author == "gemini-2.0-flash, np_acts-logits-general"
    assert row.source is not None and row.source.hfFolderId == published.FOLDER
    assert api.feature(3) == row and api.feature(1000) is None and api.feature(1000) is None
    address = f"/api/feature/{published.MODEL}/{published.SOURCE}"
    assert server.asked == [f"GET {address}/3", f"GET {address}/1000"]
    assert server.headers[0]["x-api-key"] == "secret"


def test_many_are_asked_for_at_once_and_each_once(
    api: Neuronpedia, server: Any, published: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neuronpedia, "BATCH", 10)
    api.feature(5)
    assert texts(api.features(range(25))) == published.LABELS
    assert server.asked[1:] == ["POST /api/features"] * 3
    assert texts(api.features(range(25))) == published.LABELS
    assert len(server.asked) == 4


def test_everything_is_answered_offline_from_the_cache(
    api: Neuronpedia, server: Any, published: SimpleNamespace
) -> None:
    api.source_row([3])
    dict(api.features([3, 5, 6]))
    num_asked = len(server.asked)
    offline = replace(api, offline=True)
    assert offline.source_row([0]).hfRepoId == published.REPO
    # What was never asked for is left out, and not held to be without a label.
    assert [index for index, _ in offline.features([3, 5, 6, 12])] == [3, 5, 6]
    with pytest.raises(ServiceError, match=r"not in the cache.*without --offline"):
        offline.feature(12)
    assert len(server.asked) == num_asked


@pytest.mark.parametrize(
    ("header", "low", "high"), [({"Retry-After": "7"}, 7, 7), ({}, 1, 1), ({"Retry-After": "DATE"}, 20, 31)]
)
def test_a_busy_server_is_asked_again_when_it_wishes(
    api: Neuronpedia, server: Any, waits: list[float], header: dict[str, str], low: float, high: float
) -> None:
    dated = {name: value.replace("DATE", formatdate(time.time() + 30)) for name, value in header.items()}
    server.failures = [(429, dated), (503, {})]
    assert api.feature(3) is not None
    long = [wait for wait in waits if wait >= 0.5]
    assert len(server.asked) == 3 and low <= long[0] <= high and long[1] == 2


def test_a_server_that_asks_for_an_hour_is_left_alone(api: Neuronpedia, server: Any) -> None:
    server.failures = [(429, {"Retry-After": "1800"})]
    with pytest.raises(ServiceError, match=r"left alone for 1800 s.*what was fetched is kept"):
        api.feature(3)
    assert len(server.asked) == 1


def test_a_silent_server_is_given_up_with_what_to_do(api: Neuronpedia, server: Any) -> None:
    server.failures = [(500, {})] * 6
    with pytest.raises(ServiceError, match=r"did not answer 6 times \(HTTP 500\).*--offline"):
        api.feature(3)
    away = replace(api, base_url="http://127.0.0.1:1")
    with pytest.raises(ServiceError, match=r"did not answer 6 times"):
        away.feature(3)


def test_a_refusal_is_final(api: Neuronpedia, server: Any) -> None:
    server.failures = [(403, {})]
    with pytest.raises(ServiceError, match=r"HTTP 403.*NEURONPEDIA_API_KEY"):
        api.feature(3)
    assert len(server.asked) == 1


def test_few_questions_left_are_spread(api: Neuronpedia, server: Any, waits: list[float]) -> None:
    server.left = 3
    api.feature(3)
    api.feature(5)
    assert max(waits) > 4
    server.left = 20_000
    api.feature(6)
    waits.clear()
    api.feature(7)
    assert max(waits, default=0.0) < 1


@pytest.mark.parametrize("answer", [b"<html>", b'{"modelId": 3}', b"[" * 100_000])
def test_what_is_not_neuronpedia_is_said_to_be_so(
    api: Neuronpedia, server: Any, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda *_: (200, answer))
    with pytest.raises(ServiceError, match=r"does not answer as Neuronpedia does"):
        api.feature(3)
    with pytest.raises(ServiceError, match=r"does not answer as Neuronpedia does"):
        list(api.features([3]))


def test_an_answer_for_another_feature_is_refused(
    api: Neuronpedia, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = json.dumps(server.row(4, whole=True)).encode()
    monkeypatch.setattr(server, "answer", lambda *_: (200, other))
    with pytest.raises(ServiceError, match=r"/4 when asked for .*/3"):
        api.feature(3)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://x", "neuronpedia.org"])
def test_only_the_web_is_asked(http: PoliteHttp, address: str) -> None:
    with pytest.raises(ServiceError, match="no web address"):
        http.get(address)


# Whose labels they are.


def source(**changed: Any) -> SourceRow:
    told = {"modelId": "gemma-3-1b-it", "id": "22-gemmascope-2-res-16k"}
    return SourceRow.model_validate(
        {**told, "hfRepoId": LOADED.place.repo_id, "hfFolderId": LOADED.place.folder} | changed
    )


def test_the_very_dictionary_is_accepted() -> None:
    check_source(LOADED, source())
    ours = replace(LOADED, place=Place(saelens_release="gemma-scope-2", saelens_id="layer_22"))
    theirs = {"saelensRelease": "gemma-scope-2", "saelensSaeId": "layer_22", "saelensConfig": {"d_sae": 64}}
    check_source(ours, source(**theirs))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hfRepoId": "google/gemma-scope-2-1b-pt"}, "gemma-scope-2-1b-pt"),
        ({"hfFolderId": "resid_post/layer_22_width_16k_l0_big"}, "l0_big"),
        ({"hfFolderId": "resid_post_all/layer_22_width_16k_l0_medium"}, "resid_post_all"),
        ({"saelensConfig": {"d_sae": 65536}}, "width: '65536', not '64'"),
        ({"id": "13-gemmascope-2-res-16k"}, "layer: '13', not '22'"),
        ({"hfRepoId": None, "hfFolderId": None}, "cannot be told"),
    ],
)
def test_another_dictionary_is_refused_by_name(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SaeError, match=said):
        check_source(LOADED, source(**changed))


def test_a_local_dictionary_must_say_where_it_was_published() -> None:
    with pytest.raises(SaeError, match=r"cannot be told.*repo_id and folder"):
        check_source(replace(LOADED, place=Place()), source())


def test_a_reference_says_where_it_is_published_and_only_files_are_believed(tmp_path: Path) -> None:
    stated = Place("someone/claims", "this")
    folder = "resid_post/layer_22_width_16k_l0_medium"
    hub = Place("google/gemma-scope-2-1b-it", folder)
    for ref in (f"google/gemma-scope-2-1b-it/{folder}", f"hub:google/gemma-scope-2-1b-it/{folder}"):
        assert published_place(ref, tmp_path, stated) == hub
    (tmp_path / "google" / "gemma-scope-2-1b-it" / folder).mkdir(parents=True)
    for ref in ("./mine", "/mine", "configs:saes/x", f"google/gemma-scope-2-1b-it/{folder}"):
        assert published_place(ref, tmp_path, stated) == stated


def test_a_release_has_both_of_its_names(tmp_path: Path) -> None:
    pytest.importorskip("sae_lens")
    release = "gemma-scope-2-1b-it-res"
    found = published_place(f"saelens:{release}/layer_22_width_16k_l0_medium", tmp_path, Place("x/y", "z"))
    assert (found.saelens_release, found.saelens_id) == (release, "layer_22_width_16k_l0_medium")
    assert (found.repo_id, found.folder) == LOADED.place[:2]


@pytest.mark.parametrize(
    ("hook_name", "accepted"),
    [
        ("blocks.22.hook_resid_post", True),
        ("model.layers.22.output", True),
        ("blocks.22.some_new_name", True),
        (None, True),
        ("blocks.21.hook_resid_post", False),
        ("blocks.22.hook_mlp_out", False),
        ("model.layers.22.self_attn.o_proj.input", False),
    ],
)
def test_a_feature_of_another_hook_is_refused(hook_name: str | None, accepted: bool) -> None:
    row = FeatureRow(modelId="m", layer="22-x", index="3", hookName=hook_name)
    if accepted:
        assert check_feature(LOADED, row) == 3
    else:
        with pytest.raises(SaeError, match=r"but 'mine' reads resid_post/22"):
            check_feature(LOADED, row)


@pytest.mark.parametrize("index", ["64", "-1", "x"])
def test_a_feature_beyond_the_width_is_refused(index: str) -> None:
    with pytest.raises(SaeError, match=r"has a feature .* but 'mine' has 64"):
        check_feature(LOADED, FeatureRow(modelId="m", layer="22-x", index=index))


# The data set.


@pytest.fixture(params=["folder", "address"])
def bulk(
    request: pytest.FixtureRequest, server: Any, http: PoliteHttp, published: SimpleNamespace, tmp_path: Path
) -> BulkLabels:
    """The data set as a folder of this machine, then behind an address."""
    root = server.url
    if request.param == "folder":
        root = str(tmp_path / "copy")
        for name, content in server.files().items():
            path = tmp_path / "copy" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return BulkLabels(root, published.MODEL, published.SOURCE, tmp_path / "cache", http)


def test_the_whole_source_is_read(bulk: BulkLabels, server: Any, published: SimpleNamespace) -> None:
    assert bulk.source_row().hfRepoId == published.REPO
    assert {int(row.index): row.description for row in bulk.explanations()} == published.LABELS
    num_asked = len(server.asked)
    if num_asked:
        offline = replace(bulk, offline=True)
        assert len(list(offline.explanations())) == len(published.LABELS) and len(server.asked) == num_asked


def test_a_missing_data_set_is_named(bulk: BulkLabels) -> None:
    other = replace(bulk, source="13-other")
    with pytest.raises(ServiceError, match=r"source\.jsonl: there is no such file"):
        other.source_row()
    with pytest.raises(ServiceError, match=r"batch-0.*there is no such file"):
        list(other.explanations())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no gzip", "no gzip file"),
        (b"LINE" * 300_000, "longer than"),
        (b"{}\n", "does not answer as Neuronpedia does"),
        (b"\n" * 70_000, "more than 65536 lines"),
        (b'{"modelId":"m","layer":"l","index":"1","description":"x"}\n', "holds rows of m/l"),
    ],
)
def test_a_hostile_file_is_refused(http: PoliteHttp, tmp_path: Path, content: bytes, said: str) -> None:
    import gzip

    folder = tmp_path / "v1" / "a" / "b" / "explanations"
    folder.mkdir(parents=True)
    packed = content if content == b"no gzip" else gzip.compress(content)
    (folder / "batch-0.jsonl.gz").write_bytes(packed)
    with pytest.raises(ServiceError, match=said):
        list(BulkLabels(str(tmp_path), "a", "b", tmp_path, http).explanations())
