"""Rows from the future: our clock is wrong, or a venue's, and only the latter is held against them.

The wall clock of the writer is set by the tests; what the venues say stays as it is.
"""

from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from engine.base.clock import wall_ns
from engine.data.instrument import Instrument
from engine.data.kind import RecordArray
from engine.data.kinds import FUNDING, GAP, TRADE
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.writer.every_row import EveryRow
from engine.writer.rows.clock_doubt import ClockDoubt
from tests.engine.writer.bench import Bench, run
from tests.engine.writer.conftest import MakeSettings
from tests.stores import select
from tests.waiting import until

pytestmark = pytest.mark.fault("N01")
DAY_NS = 86_400_000_000_000
YEAR_NS = 365 * DAY_NS
VENUES = ("acme", "bolt")


class Clock:
    """What the writer takes for the time, and rows of what really is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset_ns = 0
        for module in (
            "every_row", "sources.sources", "sinks.postgres.sink",
            "rows.screen", "rows.clock_doubt", "rows.quarantine",
        ):  # fmt: skip
            monkeypatch.setattr(f"engine.writer.{module}.wall_ns", self.now_ns)

    def now_ns(self) -> int:
        return wall_ns() + self.offset_ns

    def trades(
        self, slot: int, count: int = 20, ahead_ns: int = 0, first_id: int = 0
    ) -> RecordArray:
        """Trades of right now, of a venue whose clock is `ahead_ns` ahead."""
        rows = np.zeros(count, TRADE.dtype)
        rows["stream"], rows["side"], rows["price"], rows["qty"] = slot, ord("B"), 1.5, 2.0
        rows["trade_id"] = first_id + np.arange(count)
        rows["ts_event"] = wall_ns() // 1_000_000 * 1_000_000 + ahead_ns - 50_000_000
        rows["ts_recv"] = self.now_ns()
        return rows


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def bench(layout: Layout) -> Iterator[Bench]:
    """Slot 0 is of acme, slot 1 of bolt, slot 2 of acme again, slot 3 a bolt without times."""
    slots = Slots(layout.slots)
    for venue, symbol in (("acme", "A"), ("bolt", "B"), ("acme", "C"), ("bolt", "D")):
        entry = slots.assign(StreamKey(venue, symbol, StreamKind.TRADES))
        slots.describe(entry.slot, Instrument(venue, symbol, 2, 3))
    bench = Bench(layout, TRADE, FUNDING, GAP)
    yield bench
    bench.close()


@pytest.fixture
def delivery(bench: Bench, database_url: str, make_settings: MakeSettings) -> EveryRow:
    return bench.delivery(make_settings(database_url=database_url, flush_interval_s=0.01))


@pytest.mark.parametrize("behind_days", [2, 365, 20_000])
def test_rows_wait_until_our_clock_is_put_right(
    bench: Bench, delivery: EveryRow, clock: Clock, layout: Layout, database_url: str,
    behind_days: int, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "engine.writer.rows.clock_doubt")
    clock.offset_ns = -behind_days * DAY_NS

    async def body() -> None:
        for number in range(5):
            bench.put(clock.trades(0, first_id=20 * number))
            bench.put(clock.trades(1, first_id=20 * number))
        await until(lambda: "clock" in delivery.sink.waits.text)
        assert f"this machine's clock is {behind_days} days behind the" in delivery.sink.waits.text
        assert delivery.trouble.state == "up"
        clock.offset_ns = 0
        await until(lambda: delivery.backlog_rows == 0)
        assert delivery.sink.waits.text == ""

    run(delivery, body)
    assert not layout.quarantine_dir.exists()
    assert delivery.rows == {"trade": 200}
    assert select(database_url, "SELECT count(*) FROM gap") == [(0,)]
    wrong = "SELECT count(*) FROM trades WHERE abs(extract(epoch FROM recv_time - time)) > 60"
    assert select(database_url, wrong) == [(0,)], "when they were received is put right, too"
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1


def test_a_writer_stopped_while_rows_wait_leaves_them_to_the_next(
    bench: Bench, delivery: EveryRow, clock: Clock, database_url: str,
    make_settings: MakeSettings,
) -> None:  # fmt: skip
    clock.offset_ns = -YEAR_NS

    async def stopped() -> None:
        bench.put(clock.trades(0))
        bench.put(clock.trades(1))
        await until(lambda: "clock" in delivery.sink.waits.text)

    run(delivery, stopped)
    assert sum(source.backlog_rows for source in bench.sources) == 40
    clock.offset_ns = 0
    successor = bench.delivery(make_settings(database_url=database_url))

    async def delivered() -> None:
        await until(lambda: successor.backlog_rows == 0)

    run(successor, delivered)
    assert successor.rows == {"trade": 40}


def test_one_venue_a_day_ahead_is_refused_while_another_agrees_with_us(
    bench: Bench, delivery: EveryRow, clock: Clock, database_url: str
) -> None:
    async def body() -> None:
        bench.put(clock.trades(0))
        await until(lambda: delivery.backlog_rows == 0)
        bench.put(clock.trades(1, ahead_ns=2 * DAY_NS))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == delivery.refused_rows == {"trade": 20}
    found = select(database_url, "SELECT venue, missing, reason FROM gaps")
    assert found == [("bolt", 20, "quarantined")]


def test_the_wrong_venue_may_come_first(bench: Bench, delivery: EveryRow, clock: Clock) -> None:
    """For a moment nobody knows whose clock it is."""

    async def body() -> None:
        bench.put(clock.trades(1, ahead_ns=2 * DAY_NS))
        await until(lambda: "clock" in delivery.sink.waits.text)
        bench.put(clock.trades(0))
        await until(lambda: delivery.backlog_rows == 0)
        assert delivery.sink.waits.text == ""

    run(delivery, body)
    assert delivery.rows == delivery.refused_rows == {"trade": 20}


def test_one_stream_ahead_of_its_neighbours_is_refused(
    bench: Bench, delivery: EveryRow, clock: Clock
) -> None:
    async def body() -> None:
        bench.put(np.concatenate([clock.trades(0), clock.trades(2, ahead_ns=2 * DAY_NS)]))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == delivery.refused_rows == {"trade": 20}


def test_absurd_times_are_nobodys_clock(bench: Bench, delivery: EveryRow, clock: Clock) -> None:
    """Microseconds taken for milliseconds are tens of thousands of years ahead."""

    async def body() -> None:
        bench.put(clock.trades(0, ahead_ns=100 * YEAR_NS))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.refused_rows == {"trade": 20}


def test_rows_that_we_stamp_ourselves_prove_nothing_and_are_put_right(
    bench: Bench, delivery: EveryRow, clock: Clock, database_url: str
) -> None:
    """Hyperliquid's funding has no time: it agrees with our clock however wrong that is."""
    clock.offset_ns = -YEAR_NS
    funding = np.zeros(5, FUNDING.dtype)
    funding["stream"] = 3
    funding["ts_event"] = funding["ts_recv"] = clock.now_ns()

    async def body() -> None:
        bench.put(funding)
        bench.put(clock.trades(1))
        await until(lambda: "clock" in delivery.sink.waits.text)
        bench.put(clock.trades(0))
        clock.offset_ns = 0
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"trade": 40, "funding": 5}
    assert not delivery.refused_rows
    wrong = "SELECT count(*) FROM {} WHERE abs(extract(epoch FROM now() - {})) > 60"
    for column in ("time", "recv_time"):
        assert select(database_url, wrong.format("funding_rates", column)) == [(0,)]
        assert select(database_url, wrong.format("trades", column)) == [(0,)]


