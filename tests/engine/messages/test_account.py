"""The equation of rows holds whoever is killed, and does not say more than is known."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.kinds import NOT_MARKET_DATA
from engine.messages.account import Account, Moves, RingMoves
from engine.messages.status import ChildReport, EngineStatus, WriterReport
from engine.messages.totals import WriterTotals
from engine.messages.writer import RingStatus, SinkStatus, WriterStatus

pytestmark = pytest.mark.fault("N29")


def database(stored: int = 0, skipped: int = 0) -> SinkStatus:
    """A database that has taken so many trades."""
    return SinkStatus("database", "up", rows={"trade": stored}, withheld_rows={"trade": skipped})


@dataclass
class Engine:
    """A ring, a database and a writer that can be killed between any two steps."""

    head: int = 0
    cursor: int = 0
    begun: int | None = None
    born: int = 0
    believed: int = 0
    found: int = 0
    stored: int = 0
    skipped: int = 0
    unheard: int = 0
    again: int = 0
    """Rows that a database set back has to take once more."""

    def __post_init__(self) -> None:
        self.totals = WriterTotals()
        self.left, self.first = self.head - self.cursor, self.head

    def status(self) -> WriterStatus:
        ring = RingStatus(
            "shard-0.trade", "trade", self.head, self.head, self.believed, 0, 64,
            epoch=7, born_seq=self.born, begun_seq=self.begun, found_rows=self.found,
        )  # fmt: skip
        return WriterStatus(
            [ring], {}, [database(stored=self.stored, skipped=self.skipped)], 0, {}, 0, 0.0
        )

    def step(self, name: str, count: int) -> None:
        match name:
            case "arrive":
                self.head += count
            case "connect":
                if self.begun is None:
                    self.begun = self.cursor
                else:
                    self.begun -= max(self.believed - self.cursor, 0)
                    self.found += max(self.cursor - self.believed, 0)
                self.believed = self.cursor
            case "commit" if self.begun is not None and self.believed == self.cursor:
                taken = min(count, self.head - self.cursor)
                self.cursor = self.believed = self.cursor + taken
                self.stored += taken - taken // 3
                self.skipped += taken // 3
            case "commit unheard" if self.begun is not None and self.believed == self.cursor:
                self.cursor += min(count, self.head - self.cursor)
            case "set back" if self.believed == self.cursor:
                self.again += min(count, self.cursor)
                self.cursor -= min(count, self.cursor)
                self.step("connect", 0)
            case "report":
                self.totals.update(self.status())
            case "kill":
                self.totals.writer_ended()
                self.stored = self.skipped = self.found = 0
                self.begun, self.born = None, self.head
                self.believed = self.cursor  # as far as the journal was trimmed, at best

    def account(self) -> Account:
        self.step("connect", 0)
        self.step("report", 0)
        child = ChildReport("writer", "up")
        status = EngineStatus(
            "green", "", "stopped", "x", 1.0, [], self.totals.report, child, []
        )  # fmt: skip
        return status.accounts()["trade"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive", "connect", "commit", "commit unheard", "set back", "report", "kill"]
        ),
        st.integers(0, 9),
    ),
    max_size=40,
)


@given(STEPS, st.integers(0, 5), st.integers(0, 5))
def test_left_and_received_are_exact_whoever_dies(
    steps: list[tuple[str, int]], passed: int, waits: int
) -> None:
    """Rows of an earlier run, kills at any moment, answers that never came."""
    engine = Engine(head=passed + waits, cursor=passed, born=passed + waits)
    engine.believed = passed
    engine.step("report", 0)  # the first word of a writer comes before any shard runs
    for name, count in steps:
        engine.step(name, count)
    account = engine.account()
    killed = any(name == "kill" for name, _ in steps)
    assert waits <= account.left <= waits + engine.again
    assert account.left == waits + engine.again or killed, "all that was lost was heard of"
    assert account.received == engine.head - engine.first
    assert account.waiting == engine.head - engine.cursor
    settled = account.stored + account.skipped + account.unheard
    assert account.left + account.received == settled + account.waiting
    assert account.unheard >= 0
    if not any(name in ("kill", "commit unheard") for name, _ in steps):
        assert account.unheard == 0, "everything was counted"


def test_what_a_ring_drops_is_received_and_what_it_dropped_before_is_not() -> None:
    def status(dropped: int) -> WriterStatus:
        ring = RingStatus("shard-0.trade", "trade", 90, 90, 90, dropped, 64, 1, 90, 90)
        return WriterStatus([ring], {}, [database()], 0, {}, 0, 0.0)

    totals = WriterTotals()
    totals.update(status(5))
    assert totals.report.dropped_rows == {"trade": 0}, "of the run before"
    totals.update(status(8))
    child = ChildReport("control")
    engine = EngineStatus("green", "", "stopped", "x", 1.0, [], totals.report, child, [])
    account = engine.accounts()["trade"]
    assert (account.received, account.dropped, account.accepted, account.left) == (3, 3, 0, 0)


def test_old_journals_of_a_ring_do_not_make_its_drops_grow() -> None:
    """Both have the ring's name; only one of them has a ring."""
    live = RingStatus("shard-0.trade", "trade", 10, 0, 0, 5, 64, epoch=2, begun_seq=0)
    old = RingStatus("shard-0.trade", "trade", 9, 0, 0, 0, 0, epoch=1, born_seq=9, begun_seq=0)
    status = WriterStatus([live, old], {}, [database()], 0, {}, 0, 0.0)
    totals = WriterTotals()
    for _ in range(3):
        totals.update(status)
    assert totals.report.dropped_rows == {"trade": 5}
    assert totals.report.moves["trade"] == Moves(accepted=10, waiting=19)
    status.rings = [live]
    for _ in range(2):
        totals.update(status)
    assert totals.report.moves["trade"] == Moves(10, moved=9, waiting=10), "delivered, and let go"


def test_a_database_that_was_set_back_has_rows_left_to_take() -> None:
    moves = RingMoves()
    at = RingStatus("shard-0.trade", "trade", 100, 0, 60, 0, 64, 1, 0, 0)
    assert moves.update([at])["trade"] == Moves(100, moved=60, waiting=40)
    back = RingStatus("shard-0.trade", "trade", 100, 0, 20, 0, 64, 1, 0, -40)
    found = moves.update([back])["trade"]
    assert found.moved + found.waiting - found.accepted == 40, "these are stored twice over"


def test_nothing_is_said_of_a_database_there_is_not() -> None:
    writer = WriterReport(
        ChildReport("writer"), sinks=[SinkStatus("database", "off", rows={"trade": 1})]
    )
    child = ChildReport("control")
    assert EngineStatus("green", "", "stopped", "x", 1.0, [], writer, child, []).accounts() == {}


def test_what_is_said_about_rows_is_no_row() -> None:
    """Gaps and coverage come through rings as well, and writers add to them."""
    said = {kind: Moves(5, 5) for kind in NOT_MARKET_DATA}
    writer = WriterReport(ChildReport("writer"), moves={**said, "trade": Moves(2, 2)})
    writer.sinks = [SinkStatus("database", "up", rows={"trade": 2, "gap": 99})]
    child = ChildReport("control")
    status = EngineStatus("green", "", "stopped", "x", 1.0, [], writer, child, [])
    assert set(status.accounts()) == {"trade"}
