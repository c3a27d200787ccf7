"""What is refused is declared: one gap for rows that follow each other, with their ids or times."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.flags import GapReason, GapState
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, FUNDING, GAP, TRADE
from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.writer.rows.quarantine import Quarantine
from tests.engine.writer.bench import Bench, all_delivered, run
from tests.engine.writer.conftest import START_NS, MakeSettings, MakeTrades
from tests.engine.writer.sinks.postgres.sink_process import RING
from tests.stores import execute, select
from tests.waiting import until

pytestmark = pytest.mark.fault("N05")
_ROOT = Path(__file__).parents[4]
_GAPS = """
    SELECT symbol, kind, from_seq, to_seq, missing, state,
           (extract(epoch FROM from_time) * 1000000)::bigint,
           (extract(epoch FROM to_time) * 1000000)::bigint
    FROM gaps WHERE reason = 'quarantined' ORDER BY symbol, from_seq, from_time
"""


@pytest.fixture
def bench(layout: Layout, slots: Slots) -> Iterator[Bench]:
    del slots
    bench = Bench(layout, TRADE, BOOK, FUNDING, GAP)
    yield bench
    bench.close()


def _deliver(bench: Bench, settings: Any, *rows: RecordArray, **options: Any) -> Any:
    delivery = bench.delivery(settings, **options)
    for each in rows:
        bench.put(each)
    run(delivery, all_delivered(delivery))
    return delivery


def _us(ns: int) -> int:
    return ns // 1000


def test_refused_trades_are_declared_with_their_ids(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    """Slots take turns: ids of a stream are four apart, those of one that stands alone are not."""
    rows = trades(40)
    rows["stream"][20:] = 2
    rows["price"][[5, 9]] = np.nan  # S1, neighbours there, but not by id
    rows["qty"][[22, 23, 24, 30]] = np.inf  # S2, three in a row and one
    delivery = _deliver(bench, make_settings(database_url=database_url), rows)
    times = rows["ts_event"] // 1000
    assert select(database_url, _GAPS) == [
        ("S1", "Trades", 5, 5, 1, "open", times[5], times[5]),
        ("S1", "Trades", 9, 9, 1, "open", times[9], times[9]),
        ("S2", "Trades", 22, 24, 3, "open", times[22], times[24]),
        ("S2", "Trades", 30, 30, 1, "open", times[30], times[30]),
    ]
    assert delivery.refused_rows == delivery.sink.set_aside == {"trade": 6}


def test_ids_without_order_are_declared_as_a_time_and_a_count(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    rows = trades(60)
    rows["stream"] = 0
    rows["trade_id"] = np.random.default_rng(1).integers(1, 10**12, 60) * 7
    rows["price"][10:50] = np.nan
    _deliver(bench, make_settings(database_url=database_url), rows)
    times = rows["ts_event"] // 1000
    (gap,) = select(database_url, _GAPS)
    assert gap[2:] == (None, None, 40, "open", times[10], times[49])


def test_book_levels_are_declared_with_their_sequences_and_the_next_row_says_so(
    bench: Bench, database_url: str, make_settings: MakeSettings, books: MakeTrades
) -> None:
    rows = books(8)  # two events of each of four streams, four levels an event
    rows["seq"] += 10
    rows["qty"][2] = np.nan
    rows["qty"][4:8] = np.nan
    rows["qty"][-1] = np.nan
    settings = make_settings(database_url=database_url, flush_interval_s=0.01)
    _deliver(bench, settings, rows)
    found = [row[:5] for row in select(database_url, _GAPS)]
    assert found == [
        ("S0", "L2Book", 10, 10, 1),
        ("S1", "L2Book", 11, 11, 4),
        ("S3", "L2Book", 17, 17, 1),
    ]
    flagged = "SELECT symbol, seq FROM book_levels WHERE after_gap ORDER BY symbol"
    assert select(database_url, flagged) == [("S0", 10), ("S1", 15)]


def test_the_row_after_a_refused_one_is_flagged_in_the_next_flush(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    settings = make_settings(database_url=database_url, flush_interval_s=0.01)
    delivery = bench.delivery(settings)
    rows = trades(8)
    rows["price"][7] = np.nan

    async def body() -> None:
        bench.put(rows)
        await until(lambda: delivery.backlog_rows == 0)
        bench.put(trades(8, first_id=8))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert select(database_url, "SELECT trade_id FROM trades WHERE after_gap") == [(11,)]


def test_kinds_without_ids_are_declared_by_time(
    bench: Bench, database_url: str, make_settings: MakeSettings
) -> None:
    rows = np.zeros(6, FUNDING.dtype)
    rows["ts_event"] = rows["ts_recv"] = START_NS + np.arange(6) * 1000
    rows["stream"][4:] = 1
    rows["rate"][1:3] = 1e9
    rows["ts_event"][5] = 1  # of 1970: its time of receipt is all there is
    _deliver(bench, make_settings(database_url=database_url), rows)
    at = _us(START_NS)
    assert [row[2:] for row in select(database_url, _GAPS)] == [
        (None, None, 2, "open", at + 1, at + 2),
        (None, None, 1, "open", at + 5, at + 5),
    ]


def test_a_row_of_nobodys_slot_is_in_a_gap_without_a_stream(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    rows = trades(4)
    rows["stream"][1:3] = 4711
    delivery = _deliver(bench, make_settings(database_url=database_url), rows)
    found = select(database_url, "SELECT venue, symbol, missing, reason, state FROM gaps")
    assert found == [(None, None, 2, "quarantined", "open")]
    assert delivery.rows == {"trade": 2}


def test_a_gap_that_cannot_be_stored_is_declared_with_what_it_said(
    bench: Bench, database_url: str, make_settings: MakeSettings
) -> None:
    execute(database_url, "ALTER TABLE gap ADD CHECK (reason <> 2)")
    rows = np.zeros(2, GAP.dtype)
    rows["stream"], rows["state"], rows["reason"] = 1, GapState.OPEN, [1, 2]
    rows["ts_event"] = rows["ts_recv"] = START_NS
    rows["from_seq"], rows["to_seq"], rows["missing"] = 5, 9, 5
    _deliver(bench, make_settings(database_url=database_url), rows)
    found = select(database_url, "SELECT from_seq, to_seq, missing, reason FROM gaps ORDER BY 4")
    assert found == [(5, 9, 5, "quarantined"), (5, 9, 5, "sequence")]


def test_a_gap_is_stored_whatever_our_clock_says(
    bench: Bench, database_url: str, make_settings: MakeSettings
) -> None:
    """It is stamped by our clock, which may be wrong: no reason to lose it."""
    rows = np.zeros(2, GAP.dtype)
    rows["stream"], rows["state"], rows["reason"] = 1, GapState.OPEN, 1
    rows["ts_event"] = rows["ts_recv"] = 1_000_000, START_NS * 2
    delivery = _deliver(bench, make_settings(database_url=database_url), rows)
    assert delivery.rows == {"gap": 2}


def test_redis_is_told_too(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    rows = trades(4)
    rows["price"][2] = np.nan
    told: list[RecordArray] = []
    _deliver(bench, make_settings(database_url=database_url), rows, on_loss=told.append)
    (gaps,) = told
    assert gaps["stream"].tolist() == [2]
    assert gaps["reason"].tolist() == [GapReason.QUARANTINED]


def test_the_number_in_quarantine_outlives_the_writer(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    rows = trades(4)
    rows["price"][2] = np.nan
    settings = make_settings(database_url=database_url)
    _deliver(bench, settings, rows)
    later = _deliver(bench, settings, trades(4, first_id=4))
    assert later.sink.set_aside == {"trade": 1}
    assert not later.refused_rows


def test_flags_of_stored_rows_stay_as_they_were_without_refusals(
    bench: Bench, database_url: str, make_settings: MakeSettings, books: MakeTrades
) -> None:
    rows = books(4)
    _deliver(bench, make_settings(database_url=database_url), rows)
    found = select(database_url, "SELECT sum(flags) FROM book")
    assert found == [(int(rows["flags"].sum()),)]


_KILLED_IN_BETWEEN = """
import os, signal, sys
from pathlib import Path
from engine.writer.rows.quarantine import Quarantine
from tests.engine.writer.sinks.postgres import sink_process

