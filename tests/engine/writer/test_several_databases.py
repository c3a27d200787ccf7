"""Several databases behind one set of rings: each row in the one its rule names, exactly once,
whatever is away, dies, or is routed anew meanwhile.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

import numpy as np
import pytest
import uvloop

from engine.base.errors import ConfigError
from engine.data.flags import CoverageEnd, CoverageMark, GapReason, GapState
from engine.data.kind import RecordArray
from engine.data.kinds import COVERAGE, GAP, TRADE
from engine.data.layout import Layout
from engine.data.ring import RingProducer
from engine.data.routes import Route
from engine.data.segment import attach_segment
from engine.data.slots import Slots
from engine.messages.settings import DatabaseSettings, RingSettings, WriterSettings
from engine.messages.streams import Knobs
from engine.writer.deliveries import Deliveries
from engine.writer.every_row import EveryRow
from engine.writer.sources.sources import Sources
from tests.engine.writer.conftest import START_NS, MakeSettings, MakeTrades
from tests.stores import execute, select
from tests.waiting import until

OTHER = "databases.b"
SPECS = (TRADE, GAP, COVERAGE)
S1_TO_B = [Route(OTHER, symbol="S1")]
S2_TO_B = [Route(OTHER, symbol="S2")]
NO_SERVER = "postgresql://nobody@127.0.0.1:1/nothing"
SYMBOL_OF = "SELECT i.symbol FROM stream s JOIN instrument i USING (instrument_id)"


class Life:
    """A writer from its birth to its end, on the rings that are there."""

    def __init__(self, settings: WriterSettings) -> None:
        layout = settings.paths.layout()
        self.deliveries = Deliveries(settings)
        self.sources = Sources(layout, 1 << 20, self.deliveries.readers)
        self.sources.open([RingSettings(f"shard-0.{s.name}", s.name, 1 << 14) for s in SPECS])
        self._segments = {
            spec.name: attach_segment(layout.ring_path(f"shard-0.{spec.name}"), writable=True)
            for spec in SPECS
        }
        self._rings = {
            spec.name: RingProducer(memoryview(self._segments[spec.name].memory), spec)
            for spec in SPECS
        }
        self.deliveries.attach(self.sources)
        self.default, self.other = self.deliveries.every_row

    def put(self, rows: RecordArray) -> None:
        """Receive rows; their layout tells the kind."""
        (kind,) = (spec.name for spec in SPECS if spec.dtype == rows.dtype)
        producer, start = self._rings[kind], 0
        for view in producer.views(producer.reserve(len(rows)), len(rows)):
            view[:] = rows[start : start + len(view)]
            start += len(view)
        producer.publish()
        for source in self.sources:
            source.pump()

    def run(self, body: Callable[[], Awaitable[None]]) -> None:
        """Deliver while `body` runs; then everything is dropped where it is, as by a SIGKILL."""

        async def main() -> None:
            tasks = [asyncio.create_task(each.run()) for each in self.deliveries]
            try:
                async with asyncio.timeout(30):
                    await body()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for each in self.deliveries:
                    await each.sink.close()

        uvloop.run(main())

    def close(self) -> None:
        """Rings and journal stay."""
        for producer in self._rings.values():
            producer.close()
        for segment in self._segments.values():
            segment.close()
        for source in self.sources:
            source.close()


Begin = Callable[..., Life]


@pytest.fixture
def begin(
    slots: Slots, make_settings: MakeSettings, database_url: str, other_database_url: str
) -> Iterator[Begin]:
    """`begin(routes)`: the next life."""
    del slots
    lives: list[Life] = []

    def make(routes: Sequence[Route], other_url: str = other_database_url, **more: object) -> Life:
        settings = make_settings(
            database_url=database_url, routes=list(routes), flush_interval_s=0.002,
            databases=[DatabaseSettings(OTHER, other_url, flush_interval_s=0.002)], **more,
        )  # fmt: skip
        if lives:
            lives[-1].close()
        lives.append(Life(settings))
        return lives[-1]

    yield make
    lives[-1].close()


def ids(url: str) -> Counter[int]:
    return Counter(number for (number,) in select(url, "SELECT trade_id FROM trade"))


def delivered(*deliveries: EveryRow) -> Callable[[], Awaitable[None]]:
    async def body() -> None:
        await until(lambda: all(each.backlog_rows == 0 for each in deliveries))

    return body


def account(delivery: EveryRow) -> tuple[int, Counter[str]]:
    """Rows that came, and what became of them in one database."""
    sums: Counter[str] = Counter()
    for name in ("rows", "withheld_rows", "refused_rows", "missed_rows", "elsewhere_rows"):
        sums[name] = getattr(delivery, name)["trade"]
    sums["waiting"] = sum(
        source.backlog(delivery.sink.name) for source in delivery._sources if source.spec is TRADE
    )
    received = sum(source.head_seq for source in delivery._sources if source.spec is TRADE)
    return received, sums


def gap(slot: int, number: int) -> RecordArray:
    rows = np.zeros(1, GAP.dtype)
    rows["stream"], rows["reason"], rows["state"] = slot, GapReason.SEQUENCE, GapState.OPEN
    rows["ts_event"] = rows["ts_recv"] = START_NS + number
    rows["from_ts"], rows["to_ts"], rows["missing"] = START_NS, START_NS + 1, 1
    return rows


def mark(slot: int, what: CoverageMark, at: int, end: int = 0) -> RecordArray:
    rows = np.zeros(1, COVERAGE.dtype)
    rows["stream"], rows["mark"], rows["carrier"], rows["at"] = slot, what, 5, START_NS + at
    rows["end"] = end
    rows["ts_event"] = rows["ts_recv"] = START_NS
    return rows


def test_each_database_gets_its_own_rows_gaps_and_coverage_alone(
    begin: Begin, trades: MakeTrades, database_url: str, other_database_url: str
) -> None:
    life = begin(S1_TO_B)
    for slot in (0, 1):
        life.put(mark(slot, CoverageMark.BEGAN, 1))
        life.put(gap(slot, slot))
    life.put(mark(0, CoverageMark.ALIVE, 9))  # what it is about is the carrier
    life.put(trades(4000))
    life.run(delivered(life.default, life.other))
    assert ids(database_url) == Counter(n for n in range(4000) if n % 4 != 1)
    assert ids(other_database_url) == Counter(n for n in range(4000) if n % 4 == 1)
    for url, symbols in ((database_url, ["S0"]), (other_database_url, ["S1"])):
        for table in ("gap", "coverage"):
            found = select(url, f"{SYMBOL_OF} JOIN {table} USING (stream_id)")
            assert found == [(symbol,) for symbol in symbols], table
        heard = select(url, "SELECT heard FROM coverage_carrier")
        assert heard == [(START_NS + 9,)]
    assert select(other_database_url, SYMBOL_OF) == [("S1",)], "no stream of others is registered"
    assert select(other_database_url, "SELECT count(*) FROM ring_loss") == [(0,)]
    for each, elsewhere in ((life.default, 1000), (life.other, 3000)):
        received, became = account(each)
        assert became.total() == received == 4000
        assert became["elsewhere_rows"] == elsewhere


def test_one_that_is_away_holds_up_nobody_and_gets_everything_later(
    begin: Begin, trades: MakeTrades, database_url: str, other_database_url: str
) -> None:
    life = begin(S1_TO_B, NO_SERVER)
    life.put(trades(4000))
    life.run(delivered(life.default))
    assert life.other.status.state == "down"
    assert life.default.status.state == "up"
    assert account(life.other)[1] == Counter(waiting=4000)
    assert ids(database_url).total() == 3000
    life = begin(S1_TO_B)
    life.run(delivered(life.default, life.other))
    assert ids(database_url) == Counter(n for n in range(4000) if n % 4 != 1)
    assert ids(other_database_url) == Counter(n for n in range(4000) if n % 4 == 1)


def test_what_a_knob_withholds_is_declared_in_its_own_database_alone(
    begin: Begin, trades: MakeTrades, database_url: str, other_database_url: str
) -> None:
    life = begin(
        S1_TO_B, knobs={0: Knobs(db_writes_enabled=False), 1: Knobs(db_writes_enabled=False)}
    )
    life.put(trades(400))
    life.run(delivered(life.default, life.other))
    declared = "SELECT symbol, missing FROM gaps"
    assert select(database_url, declared) == [("S0", 100)]
    assert select(other_database_url, declared) == [("S1", 100)]
    assert life.default.withheld_rows["trade"] == life.other.withheld_rows["trade"] == 100


def test_what_is_refused_is_kept_apart(
    begin: Begin, trades: MakeTrades, layout: Layout, other_database_url: str
) -> None:
    execute(other_database_url, "ALTER TABLE trade ADD CHECK (trade_id <> 5)")
    life = begin(S1_TO_B)
    life.put(trades(400))
    life.run(delivered(life.default, life.other))
    assert life.other.refused_rows == Counter(trade=1)
    assert life.default.refused_rows.total() == 0
    assert [path.parent.name for path in layout.quarantine_dir.rglob("*.jsonl")] == ["b"]


def test_a_database_that_is_new_owes_nothing_of_before(
    begin: Begin, trades: MakeTrades, database_url: str, other_database_url: str
) -> None:
    life = begin([])
    life.put(trades(2000))
    life.run(delivered(life.default))
    life = begin(S1_TO_B)
    life.put(trades(2000, first_id=2000))
    life.run(delivered(life.default, life.other))
    assert ids(other_database_url) == Counter(n for n in range(2000, 4000) if n % 4 == 1)
    assert ids(database_url) == Counter(n for n in range(4000) if n < 2000 or n % 4 != 1)
    assert select(other_database_url, "SELECT count(*) FROM gap") == [(0,)]
    assert select(other_database_url, "SELECT count(*) FROM ring_loss") == [(0,)]


def test_a_stream_that_is_given_away_while_it_runs_is_cut_between_two_rows(
    begin: Begin, trades: MakeTrades, database_url: str, other_database_url: str
) -> None:
    life = begin(S1_TO_B)
    life.put(mark(0, CoverageMark.BEGAN, 1))
    life.put(mark(0, CoverageMark.ALIVE, 7))

    async def body() -> None:
        number = 0
        for choice in (None, OTHER, None, "database", OTHER):
            life.deliveries.set_knobs({} if choice is None else {0: Knobs(database=choice)})
            if choice == OTHER and not number % 2000:
                life.put(mark(0, CoverageMark.BEGAN, 8 + number))
            life.put(trades(1000, first_id=number))
            number += 1000
            await asyncio.sleep(0.002)
        await delivered(life.default, life.other)()

    life.run(body)
    there = {n for n in range(5000) if n % 4 == 1 or (n % 4 == 0 and n // 1000 in (1, 4))}
    assert ids(other_database_url) == Counter(there)
    assert ids(database_url) == Counter(set(range(5000)) - there)
    interval = 'SELECT slot, started, ended, "end" FROM coverage'
    crash = CoverageEnd.CRASH.value
    assert select(database_url, interval) == [(0, START_NS + 1, START_NS + 7, crash)]
    assert select(other_database_url, interval) == [(0, START_NS + 4008, None, None)]


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_once_where_its_rule_was_whatever_dies_and_changes(
    begin: Begin, trades: MakeTrades, database_url: str, other_database_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    wanted: dict[bool, Counter[int]] = {False: Counter(), True: Counter()}
    covered: dict[bool, Counter[int]] = {False: Counter(), True: Counter()}
    number = 0
    for last in [False] * 7 + [True]:
        routes = chance.choice([[], S1_TO_B, S2_TO_B, [*S1_TO_B, *S2_TO_B]])
        routed = {int(str(route.symbol)[1:]) for route in routes}
        is_away = chance.random() < 0.4
        life = begin(routes, **({"other_url": NO_SERVER} if is_away else {}))
        life.put(np.concatenate([mark(slot, CoverageMark.BEGAN, number) for slot in range(4)]))
        put = [chance.randrange(1, 400) for _ in range(4)]

        async def body(life: Life = life, put: list[int] = put) -> None:
            nonlocal number
            for count in put:
                life.put(trades(count, first_id=number))
                number += count
                await asyncio.sleep(chance.uniform(0, 0.01))

        first = number
        life.run(body)
        ends = [mark(slot, CoverageMark.ENDED, number, CoverageEnd.STOPPED) for slot in range(4)]
        if last or chance.random() < 0.5:  # else it dies without a word
            life.put(np.concatenate(ends))
        for each in range(first, number):
            wanted[each % 4 in routed][each] += 1
        for slot in range(4):
            covered[slot in routed][slot] += 1
    life = begin([])
    life.put(mark(0, CoverageMark.ALIVE, number))
    life.run(delivered(life.default, life.other))
    assert ids(database_url) == wanted[False]
    assert ids(other_database_url) == wanted[True]
    for url, is_other in ((database_url, False), (other_database_url, True)):
        found = select(
            url, 'SELECT slot, count(*) FROM coverage WHERE "end" IS NOT NULL GROUP BY 1'
        )
        assert dict(found) == covered[is_other], "stopped in the one, begun in the other"
        assert select(url, "SELECT count(*) FROM gap") == [(0,)]
    for delivery in (life.default, life.other):
        assert delivery.missed_rows.total() == 0


def test_a_database_is_not_taken_away_while_rows_may_wait_for_it(
    begin: Begin, trades: MakeTrades, make_settings: MakeSettings, database_url: str
) -> None:
    life = begin(S1_TO_B, NO_SERVER)
    life.put(trades(40))
    life.run(delivered(life.default))
    alone = Deliveries(make_settings(database_url=database_url))
    layout = make_settings().paths.layout()
    sources = Sources(layout, 1 << 20, alone.readers)
    sources.open([])
    with pytest.raises(ConfigError, match=r"databases\.b is not configured"):
        alone.attach(sources)
    for source in sources:
        source.close()
