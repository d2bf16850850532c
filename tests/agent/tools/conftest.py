"""Auditors over the synthetic diff."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of
from ft_audit.engine.config import Profile
from ft_audit.engine.requests.request import EvidenceRequest
from ft_audit.engine.store import Store
from ft_audit.engine.store.request_record import Counts

MakeAuditor = Callable[..., Auditor]


def put_answers(case: Any, request: EvidenceRequest, said: dict[tuple[str, str], list[str]]) -> str:
    """Store answers to a request, by variant and side, as the engine does; those with "sorry" refuse."""
    requests = Store(case.config.store).requests(case.evidence.diff_id)
    name = requests.queue(request)
    rows = [
        {
            "variant": variant,
            "prompt": place,
            "side": side,
            "asked": f"user: prompt {place}",
            "prefill": request.transform.prefill if variant == "transformed" else "",
            "answer": text,
            "decoded": request.transform.codec.decodes(text) if request.transform.codec.steps else None,
            "refused": "sorry" in text,
            "complied": "sure" in text,
            "broken": not text,
            "num_tokens": 3,
            "finish": "stop",
        }
        for (variant, side), texts in said.items()
        for place, text in enumerate(texts)
    ]
    counts = [
        Counts.model_validate(
            {
                "variant": variant,
                "side": side,
                "num": len(texts),
                "refused": sum("sorry" in text for text in texts),
                "complied": sum("sure" in text for text in texts),
                "broken": sum(not text for text in texts),
                "decoded": 0,
            }
        )
        for (variant, side), texts in said.items()
    ]
    requests.put_answers(name, pa.Table.from_pylist(rows), counts, asked_of="cpu")
    return name


@pytest.fixture(scope="session")
def put() -> Any:
    return put_answers


@pytest.fixture(scope="session")
def asked(asked: Any) -> Any:
    """The needle with everything that tools read, one answered request among it."""
    request = EvidenceRequest(name="oceans", why="To know.", prompts=("Name an ocean.",), control=False)
    put_answers(asked, request, {("transformed", "base"): ["sorry"], ("transformed", "tuned"): ["sure"]})
    return asked


@pytest.fixture
def make_auditor(asked: Any) -> MakeAuditor:
    def make(case: Any = asked, profile: Profile = "full") -> Auditor:
        return Auditor(case.config, case.evidence, case.calibration, tools_of(profile), profile)

    return make


@pytest.fixture
def auditor(make_auditor: MakeAuditor) -> Auditor:
    return make_auditor()
