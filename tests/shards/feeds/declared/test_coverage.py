"""What is listened to goes on record, and gaps begin when a stream was heard last: every kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import CoverageEnd, CoverageMark, GapReason, GapState, Side
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, COVERAGE, FUNDING, GAP, LIQUIDATION, OPEN_INTEREST, QUOTE, TRADE
from engine.data.names import StreamKind, Transport
from engine.data.positions import LISTENING, CoveragePositions, Position, read_position
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook, SnapshotBook
from shards.feeds.contracts import (
    FundingOpenInterest,
    FundingRates,
    FundingRow,
    LiquidationRow,
    Liquidations,
    OpenInterestPoints,
)
from shards.feeds.declared.coverage import BEGINS_AFTER_NS, LATE_NS, CoverageLedger
from shards.feeds.feed import Feed
from shards.feeds.quotes import Quotes
from shards.feeds.trades import ContiguousTrades, HistoryTrades, TradeRow
from shards.session import venue_session
from tests.shards import venue_rig
from tests.shards.doubles import MemoryRings, spec_of

S, MS = 1_000_000_000, 1_000_000
SLOT = 3


@dataclass(frozen=True)
class Kind:
    """How a kind of feed is made, and how row number `n` of venue time `ts` comes."""

    name: str
    record: str
    make: Callable[..., Feed]
    put: Callable[[Feed, int, int], None]
    is_steady: bool = False
    """Rows come at a steady pace: a gap begins at the last one."""


def put_trade(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, ContiguousTrades)
    feed.on_trade(n, Side.BUY, ts, wall_ns(), 1.0, 1.0)


def put_history(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, HistoryTrades)
    feed.on_trades([TradeRow(n * 7919, Side.BUY, ts, 1.0, 1.0)], wall_ns())


def put_quote(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, Quotes)
    feed.on_quote(n, ts, wall_ns(), (1.0 + n, 1.0, 2.0 + n, 1.0))


def put_book(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, SnapshotBook)
    feed.on_book(BookEvent(ts // MS, 0, ts, wall_ns(), [(1.0, 1.0)], [(2.0, 1.0)]))


def put_delta(feed: Feed, n: int, ts: int) -> None:
    """Event n, and the snapshot it asks for."""
    assert isinstance(feed, DeltaBook)
    feed.on_event(n, BookEvent(n, n - 1, ts, wall_ns(), [(1.0, 1.0)], []))
    if not feed.is_synced:
        feed.on_snapshot(BookEvent(n, 0, ts, wall_ns(), [(1.0, 1.0)], [], is_snapshot=True))


def put_funding(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, FundingRates)
    feed.on_funding(ts, wall_ns(), FundingRow(0.0001 * n, 1.0, 1.0))


def put_interest(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, OpenInterestPoints)
    feed.on_open_interest(ts, wall_ns(), float(n))


def put_both(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, FundingOpenInterest)
    feed.on_both(ts, wall_ns(), FundingRow(0.0001 * n, 1.0, 1.0), float(n))


def put_liquidation(feed: Feed, n: int, ts: int) -> None:
    assert isinstance(feed, Liquidations)
    feed.on_liquidation(LiquidationRow(ts, Side.SELL, 1.0, float(n), 1.0, 1.0), wall_ns())


def no_snapshot(_: DeltaBook) -> None:
    """The test brings it."""


KINDS = [
    Kind("trades", TRADE.name, ContiguousTrades, put_trade),
    Kind("history", TRADE.name, HistoryTrades, put_history),
    Kind("quotes", QUOTE.name, Quotes, put_quote),
    Kind("deltas", BOOK.name, partial(DeltaBook, request_snapshot=no_snapshot), put_delta),
    Kind("books", BOOK.name, SnapshotBook, put_book, is_steady=True),
    Kind("funding", FUNDING.name, FundingRates, put_funding, is_steady=True),
    Kind("interest", OPEN_INTEREST.name, OpenInterestPoints, put_interest, is_steady=True),
    Kind("liquidations", LIQUIDATION.name, Liquidations, put_liquidation),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


class Gap(NamedTuple):
    """What a gap record says."""

    reason: int
    state: int
    from_seq: int
    to_seq: int
    from_ts: int
    to_ts: int
    missing: int


class Bench:
    """Rings, a state directory, and feeds that follow each other on one slot."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind, self.directory = kind, directory
        self.double = MemoryRings()
        self._written = 0
        self.last: Position | None = None

    def feed(self) -> Feed:
        """The feed of a process that begins now: it knows what the writer had noted."""
        self.note()
        spec = spec_of(SLOT, kind=StreamKind.TRADES, transport=Transport.WS)
        ring = self.double.rings[self.kind.record]
        feed = self.kind.make(spec, ring, self.double.gaps, self.last)
        heard = read_position(self.directory, COVERAGE.name, SLOT)
        feed.resume(CoverageLedger(self.double.rings[COVERAGE.name]), heard)
        return feed

    def connect(self, feed: Feed, carrier: int) -> None:
        feed.carrier = carrier
        feed.subscribed()
        feed.subscribed_s = monotonic_s() - 60

    def put(self, feed: Feed, n: int, ts: int) -> None:
        self.kind.put(feed, n, ts)
        rows = self.double.rows(self.kind.record)
        newest = rows[-1]
        identity = {TRADE.name: "trade_id", BOOK.name: "seq", QUOTE.name: "seq"}
        name = identity.get(self.kind.record, "ts_event")
        self.last = Position(0, int(newest[name]), int(newest["ts_event"]), 1)

    def note(self) -> None:
        """What the writer does while it pumps."""
        positions = CoveragePositions(self.directory, COVERAGE)
        marks = self.marks()
        positions.advance(marks[self._written :])
        self._written = len(marks)
        positions.close()

    def marks(self) -> RecordArray:
        return self.double.rows("coverage")

    def gap(self) -> Gap:
        (gap,) = self.double.rows("gap").tolist()
        return Gap(*gap[2:4], *gap[6:])


