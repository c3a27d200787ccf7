"""Table `coverage`: what it claims is stored or declared, whatever dies and however far behind the
database is; and the functions that answer from it.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import uvloop

from engine.data.flags import CoverageEnd, CoverageMark, GapReason, GapState
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import COVERAGE, TRADE
from engine.data.layout import Layout
from engine.data.ring import RingProducer
from engine.data.segment import attach_segment
from engine.data.slots import Slots
from engine.messages.settings import RingSettings
from engine.writer.every_row import EveryRow
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sources.sources import Sources
from tests.engine.writer.conftest import DATABASE, START_NS, MakeSettings, MakeTrades

BEGAN, ENDED, ALIVE = CoverageMark.BEGAN, CoverageMark.ENDED, CoverageMark.ALIVE
Mark = tuple[int, int, int, int, int, int]


def marks(*found: Mark) -> RecordArray:
    """Records of (slot, mark, end, carrier, at, since)."""
    rows = np.zeros(len(found), COVERAGE.dtype)
    for row, each in zip(rows, found, strict=True):
        row["stream"], row["mark"], row["end"], row["carrier"], row["at"], row["since"] = each
    rows["ts_event"] = rows["ts_recv"] = START_NS
    return rows


class Bench:
    """A shard's rings with their producer, and the delivery behind them."""

    def __init__(self, layout: Layout, sink: PostgresSink, knobs: KnobTable) -> None:
        self.sources = Sources(layout, 1 << 20, DATABASE)
        self.sources.open(
            [RingSettings(f"shard-0.{spec.name}", spec.name, 1 << 12) for spec in (TRADE, COVERAGE)]
        )
        self._segments, self._producers = [], {}
        for spec in (TRADE, COVERAGE):
            path = layout.ring_path(f"shard-0.{spec.name}")
            self._segments.append(attach_segment(path, writable=True))
            memory = memoryview(self._segments[-1].memory)
            self._producers[spec.name] = RingProducer(memory, spec)
        self.sink = sink
        self.delivery = EveryRow(self.sources, sink, knobs)

    def put(self, rows: RecordArray, spec: Kind) -> None:
        producer = self._producers[spec.name]
        for view, start in zip(
            producer.views(producer.reserve(len(rows)), len(rows)), (0, 0), strict=False
        ):
            view[:] = rows[start : start + len(view)]
        producer.publish()

    def pump(self) -> None:
        for source in self.sources:
            source.pump()

    async def connect(self) -> None:
        await self.delivery._open()

    async def flush(self) -> None:
        """One transaction."""
        self.pump()
        await self.delivery._deliver(Batch(self.delivery._parts()), durable=False)

    async def flush_all(self) -> None:
        for _ in range(3):
            await self.flush()

    def close(self) -> None:
        for producer in self._producers.values():
            producer.close()
        for segment in self._segments:
            segment.close()
        self.sources.remove_all()


@pytest.fixture
def bench(
    layout: Layout, slots: Slots, make_settings: MakeSettings, database_url: str
) -> Iterator[Bench]:
    settings = make_settings(database_url=database_url, max_rows_per_copy=1000, flush_rows=1000)
    bench = Bench(layout, PostgresSink(settings, slots), KnobTable(settings))
    yield bench
    bench.close()


