"""Bars from marks: the minutes of every commit with trades are in `bar_todo`.

One transaction sees marks and trades in one snapshot (REPEATABLE READ), makes the bars of the
marked minutes from the trades anew, and deletes exactly the marks it saw. A commit that it does not
see has left marks of its own, which stay. So whatever dies, and however late a trade comes, what is
not in the bars is marked.

Ticks are only ever added, until retention takes them away. So a bar that would have fewer trades
than it has is left as it is.

What was stored before there were marks is a list of hours (`bar_fill`), worked off from the newest.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import sql

from engine.base.clock import monotonic_s
from engine.database.session import DatabaseSession
from engine.upkeep.task import Place

_MINUTE: Final = dt.timedelta(minutes=1)
_HOUR: Final = dt.timedelta(hours=1)
_DAY: Final = dt.timedelta(days=1)
_CLOSED_AFTER: Final = dt.timedelta(seconds=2)
"""Most rows of a minute are stored by then; for the others it is done again."""
_MINUTES_AT_ONCE: Final = 60
_WORK_S_MAX: Final = 20.0
"""Then other tasks have their turn."""

_STATE: Final = b"SELECT is_marked, is_listed FROM bar_state"
_LIST_HOURS: Final = b"""
    WITH RECURSIVE hours AS (
        SELECT date_trunc('hour', min(time), 'UTC') AS hour FROM trade
        UNION ALL
        SELECT date_trunc('hour', (
            SELECT min(t.time) FROM trade AS t WHERE t.time >= h.hour + interval '1 hour'), 'UTC')
        FROM hours AS h WHERE h.hour IS NOT NULL
    )
    INSERT INTO bar_fill (hour) SELECT hour FROM hours WHERE hour IS NOT NULL
    ON CONFLICT DO NOTHING
"""
_LISTED: Final = b"UPDATE bar_state SET is_listed = true WHERE is_marked"
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
_ONE_SNAPSHOT: Final = b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
_MAKE: Final = b"""
    WITH seconds AS MATERIALIZED (
        SELECT * FROM bars_of_trades(%(since)s, %(until)s, '1 second')
    ), kept AS (
        INSERT INTO bar_1s AS b (time, stream_id, open, high, low, close, volume, quote_volume,
                                 buy_volume, trade_count)
        SELECT time, stream_id, open, high, low, close, volume, quote_volume, buy_volume,
            trade_count
        FROM seconds ORDER BY stream_id, time
        ON CONFLICT (stream_id, time) DO UPDATE SET
            open = excluded.open, high = excluded.high, low = excluded.low,
            close = excluded.close, volume = excluded.volume,
            quote_volume = excluded.quote_volume, buy_volume = excluded.buy_volume,
            trade_count = excluded.trade_count
        WHERE b.trade_count < excluded.trade_count
    )
    INSERT INTO bar_1m AS b (time, stream_id, open, high, low, close, volume, quote_volume,
                             buy_volume, trade_count)
    SELECT date_trunc('minute', time, 'UTC'), stream_id,
        (array_agg(open ORDER BY time))[1], max(high), min(low),
        (array_agg(close ORDER BY time))[count(*)], sum(volume), sum(quote_volume),
        sum(buy_volume), sum(trade_count)
    FROM seconds GROUP BY 1, 2 ORDER BY 2, 1
    ON CONFLICT (stream_id, time) DO UPDATE SET
        open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume, quote_volume = excluded.quote_volume,
        buy_volume = excluded.buy_volume, trade_count = excluded.trade_count
    WHERE b.trade_count < excluded.trade_count
