"""The database sink: exactly once, exact numbers, bad rows set aside."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest
import uvloop

from engine.base.errors import DatabaseUnavailableError, FencedError, TableRefusesError
from engine.data.flags import GapReason, GapState, Side
from engine.data.instrument import Instrument
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.database.session import WRITER, open_session
from engine.messages.listings import StoreListing
from engine.writer.rows.slice import Batch, Loss, Slice
from engine.writer.sinks.postgres.listing_store import store_listing
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.conftest import START_NS, MakeSettings, MakeTrades, Run, claim
from tests.stores import select

RING = "shard-0.trade"


def piece(rows: RecordArray, seq: int = 0, ring: str = RING) -> Slice:
    spec = {TRADE.dtype: TRADE, BOOK.dtype: BOOK, GAP.dtype: GAP}[rows.dtype]
    return Slice.whole(SourceKey(ring, 1), spec, seq, rows)


async def last_recv_ns(sink: PostgresSink) -> int:
    """Of the last row below the cursor."""
    key = SourceKey(RING, 1)
    return (await sink.cursors({key: 0}))[key].last_recv_ns


def lost(start_seq: int, end_seq: int) -> Loss:
    """Of which nobody knows whose rows they were."""
    return Loss(SourceKey(RING, 1), TRADE.name, start_seq, end_seq, np.empty(0, GAP.dtype))


def quarantined(layout: Layout) -> list[dict[str, Any]]:
    files = sorted(layout.quarantine_dir.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_rows_and_cursors_of_several_rings_are_committed_together(
    run: Run, database_url: str, trades: MakeTrades, books: MakeTrades
) -> None:
    async def body(sink: PostgresSink) -> None:
        assert await claim(sink, RING, 1, 40) == 40
        assert await claim(sink, "shard-0.book", 1, 0) == 0
        first = Slice.whole(SourceKey(RING, 1), TRADE, 40, trades(1000))
        second = Slice.whole(SourceKey(RING, 1), TRADE, 1040, trades(500, first_id=1000))
        result = await sink.take(Batch([first, piece(books(50), 0, "shard-0.book"), second]),
                                   durable=True)  # fmt: skip
        assert result.rows == {"trade": 1500, "book": 200}
        assert not result.refused
        assert result.inexact_rows == 0
        assert await claim(sink, RING, 1, 0) == 1540
        assert await claim(sink, "shard-0.book", 1, 0) == 200

    run(body)
    assert select(database_url, "SELECT count(*), sum(trade_id) FROM trade") == [
        (1500, sum(range(1500)))
    ]


def test_views_show_exact_numbers_under_plain_names(
    run: Run, database_url: str, trades: MakeTrades, books: MakeTrades
) -> None:
    rows = trades(4)
    rows["price"], rows["qty"] = 81234.5, 0.001
    rows["trade_id_hi"][3], rows["trade_id"][3] = 0x0123456789ABCDEF, -2
    levels = books(1, levels=2)
    levels["side"][1] = Side.NONE

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await claim(sink, "b", 1, 0)
        await sink.take(Batch([piece(rows), piece(levels, 0, "b")]), durable=False)

    run(body)
    found = select(
        database_url,
        "SELECT symbol, side, price::text, quantity::text, trade_id, trade_uuid::text, "
        "extract(epoch FROM recv_time) * 1000000 FROM trades ORDER BY time",
    )
    assert found[0] == ("S0", "buy", "81234.50", "0.001", 0, None, START_NS // 1000 + 5000)
    assert found[3][4:6] == (None, "01234567-89ab-cdef-ffff-fffffffffffe")
    found = select(database_url, "SELECT side, price, seq, first_in_event FROM book_levels")
    assert found == [("bid", Decimal("81000.00"), 0, True), (None, None, 0, False)]


def test_gaps_are_readable(run: Run, database_url: str) -> None:
    row = np.zeros(1, GAP.dtype)
    row["stream"], row["reason"], row["state"] = 1, GapReason.RECONNECT, GapState.OPEN
    row["ts_event"] = row["to_ts"] = START_NS
    row["from_seq"], row["to_seq"], row["missing"] = 5, 9, 3

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(row)]), durable=False)

    run(body)
    found = select(
        database_url,
        "SELECT venue, symbol, kind, from_seq, to_seq, missing, reason, state, "
        "from_time, to_time = detected FROM gaps",
    )
    assert found == [("acme", "S1", "Trades", 5, 9, 3, "reconnect", "unrecoverable", None, True)]


def test_the_newest_rows_are_read_from_the_index(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(20_000))]), durable=False)

    run(body)
    with psycopg.connect(database_url) as connection:
        plan = connection.execute(
            "EXPLAIN SELECT * FROM trades ORDER BY time DESC LIMIT 5"
        ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Index Scan Backward" in text
    assert "Sort" not in text


@pytest.mark.fault("W03")
def test_a_writer_behind_the_cursor_is_fenced(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(10))]), durable=False)
        with pytest.raises(FencedError):
            await sink.take(Batch([piece(trades(10))]), durable=False)
        with pytest.raises(DatabaseUnavailableError, match="not connected"):
            await sink.take(Batch([piece(trades(10))]), durable=False)
        await sink.open({})
        assert await claim(sink, RING, 1, 0) == 10

    run(body)
    assert select(database_url, "SELECT count(*) FROM trade") == [(10,)]


def test_epochs_of_a_ring_have_cursors_of_their_own(run: Run, trades: MakeTrades) -> None:
    async def body(sink: PostgresSink) -> None:
        assert await claim(sink, RING, 1, 7) == 7
        assert await claim(sink, RING, 2, 0) == 0
        assert await claim(sink, RING, 1, 0) == 7

    run(body)


def test_lost_rows_leave_a_hole_in_the_sequence(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    rows = trades(10)

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        assert await last_recv_ns(sink) == 0
        await sink.take(Batch([lost(0, 100), piece(rows, 100)]), durable=False)
        assert await claim(sink, RING, 1, 0) == 110
        assert await last_recv_ns(sink) == rows["ts_recv"][-1]
        # A cursor that somebody set back by hand passes the loss again, and further.
        with psycopg.connect(database_url) as connection:
            connection.execute("UPDATE ingest_cursor SET sequence = 0")
        await sink.take(Batch([lost(0, 200)]), durable=False)
        assert await claim(sink, RING, 1, 0) == 200
        assert await last_recv_ns(sink) == rows["ts_recv"][-1]

    run(body)
    found = select(database_url, "SELECT ring, epoch, from_sequence, to_sequence FROM ring_loss")
    assert found == [(RING, 1, 0, 200)]


def test_a_durable_commit_may_come_without_rows(run: Run, trades: MakeTrades) -> None:
    async def body(sink: PostgresSink) -> None:
        await sink.take(Batch(), durable=True)
        await claim(sink, RING, 1, 0)
        await sink.take(Batch(), durable=True)
        await sink.take(Batch([piece(trades(1)), piece(trades(0), 1)]), durable=True)
        assert await claim(sink, RING, 1, 0) == 1

    run(body)


def test_more_decimals_make_a_new_version_that_stays(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    finer = trades(8, first_id=8)
    finer["price"][0] = 81000.12345
    finer["qty"][1] = 0.00000001

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(8))]), durable=False)
        result = await sink.take(Batch([piece(finer, 8)]), durable=False)
        assert result.inexact_rows == 0

    async def after_restart(sink: PostgresSink) -> None:
        assert await claim(sink, RING, 1, 0) == 16
        await sink.take(Batch([piece(trades(4, first_id=16), 16)]), durable=False)

    run(body)
    run(after_restart)
    found = select(database_url, "SELECT symbol, price::text, quantity::text FROM trades "
                                 "WHERE trade_id IN (0, 8, 9, 16) ORDER BY trade_id")  # fmt: skip
    assert found == [
        ("S0", "81000.00", "0.001"),
        ("S0", "81000.12345", "0.009"),
        ("S1", "81000.09", "0.00000001"),
        ("S0", "81000.16000", "0.017"),
    ]
    versions = select(
        database_url,
        "SELECT symbol, version, price_decimals, qty_decimals FROM instrument "
        "WHERE symbol IN ('S0', 'S1') ORDER BY symbol, version",
    )
    assert versions == [("S0", 1, 2, 3), ("S0", 2, 5, 3), ("S1", 1, 2, 3), ("S1", 2, 2, 8)]


def test_rows_without_proof_are_stored_rounded_and_flagged(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    rows = trades(8)
    rows["qty"][2] = 0.1 + 0.2

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        result = await sink.take(Batch([piece(rows)]), durable=False)
        assert result.inexact_rows == 1
        assert result.rows == {"trade": 8}

    run(body)
    found = select(database_url, "SELECT trade_id, quantity::text FROM trades WHERE inexact")
    assert found == [(2, "0.300")]


def test_new_facts_make_a_new_version_and_keep_raised_decimals(
    run: Run, database_url: str, slots: Slots, trades: MakeTrades
) -> None:
    finer = trades(1)
    finer["price"] = 1.2345

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(finer)]), durable=False)
        slots.describe(0, Instrument("acme", "S0", 1, 3, tick_size="0.1", status="on"))
        await sink.open({})
        assert await claim(sink, RING, 1, 0) == 1
        await sink.take(Batch([piece(trades(1), 1)]), durable=False)

    run(body)
    found = select(
        database_url,
        "SELECT version, price_decimals, tick_size::text FROM instrument "
        "WHERE symbol = 'S0' ORDER BY 1",
    )
    assert found == [(1, 2, "0.01"), (2, 4, "0.01"), (3, 4, "0.1")]


VERSIONS = """
    SELECT version, price_decimals, tick_size::text, status, array_agg(price::text ORDER BY time)
    FROM trades JOIN stream USING (stream_id) FULL JOIN instrument i USING (instrument_id)
    WHERE i.symbol = 'S0' GROUP BY 1, 2, 3, 4 ORDER BY 1
