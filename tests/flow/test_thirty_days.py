"""Thirty days go by in seconds: whatever is interrupted, each row is in the database or the lake.

The time is moved, nothing waits. Rows go through the writer's own sink, days through the
upkeep's own tasks, whose sessions are ended, whose server is killed and whose disk is full at
instants of a fixed seed.
Without FTS_TEST_TIMESCALE_DSN no hypertable is looked after.
"""

import asyncio
import errno
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg
import pyarrow.dataset as pads
import pytest
from psycopg import sql

from engine.base.clock import DAY_NS
from engine.base.errors import EngineError
from engine.data.kind import RecordArray
from engine.data.kinds import KINDS
from engine.data.layout import Layout, SourceKey
from engine.data.slots import Slots
from engine.database.layout import read_layout
from engine.database.session import IMPORT, UPKEEP, DatabaseSession, session
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.messages.upkeep import DatabaseReport, DatabaseUpkeep, age_ns
from engine.servers.postgres import PrivatePostgres
from engine.upkeep.lake.importing import import_lake
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.verify import check
from engine.upkeep.task import Place, Task
from engine.upkeep.tasks import TASKS
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.conftest import Databases
from tests.flow.days_market import (
    DAYS,
    FIRST_DAY,
    HOUR_NS,
    TABLES,
    Market,
    Row,
    bars,
    day_of,
    select_rows,
)
from tests.stores import execute, select

SEED: Final = 11
HOURS: Final = (0, 15)
"""Of each day, in which rows come; after each of them the upkeep has its turn."""
KEEP: Final = {"book": "7d", "trade": "20d"}
KEEP_BY_VENUE: Final = {"zeta": {"trade": "3d", "quote": "5d"}}
LATE_DAY: Final = 3
"""Its books are dropped on day 11; some more come on day 12."""
END_NS: Final = (FIRST_DAY + DAYS - 1) * DAY_NS + (HOURS[-1] + 1) * HOUR_NS
"""The last moment that the upkeep sees."""
TRIES: Final = 12
EMPTY_DAY_BYTES: Final = 12 * 8192
"""At most: the first pages of its indexes, its maps of pages, and what is left free of others."""
CLOSED_BYTES_A_ROW: Final = {
    "trade": 149, "book": 149, "quote": 159, "funding": 159, "open_interest": 126,
    "liquidation": 154,
}  # fmt: skip
"""With both indexes, as measured with a thousand times the rows."""
Act = Callable[[DatabaseSession], None]


class Writer:
    """A sink, and sources that have kept all their rows: what a crash takes is given again."""

    def __init__(self, layout: Layout, slots: Slots, url: str) -> None:
        paths, log = Paths.of(layout), LogSettings("")
        settings = WriterSettings(paths, [], -1, log, database_url=url, bars=True)
        self._sink = PostgresSink(settings, slots)
        self._runner = asyncio.Runner()
        self._rows = {table: np.zeros(0, KINDS[table].dtype) for table in TABLES}
        self._is_open = False

    def store(self, new: dict[str, list[RecordArray]]) -> None:
        """Everything up to these is stored when it returns."""
        for table, rows in new.items():
            self._rows[table] = np.concatenate([self._rows[table], *rows])
        self._runner.run(self._store())

    async def _store(self) -> None:
        for _ in range(TRIES):
            try:
                if not self._is_open:
                    await self._sink.open({})
                    self._is_open = True
                keys = {SourceKey(f"shard-0.{table}", 1): table for table in TABLES}
                found = await self._sink.cursors(dict.fromkeys(keys, 0))
                starts = {table: found[key].seq or 0 for key, table in keys.items()}
                parts = [
                    Slice.whole(key, KINDS[t], starts[t], self._rows[t][starts[t] :])
                    for key, t in keys.items()
                ]
                taken = await self._sink.take(Batch(parts), durable=False)
            except EngineError as error:
                assert error.retriable, error
                self._is_open = False
                continue
            assert (taken.inexact_rows, taken.refused) == (0, Counter())
            return
        raise AssertionError(f"{TRIES} sessions in a row failed")

    def close(self) -> None:
        self._runner.run(self._sink.close())
        self._runner.close()


