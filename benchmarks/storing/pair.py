"""Pairs of runs to measure a store with: synthetic ones written from several threads, and real ones.

Legend: T tokens, N non-zeros.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ft_audit.benchmarks.storing.synthetic import Suite
from ft_audit.engine.cluster import Scheduler
from ft_audit.engine.config import AuditConfig, load_config
from ft_audit.engine.diff.contexts import top_contexts
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.store import (
    FeatureIndex,
    HookEntry,
    RunReader,
    SaeEntry,
    SegmentData,
    SegmentEntry,
    Store,
)
from ft_audit.engine.store.segment_sink import SegmentSink

CORPUS = "package:chatterbot_corpus/data/english"
SYNTHETIC = "synthetic"


class SuiteRuns(NamedTuple):
    """Both models' runs over one suite."""

    name: str
    base: RunReader
    tuned: RunReader


@dataclass(frozen=True, slots=True)
class _WriteSegment:
    """The task that draws one segment and writes its files."""

    sink: SegmentSink
    suite: Suite
    side: str

    def __call__(self, number: int) -> SegmentEntry:
        return self.sink.write(number, self.suite.segment(number, self.side, SYNTHETIC))


def synthetic_runs(store: Store, suite: Suite, scheduler: Scheduler) -> SuiteRuns:
    """Both sides of a synthetic suite, written to the store."""
    runs = []
    for side in ("base", "tuned"):
        with store.run_writer(
            {"benchmark": side, "tokens": suite.num_tokens}, hooks(suite.num_features)
        ) as writer:
            for entry in scheduler.map(_WriteSegment(writer.sink(), suite, side), range(len(suite.segments))):
                writer.commit(entry)
            runs.append(store.open_run(writer.finish().run_id))
    return SuiteRuns("synthetic", runs[0], runs[1])


def real_runs(store: Path) -> SuiteRuns:
    """The demo's base and needle candidate over the corpus through the shipped dictionary."""
    demo = load_config("configs:demo_needle.yaml")
    raw = demo.model_dump(mode="json")
    raw |= {"suites": [CORPUS], "dataset": None, "elicit": None, "generate": None, "store": str(store)}
    raw["precompute"] |= {"control": False, "weights": False, "feature_index": False}
    config = AuditConfig.model_validate_json(json.dumps(raw))
    config._base_dir = demo.base_dir
    planned = {run["side"]: run for run in run_precompute(config)["runs"]}
    runs = (Store(store).open_run(planned[side]["run_id"]) for side in ("base", "tuned"))
    return SuiteRuns(planned["base"]["suite"], *runs)


def hooks(num_features: int, sae: str = SYNTHETIC) -> Sequence[HookEntry]:
    """One hook with one dictionary."""
    entry = SaeEntry(name=sae, width=num_features, sha256="00" * 32)
    return [HookEntry(name="resid_post/0", layer=0, site="resid_post", saes=[entry])]


def raw_bytes(data: SegmentData, sae: str) -> int:
    """The bytes of a segment's rows before they are packed: indptr and row delta as u32, bf16 bits as u16."""
    indptr_T1, index_N, _ = data.features[sae]
    return 4 * len(indptr_T1) + 6 * len(index_N)


def stored_files(store: Store, room: str, name: str) -> list[Path]:
    """The files of one run or diff of a store on the local disk."""
    return [path for path in (Path(store.location) / room / name).rglob("*") if path.is_file()]


def verify_index(index: FeatureIndex, runs: SuiteRuns, sae: str, features: Sequence[int]) -> None:
    """Raise AssertionError unless the feature-major copy gives the contexts that the segments give."""
    for side, run in (("base", runs.base), ("tuned", runs.tuned)):
        for feature, expected in top_contexts(run, sae, features).items():
            got = index.top_contexts(sae, runs.name, side, feature)
            assert got == expected, f"the index's contexts of feature {feature}, {side}, differ"