@every_kind
@pytest.mark.fault("N41")
@pytest.mark.parametrize("how", ["removed", "engine stopped", "crash", "cut"])
def test_one_hole_is_one_gap_with_the_true_reason(kind: Kind, how: str, tmp_path: Path) -> None:
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    now_ns = wall_ns()
    bench.connect(feed, 11)
    bench.put(feed, 100, now_ns - 60 * S)
    assert len(bench.double.rows("gap")) == 0
    reasons = {"crash": GapReason.RESTART, "cut": GapReason.RECONNECT}
    if how == "removed":
        feed.ended("removed")
        feed.wanted_again(feed.spec)
    elif how == "engine stopped":
        feed.ended("stopped")
        feed = bench.feed()
    elif how == "crash":
        feed = bench.feed()
    else:
        feed.cut("cut")
    bench.connect(feed, 22)
    feed.tick(wall_ns())
    bench.put(feed, 200, wall_ns() + 1 * S)
    gap = bench.gap()
    assert gap.reason == reasons.get(how, GapReason.STOPPED)
    assert gap.state in (GapState.UNRECOVERABLE, GapState.UNPROVABLE)
    assert gap.from_ts <= gap.to_ts
    if kind.name in ("trades", "deltas"):
        assert (gap.from_seq, gap.to_seq) == (101, 199)


@every_kind
@pytest.mark.fault("N41")
def test_an_interval_begins_with_the_proof_and_ends_where_the_gap_begins(
    kind: Kind, tmp_path: Path
) -> None:
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    now_ns = wall_ns()
    bench.connect(feed, 11)
    assert len(bench.marks()) == 0, "a subscription proves nothing"
    bench.put(feed, 100, now_ns - 60 * S)
    (began,) = bench.marks()
    assert (began["mark"], began["stream"], began["carrier"]) == (CoverageMark.BEGAN, SLOT, 11)
    assert began["since"] == 0, "it was never heard before"
    if kind.name != "liquidations":
        assert began["at"] == now_ns - 60 * S + BEGINS_AFTER_NS
    feed.cut("cut", silent_s=3.0)
    ended = bench.marks()[-1]
    assert (ended["mark"], ended["end"]) == (CoverageMark.ENDED, CoverageEnd.RECONNECT)
    bench.connect(feed, 22)
    feed.tick(wall_ns())
    bench.put(feed, 200, wall_ns() + 1 * S)
    again = bench.marks()[-1]
    assert (again["mark"], again["carrier"]) == (CoverageMark.BEGAN, 22)
    assert again["since"] == ended["at"] == bench.gap().from_ts
    assert again["at"] > bench.gap().to_ts