class Keeper:
    """The upkeep's tasks with the time in the test's hand. An error ends a session, as in `Care`;
    here the next one comes at once.
    """

    def __init__(self, settings: DatabaseUpkeep) -> None:
        self.settings = settings
        self._tasks: Sequence[Task] = ()
        self.statements = 100
        """That the last undisturbed turn took."""
        self.errors: list[str] = []
        self.be_born()

    def be_born(self) -> None:
        """A new process: what the old one remembered is gone."""
        self._tasks = [make() for make in TASKS]

    def turn(self, now_ns: int, act: Act | None = None, at: int = 0) -> None:
        """All tasks once; before statement `at` something happens to their session."""
        left, began = list(self._tasks), len(self.errors)
        count = [0]
        for _ in range(TRIES):
            try:
                with session(self.settings.url, UPKEEP) as opened:
                    _count_statements(opened, count, act if len(self.errors) == began else None, at)
                    report = DatabaseReport("database")
                    place = Place(
                        opened, read_layout(opened), self.settings, report, lambda: None,
                        lambda: now_ns,
                    )  # fmt: skip
                    while left:
                        left[0].run(place)
                        left.pop(0)
            except (psycopg.Error, EngineError, OSError) as error:
                self.errors.append(f"{left[0].name}: {type(error).__name__}: {error}")
                continue
            if act is None:
                self.statements = count[0]
            return
        raise AssertionError(self.errors[began:])


def _count_statements(opened: DatabaseSession, count: list[int], act: Act | None, at: int) -> None:
    execute_really = opened.execute

    def execute_counted(*arguments: Any, **options: Any) -> Any:
        count[0] += 1
        if act is not None and count[0] == at:
            act(opened)
        return execute_really(*arguments, **options)

    vars(opened)["execute"] = execute_counted


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, left: int) -> Iterator[list[str]]:
    """Where the lake is, there is room for so many manifests, then for none, and then again. The
    files of a manifest are written before it.
    """
    put, room, refused = LakePlace.put, iter([True] * left + [False]), list[str]()

    def put_where_there_is_room(place: LakePlace, name: str, body: bytes) -> None:
        if not next(room, True):
            refused.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        put(place, name, body)

    with monkeypatch.context() as patch:
        patch.setattr(LakePlace, "put", put_where_there_is_room)
        yield refused


class Rig:
    """One database through thirty days; on hypertables the server is not the test's to kill."""

    def __init__(
        self, url: str, layout: Layout, lake: Path, server: PrivatePostgres | None = None
    ) -> None:
        slots = Slots(layout.slots)
        self.url, self.lake, self.server = url, lake, server
        self.is_hyper = server is None
        self.market = Market(slots, SEED)
        self.writer = Writer(layout, slots, url)
        self.keeper = Keeper(
            DatabaseUpkeep(
                "database", url, keep=KEEP, keep_by_venue=KEEP_BY_VENUE, bars=True,
                archive="parquet", archive_to=str(lake),
            )
        )  # fmt: skip
        self.ended = self.killed = self.refused = 0
        """Sessions, servers, files."""

    def hour(self, day: int, hour: int) -> int:
        """What is stored in it; returned is its end."""
        start_ns = (FIRST_DAY + day) * DAY_NS + hour * HOUR_NS
        rows = {table: [self.market.hour(table, start_ns)] for table in TABLES}
        if hour == HOURS[1] and day:  # as a shard that was cut off would have it
            rows["trade"].append(self.market.hour("trade", start_ns - DAY_NS, 9))
        if (day, hour) == (12, HOURS[0]):
            ago_ns = (12 - LATE_DAY) * DAY_NS
            rows["book"].append(self.market.hour("book", start_ns - ago_ns, 30))
        self.writer.store(rows)
        return start_ns + HOUR_NS

    def end_session(self, opened: DatabaseSession) -> None:
        """Another one sees it dead when this returns; itself does not know it yet."""
        self.ended += 1
        select(self.url, "SELECT pg_terminate_backend(%s, 10000)", [opened.info.backend_pid])

    def kill_server(self, _: DatabaseSession) -> None:
        """SIGKILL, and what was written and not made durable is gone."""
        assert self.server is not None
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()
        self.server.start()
        self.killed += 1

    def let_workers_work(self, now_ns: int) -> None:
        """What TimescaleDB's own workers, who know no other clock than theirs, would do by then."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for chunk in connection.execute(_TO_COMPRESS, (now_ns // 1000,)).fetchall():
                connection.execute(f"CALL convert_to_columnstore('{chunk[0]}')".encode())
            refreshes = connection.execute(_TO_REFRESH, (now_ns // 1000,)).fetchall()
            for name, since_us, buckets in refreshes:
                connection.execute(
                    sql.SQL(
                        "CALL refresh_continuous_aggregate({}::regclass,"
                        " timestamptz 'epoch' + {} * interval '1 microsecond',"
                        " timestamptz 'epoch' + {} * interval '1 microsecond',"
                        " options => jsonb_build_object('buckets_per_batch', {}::int))"
                    ).format(
                        sql.Literal(name), sql.Literal(since_us),
                        sql.Literal(now_ns // 1000 - 60_000_000), sql.Literal(buckets),
                    )
                )  # fmt: skip


_TO_COMPRESS: Final = """
    SELECT format('%%I.%%I', c.chunk_schema, c.chunk_name)
    FROM timescaledb_information.jobs AS j
    JOIN timescaledb_information.chunks AS c USING (hypertable_schema, hypertable_name)
    WHERE j.proc_name = 'policy_compression' AND NOT c.is_compressed
        AND c.hypertable_schema = current_schema()
        AND c.range_end <= timestamptz 'epoch' + %s * interval '1 microsecond'
            - (j.config ->> 'compress_after')::interval
    ORDER BY c.range_end