def query(url: str, text: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(text.encode(), values).fetchall()


INTERVALS = (
    'SELECT slot, carrier, started, coalesce(ended, -1), coalesce("end", 0) FROM coverage'
    " ORDER BY started, slot"
)


@pytest.mark.fault("N41")
@pytest.mark.parametrize("seed", range(4))
def test_a_claim_is_in_the_database_after_the_rows_it_speaks_of(
    bench: Bench, trades: MakeTrades, database_url: str, seed: int
) -> None:
    """Flushes are cut at 1000 rows, so claims must wait for rows of later ones."""
    chance = random.Random(seed)
    claimed: list[tuple[int, int]] = []
    """(claim, rows received before it)"""

    async def main() -> None:
        await bench.connect()
        bench.put(marks((0, BEGAN, 0, 1, 1, 0)), COVERAGE)
        received = 0
        for step in range(2, 40):
            count = chance.choice([0, 3, 400, 1500])
            if count and received < 12_000:
                bench.put(trades(count, first_id=received), TRADE)
                received += count
            bench.put(marks((0, ALIVE, 0, 1, step, 0)), COVERAGE)
            claimed.append((step, received))
            bench.pump()
            if chance.random() < 0.6:
                await bench.flush()
                check()
        while bench.delivery.backlog_rows:
            await bench.flush()
            check()
        await bench.flush_all()
        assert query(database_url, "SELECT heard FROM coverage_carrier") == [(39,)]
        await bench.sink.close()

    def check() -> None:
        ((stored, heard),) = query(
            database_url,
            "SELECT (SELECT count(*) FROM trade), (SELECT max(heard) FROM coverage_carrier)",
        )
        promised = max((rows for claim, rows in claimed if claim <= (heard or 0)), default=0)
        assert stored >= promised, f"{heard} is claimed, {promised - stored} rows are missing"

    uvloop.run(main())


@pytest.mark.fault("N41")
def test_what_died_ended_when_it_was_heard_last(bench: Bench, database_url: str) -> None:
    async def main() -> None:
        await bench.connect()
        bench.put(marks((0, BEGAN, 0, 1, 10, 0), (1, BEGAN, 0, 1, 11, 0), (0, ALIVE, 0, 1, 50, 0),
                        (1, ENDED, CoverageEnd.STOPPED, 1, 40, 0)), COVERAGE)  # fmt: skip
        await bench.flush_all()
        assert query(database_url, INTERVALS) == [(0, 1, 10, -1, 0), (1, 1, 11, 40, 1)]
        bench.put(marks((0, BEGAN, 0, 2, 90, 50)), COVERAGE)  # the next process, without an end
        await bench.flush_all()
        crash = int(CoverageEnd.CRASH)
        assert query(database_url, INTERVALS) == [
            (0, 1, 10, 50, crash), (1, 1, 11, 40, 1), (0, 2, 90, -1, 0),
        ]  # fmt: skip
        await bench.sink.close()

    uvloop.run(main())


@pytest.mark.fault("N41")
def test_one_flush_may_hold_many_lives_of_a_stream(bench: Bench, database_url: str) -> None:
    handover = CoverageEnd.HANDOVER

    async def main() -> None:
        await bench.connect()
        bench.put(
            marks(
                (0, BEGAN, 0, 1, 10, 0), (0, BEGAN, 0, 2, 20, 10), (0, ENDED, handover, 2, 25, 0),
                (0, BEGAN, 0, 3, 25, 25), (1, BEGAN, 0, 3, 26, 0), (0, ENDED, handover, 3, 20, 0),
                (77, BEGAN, 0, 3, 26, 0),
            ),
            COVERAGE,
        )  # fmt: skip
        await bench.flush_all()
        assert query(database_url, INTERVALS) == [
            (0, 1, 10, 10, CoverageEnd.CRASH), (0, 2, 20, 25, handover),
            (0, 3, 25, 25, handover), (1, 3, 26, -1, 0),
        ]  # fmt: skip
        await bench.sink.close()

    uvloop.run(main())


@pytest.mark.fault("N41")
def test_a_ring_that_is_no_more_leaves_nothing_open(
    bench: Bench, layout: Layout, database_url: str
) -> None:
    async def main() -> None:
        await bench.connect()
        bench.put(marks((0, BEGAN, 0, 1, 10, 0), (0, ALIVE, 0, 1, 30, 0)), COVERAGE)
        await bench.flush_all()
        with psycopg.connect(database_url) as connection:
            for table in ("coverage", "coverage_carrier"):
                connection.execute(f"UPDATE {table} SET epoch = epoch - 1".encode())
            other = ("INSERT INTO coverage (stream_id, slot, ring, epoch, carrier, started)"
                     " VALUES (1, 0, 'another/shard-0.coverage', 1, 1, 5)")  # fmt: skip
            connection.execute(other.encode())
        await bench.connect()
        found = query(database_url, INTERVALS)
        assert found == [(0, 1, 5, -1, 0), (0, 1, 10, 30, CoverageEnd.CRASH)]
        assert query(database_url, "SELECT count(*) FROM coverage_carrier") == [(0,)]
        await bench.sink.close()

    uvloop.run(main())


def test_marks_are_no_rows(bench: Bench, trades: MakeTrades) -> None:
    async def main() -> None:
        await bench.connect()
        bench.put(trades(5), TRADE)
        bench.put(marks((0, BEGAN, 0, 1, 10, 0), (0, ALIVE, 0, 1, 30, 0)), COVERAGE)
        bench.pump()
        assert bench.delivery.backlog_rows == 5
        await bench.flush_all()
        assert bench.delivery.rows == {"trade": 5}
        assert not bench.delivery.refused_rows
        await bench.sink.close()

    uvloop.run(main())


@pytest.mark.fault("N43")
@pytest.mark.parametrize(
    ("state", "missing", "from_seq", "shown"),
    [
        (GapState.OPEN, 3, 5, ("unrecoverable", 3, 5, 7)),
        (GapState.OPEN, -1, 0, ("unprovable", None, None, None)),
        (GapState.UNPROVABLE, -1, 0, ("unprovable", None, None, None)),
        (GapState.UNRECOVERABLE, -1, 5, ("unrecoverable", None, 5, 7)),
        (GapState.UNRECOVERABLE, 4, 0, ("unrecoverable", 4, None, None)),
        (GapState.REPAIRED, 0, 5, ("repaired", 0, 5, 7)),
    ],
)
def test_gaps_say_what_is_true_and_null_where_nobody_knows(
    database_url: str, state: GapState, missing: int, from_seq: int, shown: tuple[Any, ...]
) -> None:
    """Also those that an earlier version has written."""
    row = (1, GapReason.SEQUENCE, state, from_seq, from_seq + 2 if from_seq else 0, missing)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            b"INSERT INTO gap VALUES (now(), 0, 0, %s, %s, %s, %s, %s, 0, 0, %s)", row
        )
    found = query(database_url, "SELECT state, missing, from_seq, to_seq FROM gaps")
    assert found == [shown]