@every_kind
@pytest.mark.fault("N42")
@pytest.mark.parametrize("is_restart", [False, True], ids=["reconnect", "restart"])
def test_a_gap_begins_when_the_socket_was_heard_last(
    kind: Kind, is_restart: bool, tmp_path: Path
) -> None:
    """A quiet stream's last row may be old; the socket was heard a moment ago."""
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    last_ns = wall_ns() - 160 * S
    bench.put(feed, 100, last_ns)
    heard_ns = wall_ns() - 16 * S
    if is_restart:
        ledger = CoverageLedger(bench.double.rings[COVERAGE.name])
        ledger.began(SLOT, 11, last_ns + MS, 0)  # by the venue's time, of every kind
        ledger.alive(SLOT, 11, heard_ns - LATE_NS)
        feed = bench.feed()
    else:
        feed.cut("cut", silent_s=16.0)
    bench.connect(feed, 22)
    feed.tick(wall_ns())
    bench.put(feed, 200, wall_ns() + 1 * S)
    from_ts = int(bench.gap().from_ts)
    if kind.is_steady:
        assert from_ts == last_ns
    else:
        assert abs(from_ts - (heard_ns - LATE_NS)) < S // 2, (from_ts - heard_ns) / S


@every_kind
@pytest.mark.fault("N41")
def test_a_handover_is_no_hole(kind: Kind, tmp_path: Path) -> None:
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    bench.put(feed, 100, wall_ns() - 60 * S)
    feed.carried_on(22)
    began, ended, again = bench.marks()
    assert (ended["mark"], ended["end"]) == (CoverageMark.ENDED, CoverageEnd.HANDOVER)
    assert (again["mark"], again["carrier"]) == (CoverageMark.BEGAN, 22)
    assert began["at"] <= ended["at"] == again["at"] == again["since"]
    bench.put(feed, 101, wall_ns())
    assert len(bench.marks()) == 3
    assert len(bench.double.rows("gap")) == 0


@every_kind
def test_a_suspicious_stream_was_heard_up_to_its_last_row(kind: Kind, tmp_path: Path) -> None:
    """Its socket was heard all the time, but may have been deaf for it."""
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    last_ns = wall_ns() - 60 * S
    bench.put(feed, 100, last_ns)
    feed.cut("it fell silent on its socket", blame=GapReason.SILENCE)
    ended = bench.marks()[-1]
    assert (ended["mark"], ended["end"], ended["at"]) == (
        CoverageMark.ENDED, CoverageEnd.SILENCE, last_ns,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.is_steady], ids=lambda k: k.name)
def test_what_comes_at_a_steady_pace_and_does_not_come_is_not_heard(
    kind: Kind, tmp_path: Path
) -> None:
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    last_ns = wall_ns() - 60 * S
    bench.put(feed, 100, last_ns)
    feed.fell_silent("no data")
    assert bench.marks()[-1]["at"] == last_ns
    bench.put(feed, 200, wall_ns())
    assert bench.gap().reason == GapReason.SILENCE
    assert bench.marks()[-1]["since"] == bench.gap().from_ts == last_ns


