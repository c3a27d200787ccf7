"""Bars as continuous aggregates of TimescaleDB, in place of the tables `bar_1s` and `bar_1m`.

They are real-time: what is not refreshed yet comes from the trades. So what was stored before is
filled in from the oldest hour on, in whose order the line moves up to which it is; and only then
policies refresh what changed, every half minute.

A refresh over trades that retention has dropped would delete their bars. So no policy looks back as
far as trades are kept, nor to what is noted as dropped (`bar_state`) when they are to be kept for
longer than before, and this task stands before those that see to retention.
"""

import datetime as dt
from typing import Any, Final, NamedTuple

from psycopg import sql

from engine.base.clock import monotonic_s
from engine.database.session import DatabaseSession
from engine.upkeep.task import Place
from engine.upkeep.tasks.ages import age_ns
from engine.upkeep.tasks.bars.hours import HOUR, list_hours, moment, one

_WORK_S_MAX: Final = 20.0
_DAY: Final = dt.timedelta(days=1)
_END: Final = dt.timedelta(minutes=1)
"""What is younger comes from the trades."""


class _Aggregate(NamedTuple):
    """One of the two."""

    name: str
    chunk: dt.timedelta
    compressed_after: dt.timedelta
    batch: int
    """Buckets that are refreshed at once: an hour. TimescaleDB would take ten."""


_AGGREGATES: Final = (
    _Aggregate("bar_1s", dt.timedelta(days=1), dt.timedelta(days=1), 3600),
    _Aggregate("bar_1m", dt.timedelta(days=7), dt.timedelta(days=7), 60),
)

_IS_TABLE: Final = b"SELECT relkind <> 'v' FROM pg_class WHERE oid = to_regclass('bar_1s')"
_IS_LISTED: Final = b"SELECT is_listed FROM bar_state"
_NEW_NAMES: Final = b"""
    ALTER TABLE bar_1s RENAME TO bar_1s_empty;
    ALTER TABLE bar_1m RENAME TO bar_1m_empty
"""
_SECONDS: Final = """
    CREATE MATERIALIZED VIEW bar_1s WITH (
        timescaledb.continuous, timescaledb.materialized_only = false,
        timescaledb.chunk_interval = {chunk}
    ) AS
    SELECT
        {extension}.time_bucket(interval '1 second', t.time) AS time,
        t.stream_id,
        (min(ARRAY[(date_part('epoch', t.time - timestamptz '1970-01-01 00:00:00+00')
                    * 1000000)::int8, t.time_sub_us, t.trade_id_hi, t.trade_id, t.price]))[5]
            AS open,
        max(t.price) AS high,
        min(t.price) AS low,
        (max(ARRAY[(date_part('epoch', t.time - timestamptz '1970-01-01 00:00:00+00')
                    * 1000000)::int8, t.time_sub_us, t.trade_id_hi, t.trade_id, t.price]))[5]
            AS close,
        sum(t.qty) AS volume,
        sum(t.price::numeric * t.qty) AS quote_volume,
        coalesce(sum(t.qty) FILTER (WHERE t.side = 'B'), 0) AS buy_volume,
        count(*) AS trade_count
    FROM trade AS t
    GROUP BY 1, 2
    WITH NO DATA
"""
_MINUTES: Final = """
    CREATE MATERIALIZED VIEW bar_1m WITH (
        timescaledb.continuous, timescaledb.materialized_only = false,
        timescaledb.chunk_interval = {chunk}
    ) AS
    SELECT
        {extension}.time_bucket(interval '1 minute', b.time) AS time,
        b.stream_id,
        {extension}.first(b.open, b.time) AS open,
        max(b.high) AS high,
        min(b.low) AS low,
        {extension}.last(b.close, b.time) AS close,
        sum(b.volume) AS volume,
        sum(b.quote_volume) AS quote_volume,
        sum(b.buy_volume) AS buy_volume,
        sum(b.trade_count)::int8 AS trade_count
    FROM bar_1s AS b
    GROUP BY 1, 2
    WITH NO DATA
"""
_HAND_ON: Final = """
    CREATE OR REPLACE VIEW {view} AS
    SELECT time, stream_id, open, high, low, close, volume, quote_volume, buy_volume, trade_count
    FROM {name}
"""
_DROP_TABLES: Final = b"DROP TABLE bar_1s_empty, bar_1m_empty"
_COLUMNSTORE: Final = """
    ALTER MATERIALIZED VIEW {name} SET (
        timescaledb.enable_columnstore, timescaledb.segmentby = 'stream_id',
        timescaledb.orderby = 'time')
"""
_OLDEST_UNFILLED: Final = b"SELECT hour FROM bar_fill ORDER BY hour LIMIT 1"
_FILLED: Final = b"DELETE FROM bar_fill WHERE hour = %s"
_LEFT: Final = b"SELECT count(*) FROM bar_fill"
_POLICIES: Final = b"""
    SELECT j.proc_name::text, (j.config ->> 'start_offset')::interval,
        (j.config ->> 'drop_after')::interval
    FROM timescaledb_information.continuous_aggregates AS c
    JOIN timescaledb_information.jobs AS j
        ON j.hypertable_name IN (c.view_name, c.materialization_hypertable_name)
    WHERE c.view_schema = current_schema() AND c.view_name = %s
"""
_DROP: Final = b"""
    UPDATE bar_state SET dropped = greatest(dropped, %s::timestamptz),
        seconds_dropped = greatest(seconds_dropped, %s::timestamptz)
"""
_DROPPED: Final = b"""
    SELECT nullif(dropped, '-infinity'), nullif(seconds_dropped, '-infinity') FROM bar_state
"""
_TRADES_DROPPED_AFTER: Final = b"""
    SELECT min((j.config ->> 'drop_after')::interval) FROM timescaledb_information.jobs AS j
    WHERE j.proc_name = 'policy_retention' AND j.hypertable_schema = current_schema()
        AND j.hypertable_name = 'trade'
"""


