"""Knobs of streams: what is held back, what is not, and when rows are flushed."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psycopg
import pytest

from engine.data.kinds import GAP
from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.messages.settings import DatabaseSettings, FlushSettings
from engine.messages.streams import Knobs
from engine.writer.every_row import EveryRow
from engine.writer.live import Live
from engine.writer.rows.knob_table import KnobTable
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sinks.redis.sink import RedisSink
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.engine.writer.ring_bench import Bench, deliver
from tests.waiting import until

UNSTORED = Knobs(db_writes_enabled=False)
UNPUBLISHED = Knobs(redis_publishes_enabled=False)


@pytest.fixture
def bench(layout: Layout, slots: Slots) -> Iterator[Bench]:
    del slots
    bench = Bench(layout)
    yield bench
    bench.close()


def stored(url: str, table: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        query = (
            f"SELECT symbol, count(*) FROM {table} JOIN stream USING (stream_id)"
            " JOIN instrument USING (instrument_id) GROUP BY 1"
        )
        return dict(connection.execute(query.encode()).fetchall())


def test_rows_of_a_stream_that_is_not_stored_are_passed_over(
    bench: Bench,
    layout: Layout,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    settings = make_settings(database_url=database_url, knobs={1: UNSTORED}, flush_interval_s=0.01)
    knobs = KnobTable(settings)
    delivery = EveryRow(bench.sources, PostgresSink(settings, Slots(layout.slots)), knobs)

    async def body() -> None:
        bench.put(trades(400))
        gaps = np.zeros(1, GAP.dtype)
        gaps["stream"], gaps["reason"], gaps["state"] = 1, 1, 1
        gaps["ts_event"] = gaps["ts_recv"] = trades(1)["ts_event"][0]
        bench.put(gaps, GAP)
        await until(lambda: delivery.backlog_rows == 0)
        knobs.set({0: UNSTORED, 1: UNSTORED, 2: UNSTORED, 3: UNSTORED})
        bench.put(trades(400, first_id=400))
        await until(lambda: delivery.backlog_rows == 0)
        knobs.set({})
        bench.put(trades(400, first_id=800))
        await until(lambda: delivery.backlog_rows == 0)
        await delivery.finish()

    deliver(delivery, body)
    assert stored(database_url, "trade") == {"S0": 200, "S1": 100, "S2": 200, "S3": 200}
    with psycopg.connect(database_url) as connection:
        query = (
            "SELECT symbol, reason, missing, from_time, to_time FROM gaps ORDER BY missing, symbol"
        )
        gaps = connection.execute(query.encode()).fetchall()
        times = connection.execute(
            "SELECT symbol, min(time), max(time) FROM trades GROUP BY 1 ORDER BY 1"
        ).fetchall()
        marked = connection.execute(
            "SELECT symbol, trade_id FROM trades WHERE after_gap ORDER BY 1"
        ).fetchall()
    assert [gap[:3] for gap in gaps] == [
        ("S1", "sequence", 0),
        ("S0", "not_stored", 100), ("S2", "not_stored", 100), ("S3", "not_stored", 100),
        ("S1", "not_stored", 200),
    ], "the ledger stays whole, and one gap a stream grows"  # fmt: skip
    for symbol, _, _, from_time, to_time in gaps[1:]:
        (first, last) = next(row[1:] for row in times if row[0] == symbol)
        assert from_time < to_time < last
        assert symbol == "S1" or first < from_time
    assert [(symbol, int(number)) for symbol, number in marked] == [
        ("S0", 800), ("S1", 801), ("S2", 802), ("S3", 803),
    ], "the first row after each of them says so"  # fmt: skip
    assert delivery.withheld_rows["trade"] == 100 + 400
    assert delivery.rows["trade"] == 700
    assert delivery.missed_rows.total() == 0


def test_a_stream_that_is_never_stored_is_declared_over_restarts_and_lost_answers(
    bench: Bench,
    layout: Layout,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    settings = make_settings(database_url=database_url, knobs={2: UNSTORED}, flush_interval_s=0.01)

    def missing() -> list[int]:
        with psycopg.connect(database_url) as connection:
            query = "SELECT missing FROM gaps WHERE reason = 'not_stored' ORDER BY detected"
            return [row[0] for row in connection.execute(query).fetchall()]

    for first_id, expected in ((0, [200]), (800, [200, 200])):
        delivery = EveryRow(
            bench.sources, PostgresSink(settings, Slots(layout.slots)), KnobTable(settings)
        )

        async def body(first_id: int = first_id, delivery: EveryRow = delivery) -> None:
            for start in (first_id, first_id + 400):
                bench.put(trades(400, first_id=start))
                await until(lambda: delivery.backlog_rows == 0)
                with psycopg.connect(database_url, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )

        deliver(delivery, body)
        assert sum(missing()) == sum(expected), "a row is declared once, whatever is repeated"
    knobs = KnobTable(settings)
    delivery = EveryRow(bench.sources, PostgresSink(settings, Slots(layout.slots)), knobs)

    async def stored_again() -> None:
        await until(lambda: delivery.trouble.state == "up")
        knobs.set({})
        bench.put(trades(400, first_id=1600))
        await until(lambda: delivery.backlog_rows == 0)

    deliver(delivery, stored_again)
    with psycopg.connect(database_url) as connection:
        marked = connection.execute("SELECT trade_id FROM trades WHERE after_gap").fetchall()
    assert [int(row[0]) for row in marked] == [1602], "though this writer held nothing back itself"


def test_a_bad_row_keeps_its_place_in_the_ring_when_others_are_held_back(
    bench: Bench,
    layout: Layout,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    settings = make_settings(database_url=database_url, knobs={0: UNSTORED}, flush_interval_s=0.01)
    delivery = EveryRow(
        bench.sources, PostgresSink(settings, Slots(layout.slots)), KnobTable(settings)
    )
    rows = trades(100)
    rows["price"][[0, 57]] = np.nan

    async def body() -> None:
        bench.put(rows)
        await until(lambda: delivery.backlog_rows == 0)

    deliver(delivery, body)
    (file,) = Path(layout.quarantine_dir).glob("*.jsonl")
    assert file.read_text().count("\n") == 1, "a row that is held back is nobody's business"
    assert '"seq":57' in file.read_text().replace(" ", "")
    assert sum(stored(database_url, "trade").values()) == 74


def test_rows_of_a_stream_that_is_not_published_stay_out_of_redis(
    bench: Bench,
    layout: Layout,
    redis_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
) -> None:
    settings = make_settings(redis_url=redis_url, knobs={2: UNPUBLISHED})
    knobs = KnobTable(settings)
    delivery = Live(bench.sources, RedisSink(settings, Slots(layout.slots)), knobs)

    async def body() -> None:
        for first_id in (0, 400):
            bench.put(trades(400, first_id))
            delivery.rows_arrived()
            await until(lambda: delivery.is_idle)
            knobs.set({})

    deliver(delivery, body)
    assert delivery.rows["trade"] == 700
    assert delivery.withheld_rows["trade"] == 100
    assert not delivery.missed_rows


def test_the_smallest_limit_of_all_streams_governs_at_once(make_settings: MakeSettings) -> None:
    knobs = KnobTable(make_settings(flush_rows=1000, flush_interval_s=0.05, max_rows_per_copy=5000))
    knobs.set({3: Knobs(flush_rows=100), 9: Knobs(flush_rows=200, flush_interval_ms=5)})
    assert (knobs.flush_rows, knobs.flush_interval_s) == (100, 0.005)
    assert knobs.max_rows_per_copy == 5000
    knobs.set({9: Knobs(flush_rows=20_000, flush_interval_ms=900, max_rows_per_copy=1200)})
    assert (knobs.flush_rows, knobs.flush_interval_s) == (1000, 0.05)
    assert knobs.max_rows_per_copy == 1200
    knobs.set({9: Knobs(flush_rows=1, max_rows_per_copy=1)})
    assert knobs.max_rows_per_copy == 1000, "one stream does not throttle the others"
    assert knobs.flush_rows == 1
    knobs.set({})
    assert (knobs.flush_rows, knobs.max_rows_per_copy) == (1000, 5000)


def test_a_stream_in_another_database_governs_the_pace_there_alone(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(
        flush_rows=1000, databases=[DatabaseSettings("databases.quick", "postgresql:///x")]
    )
    default, quick = (KnobTable(each) for each in settings.by_database())
    hasty = Knobs(flush_rows=7, flush_interval_ms=1, max_rows_per_copy=2000)
    for table in (default, quick):
        table.set({3: msgspec.structs.replace(hasty, database="databases.quick")})
    assert (quick.flush_rows, quick.flush_interval_s, quick.max_rows_per_copy) == (7, 0.001, 2000)
    assert (default.flush_rows, default.max_rows_per_copy) == (1000, settings.max_rows_per_copy)
    assert default.flush_interval_s == settings.flush_interval_s
    for table in (default, quick):
        table.set({3: hasty})
    assert default.flush_rows == quick.flush_rows == 7, "where it is routed to is not known here"


def test_enabled_streams_cost_no_mask(make_settings: MakeSettings, trades: MakeTrades) -> None:
    knobs = KnobTable(make_settings(knobs={7: Knobs(flush_rows=5)}))
    assert knobs.chosen("database", trades(8)) is None
    knobs.set({4711: UNSTORED})
    assert knobs.chosen("database", trades(8)) is None, "no row of that stream"


def test_what_is_configured_anew_counts_at_once_and_knobs_still_go_before(
    make_settings: MakeSettings,
) -> None:
    knobs = KnobTable(make_settings(flush_rows=500, max_rows_per_copy=10_000))
    knobs.set({3: Knobs(flush_rows=200)})
    knobs.reconfigure(FlushSettings(100, 2.0, 5_000))
    assert (knobs.flush_rows, knobs.flush_interval_s, knobs.max_rows_per_copy) == (100, 2.0, 5_000)
    knobs.reconfigure(FlushSettings(1_000, 2.0, 5_000))
    assert knobs.flush_rows == 200
    knobs.set({})
    assert knobs.flush_rows == 1_000
