"""Requests in a store, of either kind: queued whole, answered whole, and no file of theirs trusted."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store import Requests, Store, find_garbage, list_store, remove_garbage, verify_store
from ft_audit.engine.store import requests as shelf
from ft_audit.engine.store.request_record import Counts
from ft_audit.errors import StoreError

COUNTS = Counts(variant="transformed", side="base", num=2, refused=1, complied=0, broken=0, decoded=0)
TABLE = pa.table({"prompt": [0, 1], "answer": ["a", None]})


def request(name: str = "a", **more: Any) -> EvidenceRequest:
    return EvidenceRequest.model_validate({"name": name, "why": "b", "prompts": ["Grüße 🎈"], **more})


@pytest.fixture
def store(store_root: str) -> Store:
    """A store with a diff."""
    store = Store(store_root)
    with store.diff_writer({"a": 1}) as writer:
        writer.finish({"name": "demo"})
    return store


@pytest.fixture
def requests(store: Store) -> Requests:
    return store.requests(store.diffs()[0])


def key(requests: Requests, name: str, suffix: str = "yaml") -> str:
    return f"{requests.folder}/{name}.{suffix}"


def test_a_request_comes_back_and_is_queued_once(store: Store, requests: Requests) -> None:
    assert requests.ids() == [] and store.requested() == []
    name = requests.queue(request())
    before = store.place.read(key(requests, name))
    assert requests.queue(request()) == name and requests.queue(request("other")) != name
    assert requests.read(name) == request() and store.place.read(key(requests, name)) == before
    assert requests.state(name) == (name, "open", request(), "") and len(requests.ids()) == 2
    assert Requests(store.place, "f" * 16).id_of(request()) != name
    assert store.requested() == [requests.diff]


def test_answers_come_back_with_their_counts(requests: Requests) -> None:
    name = requests.queue(request())
    with pytest.raises(StoreError, match=f"request {name} is not answered yet"):
        requests.answers(name)
    written = requests.put_answers(name, TABLE, (COUNTS,), prompts_sha256="ab", asked_of="cpu")
    record, table = requests.answers(name)
    assert record == written and record.counts == (COUNTS,) and record.asked_of == "cpu"
    assert table.records() == TABLE.to_pylist()
    assert requests.state(name).state == "answered" and list(requests.answered()) == [name]


def test_a_refused_request_says_why_and_may_be_answered_later(requests: Requests) -> None:
    name = requests.queue(request())
    requests.refuse(name, "no such suite" + "!" * 5_000)
    state = requests.state(name)
    assert (
        state.state == "refused" and state.reason.startswith("no such suite") and len(state.reason) == 1_000
    )
    with pytest.raises(StoreError, match="could not be answered: no such suite"):
        requests.answers(name)
    assert requests.answered() == {}
    requests.put_answers(name, TABLE, ())
    assert requests.state(name).state == "answered"


def test_a_queue_has_an_end(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_OPEN", 2)
    monkeypatch.setattr(shelf, "MAX_REQUESTS", 3)
    first, second = requests.queue(request("a")), requests.queue(request("b"))
    with pytest.raises(StoreError, match="2 requests wait for an answer"):
        requests.queue(request("c"))
    assert requests.queue(request("b")) == second and len(requests.ids()) == 2
    requests.put_answers(first, TABLE, ())
    requests.queue(request("c"))
    requests.put_answers(second, TABLE, ())
    with pytest.raises(StoreError, match="has 3 requests, which is all it may have"):
        requests.queue(request("d"))


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_changed_byte_is_noticed(store: Store, requests: Requests, suffix: str) -> None:
    name = requests.queue(request())
    requests.put_answers(name, TABLE, (COUNTS,))
    content = store.place.read(key(requests, name, suffix)) or b""
    assert list(verify_store(store))[-1][1] == []
    changed = (
        content.replace(b'"refused": 1', b'"refused": 0') if suffix == "json" else content[:-9] + b"x" * 9
    )
    assert changed != content
    store.place.replace(key(requests, name, suffix), changed)
    with pytest.raises(StoreError, match="damaged"):
        requests.answers(name)
    item, problems = list(verify_store(store))[-1]
    assert item.kind == "requests" and len(problems) == 1 and "damaged" in problems[0]
    store.place.delete(key(requests, name, "parquet"))
    assert requests.state(name).state == "damaged"


def test_what_was_answered_elsewhere_is_no_answer_here(store: Store, requests: Requests) -> None:
    first, second = requests.queue(request("a")), requests.queue(request("b"))
    requests.put_answers(first, TABLE, ())
    for suffix in ("json", "parquet"):
        content = store.place.read(key(requests, first, suffix)) or b""
        store.place.replace(key(requests, second, suffix), content)
    with pytest.raises(StoreError, match=rf"{second}\.json is damaged"):
        requests.answers(second)
    assert list(requests.answered()) == [first]


HOSTILE: dict[str, bytes] = {
    "too large": b" " * (shelf.MAX_FILE_BYTES + 1),
    "not JSON": b"!!python/object/apply:os.system ['true']",
    "a YAML bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "too deep": b"[" * 200_000,
    "no text": b"\xff\xfe\x00",
    "a long number": b'{"diff": ' + b"9" * 10_000 + b"}",
    "nothing": b"",
    "a list": b"[]",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_hides_no_other(
    store: Store, requests: Requests, what: str
) -> None:
    name, good = "0" * 16, requests.queue(request())
    for suffix in ("yaml", "json"):
        store.place.replace(key(requests, name, suffix), HOSTILE[what])
        with pytest.raises(StoreError, match=name):
            requests.read(name) if suffix == "yaml" else requests.record(name)
    states = {state.id: state.state for state in requests.states()}
    assert states == {name: "damaged", good: "open"} and requests.answered() == {}


def test_a_request_that_was_edited_or_is_of_another_diff_is_refused(store: Store, requests: Requests) -> None:
    name = requests.queue(request())
    content = json.loads(store.place.read(key(requests, name)) or b"")
    edited = {**content, "request": {**content["request"], "max_new_tokens": 128}}
    for changed, says in (
        (edited, "was changed after it was queued"),
        ({**content, "diff": "e" * 16}, "a request for another diff, 'eeeeeeeeeeeeeeee'"),
        ({**content, "command": "rm"}, r"command: Extra inputs are not permitted"),
        ({**content, "request": {**content["request"], "suite": "/etc/passwd"}}, "request.suite"),
    ):
        store.place.replace(key(requests, name), json.dumps(changed).encode())
        with pytest.raises(StoreError, match=says):
            requests.read(name)
    # Asked again it is as it was.
    assert requests.queue(request()) == name and requests.read(name) == request()


@pytest.mark.parametrize("name", ["..", "x", "A" * 16, "0" * 17, "../../diffs/a"])
def test_only_an_id_names_a_request(requests: Requests, name: str) -> None:
    with pytest.raises(StoreError, match="its name is not an id"):
        requests.read(name)


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "device"])
def test_only_plain_files_are_read(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path / "store")
    requests = store.requests("d" * 16)
    good, name = requests.queue(request()), requests.queue(request("b"))
    path = Path(store.location, key(requests, name))
    outside = tmp_path / "outside.yaml"
    path.rename(outside)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": outside, "device": "/dev/zero"}.get(kind, tmp_path / "nowhere"))
    with pytest.raises(StoreError, match="is no plain file" if kind == "pipe" else "is a link"):
        requests.read(name)
    assert {s.id: s.state for s in requests.states()} == {good: "open", name: "damaged"}
    # Queueing it again puts a file in its place, and leaves what the link named alone.
    before = outside.read_bytes()
    requests.queue(request("b"))
    assert requests.read(name) == request("b") and outside.read_bytes() == before and not path.is_symlink()


def test_the_inventory_knows_requests_and_gc_those_without_a_diff(store: Store, requests: Requests) -> None:
    name = requests.queue(request())
    requests.queue(request("b"))
    requests.put_answers(name, TABLE, ())
    diff, item = list_store(store)
    assert (diff.kind, item.kind, item.id, item.complete) == ("diff", "requests", requests.diff, False)
    assert item.name == "1 of 2 answered" and item.num_bytes > 500
    assert find_garbage(store, min_age_s=0) == []
    orphan = store.requests("e" * 16)
    orphan.queue(request())
    (garbage,) = find_garbage(store, min_age_s=0)
    assert garbage.folder == orphan.folder and "a diff that is not there" in garbage.reason
    assert remove_garbage(store, [garbage]) == garbage.num_bytes > 0
    assert store.requested() == [requests.diff] and requests.answers(name)


def test_one_process_answers_at_a_time_and_others_may_queue(requests: Requests) -> None:
    lock = requests.lock()
    with pytest.raises(StoreError, match="writing"):
        requests.lock()
    requests.queue(request())
    lock.release()
    requests.lock().release()
