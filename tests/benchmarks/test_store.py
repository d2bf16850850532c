"""The store's benchmark at a size of a few segments: every figure there, and wrong bytes refused."""

import argparse
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ft_audit.benchmarks import store as benchmark
from ft_audit.benchmarks.harness import compare, load_asked
from ft_audit.benchmarks.storing.firing import Firing
from ft_audit.benchmarks.storing.pair import (
    SYNTHETIC,
    hooks,
    raw_bytes,
    stored_files,
    synthetic_runs,
    verify_index,
)
from ft_audit.benchmarks.storing.synthetic import draw_suite
from ft_audit.engine.cluster import open_scheduler
from ft_audit.engine.store import Context, Store


def options(tmp_path) -> argparse.Namespace:
    return argparse.Namespace(
        tokens=3000, features=300, l0=8.0, segment=1000, rounds=1, synthetic_only=True, scratch=tmp_path,
        firing=None,
    )  # fmt: skip


def test_every_figure_is_measured_or_explained(tmp_path):
    found = benchmark.measure(options(tmp_path))
    figures = {figure.name: figure for figure in compare(found, load_asked("store"))}
    assert figures["synthetic/tokens_both_models"].value == pytest.approx(6000, rel=0.1)
    assert figures["synthetic/l0"].value == pytest.approx(8, rel=0.1)
    for name in ("write_rate", "write_2_threads_rate", "read_rate", "index_rate"):
        assert figures[f"synthetic/{name}"].value > 0
    # So few firings that descriptions outweigh them; still no more than a few times the 6 bytes of a raw one.
    assert 1.5 < figures["synthetic/bytes_per_nonzero"].value < 20
    assert figures["real/bytes_per_nonzero"].value is None
    assert figures["real/bytes_per_nonzero"].reason == "no model was run"
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_compared_with_what_was_given(tmp_path):
    suite = draw_suite(Firing.shipped(), 1500, 200, 8.0, 1000)
    segments = [suite.segment(n, "base", SYNTHETIC) for n in range(len(suite.segments))]
    store = Store(tmp_path / "store")
    ways = benchmark.Ways(store, segments, SYNTHETIC, 200)
    run = ways.verify()
    assert ways.write() != run
    assert {path.suffix for path in stored_files(store, "runs", run)} >= {".json"}
    indptr_T1, index_N, bits_N = segments[0].features[SYNTHETIC]
    assert raw_bytes(segments[0], SYNTHETIC) == 4 * len(indptr_T1) + 4 * len(index_N) + 2 * len(bits_N)

    class Forgetful:
        def __getattr__(self, name):
            return getattr(store, name)

        def open_run(self, run):
            return Store(tmp_path / "store").open_run(other)

    with store.run_writer({"other": 1}, hooks(200)) as writer:
        for number, data in enumerate(segments):
            rows = data.features[SYNTHETIC]
            writer.write_segment(number, benchmark.only(data, SYNTHETIC) if number else changed(data, rows))
        other = writer.finish().run_id
    ways.store = Forgetful()
    with pytest.raises(AssertionError, match="does not read back"):
        ways.verify()


def test_rows_that_come_again_are_taken_once():
    suite = draw_suite(Firing.shipped(), 1500, 200, 8.0, 1000)
    data = suite.segment(0, "base", SYNTHETIC)
    indptr_T1, index_N, bits_N = data.features[SYNTHETIC]
    rows = [tuple(index_N[a:b]) for a, b in pairwise(indptr_T1)]
    first = {row: t for t, row in reversed(list(enumerate(rows)))}
    once = benchmark.once_each([data, data], SYNTHETIC)
    once.check()
    kept = sorted(first.values())
    assert 1 < len(kept) < len(rows)  # tokens that do not count have the same, empty row
    assert np.array_equal(once.token_T, data.token_T[kept])
    assert np.array_equal(once.features[SYNTHETIC][1], np.concatenate([rows[t] for t in kept]))
    expected = np.concatenate([bits_N[indptr_T1[t] : indptr_T1[t + 1]] for t in kept])
    assert np.array_equal(once.features[SYNTHETIC][2], expected)


def changed(data, rows):
    bits_N = rows[2].copy()
    bits_N[-1] ^= 1
    return replace(data, features={SYNTHETIC: (rows[0], rows[1], bits_N)})


def test_an_index_that_answers_otherwise_is_refused(tmp_path):
    suite = draw_suite(Firing.shipped(), 1500, 50, 8.0, 1000)
    with open_scheduler() as scheduler:
        runs = synthetic_runs(Store(tmp_path), suite, scheduler)

    class Wrong:
        def top_contexts(self, sae, suite, side, feature):
            return (Context(0, 0, 1.0, (1,), (1.0,)),)

    features = np.unique(suite.segment(0, "base", SYNTHETIC).features[SYNTHETIC][1])[:2].tolist()
    with pytest.raises(AssertionError, match="contexts of feature"):
        verify_index(Wrong(), runs, SYNTHETIC, features)
