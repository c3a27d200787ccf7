"""Rows, catalogs and settings for the sinks."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from engine.data.flags import Flag, Side
from engine.data.instrument import Instrument
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, TRADE
from engine.data.layout import Layout, SourceKey, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sinks.sink import Sink
from engine.writer.sources.source import Readers

START_NS = 1_780_000_000_000_000_000
STREAM_COUNT = 4

DATABASE = Readers(every_row=("database",))

MakeTrades = Callable[..., RecordArray]
MakeSettings = Callable[..., WriterSettings]
Run = Callable[[Callable[[PostgresSink], Awaitable[Any]]], Any]


async def claim(sink: Sink, ring: str, epoch: int = 1, start_seq: int = 0) -> Any:
    """Where a sink goes on with a source."""
    key = SourceKey(ring, epoch)
    return (await sink.cursors({key: start_seq}))[key].seq


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A state directory of the test's own."""
    return open_layout(tmp_path / "state", tmp_path / "shm")


@pytest.fixture
def slots(layout: Layout) -> Slots:
    """Slots 0-3 are trades of S0..S3, slots 4-7 their books. Prices 2 decimals, sizes 3."""
    slots = Slots(layout.slots)
    for kind in (StreamKind.TRADES, StreamKind.L2_BOOK):
        for number in range(STREAM_COUNT):
            entry = slots.assign(StreamKey("acme", f"S{number}", kind))
            slots.describe(
                entry.slot, Instrument("acme", f"S{number}", 2, 3, tick_size="0.01", status="on")
            )
    return slots


@pytest.fixture
def make_settings(layout: Layout) -> MakeSettings:
    """Writer settings with what a sink needs."""

    def make(**changes: object) -> WriterSettings:
        return WriterSettings(
            Paths.of(layout),
            [],
            -1,
            LogSettings(""),
            **changes,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def run(database_url: str, make_settings: MakeSettings, slots: Slots) -> Run:
    """Run an async function on a connected sink of its own."""

    def run(body: Callable[[PostgresSink], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            sink = PostgresSink(make_settings(database_url=database_url), slots)
            await sink.open({})
            try:
                return await body(sink)
            finally:
                await sink.close()

        return uvloop.run(main())

    return run


@pytest.fixture
def trades() -> MakeTrades:
    """`trades(count, first_id=0)`: exact prices, slots 0-3 in turn, ids counting up."""

    def make(count: int, first_id: int = 0) -> RecordArray:
        ids = np.arange(first_id, first_id + count)
        rows = np.zeros(count, TRADE.dtype)
        rows["stream"] = ids % STREAM_COUNT
        rows["side"] = np.where(ids % 3 == 0, Side.BUY, Side.SELL)
        rows["ts_event"] = START_NS + ids * 1_001
        rows["ts_recv"] = START_NS + ids * 1_001 + 5_000_000
        rows["trade_id"] = ids
        rows["price"] = (8_100_000 + ids % 1000) / 100
        rows["qty"] = (1 + ids % 5000) / 1000
        return rows

    return make


@pytest.fixture
def books() -> MakeTrades:
    """`books(event_count, levels=4)`: events in turn over slots 4-7, bids before asks."""

    def make(event_count: int, levels: int = 4) -> RecordArray:
        numbers = np.arange(event_count * levels)
        events, places = numbers // levels, numbers % levels
        rows = np.zeros(len(numbers), BOOK.dtype)
        rows["stream"] = STREAM_COUNT + events % STREAM_COUNT
        rows["flags"] = np.where(places == 0, Flag.FIRST_IN_EVENT, 0) | np.where(
            places == levels - 1, Flag.LAST_IN_EVENT, 0
        )
        rows["side"] = np.where(places < levels // 2, Side.BID, Side.ASK)
        rows["ts_event"] = START_NS + events * 1_000_000
        rows["ts_recv"] = START_NS + events * 1_000_000 + 1
        rows["seq"] = events
        rows["prev_seq"] = events - 1
        rows["price"] = (8_100_000 + places) / 100
        rows["qty"] = places / 1000
        return rows

    return make