def test_rows_with_our_time_alone_wait_only_a_moment(
    bench: Bench, delivery: EveryRow, clock: Clock
) -> None:
    funding = np.zeros(5, FUNDING.dtype)
    funding["stream"] = 3
    funding["ts_event"] = funding["ts_recv"] = clock.now_ns()

    async def body() -> None:
        bench.put(funding)
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"funding": 5}


def test_rows_of_before_and_after_keep_the_times_they_have(
    bench: Bench, delivery: EveryRow, clock: Clock, database_url: str
) -> None:
    """Only what was received while the clock was wrong is put right."""
    before, after = clock.trades(0), clock.trades(0, first_id=20)
    before["ts_recv"] -= 3 * YEAR_NS  # of a backlog
    before["ts_event"] -= 3 * YEAR_NS

    async def body() -> None:
        clock.offset_ns = -YEAR_NS
        bench.put(clock.trades(1))
        await until(lambda: "clock" in delivery.sink.waits.text)
        clock.offset_ns = 0
        bench.put(np.concatenate([before, after]))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    kept = sorted([*before["ts_recv"].tolist(), *after["ts_recv"].tolist()])
    assert select(
        database_url,
        "SELECT ts_recv FROM trade JOIN stream USING (stream_id)"
        " JOIN instrument USING (instrument_id) WHERE symbol = 'A' ORDER BY 1",
    ) == [(each,) for each in kept]


