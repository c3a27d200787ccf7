"""Bars from marks: the minutes of every commit with trades are in `bar_todo`.

One transaction sees marks and trades in one snapshot (REPEATABLE READ), makes the bars of the
marked minutes from the trades anew, and deletes exactly the marks it saw. A commit that it does not
see has left marks of its own, which stay. So whatever dies, and however late a trade comes, what is
not in the bars is marked.

Trades are only ever added, until retention takes them away. So a bar that would have fewer of them
than it has is left as it is.

What was stored before there were marks is a list of hours (`bar_fill`), worked off from the newest.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, Final

from engine.base.clock import DAY_NS, monotonic_s
from engine.database.partitions import make_day, schema_of_partitioned
from engine.database.session import DatabaseSession
from engine.upkeep.task import Place
from engine.upkeep.tasks.bars.hours import (
    EVER,
    HOUR,
    ONE_SNAPSHOT,
    Span,
    hours_with_trades,
    list_hours,
    moment,
    ns_of,
    one,
)

_MINUTE: Final = dt.timedelta(minutes=1)
_MINUTE_NS: Final = 60_000_000_000
_CLOSED_AFTER_NS: Final = 2_000_000_000
"""Most rows of a minute are stored by then; for the others it is done again."""
_MINUTES_AT_ONCE: Final = 60
_WORK_S_MAX: Final = 20.0
"""Then other tasks have their turn."""

_STATE: Final = b"SELECT is_marked, is_listed FROM bar_state"
_MARKED: Final = b"""
    SELECT DISTINCT minute FROM bar_todo WHERE minute >= %s AND minute < %s
    ORDER BY minute DESC LIMIT %s
"""
_UNMARK: Final = b"DELETE FROM bar_todo WHERE minute = ANY (%s)"
_UNFILLED: Final = b"""
    SELECT hour FROM bar_fill WHERE hour >= %s AND hour < %s ORDER BY hour DESC LIMIT 1
"""
_FILLED: Final = b"DELETE FROM bar_fill WHERE hour = %s"
_LEFT: Final = b"SELECT count(*) FROM bar_fill"
_COLUMNS: Final = (
    "time, stream_id, open, high, low, close, volume, quote_volume, buy_volume, trade_count"
)
_GROWN: Final = """
    ON CONFLICT (stream_id, time) DO UPDATE SET
        open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume, quote_volume = excluded.quote_volume,
        buy_volume = excluded.buy_volume, trade_count = excluded.trade_count
    WHERE b.trade_count < excluded.trade_count
"""
_TEXT: Final = """
    WITH seconds AS MATERIALIZED (
        SELECT * FROM bars_of_trades(%(since)s, %(until)s, '1 second')
    ), kept AS (
        INSERT INTO bar_1s AS b ({columns})
        SELECT {columns} FROM seconds ORDER BY stream_id, time {grown}
    )
    INSERT INTO bar_1m AS b ({columns})
    SELECT date_trunc('minute', time, 'UTC'), stream_id,
        (array_agg(open ORDER BY time))[1], max(high), min(low),
        (array_agg(close ORDER BY time))[count(*)], sum(volume), sum(quote_volume),
        sum(buy_volume), sum(trade_count)
    FROM seconds GROUP BY 1, 2 ORDER BY 2, 1 {grown}
"""
_MAKE: Final = _TEXT.format(columns=_COLUMNS, grown=_GROWN).encode()


def work_off(place: Place) -> str:
    """Closed minutes that are marked, then hours from before, until there are none or time is up.
    Returns what was done. Raises psycopg.Error and StoppingError.
    """
    is_marked, is_listed = one(place.session, _STATE)
    if not is_marked:
        return "nothing: no writer marks its trades yet"
    if not is_listed:
        list_hours(place.session)
    ends_s = monotonic_s() + _WORK_S_MAX
    closed_ns = (place.now_ns() - _CLOSED_AFTER_NS) // _MINUTE_NS * _MINUTE_NS
    closed = (EVER[0], moment(closed_ns))
    has_made, has_filled = False, False
    while monotonic_s() < ends_s:
        place.pause()
        if _make_marked(place.session, closed):
            has_made = True
        elif _fill_hour(place.session, EVER):
            has_filled = True
        else:
            break
    if has_filled:
        (left,) = one(place.session, _LEFT)
        return f"made bars of trades from before, {left} hours are left"
    return "made bars of new trades" if has_made else ""


def complete(place: Place, start_ns: int, end_ns: int) -> None:
    """Make what is not made yet of the bars of a time whose trades are about to be dropped. Raises
    psycopg.Error and StoppingError.
    """
    session, span = place.session, (moment(start_ns), moment(end_ns))
    if all(one(session, _STATE)):
        while _make_marked(session, span) or _fill_hour(session, span):
            place.pause()
        return
    for hour in hours_with_trades(session, span):
        place.pause()
        _make(session, [(hour, hour + HOUR)])


def _make_marked(session: DatabaseSession, span: Span) -> bool:
    """The newest marked minutes of a span; whether there were any."""
    found = session.execute(_MARKED, (*span, _MINUTES_AT_ONCE)).fetchall()
    minutes = sorted(minute for (minute,) in found)
    if minutes:
        _make(session, list(_spans(minutes)), (_UNMARK, minutes))
    return bool(minutes)


def _fill_hour(session: DatabaseSession, span: Span) -> bool:
    """The newest hour of a span that is not filled; whether there was one."""
    found = session.execute(_UNFILLED, span).fetchone()
    if found is not None:
        _make(session, [(found[0], found[0] + HOUR)], (_FILLED, found[0]))
    return found is not None


def _make(
    session: DatabaseSession, spans: Sequence[Span], note: tuple[bytes, Any] | None = None
) -> None:
    """The bars of some spans from their trades, and the note that they are made, at once. No span
    goes over a midnight but where a minute does not end before it.
    """
    for table in ("bar_1s", "bar_1m"):
        if schema := schema_of_partitioned(session, table):
            for day in sorted({ns_of(since) // DAY_NS for since, _ in spans}):
                make_day(session, schema, table, day)
    with session.transaction():
        session.execute(ONE_SNAPSHOT)
        if note is not None:
            session.execute(note[0], (note[1],))
        for since, until in spans:
            session.execute(_MAKE, {"since": since, "until": until})


def _spans(minutes: Sequence[dt.datetime]) -> Iterator[Span]:
    """Ascending minutes as spans without holes, none of them of two days."""
    start = end = minutes[0]
    for minute in minutes:
        if minute != end or minute.date() != start.date():
            yield start, end
            start = minute
        end = minute + _MINUTE
    yield start, end
