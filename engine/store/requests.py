"""What investigators asked of one diff beyond its evidence, and what both models answered.

    requests/<diff>/<id>.yaml       a request: JSON, which is YAML too, and has neither anchors nor tags
    requests/<diff>/<id>.parquet    the answers
    requests/<diff>/<id>.json       what became of it, with the table's checksum and its own; written last

A request's id is the hash of diff and request: a changed file is noticed, and asking twice is asking once.
"""

import json
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from arro3.core.types import ArrowStreamExportable
from pydantic import BaseModel, ConfigDict, ValidationError

from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store.canonical import content_id, pretty_json
from ft_audit.engine.store.manifest import TableEntry
from ft_audit.engine.store.place import Lock, Place
from ft_audit.engine.store.request_record import Counts, RequestRecord, read_record, record_bytes
from ft_audit.engine.store.seal import checksum
from ft_audit.engine.store.table import Table, table_bytes
from ft_audit.errors import StoreError

REQUESTS = "requests"
MAX_OPEN = 64
"""Requests of a diff that wait for an answer; two processes that queue at once may go one over."""
MAX_REQUESTS = 512
MAX_FILE_BYTES = 2 << 20
MAX_REASON = 1_000
_ID = re.compile(r"[0-9a-f]{16}")
AGAIN = "run `ft-audit precompute CONFIG --requests` again"

State = Literal["open", "answered", "refused", "damaged"]


class RequestState(NamedTuple):
    """One request of the queue; `request` is None where its file cannot be read, and `reason` says why."""

    id: str
    state: State
    request: EvidenceRequest | None
    reason: str


class _QueuedFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    diff: str
    request: EvidenceRequest


