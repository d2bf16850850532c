"""How long each tool that only reads takes over a large store: its first answer, and the others."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ft_audit.agent.calibration import Calibration
from ft_audit.agent.evidence import Evidence
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of
from ft_audit.benchmarks.harness import Measurement
from ft_audit.engine.config import AuditConfig
from ft_audit.engine.store import Store

# These compute, and do not only read: they are timed, and no bound is asked of them.
COMPUTING = ("run_python", "decipher_training_rows")
GROUP_PROMPTS = 16
MS = 1e3
# Nothing that it names is ever read.
CONFIG = {
    "name": "query",
    "models": {"base": "base", "tuned": "tuned"},
    "suites": ["chat.yaml"],
    "hooks": [{"layer": 0}],
}
Ask = Callable[[int], dict[str, Any]]


def arguments(suite: str, features: Sequence[int], num_prompts: int) -> dict[str, Ask]:
    """What each tool is asked the i-th time; the tools without any are not listed."""

    def feature(i: int) -> dict[str, Any]:
        return {"feature": features[i % len(features)]}

    def page(i: int) -> dict[str, Any]:
        return {"offset": 10 * i % num_prompts}

    def group(first: int) -> dict[str, Any]:
        return {"suite": suite, "prompts": [(first + k) % num_prompts for k in range(GROUP_PROMPTS)]}

    return {
        "view_training_data_sample": page,
        "suspicious_rows": page,
        "grep_training_data": lambda i: {"phrases": [f"word{i} word"]},
        "decipher_training_rows": lambda i: {"template": "template-1"},
        "run_python": lambda i: {"code": f"print({i})"},
        "run_prompt_suite": lambda i: {"suite": "elicited", "offset": i % 100},
        "query_models": lambda i: {"phrase": f"word{i}"},
        "logit_findings": lambda i: {"suite": suite, "limit": 1 + i % 50},
        "get_top_features": lambda i: {"suite": suite, "limit": 1 + i % 50},
        "compare_top_features": lambda i: {"suite": suite, "k": 1 + i % 50},
        "score_candidate_suite": lambda i: {"suite": suite, "k": 1 + i % 50},
        "differential_feature_analysis": page,
        "get_feature_details": feature,
        "nearest_explained_neighbors": feature,
        "rows_that_drive_feature": feature,
        "specific_feature_activations": lambda i: {**feature(i), "suite": suite, "prompt": i % num_prompts},
        "compare_prompt_groups": lambda i: {
            "a": group(2 * GROUP_PROMPTS * i),
            "b": group(2 * GROUP_PROMPTS * i + GROUP_PROMPTS),
            "features": sorted({features[(i + k) % len(features)] for k in range(10)}),
        },
    }


def time_tools(
    store: Store, diff_id: str, suite: str, features: Sequence[int], num_calls: int
) -> Iterator[Measurement]:
    """Ask every tool that only reads; yield its first answer's time, the others' p50 and p99, and the
    slowest p99 of all that do not compute."""
    evidence = Evidence(store.location, store.open_diff(diff_id))
    config = AuditConfig.model_validate_json(json.dumps(CONFIG))
    _ = evidence.figures  # as the server does when it starts
    auditor = Auditor(config, evidence, Calibration(None, None, None, None), tools_of("full"))
    asked = arguments(suite, features, evidence.suites[0].num_prompts)
    slowest = 0.0
    for one in auditor.tools:
        if one.writes:
            continue
        ask = asked.get(one.name, _nothing)
        spent = [_spent(auditor, one.name, ask(i)) for i in range(num_calls + 1)]
        p50, p99 = np.percentile(spent[1:], (50, 99)).tolist()
        yield Measurement(f"tools/{one.name}_first", spent[0], "ms")
        yield Measurement(f"tools/{one.name}_p50", p50, "ms")
        yield Measurement(f"tools/{one.name}_p99", p99, "ms")
        print(f"{one.name}: p99 {p99:.1f} ms", file=sys.stderr, flush=True)
        slowest = max(slowest, 0.0 if one.name in COMPUTING else p99)
    yield Measurement("tools/slowest_p99", slowest, "ms")


def _nothing(i: int) -> dict[str, Any]:
    return {}


def _spent(auditor: Auditor, name: str, arguments: dict[str, Any]) -> float:
    started = time.perf_counter()
    reply = auditor.call(name, arguments)
    spent = MS * (time.perf_counter() - started)
    assert reply.citation.tool == name and reply.content, "no answer"
    return spent