"""
_TO_REFRESH: Final = """
    SELECT c.view_name, (extract(epoch FROM timestamptz 'epoch' + %s * interval '1 microsecond'
        - (j.config ->> 'start_offset')::interval) * 1000000)::int8,
        j.config ->> 'buckets_per_batch'
    FROM timescaledb_information.jobs AS j
    JOIN timescaledb_information.continuous_aggregates AS c
        ON j.hypertable_name IN (c.view_name, c.materialization_hypertable_name)
    WHERE j.proc_name = 'policy_refresh_continuous_aggregate' ORDER BY c.view_name DESC
"""


def go_through(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty days, two hours of each. One turn of the upkeep in four is interrupted."""
    chance = random.Random(SEED)
    rig.keeper.turn(FIRST_DAY * DAY_NS)
    kills = {(8, HOURS[0]), (21, HOURS[0])} if rig.server is not None else set()
    for day in range(DAYS):
        for hour in HOURS:
            now_ns = rig.hour(day, hour)
            if rig.is_hyper:
                rig.let_workers_work(now_ns)
            at = 1 + int(chance.random() * rig.keeper.statements)
            what = chance.choice(("session", "disk", "", "", "", "", "", ""))
            if (day, hour) in kills:
                rig.keeper.turn(now_ns, rig.kill_server, 1 + at // 2)
                rig.keeper.be_born()
            elif what == "session" or (hour == HOURS[0] and day % 4 == 3):
                rig.keeper.turn(now_ns, rig.end_session, at)
            elif what == "disk" or (hour == HOURS[0] and day % 5 == 1):
                with full_disk(monkeypatch, chance.randrange(3)) as refused:
                    rig.keeper.turn(now_ns)
                rig.refused += len(refused)
            else:
                rig.keeper.turn(now_ns)
    rig.keeper.be_born()
    for _ in range(2):
        if rig.is_hyper:
            rig.let_workers_work(END_NS)
        rig.keeper.turn(END_NS)
    rig.writer.close()


def is_kept(table: str, row: Row) -> bool:
    """What retention leaves in the database at the end."""
    venue, _, time_ns, *_ = row
    ages = [KEEP.get(table), KEEP_BY_VENUE.get(venue, {}).get(table)]
    end_of_day_ns = (time_ns // DAY_NS + 1) * DAY_NS
    return all(age is None or end_of_day_ns > END_NS - age_ns(age) for age in ages)


def stored(url: str, table: str) -> Counter[Row]:
    return Counter(select(url, select_rows(table)))


def assert_all_is_somewhere_once(rig: Rig, other_url: str) -> None:
    """The database has exactly what it keeps; the lake whole days, and all that is dropped. Read
    back, both are what was sent.
    """
    assert list(check(LakePlace(str(rig.lake)))) == []
    with session(other_url, IMPORT) as connection:
        list(import_lake(connection, LakePlace(str(rig.lake))))
    for table in TABLES:
        sent = Counter(rig.market.sent[table])
        assert max(sent.values()) == 1
        kept = Counter(row for row in sent if is_kept(table, row))
        in_lake = stored(other_url, table)
        assert stored(rig.url, table) == kept, table
        assert set(in_lake.values()) <= {1}
        assert sent.keys() - kept.keys() <= in_lake.keys() <= sent.keys(), table
        if table in KEEP:
            gone = {day_of(row[2]) for row in sent.keys() - kept.keys()}
            assert in_lake.keys() == {row for row in sent if day_of(row[2]) in gone}
            assert len(gone) == DAYS - 1 - {"book": 7, "trade": 3}[table]
            files = pads.dataset(rig.lake / f"kind={table}", partitioning="hive")
            assert files.count_rows() == len(in_lake)


def assert_bars(rig: Rig) -> None:
    """Of all thirty days, though trades of nine are dropped and a venue's of more."""
    for name, width_ns in (("bar_1s", 1_000_000_000), ("bar_1m", 60_000_000_000)):
        found = select(
            rig.url,
            "SELECT i.venue, i.symbol, (extract(epoch FROM b.time) * 1000000000)::int8, b.open,"
            " b.high, b.low, b.close, b.volume::int8, b.quote_volume::int8, b.buy_volume::int8,"
            f" b.trade_count FROM {name}_now AS b JOIN stream AS s USING (stream_id)"
            " JOIN instrument AS i USING (instrument_id)",
        )
        assert Counter(found) == bars(rig.market.sent["trade"], width_ns), name


def assert_nothing_is_left_over(rig: Rig) -> None:
    """No file half written, no table aside, no mark, no index that is not valid."""
    assert [path for path in rig.lake.rglob("*") if path.name.endswith(".tmp")] == []
    for leftovers in (
        "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid",
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhdetachpending",
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition"
        " AND relname ~ '_p[0-9]{8}$'",
        "SELECT minute FROM bar_todo UNION SELECT hour FROM bar_fill",
    ):
        assert select(rig.url, leftovers) == [], leftovers


def assert_days(rig: Rig) -> None:
    """Those that are kept, closed ones with their index, in as many bytes as are predicted."""
    tables = [table for table in TABLES if table != "gap"]
    found = select(rig.url, _PARTITIONS, [tables])
    ahead = range(DAYS, DAYS + 2)
    for table in tables:
        days = {int(day): (has, size) for name, day, has, size in found if name == table}
        first = DAYS - 1 - int(KEEP[table][:-1]) if table in KEEP else 0
        assert sorted(days) == [*range(first, DAYS), *ahead], table
        closed = range(first, DAYS - 1)
        assert [day for day in closed if not days[day][0]] == [], table
        rows = sum(day_of(row[2]) in closed for row in rig.market.sent[table])
        spent, predicted = sum(days[d][1] for d in closed), rows * CLOSED_BYTES_A_ROW[table]
        most = 1.2 * predicted + len(closed) * EMPTY_DAY_BYTES
        assert 0.8 * predicted < spent < most, table


def assert_chunks(rig: Rig) -> None:
    """Those that are kept, in columns and in order where they are over."""
    for table in TABLES:
        chunks = select(rig.url, _CHUNKS, (table,))
        first = DAYS - 1 - int(KEEP[table][:-1]) if table in KEEP else 0
        hours = {row[2] // HOUR_NS for row in rig.market.sent[table] if day_of(row[2]) >= first}
        by_day = table not in ("trade", "book", "quote")
        units = {hour // 24 for hour in hours} if by_day else hours
        assert len(chunks) == (len(units) if table != "gap" else 0), table
        over_ns = END_NS - (DAY_NS if by_day else 2 * HOUR_NS)
        assert [c for c in chunks if (c[1] == ["COMPRESSED"]) != (c[0] <= over_ns)] == [], table


_PARTITIONS: Final = f"""
    SELECT p.relname, to_date(right(c.relname, 8), 'YYYYMMDD') - date '1970-01-01' - {FIRST_DAY},
        EXISTS (
            SELECT FROM pg_index AS x WHERE x.indrelid = c.oid AND x.indisvalid
                AND pg_get_indexdef(x.indexrelid) LIKE '%%(stream_id, "time")'),
        pg_total_relation_size(c.oid)::int8
    FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhparent
    JOIN pg_class AS c ON c.oid = i.inhrelid WHERE p.relkind = 'p' AND p.relname = ANY (%s)
"""
_CHUNKS: Final = """
    SELECT (extract(epoch FROM c.range_end) * 1000000000)::int8,
        _timescaledb_functions.chunk_status_text(
            format('%%I.%%I', c.chunk_schema, c.chunk_name)::regclass)
    FROM timescaledb_information.chunks AS c WHERE c.hypertable_name = %s
"""


def assert_it_held(rig: Rig, other_url: str) -> None:
    assert_all_is_somewhere_once(rig, other_url)
    assert_bars(rig)
    assert_nothing_is_left_over(rig)
    (assert_chunks if rig.is_hyper else assert_days)(rig)
    assert rig.ended > 3
    assert rig.refused > 2


@pytest.mark.timeout(600)
class TestThirtyDays:
    """Both layouts."""

    def test_on_partitions(
        self,
        postgres: PrivatePostgres,
        database_url: str,
        other_database_url: str,
        layout: Layout,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        rig = Rig(database_url, layout, tmp_path / "lake", postgres)
        go_through(rig, monkeypatch)
        assert_it_held(rig, other_database_url)
        assert rig.killed == 2

    def test_on_hypertables(
        self,
        timescale: Databases | None,
        request: pytest.FixtureRequest,
        layout: Layout,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if timescale is None:
            pytest.skip("FTS_TEST_TIMESCALE_DSN names no server with TimescaleDB")
        url = request.getfixturevalue("database_url")
        execute(url, "SELECT _timescaledb_functions.stop_background_workers()")
        rig = Rig(url, layout, tmp_path / "lake")
        go_through(rig, monkeypatch)
        assert_it_held(rig, request.getfixturevalue("other_database_url"))