def test_listening_by_a_clock_that_is_set_begins_anew(tmp_path: Path) -> None:
    """Else a year before would be called complete."""
    bench = Bench(KINDS[-1], tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    year_ago_ns = wall_ns() - 365 * 86_400 * S
    feed.tick(year_ago_ns)
    assert bench.marks()[-1]["at"] == year_ago_ns + BEGINS_AFTER_NS
    now_ns = wall_ns()
    feed.tick(now_ns)
    began, ended, again = bench.marks()
    assert ended["at"] == began["at"]
    assert (again["at"], again["since"]) == (now_ns, 0)


def test_what_finds_the_ring_full_waits_for_room() -> None:
    double = MemoryRings(capacity=64)
    ledger = CoverageLedger(double.rings[COVERAGE.name])
    for number in range(70):
        ledger.began(number, 1, number, 0)
        ledger.alive(number, 1, number)
    double.release("coverage")
    ledger.flush()
    marks = double.rows("coverage", 64)
    assert marks["stream"].tolist() == list(range(32, 70))
    assert set(marks["mark"].tolist()) == {CoverageMark.BEGAN}


@pytest.mark.fault("N41")
def test_coverage_is_published_after_everything_it_speaks_of() -> None:
    """Whoever sees the claim must see the rows: nothing may be shown after it."""
    double = MemoryRings()
    rings = double.rings
    shown: list[str] = []

    def show(kind: str, publish: Callable[[], bool]) -> bool:
        shown.append(kind)
        return publish()

    CoverageLedger(rings[COVERAGE.name]).began(1, 1, 1, 0)
    for kind in (TRADE.name, GAP.name, BOOK.name):
        rings[kind].reserve()
    for ring in rings._used:
        ring.publish = partial(show, ring.spec.name, ring.publish)  # type: ignore[method-assign]
    rings.publish()
    assert sorted(shown[:-1]) == ["book", "gap", "trade"]
    assert shown[-1] == COVERAGE.name


def test_thousands_of_streams_that_begin_at_once_are_all_noted(tmp_path: Path) -> None:
    """More than the file has room for, in one batch."""
    marks = np.zeros(3000, COVERAGE.dtype)
    marks["stream"], marks["mark"] = range(3000), CoverageMark.BEGAN
    marks["carrier"], marks["at"], marks["ts_recv"] = 1, range(10, 3010), 1
    positions = CoveragePositions(tmp_path, COVERAGE)
    positions.advance(marks)
    positions.close()
    for slot in (0, 1023, 1024, 2999):
        assert read_position(tmp_path, "coverage", slot) == Position(LISTENING, 1, slot + 10, 1)


def test_positions_know_up_to_when_each_stream_was_heard(tmp_path: Path) -> None:
    marks = np.zeros(6, COVERAGE.dtype)
    marks["stream"] = [1, 2, 3, 1, 2, 1]
    marks["mark"] = [1, 1, 1, CoverageMark.ALIVE, CoverageMark.ENDED, CoverageMark.ALIVE]
    marks["carrier"] = [7, 7, 8, 7, 7, 7]
    marks["at"] = [10, 11, 12, 20, 25, 30]
    marks["end"][4] = CoverageEnd.STOPPED
    marks["ts_recv"] = range(1, 7)
    positions = CoveragePositions(tmp_path, COVERAGE)
    positions.advance(marks)
    positions.catch_up(marks)  # as after a power cut: nothing goes back
    positions.close()
    found = [read_position(tmp_path, COVERAGE.name, slot) for slot in (1, 2, 3)]
    assert found == [
        Position(LISTENING, 7, 30, 1), Position(CoverageEnd.STOPPED, 7, 25, 5),
        Position(LISTENING, 8, 12, 3),
    ]  # fmt: skip


@pytest.mark.fault("N41")
def test_a_stream_that_was_removed_and_added_leaves_a_gap_of_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venue_session, "_ALIVE_EVERY_S", 0.0)

    async def test(rig: venue_rig.Rig) -> None:
        symbol = venue_rig.SYMBOLS[1]
        rig.session.start([venue_rig.spec(0), venue_rig.spec(1)])
        server = await rig.socket()
        server.send(venue_rig.trade(symbol, 10))
        await rig.until(lambda: rig.ids(1) == [10])
        (connection,) = rig.session.connections
        rig.session.tick()
        rig.session.stop([1])
        rig.session.start([venue_rig.spec(1)])
        await rig.until(lambda: rig.session.streams[-1].state == "syncing")
        server.send(venue_rig.trade(symbol, 15))
        await rig.until(lambda: rig.ids(1) == [10, 15])
        (gap,) = rig.double.rows("gap")
        assert (gap["from_seq"], gap["to_seq"], gap["missing"]) == (11, 14, 4)
        assert gap["reason"] == GapReason.STOPPED
        began, alive, ended, again = rig.double.rows("coverage")
        assert alive["mark"] == CoverageMark.ALIVE
        assert (ended["mark"], ended["end"]) == (CoverageMark.ENDED, CoverageEnd.STOPPED)
        for mark in (began, alive, ended, again):
            assert (mark["stream"], mark["carrier"]) == (1, connection.carrier)

    venue_rig.run(tmp_path, test)


@pytest.mark.fault("N41")
def test_nothing_is_claimed_while_something_received_is_not_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venue_session, "_ALIVE_EVERY_S", 0.0)

    async def test(rig: venue_rig.Rig) -> None:
        rig.session.start([venue_rig.spec(0)])
        server = await rig.socket()
        server.send(venue_rig.trade(venue_rig.SYMBOLS[0], 10))
        await rig.until(lambda: rig.ids(0) == [10])
        (feed,) = rig.session.streams
        monkeypatch.setattr(feed.ring, "has_room", lambda *_: False)
        feed.dropped(11, 11 * S, 1)
        rig.session.tick()
        assert CoverageMark.ALIVE not in rig.double.rows("coverage")["mark"]
        monkeypatch.undo()
        monkeypatch.setattr(venue_session, "_ALIVE_EVERY_S", 0.0)
        rig.session.tick()
        assert CoverageMark.ALIVE in rig.double.rows("coverage")["mark"]
        assert len(rig.double.rows("gap")) == 1

    venue_rig.run(tmp_path, test)


