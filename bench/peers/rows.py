"""The same trades for every way to store them, and whether the table has them all, to the digit."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from bench.storing import STREAMS, records
from engine.data.instrument import Instrument
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import Layout, SourceKey, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.writer.rows.copy import StreamLookup
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink

COLUMNS: Final = ", ".join(column.name for column in TRADE.columns)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SUMS: Final = f"""
    SELECT count(*), sum(price), sum(qty), sum(trade_id), sum(ts_recv), sum(stream_id),
        sum(time_sub_us), sum(flags), sum(trade_id_hi), count(*) FILTER (WHERE side = 'B'),
        sum(extract(epoch FROM time))
    FROM {TRADE.name}
"""
Row = tuple[Any, ...]


class Known:
    """A database that knows the streams and has partitions for the rows; who writes is a sink."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.layout = open_layout(directory / "state", directory / "shm")
        self.slots = _slots(self.layout)
        self.settings = WriterSettings(
            Paths.of(self.layout), [], -1, LogSettings(""), database_url=url
        )
        self.source = SourceKey("bench/peers.trade", 1)
        self.sink = PostgresSink(self.settings, self.slots)
        self.next_seq = 0

    async def open(self, rows: RecordArray) -> StreamLookup:
        """Have these rows stored once, and taken away again."""
        await self.sink.open({})
        found = await self.sink.cursors({self.source: 0})
        self.next_seq = found[self.source].seq or 0
        await self.take(rows)
        self.clear()
        return self.sink._tables.streams.lookup

    async def take(self, rows: RecordArray) -> None:
        """A commit of the sink, with its cursor."""
        part = Slice.whole(self.source, TRADE, self.next_seq, rows)
        taken = await self.sink.take(Batch([part]), durable=False)
        assert taken.rows[TRADE.name] == len(rows)
        self.next_seq += len(rows)

    def clear(self) -> None:
        """No rows; the partitions stay."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {TRADE.name}".encode())

    def sums(self) -> Row:
        """Of every column."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(_SUMS.encode()).fetchone()
        assert row is not None
        return row


def trades(count: int) -> RecordArray:
    """Exact prices with 2 decimals and sizes with 3, on all streams."""
    return records(TRADE, 0, count)


def as_tuples(rows: RecordArray, lookup: StreamLookup) -> list[Row]:
    """The rows as a program has them that made each of Python's numbers itself: making them so is
    not what storing costs.
    """
    time_us, sub_us = np.divmod(rows["ts_event"], 1000)
    return list(
        zip(
            [_EPOCH + timedelta(microseconds=each) for each in time_us.tolist()],
            sub_us.tolist(),
            rows["ts_recv"].tolist(),
            lookup.stream_id[rows["stream"]].tolist(),
            rows["flags"].tolist(),
            map(chr, rows["side"].tolist()),
            np.rint(rows["price"] * 100).astype(np.int64).tolist(),
            np.rint(rows["qty"] * 1000).astype(np.int64).tolist(),
            rows["trade_id_hi"].tolist(),
            rows["trade_id"].tolist(),
            strict=True,
        )
    )


def expected_sums(rows: Sequence[Row]) -> Row:
    """What the database has to say, summed without it."""
    columns = list(zip(*rows, strict=True))
    seconds = sum((time - _EPOCH for time in columns[0]), timedelta())
    names = [column.name for column in TRADE.columns]
    of = {name: values for name, values in zip(names, columns, strict=True) if name != "side"}
    summed = ("price", "qty", "trade_id", "ts_recv", "stream_id", "time_sub_us", "flags",
              "trade_id_hi")  # fmt: skip
    buys = columns[names.index("side")].count("B")
    micros = (seconds.days * 86_400 + seconds.seconds) * 10**6 + seconds.microseconds
    return (len(rows), *(sum(of[name]) for name in summed), buys, micros)


def agree(found: Row, expected: Row) -> bool:
    """Whether the database has what it should; its sum of times is in seconds, with a point."""
    *numbers, seconds = found
    return (*map(int, numbers), round(seconds * 10**6)) == expected


def _slots(layout: Layout) -> Slots:
    slots = Slots(layout.slots)
    keys = [StreamKey("bench", f"S{number}", StreamKind.TRADES) for number in range(STREAMS)]
    entries = slots.assign_all(keys)
    slots.describe_all({e.slot: Instrument("bench", e.key.symbol, 2, 3) for e in entries})
    return slots
