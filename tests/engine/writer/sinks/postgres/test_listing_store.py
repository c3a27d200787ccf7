"""Instrument listings: a version for each change, an event for each announcement."""

import asyncio
from typing import Any

import psycopg
import pytest
import uvloop

from engine.data.instrument import Instrument
from engine.database.session import WRITER, open_session
from engine.messages.listings import InstrumentEvent, StoreListing
from engine.servers.postgres import PrivatePostgres
from engine.writer.sinks.postgres.listing_store import ListingStore, store_listing
from tests.conftest import database_at
from tests.engine.writer.conftest import MakeSettings
from tests.waiting import until


def instrument(symbol: str, **changes: Any) -> Instrument:
    facts: dict[str, Any] = {
        "price_decimals": 2, "qty_decimals": 3, "base": symbol, "quote": "USDT",
        "tick_size": "0.01", "lot_size": "0.001", "status": "TRADING", **changes,
    }  # fmt: skip
    return Instrument("acme", symbol, **facts)


def store(url: str, *messages: StoreListing) -> list[int]:
    async def main() -> list[int]:
        connection = await open_session(url, WRITER)
        try:
            return [await store_listing(connection, message) for message in messages]
        finally:
            await connection.close()

    return uvloop.run(main())


def versions(url: str, symbol: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        query = (
            "SELECT version, price_decimals, tick_size::text, contract_size::text, status"
            " FROM instrument WHERE symbol = %s ORDER BY version"
        )
        return connection.execute(query, (symbol,)).fetchall()


def test_every_change_is_a_version_and_nothing_else_is(database_url: str) -> None:
    hundred = [instrument(f"S{number}") for number in range(120)]
    first = StoreListing("acme", hundred, [], 1)
    assert store(database_url, first, first) == [120, 0]
    steps = [
        instrument("S7", tick_size="0.1", price_decimals=1),
        instrument("S7", tick_size="0.1", price_decimals=1, status="BREAK"),
        instrument("S7", tick_size="0.1", price_decimals=1, status="BREAK", contract_size="10"),
        instrument("S7", tick_size="0.001", price_decimals=3, status="BREAK", contract_size="10"),
    ]
    for number, changed in enumerate(steps, 2):
        assert store(database_url, StoreListing("acme", [changed], [], number)) == [1]
    assert versions(database_url, "S7") == [
        (1, 2, "0.01", "1", "TRADING"),
        (2, 2, "0.1", "1", "TRADING"),
        (3, 2, "0.1", "1", "BREAK"),
        (4, 2, "0.1", "10", "BREAK"),
        (5, 3, "0.001", "10", "BREAK"),
    ]


def test_events_are_appended_once_and_a_delisted_instrument_says_so(database_url: str) -> None:
    both = [instrument("A"), instrument("B")]
    listed = [InstrumentEvent("acme", each.symbol, "listed") for each in both]
    gone = [InstrumentEvent("acme", "A", "delisted", "not in the listing")]
    first = StoreListing("acme", both, listed, 1_780_000_000_000_000_000)
    second = StoreListing("acme", both[1:], gone, 1_780_000_060_000_000_000)
    store(database_url, first, second, first, second)
    with psycopg.connect(database_url) as connection:
        events = connection.execute(
            "SELECT symbol, event, detail, extract(epoch FROM time)::int8 FROM instrument_event"
            " ORDER BY time, symbol"
        ).fetchall()
    assert events == [
        ("A", "listed", "", 1_780_000_000),
        ("B", "listed", "", 1_780_000_000),
        ("A", "delisted", "not in the listing", 1_780_000_060),
    ]
    assert versions(database_url, "B") == [(1, 2, "0.01", "1", "TRADING")]


def test_a_dead_database_only_delays_it(
    postgres: PrivatePostgres,
    database_url: str,
    make_settings: MakeSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    saved: list[int] = []

    async def main() -> None:
        settings = make_settings(database_url=database_url)
        listings = ListingStore(settings, lambda message: saved.append(message.loaded_ns))
        postgres.stop()
        task = asyncio.create_task(listings.run())
        listings.take(StoreListing("acme", [instrument("A")], [], 1))
        listings.take(StoreListing("acme", [instrument("A", status="BREAK")], [], 2))
        await until(lambda: "not stored yet" in caplog.text)
        assert saved == []
        postgres.start()
        await until(lambda: len(saved) >= 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    uvloop.run(main())
    assert saved == [1, 2]
    assert len(versions(database_at(postgres.start(), name), "A")) == 2


def test_what_waits_for_a_dead_database_is_what_changed(make_settings: MakeSettings) -> None:
    listings = ListingStore(make_settings(database_url="postgresql://"), lambda _: None)
    for number in range(1, 50):
        status = "BREAK" if number == 20 else "TRADING"
        many = [instrument(f"S{each}") for each in range(100)]
        listings.take(StoreListing("acme", [*many, instrument("A", status=status)], [], number))
        listings.take(StoreListing("other", many, [], number))
    waiting = [message.instruments for message in listings._waiting]
    assert [len(each) for each in waiting[-2:]] == [101, 100], "the newest are whole"
    older = [each for message in waiting[:-2] for each in message]
    assert [(each.symbol, each.status) for each in older] == [("A", "TRADING"), ("A", "BREAK")]


@pytest.mark.parametrize("tick_size", ["", "nonsense"])
def test_a_venue_without_a_tick_is_no_reason_for_a_version_each_time(
    database_url: str, tick_size: str
) -> None:
    message = StoreListing("acme", [instrument("A", tick_size=tick_size)], [], 1)
    assert store(database_url, message, message) == [1, 0]