def refresh(place: Place) -> str:
    """Have the aggregates, fill in what was before them, and then have the policies. Returns what
    was done. Raises psycopg.Error and StoppingError.
    """
    session = place.session
    if one(session, _IS_TABLE)[0]:
        _create(place)
    if not one(session, _IS_LISTED)[0]:
        list_hours(session)
    ends_s = monotonic_s() + _WORK_S_MAX
    while (found := session.execute(_OLDEST_UNFILLED).fetchone()) is not None:
        if monotonic_s() > ends_s:
            (left,) = one(session, _LEFT)
            return f"made bars of trades from before, {left} hours are left"
        place.pause()
        for each in _AGGREGATES:
            _refresh(place, each, found[0], found[0] + HOUR)
        session.execute(_FILLED, (found[0],))
    return _have_policies(place)


def complete(place: Place, start_ns: int, end_ns: int) -> str:
    """Refresh a time whose trades are about to be dropped, once: what comes there later is not in
    its bars. Returns why they must stay for now. Raises psycopg.Error.
    """
    is_unmade = one(place.session, _IS_TABLE)[0] or not one(place.session, _IS_LISTED)[0]
    if is_unmade or place.session.execute(_OLDEST_UNFILLED).fetchone() is not None:
        return "bars are not made yet"
    (dropped, _) = one(place.session, _DROPPED)
    if dropped is None or moment(start_ns) >= dropped:
        for each in _AGGREGATES:
            _refresh(place, each, moment(start_ns), moment(end_ns))
    place.session.execute(_DROP, (moment(end_ns), None))
    _have_policies(place)
    return ""


def stop(place: Place) -> str:
    """Refresh no more; the bars that are there stay. Raises psycopg.Error."""
    stopped = []
    for each in _AGGREGATES:
        if _policies(place.session, each.name).refreshes:
            _call(place, "SELECT {extension}.remove_continuous_aggregate_policy(%s::regclass)",
                  each.name)  # fmt: skip
            stopped.append(each.name)
    return f"stopped {', '.join(stopped)}" if stopped else ""


def _create(place: Place) -> None:
    """In place of the empty tables, so that all that reads from them goes on."""
    with place.session.transaction():
        place.session.execute(_NEW_NAMES)
        for each, query in zip(_AGGREGATES, (_SECONDS, _MINUTES), strict=True):
            _call(place, query, chunk=sql.Literal(f"{each.chunk.days} days"))
            names = {"view": f"{each.name}_now", "name": each.name}
            _call(place, _HAND_ON, **{key: sql.Identifier(name) for key, name in names.items()})
            _call(place, _COLUMNSTORE, name=sql.Identifier(each.name))
        place.session.execute(_DROP_TABLES)


def _refresh(place: Place, each: _Aggregate, start: dt.datetime | None, end: dt.datetime) -> None:
    """Whole buckets between the two that are not up to date; None: from the beginning."""
    _call(
        place,
        "CALL {extension}.refresh_continuous_aggregate(%s::regclass, %s::timestamptz,"
        " %s::timestamptz, options => jsonb_build_object('buckets_per_batch', %s::int,"
        " 'refresh_newest_first', false))",
        each.name, start, end, each.batch,
    )  # fmt: skip