"""
"""Each version of S0 with the prices that hang on it."""


def facts(tick_size: str, price_decimals: int, status: str = "on") -> Instrument:
    return Instrument("acme", "S0", price_decimals, 3, tick_size=tick_size, status=status)


def priced(trades: MakeTrades, number: int, price: float) -> Slice:
    rows = trades(1, first_id=4 * number)
    rows["price"] = price
    return piece(rows, number)


async def list_now(url: str, instrument: Instrument) -> None:
    """What the writer does with a listing."""
    connection = await open_session(url, WRITER)
    await store_listing(connection, StoreListing("acme", [instrument], [], 1))
    await connection.close()


@pytest.mark.parametrize("listed_first", [True, False])
def test_a_changed_listing_is_what_the_next_rows_refer_to(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades, listed_first: bool
) -> None:
    """The supervisor writes the stream table, and the listing's own task the versions: whichever
    the sink meets first, no version mixes an old tick with new decimals.
    """
    supervisor = Slots(layout.slots)
    steps = [
        (facts("0.0001", 4), 1.2345), (facts("0.1", 1), 1.5), (facts("0.1", 1, "BREAK"), 1.25),
        (facts("0.01", 2), 1.55),
    ]  # fmt: skip

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([priced(trades, 0, 1.23)]), durable=False)
        for number, (instrument, price) in enumerate(steps, 1):
            supervisor.describe(0, instrument)
            if listed_first:
                await list_now(database_url, instrument)
            result = await sink.take(Batch([priced(trades, number, price)]), durable=False)
            assert result.inexact_rows == 0
            await list_now(database_url, instrument)

    run(body)
    assert select(database_url, VERSIONS) == [
        (1, 2, "0.01", "on", ["1.23"]),
        (2, 4, "0.0001", "on", ["1.2345"]),
        (3, 4, "0.1", "on", ["1.5000"]),
        (4, 4, "0.1", "BREAK", ["1.2500"]),
        (5, 4, "0.01", "on", ["1.5500"]),
    ]


def test_decimals_are_raised_from_what_was_listed_last(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    """Another engine stored the listing; ours has not seen it yet, only its prices."""

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([priced(trades, 0, 1.23)]), durable=False)
        await list_now(database_url, facts("0.0001", 4))
        await sink.take(Batch([priced(trades, 1, 1.2345)]), durable=False)
        await sink.take(Batch([priced(trades, 2, 1.234567)]), durable=False)
        await list_now(database_url, facts("0.0001", 4))

    run(body)
    assert select(database_url, VERSIONS) == [
        (1, 2, "0.01", "on", ["1.23"]),
        (2, 4, "0.0001", "on", ["1.2345"]),
        (3, 6, "0.0001", "on", ["1.234567"]),
    ]


def test_a_stream_that_no_venue_described_starts_without_decimals(
    run: Run, database_url: str, layout: Layout, slots: Slots, trades: MakeTrades
) -> None:
    slot = Slots(layout.slots).assign(StreamKey("acme", "NEW", StreamKind.TRADES)).slot
    rows = trades(2)
    rows["stream"] = slot

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        assert (await sink.take(Batch([piece(rows)]), durable=False)).inexact_rows == 0

    run(body)
    found = select(database_url, "SELECT symbol, price::text FROM trades ORDER BY time")
    assert found == [("NEW", "81000.00"), ("NEW", "81000.01")]


@pytest.mark.fault("W04")
def test_rows_no_database_would_take_are_set_aside(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades
) -> None:
    rows = trades(100)
    rows["price"][3] = np.nan
    rows["qty"][4] = 1e300
    rows["ts_event"][5] = 0
    rows["ts_event"][6] = 2**62
    rows["stream"][7] = 4711

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 50)
        result = await sink.take(Batch([piece(rows, 50)]), durable=False)
        assert result.rows == {"trade": 95}
        assert result.refused == {"trade": 5}
        assert await claim(sink, RING, 1, 0) == 150

    run(body)
    assert select(database_url, "SELECT count(*) FROM trade") == [(95,)]
    lines = quarantined(layout)
    assert sorted(line["seq"] for line in lines) == [53, 54, 55, 56, 57]
    assert {line["ring"] for line in lines} == {RING}
    by_seq = {line["seq"]: line for line in lines}
    assert by_seq[53]["row"]["price"] == "nan"
    assert by_seq[53]["stream"] == "acme/S3/Trades/Ws"
    assert "stream table" in by_seq[57]["error"]
    assert by_seq[55]["row"]["trade_id"] == 5


@pytest.mark.fault("W04")
def test_rows_the_database_refuses_are_found_and_set_aside(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades, books: MakeTrades
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE trade ADD CHECK (trade_id NOT IN (0, 777, 778, 2999))")
    cut = [
        Slice.whole(SourceKey(RING, 1), TRADE, n, trades(1000, first_id=n)) for n in (0, 1000, 2000)
    ]

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await claim(sink, "b", 1, 0)
        result = await sink.take(Batch([*cut, piece(books(10), 0, "b")]), durable=False)
        assert result.rows == {"trade": 2996, "book": 40}
        assert result.refused == {"trade": 4}
        assert await claim(sink, RING, 1, 0) == 3000

    run(body)
    found = select(database_url, "SELECT count(*), count(DISTINCT trade_id) FROM trade")
    assert found == [(2996, 2996)]
    lines = quarantined(layout)
    assert [line["seq"] for line in lines] == [0, 777, 778, 2999]
    assert all(line["error"].startswith("23514") for line in lines)


def test_a_table_that_refuses_everything_stops_the_cursor(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE trade ADD CHECK (price < 0)")

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        with pytest.raises(DatabaseUnavailableError, match="refuses every row"):
            await sink.take(Batch([piece(trades(2000))]), durable=False)
        await sink.open({})
        assert await claim(sink, RING, 1, 0) == 0

    run(body)
    assert not quarantined(layout)


def test_a_missing_right_is_no_rows_fault(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE trade RENAME TO trade_away")

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        with pytest.raises(DatabaseUnavailableError, match="missing"):
            await sink.take(Batch([piece(trades(10))]), durable=False)

    run(body)
    assert not quarantined(layout)


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
def test_partitions_are_made_for_the_days_of_the_rows(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    rows = trades(3)
    day = 86_400_000_000_000
    midnight = START_NS // day * day
    rows["ts_event"] = [midnight - 1, midnight, midnight + 40 * day]

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(rows)]), durable=False)
        await sink.take(Batch([piece(rows, 3)]), durable=False)

    run(body)
    found = select(database_url, "SELECT tableoid::regclass::text, count(*) FROM trade "
                                 "GROUP BY 1 ORDER BY 1")  # fmt: skip
    assert found == [("trade_p20260527", 2), ("trade_p20260528", 2), ("trade_p20260707", 2)]


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
def test_a_partition_dropped_under_the_writer_is_made_again(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades
) -> None:
    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(10))]), durable=False)
        with psycopg.connect(database_url) as connection:
            connection.execute("DROP TABLE trade_p20260528")
        result = await sink.take(Batch([piece(trades(10), 10)]), durable=False)
        assert result.rows == {"trade": 10}

    run(body)
    assert not quarantined(layout)
    assert select(database_url, "SELECT count(*) FROM trade") == [(10,)]


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
def test_rows_wait_where_nobody_has_migrated(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP FUNCTION make_day")

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        with pytest.raises(TableRefusesError, match="make_day is missing: run `fts migrate`"):
            await sink.take(Batch([piece(trades(10))]), durable=False)

    run(body)
    assert not quarantined(layout)


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
def test_rows_of_a_day_that_is_half_detached_wait(
    run: Run, database_url: str, layout: Layout, trades: MakeTrades
) -> None:
    """Who drops a day may die over it. What takes no row then is no fault of a row."""

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(10))]), durable=False)
        with (
            psycopg.connect(database_url) as reader,
            psycopg.connect(database_url, autocommit=True) as dropper,
        ):
            reader.execute("SELECT FROM trade LIMIT 1")
            dropper.execute("SET lock_timeout = '100ms'")
            detach = "ALTER TABLE trade DETACH PARTITION trade_p20260528"
            with pytest.raises(psycopg.errors.LockNotAvailable):
                dropper.execute(f"{detach} CONCURRENTLY".encode())
            with pytest.raises(TableRefusesError, match="trade_p20260528 is being dropped"):
                await sink.take(Batch([piece(trades(10), 10)]), durable=False)
            reader.rollback()
            dropper.execute(f"{detach} FINALIZE".encode())
            dropper.execute("DROP TABLE trade_p20260528")
        result = await sink.take(Batch([piece(trades(10), 10)]), durable=False)
        assert result.rows == {"trade": 10}

    run(body)
    assert not quarantined(layout)
    assert select(database_url, "SELECT count(*) FROM trade") == [(10,)]


def test_writers_that_make_the_same_partition_do_not_collide(
    database_url: str, make_settings: MakeSettings, slots: Slots, trades: MakeTrades
) -> None:
    async def write(number: int) -> None:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await sink.open({})
        await claim(sink, f"r{number}", 1, 0)
        await sink.take(Batch([piece(trades(100), 0, f"r{number}")]), durable=False)
        await sink.close()

    async def main() -> None:
        await asyncio.gather(*(write(number) for number in range(6)))

    uvloop.run(main())
    assert select(database_url, "SELECT count(*) FROM trade") == [(600,)]
    assert select(database_url, "SELECT count(*) FROM stream WHERE kind = 'Trades'") == [(4,)]


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
def test_somebody_elses_partition_is_used(run: Run, database_url: str, trades: MakeTrades) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "CREATE TABLE trade_2026 PARTITION OF trade FOR VALUES FROM ('2026-01-01') "
            "TO ('2027-01-01')"
        )

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(10))]), durable=False)

    run(body)
    assert select(database_url, "SELECT count(*) FROM trade_2026") == [(10,)]
