"""Large COPYs go into columns at once: exactly once, in order, and only where that is sound.

What needs TimescaleDB runs with FTS_TEST_TIMESCALE_DSN; without it, that the others are left alone.
"""

from typing import Any

import numpy as np
import psycopg
import pytest
import uvloop

from engine.base.errors import FencedError
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey
from engine.database.catch_up import ROWS_MIN, CatchUp
from engine.database.session import WRITER, AsyncSession, open_session
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.conftest import Databases
from tests.engine.writer.conftest import MakeTrades, Run, claim
from tests.stores import execute, select

RING = "shard-0.trade"
_STATE = """
    SELECT array_to_string(_timescaledb_functions.chunk_status_text(
        format('%I.%I', c.chunk_schema, c.chunk_name)::regclass), ' ')
    FROM timescaledb_information.chunks AS c WHERE c.hypertable_name = 'trade'
"""
_WAY = "SELECT current_setting('timescaledb.enable_direct_compress_copy', true)"


@pytest.fixture
def columns(timescale: Databases | None, database_url: str) -> None:
    """A table of trades with columns."""
    if timescale is None:
        pytest.skip("FTS_TEST_TIMESCALE_DSN names no server with TimescaleDB")
    execute(
        database_url,
        "SELECT _timescaledb_functions.stop_background_workers()",
        "ALTER TABLE trade SET (timescaledb.enable_columnstore,"
        " timescaledb.segmentby = 'stream_id', timescaledb.orderby = 'time, trade_id')",
    )


def piece(rows: Any, seq: int) -> Slice:
    return Slice.whole(SourceKey(RING, 1), TRADE, seq, rows)


def ids(url: str) -> list[int]:
    """As read in order of time, which must be theirs."""
    found = [i for (i,) in select(url, "SELECT trade_id FROM trade ORDER BY time, trade_id")]
    by_stream = select(
        url, "SELECT trade_id FROM trade WHERE stream_id = 1 ORDER BY time DESC, trade_id DESC"
    )
    assert [i for (i,) in by_stream] == sorted((i for (i,) in by_stream), reverse=True)
    return found


@pytest.mark.usefixtures("columns")
def test_what_a_writer_catches_up_with_is_there_once_and_in_order(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    count = 2 * ROWS_MIN

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(100), 0)]), durable=False)
        assert select(database_url, _STATE) == [("",)], "few rows go as ever"
        rows = trades(count, first_id=100)
        order = np.argsort(np.arange(count) % 7, kind="stable")
        taken = await sink.take(Batch([piece(rows[order], 100)]), durable=True)
        assert taken.rows == {"trade": count}
        assert select(database_url, _STATE) == [("COMPRESSED UNORDERED PARTIAL",)]
        again = trades(count, first_id=100 + count)
        await sink.take(Batch([piece(again, 100 + count)]), durable=True)
        late = trades(100, first_id=100 + 2 * count)
        await sink.take(Batch([piece(late, 100 + 2 * count)]), durable=False)
        assert await claim(sink, RING, 1, 0) == 200 + 2 * count

    run(body)
    assert ids(database_url) == list(range(200 + 2 * count))


@pytest.mark.usefixtures("columns")
def test_what_is_not_committed_is_not_there(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        await sink.take(Batch([piece(trades(ROWS_MIN), 0)]), durable=False)
        execute(database_url, "UPDATE ingest_cursor SET sequence = 1")
        with pytest.raises(FencedError):
            await sink.take(
                Batch([piece(trades(ROWS_MIN, first_id=ROWS_MIN), ROWS_MIN)]), durable=False
            )

    run(body)
    with psycopg.connect(database_url) as writer:
        writer.execute("SET LOCAL timescaledb.enable_direct_compress_copy = on")
        with writer.cursor().copy("COPY trade FROM STDIN") as copy:
            for n in range(ROWS_MIN):
                copy.write(f"2026-05-28 20:26:40Z\t0\t0\t1\t0\tB\t1\t1\t0\t{n}\n")
        assert writer.execute("SELECT count(*) FROM trade").fetchone() == (2 * ROWS_MIN,)
        writer.rollback()
    assert ids(database_url) == list(range(ROWS_MIN))


@pytest.mark.usefixtures("columns")
def test_a_row_that_is_refused_keeps_none_of_the_others_from_columns(
    run: Run, database_url: str, trades: MakeTrades
) -> None:
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id NOT IN (7, 9000))")

    async def body(sink: PostgresSink) -> None:
        await claim(sink, RING, 1, 0)
        taken = await sink.take(Batch([piece(trades(ROWS_MIN + 2), 0)]), durable=False)
        assert taken.refused == {"trade": 2}

    run(body)
    assert ids(database_url) == [n for n in range(ROWS_MIN + 2) if n not in (7, 9000)]
    assert select(database_url, _STATE)[0][0].startswith("COMPRESSED")


def test_other_tables_and_small_copies_go_as_ever(database_url: str) -> None:
    way = CatchUp()

    async def ways(connection: AsyncSession) -> list[Any]:
        found: list[Any] = []
        for table, count in (("gap", ROWS_MIN), ("trade", ROWS_MIN - 1), ("trade", ROWS_MIN)):
            async with connection.transaction(), way.way(connection, table, count):
                found += await (await connection.execute(_WAY.encode())).fetchone() or []
        return found

    async def main() -> list[Any]:
        connection = await open_session(database_url, WRITER)
        try:
            return await ways(connection)
        finally:
            await connection.close()

    assert not {"on"} & set(uvloop.run(main())), "no table has columns here"


@pytest.mark.usefixtures("columns")
def test_columns_that_a_table_gets_are_noticed_within_a_minute(database_url: str) -> None:
    clock_s = [0.0]
    way = CatchUp(lambda: clock_s[0])
    seen: list[Any] = []

    async def look(connection: AsyncSession) -> None:
        async with connection.transaction():
            async with way.way(connection, "book", ROWS_MIN):
                seen.extend(await (await connection.execute(_WAY.encode())).fetchone() or [])
            seen.extend(await (await connection.execute(_WAY.encode())).fetchone() or [])

    async def main() -> None:
        connection = await open_session(database_url, WRITER)
        try:
            await look(connection)
            execute(database_url, "ALTER TABLE book SET (timescaledb.enable_columnstore)")
            await look(connection)
            clock_s[0] = 61.0
            await look(connection)
        finally:
            await connection.close()

    uvloop.run(main())
    assert seen == ["off", "off", "off", "off", "on", "off"]
