"""`precompute --requests`: what investigators asked for, put to both models, and kept beside the diff."""

import importlib.metadata
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from tqdm import tqdm

from ft_audit.engine.config import AuditConfig, GenerateConfig, computed_json
from ft_audit.engine.precompute.generations import side_answers
from ft_audit.engine.precompute.identity import device_class
from ft_audit.engine.precompute.models import ModelPair, open_pair
from ft_audit.engine.precompute.requested_answers import ANSWERS_SCHEMA, Said, answer_rows
from ft_audit.engine.precompute.requested_prompts import AskedRequest, asked_request
from ft_audit.engine.precompute.spending import Spending
from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store import DiffReader, Requests, Store
from ft_audit.engine.store.diff_lookup import find_diff
from ft_audit.engine.store.request_record import SIDES, Side, count_answers
from ft_audit.errors import ConfigError, DataError, ModelError, StoreError

MAX_AT_ONCE = 512
"""Prompts between two writes: what a killed job has to ask again, against batches that are not full."""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Done:
    """What has become of each request so far."""

    states: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, state: str, request: EvidenceRequest | None = None, reason: str = "") -> None:
        """Note one request."""
        title = {} if request is None else {"name": request.name}
        self.states[name] = {"id": name, "state": state, **title, **({"reason": reason} if reason else {})}

    def count(self, state: str) -> int:
        """Return how many are in a state."""
        return sum(one["state"] == state for one in self.states.values())


def answer_requests(config: AuditConfig, diff: str | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Answer every open request of the config's newest diff, or the one named, and return what was done.

    Safe to kill and call again: what is answered stays. A request that cannot be put is refused by name, and
    the others go on.

    Raises:
        StoreError: there is no such diff, or another process is at it.
        ModelError: the models are not those of the diff.
    """
    started = time.perf_counter()
    store = Store(config.store)
    reader = find_diff(store, config.name, computed_json(config), diff).reader
    requests, done = store.requests(reader.manifest.diff_id), Done()
    num_generated = 0
    if requests.ids():
        lock = requests.lock()
        try:
            if left := _open_ones(requests, done):
                num_generated = _answer(config, reader, store, left, done, progress)
        finally:
            lock.release()
    return {
        "diff_id": requests.diff,
        "store": store.location,
        "requests": [done.states[name] for name in sorted(done.states)],
        "num_answered": done.count("answered"),
        "num_answered_before": done.count("answered before"),
        "num_failed": done.count("failed"),
        "tokens_generated": num_generated,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _open_ones(requests: Requests, done: Done) -> dict[str, EvidenceRequest]:
    """Return the requests without a whole answer; those that were refused are tried again."""
    found = {}
    for name in requests.ids():
        try:
            request = requests.read(name)
        except StoreError as error:
            done.add(name, "failed", reason=str(error))
            continue
        if requests.state(name).state == "answered":
            done.add(name, "answered before", request)
        else:
            found[name] = request
    return found


def _answer(
    config: AuditConfig,
    reader: DiffReader,
    store: Store,
    left: dict[str, EvidenceRequest],
    done: Done,
    progress: bool,
) -> int:
    if config.precompute.threads is not None:
        torch.set_num_threads(config.precompute.threads)
    # Answers need the whole models, also where the diff itself had read their first blocks alone.
    models = open_pair(config.model_copy(update={"generate": config.generate or GenerateConfig()}))
    _check_models(models, reader)
    requests = store.requests(reader.manifest.diff_id)
    asked = []
    for name, request in left.items():
        try:
            asked.append(asked_request(name, request, config, models))
        except (ConfigError, DataError) as error:
            requests.refuse(name, str(error))
            done.add(name, "failed", request, str(error))
    shares = list(_shares(asked))
    total = sum(len(_distinct(share)) * len(SIDES) for share in shares)
    with tqdm(total=total, desc="requests", unit="answer", disable=not progress, file=sys.stderr) as bar:
        for share in shares:
            spending, before = Spending(), models.num_generated
            with spending.part("answers"):
                said = _said(models, share, bar)
            for one in share:
                _keep(requests, one, said, models)
                done.add(one.id, "answered", one.request)
            _grow_ledger(store, requests.diff, models, spending, models.num_generated - before)
    return models.num_generated


def _shares(asked: Sequence[AskedRequest]) -> Iterator[list[AskedRequest]]:
    """Yield whole requests of one length of answers, as many as are asked at once."""
    by_length: dict[int, list[AskedRequest]] = defaultdict(list)
    for one in asked:
        by_length[one.request.max_new_tokens].append(one)
    for length in sorted(by_length):
        share: list[AskedRequest] = []
        for one in by_length[length]:
            if share and sum(len(s.prompts) for s in share) + len(one.prompts) > MAX_AT_ONCE:
                yield share
                share = []
            share.append(one)
        yield share


def _distinct(share: Sequence[AskedRequest]) -> list[tuple[int, ...]]:
    """Return each prompt's ids once: requests share their controls, and a greedy answer is the same."""
    return list(dict.fromkeys(prompt.ids for one in share for prompt in one.prompts))


def _said(
    models: ModelPair, share: Sequence[AskedRequest], bar: "tqdm[Any]"
) -> dict[tuple[Side, tuple[int, ...]], Said]:
    prompts = _distinct(share)
    settings = GenerateConfig(max_new_tokens=share[0].request.max_new_tokens)
    found = {}
    for side in SIDES:
        answers, ends = side_answers(side, models, settings, prompts)
        for ids, (answer,) in zip(prompts, answers, strict=True):
            text = models.text(side, answer.ids)
            found[side, ids] = Said(text, len(answer.ids), "stop" if answer.ids[-1] in ends else "length")
        bar.update(len(prompts))
    return found


def _keep(
    requests: Requests,
    one: AskedRequest,
    said: dict[tuple[Side, tuple[int, ...]], Said],
    models: ModelPair,
) -> None:
    rows = answer_rows(one, said)
    version = importlib.metadata.version("ft-audit")
    requests.put_answers(
        one.id,
        pa.Table.from_pylist(rows, schema=ANSWERS_SCHEMA),
        count_answers(rows),
        prompts_sha256=one.prompts_sha256,
        asked_of=f"{device_class(models.device)}, {models.config.models.dtype}, ft-audit {version}",
    )


def _check_models(models: ModelPair, reader: DiffReader) -> None:
    for side, source in (("base", models.base), ("tuned", models.tuned)):
        if source.weights_sha256 != reader.manifest.summary["models"][side]["sha256"]:
            raise ModelError(
                f"models.{side} {source.ref!r} has changed since diff {reader.manifest.diff_id} was made: "
                "its answers would be another model's; run `ft-audit precompute` first"
            )


def _grow_ledger(store: Store, diff: str, models: ModelPair, spending: Spending, num_generated: int) -> None:
    """Add to what the diff cost; where that was not counted, a part of it would look like all."""
    ledger = store.ledger(diff)
    if ledger is None:
        log.warning("what diff %s cost was not counted, and so this is not either", diff)
        return
    devices = dict.fromkeys([*ledger.device.split(" and "), device_class(models.device)])
    seconds = dict(ledger.seconds)
    for part, value in spending.seconds.items():
        seconds[part] = round(seconds.get(part, 0.0) + value, 3)
    grown = {
        "device": " and ".join(devices),
        "seconds": seconds,
        "tokens_generated": ledger.tokens_generated + num_generated,
    }
    store.put_ledger(diff, ledger.model_copy(update=grown))