@every_kind
def test_a_row_from_the_future_claims_nothing_of_it(kind: Kind, tmp_path: Path) -> None:
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    bench.put(feed, 100, wall_ns() - 60 * S)
    bench.put(feed, 101, wall_ns() + 3600 * S)
    feed.cut("cut")
    assert bench.marks()[-1]["mark"] == CoverageMark.ENDED
    assert bench.marks()[-1]["at"] <= wall_ns()


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not kind.is_steady], ids=lambda k: k.name
)
def test_a_clock_a_year_behind_claims_no_year(kind: Kind, tmp_path: Path) -> None:
    """What it says was heard a year ago, before the last row: that is not believed."""
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    last_ns = wall_ns() - 60 * S
    bench.put(feed, 100, last_ns)
    ledger = CoverageLedger(bench.double.rings[COVERAGE.name])
    ledger.ended(SLOT, 11, last_ns - 365 * 86_400 * S, CoverageEnd.STOPPED)
    feed = bench.feed()
    bench.connect(feed, 22)
    feed.tick(wall_ns())
    bench.put(feed, 200, wall_ns() + 1 * S)
    assert bench.marks()[-1]["since"] == last_ns
    assert bench.gap().from_ts == last_ns


@pytest.mark.fault("N42")
@pytest.mark.parametrize("by_row", [False, True], ids=["settled", "first row"])
def test_where_our_clock_is_behind_listening_begins_by_the_venues(
    by_row: bool, tmp_path: Path
) -> None:
    """What was said until then has the venue's times, and lies in the gap."""
    (kind,) = [kind for kind in KINDS if kind.name == "liquidations"]
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    bench.put(feed, 100, wall_ns() - 60 * S)
    feed.cut("cut")
    venue_ns = wall_ns() + 30 * S
    feed.venue_ahead_ns = 30 * S
    bench.connect(feed, 22)
    if by_row:
        bench.put(feed, 200, venue_ns + 1 * S)
    else:
        feed.tick(wall_ns())
    assert bench.gap().to_ts >= venue_ns
    assert bench.marks()[-1]["at"] > bench.gap().to_ts


@pytest.mark.fault("N42")
@pytest.mark.parametrize("ahead_s", [-30, 30])
def test_a_session_sees_which_clock_is_ahead(ahead_s: int, tmp_path: Path) -> None:
    async def test(rig: venue_rig.Rig) -> None:
        rig.session.start([venue_rig.spec(0)])
        server = await rig.socket()
        at_ms = wall_ns() // MS + ahead_s * 1000
        server.send(venue_rig.trade(venue_rig.SYMBOLS[0], at_ms - 1_700_000_000_000))
        await rig.until(lambda: len(rig.ids(0)) == 1)
        rig.session.tick()
        (feed,) = rig.session.streams
        assert abs(feed.venue_ahead_ns - max(ahead_s, 0) * S) < S
        (connection,) = rig.session.connections
        assert abs(connection.silent_s - max(-ahead_s, 0)) < 1.0

    venue_rig.run(tmp_path, test)


def test_a_stream_whose_rows_have_our_own_times_tells_nothing_of_clocks(tmp_path: Path) -> None:
    bench = Bench(KINDS[0], tmp_path)
    feed = bench.feed()
    assert feed.clocks_ns is None
    feed.last_recv_ns = feed._last_ts = wall_ns()
    assert feed.clocks_ns is None


@pytest.mark.fault("N41")
def test_live_trades_tell_how_late_they_are_and_the_repeated_past_does_not(tmp_path: Path) -> None:
    """A socket that is heard late must not claim the time in between."""
    (kind,) = [kind for kind in KINDS if kind.make is HistoryTrades]
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    bench.put(feed, 100, wall_ns() - 3600 * S)
    assert feed.lag_ns == 0
    bench.put(feed, 101, wall_ns() - 30 * S)
    assert abs(feed.lag_ns - 30 * S) < S
    feed.cut("cut")
    bench.connect(feed, 22)
    bench.put(feed, 102, wall_ns() - 3600 * S)
    assert feed.lag_ns == 0


@pytest.mark.fault("N41")
def test_a_clock_set_back_claims_no_time_before_the_subscription(tmp_path: Path) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == "liquidations"]
    bench = Bench(kind, tmp_path)
    feed = bench.feed()
    bench.connect(feed, 11)
    now_ns = wall_ns()
    feed.tick(now_ns)
    bench.put(feed, 100, now_ns)
    first_at = bench.marks()[0]["at"]
    feed.tick(now_ns - 90 * S)
    assert bench.marks()[-1]["mark"] == CoverageMark.BEGAN
    assert len(bench.marks()) == 3
    assert bench.marks()[-1]["at"] >= first_at
