"""Quotes, funding, open interest, liquidations: through both sinks to the names readers use."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
import redis
import uvloop

from engine.data.flags import Flag, Side
from engine.data.instrument import Instrument
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import FUNDING, LIQUIDATION, OPEN_INTEREST, QUOTE
from engine.data.layout import Layout, SourceKey
from engine.data.names import StreamKey, StreamKind, Transport
from engine.data.slots import Slots
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sinks.redis.sink import RedisSink
from engine.writer.sinks.sink import Taken
from tests.engine.writer.conftest import START_NS, MakeSettings, claim

TIME = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_NS // 1000)
NEXT_NS = START_NS + 3600 * 10**9


@pytest.fixture
def slots(layout: Layout) -> Slots:
    """One slot a kind, in the order of `KINDS`. Prices 2 decimals, sizes 3."""
    slots = Slots(layout.slots)
    for kind in (
        StreamKind.TICKER, StreamKind.FUNDING_OPEN_INTEREST, StreamKind.LIQUIDATIONS,
    ):  # fmt: skip
        transport = (
            Transport.HTTP_POLL if kind is StreamKind.FUNDING_OPEN_INTEREST else Transport.WS
        )
        entry = slots.assign(StreamKey("acme", "S", kind, transport))
        slots.describe(entry.slot, Instrument("acme", "S", 2, 3))
    return slots


def rows_of(spec: Kind, slot: int, *rows: dict[str, Any]) -> RecordArray:
    found = np.zeros(len(rows), spec.dtype)
    for number, row in enumerate(rows):
        for name, value in {
            "stream": slot,
            "ts_event": START_NS,
            "ts_recv": START_NS + 1000,
            **row,
        }.items():
            found[number][name] = value
    return found


QUOTES = rows_of(
    QUOTE, 0,
    {"seq": 7, "bid": 81234.5, "bid_qty": 1.2, "ask": 81234.6, "ask_qty": 0.001},
    {"seq": 8, "ask": 81234.6, "ask_qty": 0.001, "flags": Flag.AFTER_GAP},
)  # fmt: skip
FUNDINGS = rows_of(
    FUNDING, 1,
    {"rate": 0.0001, "mark": 81235.12345678, "index": 81240.22, "next_ts": NEXT_NS,
     "interval_s": 28800},
    {"mark": 0.1, "index": 0.2, "flags": Flag.NO_RATE},
    {"rate": -0.0000125, "mark": 91_000_000.5},
)  # fmt: skip
POINTS = rows_of(OPEN_INTEREST, 1, {"qty": 31000.123})
LIQUIDATIONS = rows_of(
    LIQUIDATION, 2,
    {"side": Side.SELL, "price": 80900.0, "avg_price": 80950.10123, "qty": 0.014,
     "filled_qty": 0.01},
)  # fmt: skip


def slices() -> Iterator[Slice]:
    for rows, spec in (
        (QUOTES, QUOTE), (FUNDINGS, FUNDING), (POINTS, OPEN_INTEREST), (LIQUIDATIONS, LIQUIDATION),
    ):  # fmt: skip
        yield Slice.whole(SourceKey(f"shard-0.{spec.name}", 1), spec, 0, rows)


@pytest.fixture
def stored(database_url: str, make_settings: MakeSettings, slots: Slots) -> Taken:
    """All rows, committed in one transaction."""

    async def main() -> Taken:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await sink.open({})
        for piece in slices():
            await claim(sink, *piece.source, 0)
        result = await sink.take(Batch(list(slices())), durable=False)
        await sink.close()
        return result

    return uvloop.run(main())


def select(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        return connection.execute(query.encode()).fetchall()


def test_all_kinds_are_stored_in_one_commit(stored: Taken, database_url: str) -> None:
    assert stored.rows == {"quote": 2, "funding": 3, "open_interest": 1, "liquidation": 1}
    assert stored.inexact_rows == 1
    assert select(database_url, "SELECT count(*) FROM instrument") == [(1,)], (
        "a mark price of eight decimals makes no new version of the instrument"
    )
    query = "SELECT count(*) FROM quote WHERE tableoid <> 'quote'::regclass"
    assert select(database_url, query) == [(2,)], "divided by day like trades"


def test_quotes_read_as_they_were_sent(stored: Taken, database_url: str) -> None:
    query = (
        "SELECT time, recv_time, venue, symbol, bid::text, bid_quantity::text, ask::text,"
        " ask_quantity::text, seq, after_gap, inexact, transport FROM quotes ORDER BY seq"
    )
    late = TIME + timedelta(microseconds=1)
    assert select(database_url, query) == [
        (TIME, late, "acme", "S", "81234.50", "1.200", "81234.60", "0.001", 7, False, False, "Ws"),
        (TIME, late, "acme", "S", None, None, "81234.60", "0.001", 8, True, False, "Ws"),
    ]


def test_funding_reads_as_it_was_sent(stored: Taken, database_url: str) -> None:
    query = (
        "SELECT rate, mark_price, index_price, next_funding_time, funding_interval, inexact,"
        " transport FROM funding_rates ORDER BY mark_price"
    )
    assert select(database_url, query) == [
        (None, Decimal("0.1"), Decimal("0.2"), None, None, False, "HttpPoll"),
        (Decimal("0.0001"), Decimal("81235.12345678"), Decimal("81240.22"),
         TIME + timedelta(hours=1), timedelta(hours=8), False, "HttpPoll"),
        (Decimal("-0.0000125"), Decimal("91000000.5"), None, None, None, True, "HttpPoll"),
    ]  # fmt: skip


def test_open_interest_and_liquidations_read_as_they_were_sent(
    stored: Taken, database_url: str
) -> None:
    query = "SELECT time, symbol, quantity::text, transport FROM open_interest_points"
    assert select(database_url, query) == [(TIME, "S", "31000.123", "HttpPoll")]
    query = (
        "SELECT side, price::text, average_price, quantity::text, filled_quantity::text, inexact"
        " FROM liquidations"
    )
    assert select(database_url, query) == [
        ("sell", "80900.00", Decimal("80950.10123"), "0.014", "0.010", False)
    ]


@pytest.mark.parametrize(
    "view", ["quotes", "funding_rates", "open_interest_points", "liquidations"]
)
def test_the_newest_rows_are_read_from_the_index(
    stored: Taken, database_url: str, view: str
) -> None:
    plan = select(database_url, f"EXPLAIN SELECT * FROM {view} ORDER BY time DESC LIMIT 5")
    assert "Index Scan Backward" in "\n".join(line for (line,) in plan)


def test_what_was_paid_says_so_to_every_reader(
    database_url: str, make_settings: MakeSettings, slots: Slots
) -> None:
    rows = np.repeat(FUNDINGS[:1], 2)
    rows["flags"][1] = Flag.SETTLED | Flag.BACKFILLED

    async def main() -> None:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await sink.open({})
        await claim(sink, "r", 1, 0)
        await sink.take(Batch([Slice.whole(SourceKey("r", 1), FUNDING, 0, rows)]), durable=False)
        await sink.close()

    uvloop.run(main())
    for view in ("funding_rates", "funding_rates_f"):
        function = f"{view}('acme', 'S', '2000-01-01Z', '2100-01-01Z')"
        for source in (view, function):
            query = f"SELECT settled FROM {source} ORDER BY settled"
            assert select(database_url, query) == [(False,), (True,)]
    shown = json.loads(msgspec.json.encode(FUNDING.events(rows)))
    assert [row.get("settled") for row in shown] == [None, True]


@pytest.mark.fault("W04")
def test_a_rate_no_database_can_hold_is_set_aside(
    database_url: str, make_settings: MakeSettings, slots: Slots, layout: Layout
) -> None:
    rows = np.repeat(FUNDINGS[:1], 4)
    rows["rate"][1:3] = np.nan, 1e9
    rows["index"][3] = np.inf

    async def main() -> Taken:
        sink = PostgresSink(make_settings(database_url=database_url), slots)
        await sink.open({})
        await claim(sink, "r", 1, 0)
        result = await sink.take(
            Batch([Slice.whole(SourceKey("r", 1), FUNDING, 0, rows)]), durable=False
        )
        await sink.close()
        return result

    result = uvloop.run(main())
    assert result.rows == {"funding": 1}
    assert result.refused == {"funding": 3}
    (file,) = layout.quarantine_dir.glob("funding-*.jsonl")
    errors = [json.loads(line) for line in file.read_text().splitlines()]
    assert [error["row"]["rate"] for error in errors] == ["nan", 1e9, 0.0001]
    assert "not a finite number" in errors[0]["error"]


def test_redis_readers_get_every_kind_under_its_own_key(
    redis_url: str, make_settings: MakeSettings, slots: Slots
) -> None:
    async def main() -> int:
        sink = RedisSink(make_settings(redis_url=redis_url), slots, deadline_s=1.0)
        await sink.open({})
        for piece in slices():
            await claim(sink, *piece.source)
        sent = await sink.take(Batch(list(slices())), durable=False)
        await sink.close()
        return sent.rows.total()

    assert asyncio.run(main()) == 7
    times = {"time": START_NS, "recv": START_NS + 1000}
    assert events(redis_url, "quotes") == [
        {"seq": 7, **times, "bid": 81234.5, "bid_qty": 1.2, "ask": 81234.6, "ask_qty": 0.001},
        {"seq": 8, **times, "bid": None, "bid_qty": None, "ask": 81234.6, "ask_qty": 0.001},
    ]
    assert events(redis_url, "funding") == [
        {**times, "rate": 0.0001, "mark": 81235.12345678, "index": 81240.22,
         "next_time": NEXT_NS, "interval_s": 28800},
        {**times, "rate": None, "mark": 0.1, "index": 0.2, "next_time": None, "interval_s": None},
        {**times, "rate": -0.0000125, "mark": 91_000_000.5, "index": None, "next_time": None,
         "interval_s": None},
    ]  # fmt: skip
    assert events(redis_url, "open_interest") == [{**times, "qty": 31000.123}]
    assert events(redis_url, "liquidations") == [
        {**times, "side": "sell", "price": 80900.0, "avg_price": 80950.10123, "qty": 0.014,
         "filled_qty": 0.01}
    ]  # fmt: skip


def events(url: str, word: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(url) as client:
        entries = client.xrange(f"fts:{word}:acme:S")
    return [event for _, fields in entries for event in json.loads(fields[b"events"])]
