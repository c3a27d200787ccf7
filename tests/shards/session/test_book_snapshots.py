"""Snapshots for books that wait: each is fetched as often as it is needed, and no more."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import uvloop

from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import VenueError
from engine.data.flags import Flag
from engine.data.kinds import BOOK
from engine.data.names import StreamKind
from engine.messages.limits import LeaseBlocked
from engine.messages.streams import StreamState
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.session import book_snapshots, venue_session
from shards.session.book_snapshots import BookSnapshots
from shards.transport.rest import VenueRest
from shards.venues import VENUES
from shards.venues.kit import RestCall, Venue
from tests.shards.doubles import MemoryRings, free_leases, spec_of
from tests.shards.venue_rig import Rig, run, spec
from tests.waiting import until

VENUE = VENUES["binance_linear"]


class Rest(VenueRest):
    """A venue whose answers are put in by hand; it fails where there is none."""

    def __init__(self, venue: Venue = VENUE) -> None:
        super().__init__(venue, None, free_leases())
        self.answers: list[bytes] = []
        self.call_count = 0

    async def fetch(self, call: RestCall, symbol: str = "") -> bytes:
        """Count it."""
        self.call_count += 1
        await asyncio.sleep(0)
        if not self.answers:
            raise VenueError("HTTP 503")
        return self.answers.pop(0)


def event(seq: int) -> BookEvent:
    return BookEvent(seq, seq - 1, seq * 1_000_000, seq, [(9.0, 1.0)], [])


@pytest.mark.fault("X16")
def test_a_book_whose_socket_flaps_while_rest_is_away_asks_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(book_snapshots, "_FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(book_snapshots, "_DELAY_S_MAX", 0.05)

    async def body() -> None:
        rest, double = Rest(), MemoryRings()
        snapshots = BookSnapshots(VENUE, rest, double.rings, 3600.0)
        book = DeltaBook(
            spec_of(kind=StreamKind.L2_BOOK),
            double.rings[BOOK.name],
            double.gaps,
            None,
            snapshots.want,
        )
        worker = asyncio.create_task(snapshots.work())
        for seq in range(1, 41):
            book.subscribed()
            book.on_event(seq, event(seq))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            book.cut("cut")
        book.subscribed()
        book.on_event(41, event(41))
        rest.answers = [b'{"lastUpdateId":41,"T":41,"bids":[],"asks":[]}']
        await until(lambda: book.is_synced, "the snapshot")
        called = rest.call_count
        await asyncio.sleep(0.15)
        assert rest.call_count == called, "nobody needs another one"
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await rest.close()

    uvloop.run(body())


def test_a_snapshot_without_a_time_is_of_when_it_came_and_not_after_the_next_event() -> None:
    async def body() -> None:
        venue = VENUES["binance_spot"]
        rest, double = Rest(venue), MemoryRings()
        snapshots = BookSnapshots(venue, rest, double.rings, 3600.0)
        kind = BOOK.name
        books = [
            DeltaBook(
                spec_of(slot, venue.name, f"S{slot}", StreamKind.L2_BOOK),
                double.rings[kind], double.gaps, None, snapshots.want,
            )
            for slot in (1, 2)
        ]  # fmt: skip
        worker = asyncio.create_task(snapshots.work())
        before_ns = wall_ns()
        for book, ahead_ns in zip(books, (-1, 1), strict=True):
            book.subscribed()
            rest.answers.append(b'{"lastUpdateId":40,"bids":[["9","1"]],"asks":[]}')
            at = before_ns + ahead_ns * 60_000_000_000
            book.on_event(40, BookEvent(41, 39, at, wall_ns(), [(9.0, 2.0)], []))
            await until(lambda book=book: book.is_synced, "the snapshot")  # type: ignore[misc]
        rows = double.rows(kind)
        whole = rows[rows["flags"] & int(Flag.SNAPSHOT) > 0]["ts_event"].tolist()
        assert whole[0] == before_ns - 60_000_000_000, "that of the event that follows"
        assert before_ns <= whole[1] <= wall_ns(), "when it came"
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await rest.close()

    uvloop.run(body())


@pytest.mark.fault("X16")
def test_a_book_without_a_snapshot_is_not_live_because_events_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(rig: Rig) -> None:
        rig.withheld = {"rest_weight"}
        rig.session.start([book_spec])
        server = await rig.socket()
        (book,) = rig.session.streams
        passed_s = 0.0
        monkeypatch.setattr(venue_session, "monotonic_s", lambda: monotonic_s() + passed_s)
        for seq in (4, 5):
            server.send(
                b'{"e":"depthUpdate","E":1,"T":1,"s":"S0USDT","U":%d,"u":%d,"pu":%d,"b":[],"a":[]}'
                % (seq, seq, seq - 1)
            )
            while book.frame_count < seq - 3:
                await asyncio.sleep(0.005)
            rig.session.tick()
            assert book.status().state is StreamState.SYNCING, book.status().reason
            rig.leases.blocked(LeaseBlocked("binance_linear", "rest_weight", 3600.0))
            rig.session.tick()
            waits = "snapshot: waiting for the budget rest_weight, blocked 3"
            assert book.status().reason.startswith(waits)
            passed_s += 61.0
            rig.session.tick()
            assert book.status().state is StreamState.STALE
        rig.session.stop([9])

    book_spec = msgspec.structs.replace(spec(0, StreamKind.L2_BOOK), slot=9)
    run(tmp_path, test)


@pytest.mark.fault("H05")
def test_a_hostile_snapshot_costs_another_call_and_not_the_shard(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.snapshots += [
            b'{"lastUpdateId":5,"T":1,"bids":' + b"[" * 100_000,
            b'{"lastUpdateId":5,"T":1,"bids":[["\xff","1"]],"asks":[]}',
            b'{"lastUpdateId":5,"T":1,"bids":[["1e999","1"]],"asks":[]}',
            b'{"lastUpdateId":5,"T":1,"bids":[["10","1"]],"asks":[]}',
        ]
        rig.session.start([spec(0, StreamKind.L2_BOOK)])
        server = await rig.socket()
        server.send(
            b'{"e":"depthUpdate","E":1,"T":1,"s":"S0USDT","U":4,"u":6,"pu":3,"b":[["9","1"]],"a":[]}'
        )
        (book,) = rig.session.streams
        await rig.until(lambda: book.status().state is StreamState.LIVE)
        assert rig.snapshots == []
        assert rig.double.rows("book")["seq"].tolist() == [5, 6]

    run(tmp_path, test)


def test_a_book_that_runs_starts_anew_in_time_and_not_before() -> None:
    async def body() -> None:
        rest, double = Rest(), MemoryRings()
        snapshots = BookSnapshots(VENUE, rest, double.rings, 3600.0)
        book = DeltaBook(
            spec_of(kind=StreamKind.L2_BOOK),
            double.rings[BOOK.name],
            double.gaps,
            None,
            snapshots.want,
        )
        worker = asyncio.create_task(snapshots.work())

        def wholes() -> list[int]:
            rows = double.rows("book")
            whole = (rows["flags"] & int(Flag.SNAPSHOT)) != 0
            found: list[int] = rows["seq"][whole & (rows["qty"] == 7.0)].tolist()
            return found

        async def until_wholes(count: int) -> None:
            await until(lambda: len(wholes()) >= count, f"{count} snapshots")

        answer = b'{"lastUpdateId":%d,"T":1,"bids":[["8","7"]],"asks":[]}'
        rest.answers = [answer % 5]
        book.subscribed()
        book.on_event(5, event(5))
        began_s = monotonic_s()
        await until_wholes(1)
        snapshots.tick(began_s + 1700)
        assert book.is_settled, "not due for half an hour at least"
        rest.answers = [answer % 5]
        snapshots.tick(began_s + 3700)
        assert not book.is_settled
        book.on_event(6, event(6))
        await until_wholes(2)
        assert wholes() == [5, 6]
        rest.answers = [answer % 6]
        for _ in range(50):
            snapshots.renew(book)
        assert book.is_settled, "it has just had one"
        snapshots.tick(monotonic_s() + 11)
        book.on_event(7, event(7))
        await until_wholes(3)
        assert wholes() == [5, 6, 7]
        snapshots.forget(book.slot)
        snapshots.tick(began_s + 99_999)
        assert book.is_settled, "nobody wants it any more"
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        await rest.close()

    uvloop.run(body())