write = Quarantine.write
def write_and_die(self, rows, *names):
    rows = list(rows)
    write(self, rows, *names)
    marker = Path(sys.argv[1]) / "died"
    if rows and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
Quarantine.write = write_and_die
sink_process.asyncio.run(sink_process._main(sys.argv[1:]))
"""


def test_killed_between_file_and_commit_a_row_is_twice_in_the_file_and_once_in_the_gap(
    layout: Layout, slots: Slots, database_url: str
) -> None:
    del slots
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id NOT IN (17, 18, 90))")
    arguments = [str(layout.state_dir), database_url, "200", "100", "0"]
    codes = [
        subprocess.run(
            [sys.executable, "-c", _KILLED_IN_BETWEEN, *arguments],
            check=False,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            stdout=subprocess.DEVNULL,
            timeout=60,
        ).returncode
        for _ in range(2)
    ]
    assert codes == [-signal.SIGKILL, 0]
    lines = [row.seq for row in Quarantine(layout.quarantine_dir).read()]
    assert sorted(lines) == [17, 17, 18, 18, 90, 90]
    gaps = select(database_url, "SELECT from_seq, to_seq, missing FROM gap ORDER BY 1")
    assert gaps == [(17, 17, 1), (18, 18, 1), (90, 90, 1)], "slots take turns"
    noted = select(database_url, "SELECT ring, sequence FROM quarantined_row ORDER BY 2")
    assert noted == [(RING, 17), (RING, 18), (RING, 90)]
    assert select(database_url, "SELECT count(*) FROM trade") == [(197,)]
