"""A whole run as `fts bench flow` does it, in small: the equation, and that it can fail."""

import numpy as np
import psycopg
import pytest

from bench.flow.committed import committed_ms
from bench.flow.percentiles import percentiles_ms
from bench.flow.rig import Rig, running
from bench.flow.search import Plan
from bench.flow.setups import DATABASE, Setup
from bench.flow.tap import Ages, taps
from bench.flow.wording import equation_line
from engine.base.clock import wall_ns
from engine.data.kinds import TRADE
from engine.data.names import StreamKind
from tests.waiting import wait_for

_DELETE = """
    DELETE FROM trade
    WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM trade ORDER BY time, trade_id LIMIT 1)
"""
SETUP = Setup("tiny", (StreamKind.TRADES,), 1.0, symbols=2, redis=False)


@pytest.mark.flow
@pytest.mark.whole
def test_every_row_of_a_run_is_accounted_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE, database_url)
    with running(SETUP, Plan()) as rig:
        ages = seen_by_a_tap(rig)
        found = rig.equation()
        assert found.is_equal, equation_line(found)
        assert equation_line(found).startswith(
            f"PROVEN: sent {found.sent:,} = stored {found.sent:,} +"
        )
        stages = ages.by_stage()
        assert 0 < ages.count <= found.sent
        assert 0 < stages["ring"]["p50"] <= stages["tap"]["p50"] <= stages["tap"]["p99.9"]
        nothing = committed_ms(rig.url, "trade", 0, wall_ns(), found.sent)
        assert nothing == (0, {}), "this server does not note when it commits"
        with psycopg.connect(rig.url) as connection:
            connection.execute(_DELETE)
        lost = rig.equation(patience_s=0.0)
        assert not lost.is_equal
        assert "FAILED" in equation_line(lost)
        assert "missing 1," in equation_line(lost)


def seen_by_a_tap(rig: Rig) -> Ages:
    """Rows at 2,000 a second, read beside the writer."""
    (tap,) = taps(rig.engine.state_dir, [TRADE])
    ages = Ages()
    rig.wake(2_000.0)

    def read() -> bool:
        ages.add(tap.poll(1 << 16), wall_ns())
        return ages.count >= 500

    wait_for(read, "500 trades in the ring", 60.0)
    return ages


def test_percentiles_are_those_of_what_was_measured() -> None:
    ages = [np.arange(1, 501) * 1_000_000, np.arange(501, 1001) * 1_000_000]
    found = percentiles_ms(ages)
    assert list(found) == ["p50", "p90", "p99", "p99.9"]
    assert [round(value) for value in found.values()] == [500, 900, 990, 999]
    assert percentiles_ms([]) == {}
