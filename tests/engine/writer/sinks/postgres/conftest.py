"""Rows that writers stored, and days of them."""

import numpy as np
import pytest
import uvloop

from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, QUOTE, TRADE
from engine.data.layout import SourceKey
from engine.data.slots import Slots
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.conftest import MakeSettings, claim
from tests.engine.writer.sinks.postgres.reading_rig import Fill, Store, close_days, trades_of_days

KINDS_BY_LAYOUT = {kind.dtype: kind for kind in (TRADE, BOOK, QUOTE, GAP)}


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, slots: Slots) -> Store:
    """`store(rows, rows, …)`: one commit each, by a writer that is new at every call."""
    stored = {"trade": 0, "book": 0, "quote": 0, "gap": 0}

    def store(*batches: RecordArray) -> None:
        async def main() -> None:
            sink = PostgresSink(make_settings(database_url=database_url), slots)
            await sink.open({})
            for rows in batches:
                spec = KINDS_BY_LAYOUT[rows.dtype]
                key, seq = SourceKey(f"shard-0.{spec.name}", 1), stored[spec.name]
                assert await claim(sink, key.ring, 1, 0) == seq
                taken = await sink.take(Batch([Slice.whole(key, spec, seq, rows)]), durable=False)
                assert not taken.refused
                stored[spec.name] += len(rows)
            await sink.close()

        uvloop.run(main())

    return store


@pytest.fixture
def fill(store: Store, database_url: str) -> Fill:
    """Four days of trades; those before the last are closed, as the upkeep leaves them."""

    def fill() -> RecordArray:
        rows = trades_of_days()
        store(*np.array_split(rows, 20))
        close_days(database_url, "trade")
        return rows

    return fill