def test_a_step_of_our_clock_makes_old_witnesses_worthless(
    bench: Bench, delivery: EveryRow, clock: Clock
) -> None:
    async def body() -> None:
        bench.put(clock.trades(0))
        await until(lambda: delivery.backlog_rows == 0)
        clock.offset_ns = -YEAR_NS
        bench.put(clock.trades(0, first_id=20))
        await until(lambda: "clock" in delivery.sink.waits.text)
        clock.offset_ns = 0
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"trade": 40}
    assert not delivery.refused_rows


def test_a_clock_ahead_stores_rows_at_the_venues_time(
    bench: Bench, delivery: EveryRow, clock: Clock, database_url: str
) -> None:
    clock.offset_ns = YEAR_NS
    rows = clock.trades(0)

    async def body() -> None:
        bench.put(rows)
        await until(lambda: delivery.backlog_rows == 0)
        clock.offset_ns = 0
        bench.put(clock.trades(0, first_id=20))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"trade": 40}
    days = select(database_url, "SELECT count(DISTINCT tableoid) FROM trade")
    assert days[0][0] <= 2, "no partition a year ahead"


def test_a_venue_that_nobody_contradicts_is_not_believed_for_ever(clock: Clock) -> None:
    now_s = 0.0
    doubt = ClockDoubt(lambda slot: VENUES[slot % 2], lambda: now_s)
    rows = clock.trades(0, ahead_ns=2 * DAY_NS)
    for now_s in (0.0, 1000.0, 3599.0):  # noqa: B007 - read by the clock
        assert doubt.doubts("a", TRADE.name, rows)
        assert doubt.text
    now_s = 3601.0
    assert not doubt.doubts("a", TRADE.name, rows)
    assert doubt.text == ""
    assert not doubt.doubts("a", TRADE.name, rows), "and not asked again for another hour"


def test_two_venues_are_believed_as_long_as_it_takes(clock: Clock) -> None:
    now_s = 0.0
    doubt = ClockDoubt(lambda slot: VENUES[slot % 2], lambda: now_s)
    for now_s in (0.0, 3601.0, 1e6):  # noqa: B007 - read by the clock
        for slot in (0, 1):
            rows = clock.trades(slot, ahead_ns=2 * DAY_NS)
            assert doubt.doubts("ab"[slot], TRADE.name, rows)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_right_rows_are_never_refused_for_our_clock(data: st.DataObject) -> None:
    """Whatever our clock does: rows of venues that are right wait or are stored. Only while one of
    them disagrees with the others is somebody refused, and then it is that one."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        now_s = 0.0
        doubt = ClockDoubt(lambda slot: VENUES[slot % 2], lambda: now_s)
        steps = st.sampled_from([-YEAR_NS, -2 * DAY_NS, 0, 2 * DAY_NS, YEAR_NS])
        for _ in range(data.draw(st.integers(1, 12))):
            now_s += data.draw(st.sampled_from([0.01, 1.0, 61.0, 4000.0]))
            clock.offset_ns = data.draw(steps)
            for slot in (0, 1):
                rows = clock.trades(slot)
                too_late = rows["ts_event"] > clock.now_ns() + DAY_NS
                waits = doubt.doubts(slot, TRADE.name, rows)
                assert waits == bool(too_late.any())