"""

_EVER: Final = (dt.datetime.min.replace(tzinfo=dt.UTC), dt.datetime.max.replace(tzinfo=dt.UTC))

Span = tuple[dt.datetime, dt.datetime]
"""From, up to but not at."""


def work_off(place: Place) -> str:
    """Closed minutes that are marked, then hours from before, until there are none or time is up.
    Returns what was done. Raises psycopg.Error and StoppingError.
    """
    is_marked, is_listed = _row(place.session, _STATE)
    if not is_marked:
        return "nothing: no writer marks its trades yet"
    if not is_listed:
        _list_hours(place)
    ends_s = monotonic_s() + _WORK_S_MAX
    minutes = hours = 0
    while monotonic_s() < ends_s:
        place.pause()
        if done := _make_marked(place, (_EVER[0], _closed(place))):
            minutes += done
        elif _fill_hour(place, _EVER):
            hours += 1
        else:
            break
    return _in_words(minutes, hours, _row(place.session, _LEFT)[0] if hours else 0)


def complete_day(place: Place, day: dt.date) -> None:
    """Make what is not made yet of the bars of a day: its trades are about to be dropped. Raises
    psycopg.Error and StoppingError.
    """
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    span = (start, start + _DAY)
    if all(_row(place.session, _STATE)):
        while _make_marked(place, span) or _fill_hour(place, span):
            place.pause()
        return
    _make_day(place.session, day)
    for hour in range(24):
        place.pause()
        since = start + hour * _HOUR
        _make(place.session, [(since, since + _HOUR)])


def _list_hours(place: Place) -> None:
    """Everything without a mark was stored before `is_marked` was, which this has seen."""
    with place.session.transaction():
        place.session.execute(_LIST_HOURS)
        place.session.execute(_LISTED)


def _make_marked(place: Place, span: Span) -> int:
    """The newest marked minutes of a span; returns how many they were."""
    session = place.session
    found = session.execute(_MARKED, (*span, _MINUTES_AT_ONCE)).fetchall()
    minutes = sorted(minute for (minute,) in found)
    if minutes:
        for day in sorted({minute.date() for minute in minutes}):
            _make_day(session, day)
        _make(session, list(_spans(minutes)), (_UNMARK, minutes))
    return len(minutes)


def _fill_hour(place: Place, span: Span) -> bool:
    """The newest hour of a span that is not filled; returns whether there was one."""
    found = place.session.execute(_UNFILLED, span).fetchone()
    if found is None:
        return False
    _make_day(place.session, found[0].date())
    _make(place.session, [(found[0], found[0] + _HOUR)], (_FILLED, found[0]))
    return True


def _make(
    session: DatabaseSession, spans: Sequence[Span], note: tuple[bytes, Any] | None = None
) -> None:
    """The bars of some spans from their trades, and the note that they are made, at once."""
    with session.transaction():
        session.execute(_ONE_SNAPSHOT)
        if note is not None:
            session.execute(note[0], (note[1],))
        for since, until in spans:
            session.execute(_MAKE, {"since": since, "until": until})


def _spans(minutes: Sequence[dt.datetime]) -> Iterator[Span]:
    """Ascending minutes as spans without holes."""
    start = end = minutes[0]
    for minute in minutes:
        if minute != end:
            yield start, end
            start = minute
        end = minute + _MINUTE
    yield start, end


def _make_day(session: DatabaseSession, day: dt.date) -> None:
    """Partitions for the bars of a day, made aside and attached: readers go on."""
    for table in ("bar_1s", "bar_1m"):
        child = f"{table}_p{day:%Y%m%d}"
        if _row(session, b"SELECT to_regclass(%s) IS NOT NULL", child)[0]:
            continue
        names = {"child": sql.Identifier(child), "parent": sql.Identifier(table)}
        with session.transaction():
            session.execute(
                sql.SQL("CREATE TABLE {child} (LIKE {parent} INCLUDING CONSTRAINTS)").format(**names)
            )
            session.execute(
                sql.SQL(
                    "ALTER TABLE {parent} ATTACH PARTITION {child} FOR VALUES FROM ({}) TO ({})"
                ).format(
                    sql.Literal(f"{day} 00:00:00+00"),
                    sql.Literal(f"{day + _DAY} 00:00:00+00"),
                    **names,
                )
            )


def _closed(place: Place) -> dt.datetime:
    """Up to which minute nothing more is to be expected."""
    now = dt.datetime.fromtimestamp(place.now_ns() // 10**9, dt.UTC) - _CLOSED_AFTER
    return now.replace(second=0, microsecond=0)


def _row(session: DatabaseSession, query: bytes, *values: Any) -> tuple[Any, ...]:
    found = session.execute(query, values or None).fetchone()
    assert found is not None
    return found


def _in_words(minutes: int, hours: int, left: int) -> str:
    parts = []
    if minutes:
        parts.append(f"bars of {minutes} minutes")
    if hours:
        parts.append(f"of {hours} hours from before, {left} are left")
    return ", ".join(parts)
