"""Days of rows as the writer and the upkeep leave them, and what a query on them looks at."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg

from engine.data.flags import Side
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from tests.engine.writer.conftest import START_NS
from tests.stores import execute, select

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
MIDNIGHT_NS = START_NS // DAY_NS * DAY_NS
DAYS = 4
ROWS = 6000
RARE = 3
"""The slot of a symbol with a few trades a day."""

Store = Callable[..., None]
Fill = Callable[[], RecordArray]


def time_of(ns: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)


def day(number: float) -> datetime:
    return time_of(MIDNIGHT_NS) + timedelta(days=number)


def trades_of_days(count: int = ROWS) -> RecordArray:
    """Of four symbols, from 11 to 13 o'clock of four days, in order of time. One symbol is busy,
    and one has five trades a day.
    """
    numbers = np.arange(count)
    days, places = numbers * DAYS // count, numbers % (count // DAYS)
    rows = np.zeros(count, TRADE.dtype)
    others = np.where(numbers % 10 < 8, 0, 1 + numbers % 2)
    rows["stream"] = np.where(numbers % (count // DAYS // 5) == 17, RARE, others)
    rows["side"] = np.where(numbers % 2, Side.BUY, Side.SELL)
    rows["ts_event"] = MIDNIGHT_NS + days * DAY_NS + 11 * HOUR_NS + 777
    rows["ts_event"] += places * (2 * HOUR_NS // (count // DAYS))
    rows["ts_recv"] = rows["ts_event"] + 5_000_000
    rows["trade_id"] = numbers
    rows["price"] = (8_100_000 + numbers * 7919 % 1000) / 100
    rows["qty"] = (1 + numbers % 5000) / 1000
    return rows


def close_days(url: str, table: str) -> None:
    """All days before the last are as the upkeep leaves them."""
    for (chunk,) in select(
        url,
        f"SELECT tableoid::regclass::text FROM {table} GROUP BY 1 HAVING max(time) < %s",
        (day(DAYS - 1),),
    ):
        execute(url, f"CREATE INDEX ON {chunk} (stream_id, time)")
    execute(url, f"ANALYZE {table}")


def read(url: str, call: str, *values: Any) -> tuple[list[Any], dict[str, int]]:
    """What a call says, and how many rows it looked at in each table, partition and chunk."""
    with psycopg.connect(url) as connection:
        connection.execute("SET max_parallel_workers_per_gather = 0")
        rows = connection.execute(call.encode(), values).fetchall()
        looked = connection.execute(
            "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
            " FROM pg_stat_xact_user_tables WHERE seq_scan + coalesce(idx_scan, 0) > 0"
        ).fetchall()
    return rows, dict(looked)


def chunks(url: str, since: datetime, until: datetime, table: str = "trade") -> set[str]:
    """The partitions or chunks that have rows of a time."""
    query = (
        "SELECT c.relname FROM pg_class AS c WHERE c.oid IN"
        f" (SELECT tableoid FROM {table} WHERE time >= %s AND time < %s)"
    )
    return {name for (name,) in select(url, query, (since, until))}


def touched(looked: dict[str, int], url: str, table: str = "trade") -> set[str]:
    return looked.keys() & chunks(url, day(-9), day(99), table)