_ANSWERS = {"complete": "c", "missing": "m", "unprovable": "u", "not collected": "-"}


@pytest.mark.fault("N41")
@pytest.mark.parametrize("seed", range(30))
def test_completeness_agrees_with_a_count_second_by_second(database_url: str, seed: int) -> None:
    chance, seconds = random.Random(seed), 60
    truth = ["-"] * seconds
    with psycopg.connect(database_url) as connection:
        connection.execute(
            b"INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals,"
            b" qty_decimals, price_unit, qty_unit, status)"
            b" VALUES ('acme', 'S', 1, '', '', 0, 0, 1, 1, 'on')"
        )
        connection.execute(b"INSERT INTO stream VALUES (1, 1, 'Trades', 'Ws')")
        at, heard_until = chance.randint(0, 5), 0
        while at < seconds - 3:
            until = chance.randint(at + 1, min(at + 20, seconds))
            since = heard_until if heard_until and chance.random() < 0.7 else None
            insert = "INSERT INTO coverage VALUES (1, 0, 'r', 1, %s, %s, %s, %s, %s)"
            is_open = chance.random() < 0.3
            values = (at, _ns(at), None if is_open else _ns(until), None if is_open else 1,
                      None if since is None else _ns(since))  # fmt: skip
            connection.execute(insert.encode(), values)
            if is_open:
                heard = "INSERT INTO coverage_carrier VALUES ('r', 1, %s, %s)"
                connection.execute(heard.encode(), (at, _ns(until)))
            begin = at if since is None else since
            truth[begin:until] = "c" * (until - begin)
            heard_until, at = until, until + chance.randint(0, 8)
        for _ in range(chance.randint(0, 4)):
            begin = chance.randint(0, seconds - 2)
            end = chance.randint(begin, min(begin + 9, seconds - 2))
            reason, state = chance.choice(
                [(GapReason.SEQUENCE, GapState.UNRECOVERABLE),
                 (GapReason.STOPPED, GapState.UNRECOVERABLE),
                 (GapReason.RECONNECT, GapState.UNPROVABLE)]
            )  # fmt: skip
            gap = "INSERT INTO gap VALUES (now(), 0, 0, 1, %s, %s, 0, 0, %s, %s, -1)"
            connection.execute(gap.encode(), (reason, state, _ns(begin), _ns(end)))
            for second in range(begin, end + 1):
                truth[second] = "x"
    rows = query(
        database_url,
        "SELECT answer, extract(epoch FROM from_time - t)::float, extract(epoch FROM to_time - t)"
        "::float FROM (SELECT ns_time(%s) AS t) AS s, completeness('acme', 'S', 'Trades', t,"
        " t + interval '1 minute')",
        _ns(0),
    )
    told = [set[str]() for _ in range(seconds)]
    for answer, begin, end in rows:
        for second in range(seconds):
            if (
                begin < second + 1
                and end > second
                and min(end, second + 1) - max(begin, second) > 1e-3
            ):
                told[second].add(_ANSWERS[answer])
    for second in range(seconds):
        if truth[second] == "x":  # the gap's last second has only its beginning in the gap
            assert told[second], second
        else:
            assert told[second] == {truth[second]}, (second, rows)
    assert sum(end - begin for _, begin, end in rows) >= seconds - 1e-3


def _ns(second: int) -> int:
    return START_NS + second * 1_000_000_000


def test_a_state_directory_of_the_version_before_starts_up(
    layout: Layout, trades: MakeTrades, tmp_path: Path
) -> None:
    """It has rings, but none of coverage: that appears, and the others are as they were."""
    del tmp_path
    before = Sources(layout, 1 << 20, DATABASE)
    before.open([RingSettings("shard-0.trade", "trade", 1 << 12)])
    segment = attach_segment(layout.ring_path("shard-0.trade"), writable=True)
    producer = RingProducer(memoryview(segment.memory), TRADE)
    producer.views(producer.reserve(7), 7)[0][:] = trades(7)
    producer.publish()
    producer.close()
    for source in before:
        source.close()
    after = Sources(layout, 1 << 20, DATABASE)
    wanted = [RingSettings(f"shard-0.{kind}", kind, 1 << 12) for kind in ("trade", "coverage")]
    after.open(wanted)
    assert {source.name: source.head_seq for source in after} == {
        "shard-0.trade": 7, "shard-0.coverage": 0,
    }  # fmt: skip
    for source in after:
        source.close()
    segment.close()


def test_the_functions_work_whatever_the_search_path_of_who_asks(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(b"SET search_path = pg_catalog")
        for call in (
            "completeness('a', 'b', 'Trades', now() - interval '1 s', now())",
            "book_at('a', 'b', now())",
        ):
            connection.execute(f"SELECT * FROM public.{call}".encode())
        found = connection.execute(
            b"SELECT answer FROM public.completeness('a', 'b', 'Trades', now() - '1 s'::interval,"
            b" now())"
        )
        assert found.fetchall() == [("not collected",)]
