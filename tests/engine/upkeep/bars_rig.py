"""Bars of trades as a model makes them, and trades as a writer stores them."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import psycopg

from engine.base.clock import DAY_NS
from engine.upkeep.task import Place
from engine.upkeep.tasks.bars.task import Bars
from tests.engine.upkeep.database_rig import NOON_NS, TODAY
from tests.waiting import wait_for

MINUTE_NS = 60_000_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
START_NS = TODAY * DAY_NS
"""A midnight, half a day before the tests' now."""
assert START_NS + 10 * MINUTE_NS < NOON_NS


class Trade(NamedTuple):
    """A row of the table, time in ns since 1970."""

    time_ns: int
    stream_id: int
    trade_id: int
    price: int = 100
    qty: int = 1
    side: str = "B"
    trade_id_hi: int = 0


class Bar(NamedTuple):
    """A row of the aggregated tables."""

    time: dt.datetime
    stream_id: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    buy_volume: int
    trade_count: int


def model(trades: Iterable[Trade], width_ns: int) -> list[Bar]:
    """What the bars must be."""
    groups: dict[tuple[int, int], list[Trade]] = defaultdict(list)
    for trade in trades:
        groups[trade.time_ns // width_ns * width_ns, trade.stream_id].append(trade)
    return [
        _bar(EPOCH + dt.timedelta(microseconds=start_ns // 1000), stream_id, found)
        for (start_ns, stream_id), found in sorted(groups.items())
    ]


def _bar(time: dt.datetime, stream_id: int, trades: Sequence[Trade]) -> Bar:
    ordered = sorted(trades, key=lambda t: (t.time_ns, t.trade_id_hi, t.trade_id, t.price))
    prices = [trade.price for trade in ordered]
    return Bar(
        time,
        stream_id,
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(trade.qty for trade in ordered),
        sum(trade.price * trade.qty for trade in ordered),
        sum(trade.qty for trade in ordered if trade.side == "B"),
        len(ordered),
    )


def store(
    connection: psycopg.Connection[Any], trades: Sequence[Trade], *, marked: bool = True
) -> None:
    """What a writer's transaction does with trades, but for its COMMIT. Aggregates need no mark."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO trade VALUES (timestamptz 'epoch' + %s * interval '1 microsecond', %s,"
            " 0, %s, 0, %s, %s, %s, %s, %s)",
            [
                (t.time_ns // 1000, t.time_ns % 1000, t.stream_id, t.side, t.price, t.qty,
                 t.trade_id_hi, t.trade_id)
                for t in trades
            ],
        )  # fmt: skip
    if marked:
        minutes = sorted({trade.time_ns // MINUTE_NS for trade in trades})
        connection.execute(
            "INSERT INTO bar_todo SELECT timestamptz 'epoch' + m * interval '1 minute'"
            " FROM unnest(%s::bigint[]) AS m WHERE (SELECT is_marked FROM bar_state)",
            (minutes,),
        )


def bars(
    connection: psycopg.Connection[Any], relation: str, streams: Iterable[int] = ()
) -> list[Bar]:
    """What is in a table or view of bars, of some streams or of all."""
    found = connection.execute(
        f"SELECT time, stream_id, open, high, low, close, volume, quote_volume, buy_volume,"
        f" trade_count FROM {relation} WHERE %s OR stream_id = ANY (%s) ORDER BY 1, 2".encode(),
        (not list(streams), list(streams)),
    )
    return [Bar(*row) for row in found.fetchall()]


def are_aggregates(connection: psycopg.Connection[Any]) -> bool:
    """Whether TimescaleDB makes the bars."""
    return connection.execute("SELECT bars_by()").fetchone() == ("aggregates",)


def begin(place: Place) -> None:
    """A writer says that there are to be bars."""
    place.session.execute("SELECT mark_bars(true)")


def catch_up(place: Place) -> None:
    """Everything that the task, and TimescaleDB's policies, would do in time."""
    runs = iter(range(100))
    while Bars().run(place):
        assert next(runs, None) is not None, "there is no end to it"
    for job in place.session.execute(
        b"SELECT format('CALL %I.run_job(%s)', n.nspname, j.job_id)"
        b" FROM timescaledb_information.jobs AS j, pg_extension AS e JOIN pg_namespace AS n"
        b" ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'"
        b" AND j.proc_name = 'policy_refresh_continuous_aggregate' ORDER BY j.job_id"
        if are_aggregates(place.session)
        else b"SELECT 'SELECT' WHERE false"
    ).fetchall():
        wait_for(partial(_is_run, place, job[0].encode()))


def _is_run(place: Place, call: bytes) -> bool:
    """TimescaleDB may be at it by itself at the moment."""
    try:
        place.session.execute(call)
    except psycopg.errors.LockNotAvailable:
        return False
    return True
