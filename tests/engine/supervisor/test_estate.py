"""What a supervisor leaves to the next program of its process: told as a message, taken over, and
everything goes on as if nothing had been.
"""

import asyncio
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.data.layout import open_layout
from engine.data.names import StreamKey, StreamKind
from engine.limits.lease_desk import DeskEstate, LeaseDesk
from engine.messages.limits import (
    LeaseAnswer,
    LeaseGranted,
    LeaseRequest,
    LimitFeedback,
    PlacesGranted,
    PlacesWanted,
)
from engine.messages.pipes import ShardStatus
from engine.messages.settings import HeldLimitSettings, LimitSettings
from engine.messages.streams import (
    KnobChanges,
    StreamCounts,
    StreamRequest,
    StreamState,
    StreamStatus,
)
from engine.messages.totals import ShardCounts, ShardTotals, WriterCounts, WriterTotals
from engine.messages.writer import RingStatus, SinkStatus, WriterStatus
from engine.streams.running_streams import RunningStreams, StreamsEstate

Estate = TypeVar("Estate", bound=msgspec.Struct)


def told(estate: Estate) -> Estate:
    """As the next program reads it."""
    return msgspec.json.decode(msgspec.json.encode(estate), type=type(estate))


def status_of_writer(stored: int, dropped: int = 0) -> WriterStatus:
    ring = RingStatus("shard-0.trade", "trade", stored + 4, stored, stored, dropped, 64, 7, 0, 0)
    database = SinkStatus("database", "up", rows={"trade": stored}, backlog_rows=4)
    return WriterStatus([ring], {}, [database], 0, {}, 0, 0.0)


def test_the_writer_is_counted_on() -> None:
    now_s = 100.0
    before, after = WriterTotals(lambda: now_s), WriterTotals(lambda: now_s)
    before.update(status_of_writer(40, dropped=3))
    before.writer_ended()
    before.update(status_of_writer(40, dropped=3))
    now_s = 130.0
    estate = told(before.estate())
    assert isinstance(estate, WriterCounts)
    after.inherit(estate)
    for totals in (before, after):
        totals.update(status_of_writer(40, dropped=5))
    assert after.report == before.report
    assert after.report.dropped_rows == {"trade": 5}
    assert after.report.database.rows == {"trade": 80}
    assert after.report.flush_delay_s == before.report.flush_delay_s == 30.0


def test_a_shard_is_counted_on() -> None:
    def status(rows: int) -> ShardStatus:
        counts = {StreamKind.TRADES: StreamCounts(row_count=rows)}
        return ShardStatus(0, [], counts, {}, 1, 0, 0.0, 0, 0.0)

    before, after = ShardTotals(), ShardTotals()
    before.update(status(10))
    before.shard_ended()
    before.update(status(5))
    estate = told(before.estate())
    assert isinstance(estate, ShardCounts)
    after.inherit(estate)
    after.update(status(6))
    assert after.by_kind[StreamKind.TRADES].row_count == 16
    assert after.are_least, "one of them was killed"


def test_streams_go_on_where_they_are_with_their_knobs_and_counts(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state", tmp_path)
    keys = [StreamKey("acme", symbol, StreamKind.TRADES) for symbol in "ABC"]
    before = RunningStreams.of(layout, 2, 1000, [])
    before.open(keys[:1])
    before.add([StreamRequest(key) for key in keys[1:]])
    before.set_knobs(keys[1], KnobChanges(db_writes_enabled=False))
    before.remove(keys[2:])
    shard, slot = before.home(keys[0]) or (-1, -1)
    heir = before.end_life(slot)
    counts = StreamStatus(slot, StreamState.LIVE, life=heir.life, row_count=9, gap_count=1)
    before.update(ShardStatus(shard, [counts], {}, {}, 1, 0, 0.0, 0, 0.0))
    estate = told(before.estate())
    assert isinstance(estate, StreamsEstate)

    after = RunningStreams.of(layout, 2, 1000, [])
    after.inherit(estate, keys[:1])
    assert after.reports() == before.reports()
    assert [after.specs(each) for each in (0, 1)] == [before.specs(each) for each in (0, 1)]
    assert after.knobs() == before.knobs()
    assert after.was_commanded
    anew = StreamStatus(slot, StreamState.LIVE, life=heir.life, row_count=11)
    after.update(ShardStatus(shard, [anew], {}, {}, 1, 0, 0.0, 0, 0.0))
    assert next(each.row_count for each in after.reports() if each.slot == slot) == 11
    _, again = after.add([StreamRequest(keys[2])])
    assert [spec.life for specs in again.values() for spec in specs] == [1], "its next life"


def test_who_waits_for_a_lease_gets_it_and_who_holds_places_keeps_them(tmp_path: Path) -> None:
    async def main() -> None:
        limits: list[LimitSettings | HeldLimitSettings] = [
            LimitSettings("acme", "rest", 10.0, 0.2),
            HeldLimitSettings("acme", "sockets", 3),
        ]
        heard: list[tuple[str, LeaseAnswer]] = []

        def desk() -> LeaseDesk:
            return LeaseDesk(limits, tmp_path / "limits.json", lambda *answer: heard.append(answer))

        before = desk()
        before.want("shard-0", PlacesWanted(1, "acme", "sockets", 2))
        before.want("shard-1", PlacesWanted(1, "acme", "sockets", 2))
        before.feedback(LimitFeedback("acme", "rest", budget=6.0))
        before.ask("shard-0", LeaseRequest(2, "acme", "rest", 6.0))
        before.ask("shard-1", LeaseRequest(3, "acme", "rest", 6.0))
        estate = told(before.estate())
        assert isinstance(estate, DeskEstate)
        await before.close()

        heard.clear()
        after = desk()
        after.inherit(estate)
        assert [each for _, each in heard if isinstance(each, LeaseGranted)] == [], "it is spent"
        async with asyncio.timeout(30.0):
            while ("shard-1", LeaseGranted(3)) not in heard:
                await asyncio.sleep(0.01)
        after.client_ended("shard-0")
        assert ("shard-1", PlacesGranted(1, "acme", "sockets", 2)) in heard
        used = {each.pool: (each.budget, each.used) for each in after.reports()}
        assert used["sockets"] == (3.0, 2.0)
        assert used["rest"][0] == 6.0
        await after.close()

    asyncio.run(main())
