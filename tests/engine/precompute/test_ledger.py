"""What a job says that it cost."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ft_audit.agent.cost import cost_of, cost_words
from ft_audit.agent.evidence import Evidence
from ft_audit.engine.precompute import run_precompute
from ft_audit.engine.precompute.spending import Spending


def generated(job: Any) -> int:
    """Tokens of the answers that the diff keeps with their lengths."""
    table: pa.Table = job.diff.table("generations").arrow()
    return int(sum(table.column("num_tokens").to_pylist()))


def test_every_part_has_its_seconds_and_every_token_is_counted(adapter_job: Any) -> None:
    ledger = adapter_job.store.ledger(adapter_job.report["diff_id"])
    assert ledger is not None and ledger.device == adapter_job.report["device"]
    assert set(ledger.seconds) == {"texts", "forward", "answers", "weights", "statistics"}
    assert all(seconds > 0 for seconds in ledger.seconds.values())
    rounding = 0.001 * (len(ledger.seconds) + 1) / 2
    whole = adapter_job.report["seconds"]
    assert 0.9 * whole < ledger.total_seconds <= whole + rounding
    assert (ledger.tokens_read, ledger.tokens_reused) == (adapter_job.report["tokens"], 0)
    assert ledger.tokens_generated > 0


def test_a_base_in_the_store_is_reused_and_a_whole_diff_keeps_its_ledger(
    adapter_job: Any, full_job: Any, world: Any, shared_store: Path
) -> None:
    ledger = full_job.store.ledger(full_job.report["diff_id"])
    assert ledger is not None and ledger.tokens_reused > 0
    assert ledger.tokens_read + ledger.tokens_reused == full_job.report["tokens"]
    again = run_precompute(world.config(shared_store), progress=False)
    assert again["reused"] and again["diff_id"] == adapter_job.report["diff_id"]
    kept = adapter_job.store.ledger(again["diff_id"])
    assert kept is not None and kept.tokens_read == adapter_job.report["tokens"]


def test_a_part_within_another_stops_its_clock() -> None:
    spending = Spending()
    with spending.part("statistics"):
        with spending.part("answers"):
            time.sleep(0.05)
        with pytest.raises(KeyError), spending.part("weights"):
            raise KeyError
    assert spending.seconds["answers"] >= 0.05 > spending.seconds["statistics"] >= 0
    assert spending.ledger("cpu", 10, 12).tokens_reused == 0


def test_the_cost_of_a_verdict_has_a_price_where_the_config_gives_one(adapter_job: Any) -> None:
    evidence = Evidence(adapter_job.store.location, adapter_job.diff)
    free, priced = (cost_of(evidence.ledger(), price) for price in (None, 36.0))
    assert free is not None and priced is not None
    assert free.money is None and "price" not in cost_words(free)
    assert priced.money == pytest.approx(priced.total_seconds / 100, rel=1e-3)
    assert f"{priced.tokens_read:,} tokens read" in cost_words(priced)
    assert cost_of(None, 36.0) is None and cost_words(None) == "not counted"


def test_an_unreadable_ledger_is_none(adapter_job: Any, tmp_path: Path) -> None:
    store = type(adapter_job.store)(tmp_path)
    assert store.ledger("nothing") is None
    store.place.replace("ledgers/broken.json", b"{}")
    assert store.ledger("broken") is None