class _Policies(NamedTuple):
    """What TimescaleDB does by itself with an aggregate."""

    refreshes: bool = False
    looks_back: dt.timedelta | None = None
    """None: to the beginning."""
    is_compressed: bool = False
    drops_after: dt.timedelta | None = None


def _policies(session: DatabaseSession, name: str) -> _Policies:
    found = _Policies()
    for procedure, start_offset, drop_after in session.execute(_POLICIES, (name,)).fetchall():
        match procedure:
            case "policy_refresh_continuous_aggregate":
                found = found._replace(refreshes=True, looks_back=start_offset)
            case "policy_compression":
                found = found._replace(is_compressed=True)
            case "policy_retention":
                found = found._replace(drops_after=drop_after)
    return found


def _have_policies(place: Place) -> str:
    """As the configuration says; returns what had to be changed."""
    changed = []
    _note_dropped(place)
    limits = [age * 7 / 8 for age in _trades_kept(place)]
    for each, dropped in zip(_AGGREGATES, one(place.session, _DROPPED), strict=True):
        if dropped is not None:
            limits.append(_whole(moment(place.now_ns()) - dropped))
        found, own = _policies(place.session, each.name), _kept(place, each.name)
        wanted = _Policies(True, min(limits, default=None), True, own)
        if found != wanted:
            _change(place, each, found, wanted)
            changed.append(each.name)
        limits += [age * 7 / 8 for age in (own, found.drops_after) if age is not None]
    return f"set the policies of {', '.join(changed)}" if changed else ""


def _whole(age: dt.timedelta) -> dt.timedelta:
    """Whole days or hours of it: a policy is not to be changed all the time."""
    unit = next((u for u in (_DAY, HOUR) if age >= u), dt.timedelta(minutes=1))
    return max(age // unit, 1) * unit


def _trades_kept(place: Place) -> list[dt.timedelta]:
    """After how long trades are dropped, by whoever does."""
    ages = (_kept(place, "trade"), *one(place.session, _TRADES_DROPPED_AFTER))
    return [age for age in ages if age is not None]


def _note_dropped(place: Place) -> None:
    """What a policy of TimescaleDB drops nobody tells us; but it drops no more than this."""
    now = moment(place.now_ns())
    seconds = (_kept(place, "bar_1s"), _policies(place.session, "bar_1s").drops_after)
    ages = (_trades_kept(place), [age for age in seconds if age is not None])
    place.session.execute(_DROP, [max((now - age for age in each), default=None) for each in ages])


def _change(place: Place, each: _Aggregate, found: _Policies, wanted: _Policies) -> None:
    if not found.refreshes:
        # From where the hours from before end, in steps; the policy's first run is a short one.
        now = moment(place.now_ns())
        _refresh(place, each, now - wanted.looks_back if wanted.looks_back else None, now - _END)
    with place.session.transaction():
        if found[:2] != wanted[:2]:
            _call(
                place,
                "SELECT {extension}.remove_continuous_aggregate_policy(%s::regclass,"
                " if_exists => true)",
                each.name,
            )
            _call(
                place,
                "SELECT {extension}.add_continuous_aggregate_policy(%s::regclass,"
                " start_offset => %s::interval, end_offset => %s::interval,"
                " schedule_interval => interval '30 seconds', buckets_per_batch => %s::int)",
                each.name, wanted.looks_back, _END, each.batch,
            )  # fmt: skip
        if not found.is_compressed:
            _call(
                place,
                "CALL {extension}.add_columnstore_policy(%s::regclass, after => %s::interval)",
                each.name, each.compressed_after,
            )  # fmt: skip
        if found.drops_after != wanted.drops_after:
            _call(
                place,
                "SELECT {extension}.remove_retention_policy(%s::regclass, if_exists => true)",
                each.name,
            )
            if wanted.drops_after is not None:
                _call(
                    place,
                    "SELECT {extension}.add_retention_policy(%s::regclass,"
                    " drop_after => %s::interval)",
                    each.name, wanted.drops_after,
                )  # fmt: skip


def _kept(place: Place, table: str) -> dt.timedelta | None:
    kept_for = place.settings.keep.get(table)
    return dt.timedelta(microseconds=age_ns(kept_for) // 1000) if kept_for else None


def _call(place: Place, query: str, *values: Any, **names: sql.Composable) -> None:
    """Run a statement whose `{extension}` is where TimescaleDB's functions are."""
    extension = sql.Identifier(place.seen.timescaledb_schema or "public")
    composed = sql.SQL(query).format(extension=extension, **names)
    place.session.execute(composed, values or None)