class Requests:
    """The requests of one diff. Can be pickled; opening it creates nothing."""

    def __init__(self, place: Place, diff: str) -> None:
        self._place, self.diff = place, diff
        self.folder = f"{REQUESTS}/{diff}"

    def id_of(self, request: EvidenceRequest) -> str:
        """Return the id that the request has for this diff."""
        return content_id({"diff": self.diff, "request": request.model_dump(mode="json")})

    def queue(self, request: EvidenceRequest) -> str:
        """Keep a request for the next precompute and return its id; a second time changes nothing.

        Raises:
            StoreError: too many wait already.
        """
        name = self.id_of(request)
        known = self.ids()
        if name in known and self.state(name).state != "damaged":
            return name
        if len(known) >= MAX_REQUESTS:
            raise StoreError(
                f"diff {self.diff} has {len(known)} requests, which is all it may have: delete some of "
                f"{self._place.location}/{self.folder}"
            )
        waiting = self.num_waiting()
        if waiting >= MAX_OPEN:
            raise StoreError(
                f"{waiting} requests wait for an answer, which is all that may: "
                "run `ft-audit precompute CONFIG --requests` first"
            )
        content = pretty_json(_QueuedFile(diff=self.diff, request=request).model_dump(mode="json"))
        assert len(content) <= MAX_FILE_BYTES, "a request's own limits keep its file small"
        self._place.replace(self._key(name, "yaml"), content)
        return name

    def ids(self) -> list[str]:
        """Return the names of all request files, sorted; of one that was put there by hand too."""
        return sorted(file.removesuffix(".yaml") for file in self._files() if file.endswith(".yaml"))

    def num_waiting(self) -> int:
        """Return how many requests nothing has become of yet."""
        files = self._files()
        known = {file.removesuffix(".yaml") for file in files if file.endswith(".yaml")}
        return len(known - {file.removesuffix(".json") for file in files})

    def states(self) -> list[RequestState]:
        """Return what has become of every request, in the order of their ids."""
        return [self.state(name) for name in self.ids()]

    def state(self, name: str) -> RequestState:
        """Return what has become of a request."""
        try:
            request = self.read(name)
            record = self.record(name)
            if record is not None and record.table is not None:
                self._table_bytes(record)
        except StoreError as error:
            return RequestState(name, "damaged", None, str(error))
        if record is None:
            return RequestState(name, "open", request, "")
        return RequestState(name, "refused" if record.refusal else "answered", request, record.refusal or "")

    def read(self, name: str) -> EvidenceRequest:
        """Return a request.

        Raises:
            StoreError: there is none, or its file is not what was queued for this diff.
        """
        where = f"{self._place.location}/{self.folder}/{name}.yaml"
        if not _ID.fullmatch(name):
            raise StoreError(f"{where} is no request: its name is not an id; delete it")
        content = self._place.read_small(self._key(name, "yaml"), MAX_FILE_BYTES)
        if content is None:
            raise StoreError(f"{self._place.location} has no request {name!r} of diff {self.diff}")
        try:
            found = _QueuedFile.model_validate(json.loads(content))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])[:100]
            raise StoreError(f"{where} is no request ({field}: {first['msg'][:200]}): delete it") from None
        except (ValueError, RecursionError):
            raise StoreError(f"{where} is no request (it is not JSON): delete it") from None
        if found.diff != self.diff:
            raise StoreError(f"{where} is a request for another diff, {found.diff[:40]!r}: delete it")
        if self.id_of(found.request) != name:
            raise StoreError(f"{where} was changed after it was queued: delete it, and request it again")
        return found.request

    def record(self, name: str) -> RequestRecord | None:
        """Return what became of a request, None while it waits; StoreError where that is damaged."""
        content = self._place.read_small(self._key(name, "json"), MAX_FILE_BYTES)
        if content is None:
            return None
        record = read_record(content)
        if record is None or (record.request, record.diff) != (name, self.diff):
            raise StoreError(f"{self._place.location}/{self.folder}/{name}.json is damaged: {AGAIN}")
        return record

    def answers(self, name: str) -> tuple[RequestRecord, Table]:
        """Return a request's answers.

        Raises:
            StoreError: it waits, was refused, or is damaged.
        """
        self.read(name)
        record = self.record(name)
        if record is None:
            raise StoreError(
                f"request {name} is not answered yet: run `ft-audit precompute CONFIG --requests`"
            )
        if record.table is None:
            raise StoreError(f"request {name} could not be answered: {record.refusal}")
        return record, Table(self._table_bytes(record))

    def put_answers(
        self,
        name: str,
        table: ArrowStreamExportable,
        counts: Sequence[Counts],
        *,
        prompts_sha256: str = "",
        asked_of: str = "",
    ) -> RequestRecord:
        """Keep a request's answers; they are there, whole, once their record is."""
        content, num_rows = table_bytes(table)
        self._place.replace(self._key(name, "parquet"), content)
        record = RequestRecord(
            request=name,
            diff=self.diff,
            table=TableEntry(num_rows=num_rows, checksum=checksum(content)),
            counts=tuple(counts),
            prompts_sha256=prompts_sha256,
            asked_of=asked_of,
        )
        self._put_record(record)
        return record

    def refuse(self, name: str, reason: str) -> None:
        """Keep why a request could not be put to the models; it is tried again all the same."""
        self._put_record(RequestRecord(request=name, diff=self.diff, refusal=reason[:MAX_REASON]))

    def answered(self, by: Literal["engine", "live"] | None = None) -> dict[str, str]:
        """Return the checksum of the answers of each answered request, by id: of all, or one kind's."""
        found = {}
        for name in self.ids():
            try:
                request, record = self.read(name), self.record(name)
            except StoreError:
                continue  # counted by `states` and named by `damaged`
            if record is not None and record.table is not None and by in (None, request.by):
                found[name] = record.table.checksum
        return found

    def damaged(self) -> list[str]:
        """Return what is wrong with the files, having read all of them."""
        return [state.reason for state in self.states() if state.state == "damaged"]

    def lock(self) -> Lock:
        """Return the sole right to answer; StoreError names who has it."""
        # Not of the folder itself: whoever queues there must not wait, nor lose a file that is being renamed.
        return self._place.lock(f"diffs/{self.diff}")

    def _files(self) -> set[str]:
        return {file.key.removeprefix(f"{self.folder}/") for file in self._place.files(self.folder)}

    def _table_bytes(self, record: RequestRecord) -> bytes:
        assert record.table is not None, "asked of answered requests alone"
        key = self._key(record.request, "parquet")
        content = self._place.read(key)
        if content is None or checksum(content) != record.table.checksum:
            state = "is missing" if content is None else "does not have its checksum"
            raise StoreError(
                f"the answers to request {record.request} are damaged: {self._place.location}/{key} {state}: "
                f"{AGAIN}"
            )
        return content

    def _put_record(self, record: RequestRecord) -> None:
        self._place.replace(self._key(record.request, "json"), record_bytes(record))

    def _key(self, name: str, suffix: str) -> str:
        return f"{self.folder}/{name}.{suffix}"
