"""Snapshots that no event ever reaches: the wait for them ends, with the reason shown."""

import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.data.flags import Flag, GapReason
from engine.data.kinds import BOOK
from engine.data.names import StreamKind
from engine.messages.streams import StreamState
from shards.feeds import books
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import DeltaBook
from shards.session import book_snapshots
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.fake_venue import Answer, running

DEPTH = "/fapi/v1/depth"


def _snapshot(seq: int) -> Answer:
    bids = [["10", "1"]]
    return Answer(json.dumps({"lastUpdateId": seq, "T": 5, "bids": bids, "asks": []}).encode())


def _update(seq: int, previous: int) -> dict[str, Any]:
    return {"e": "depthUpdate", "E": 1, "T": seq, "s": "BTCUSDT", "U": previous + 1, "u": seq,
            "pu": previous, "b": [["9", "1"]], "a": []}  # fmt: skip


@pytest.mark.fault("N08")
def test_a_snapshot_from_the_future_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_snapshots, "_FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(book_snapshots, "_DELAY_S_MAX", 0.01)

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer(DEPTH, _snapshot(10**9))
            rig.session.start([spec_of(kind=StreamKind.L2_BOOK)])
            socket = await rig.fake.socket()
            (book,) = rig.session.streams
            socket.send(_update(11, 10))
            socket.send(_update(12, 11))
            ahead = (
                "snapshot 1000000000 is 999,999,988 ids ahead of the newest event 12; another one"
                " is asked for"
            )
            await rig.until(lambda: rig.fake.count(DEPTH) >= 3 and book.reason == ahead)
            assert book.status().state is StreamState.SYNCING
            rig.fake.answer(DEPTH, _snapshot(12))
            await rig.until(lambda: book.state is StreamState.LIVE)
            socket.send(_update(15, 13))  # one is missing: the book starts anew
            socket.send(_update(16, 15))
            rig.fake.answer(DEPTH, _snapshot(10**9), _snapshot(16))
            await rig.until(lambda: len(rig.double.rows("book")) == 6)
            rows = rig.double.rows("book")
            assert [int(seq) for seq in rows["seq"]] == [11, 12, 12, 15, 16, 16]
            assert [bool(flags & Flag.SNAPSHOT) for flags in rows["flags"]] == [
                False, False, True, False, False, True,
            ]  # fmt: skip
            (gap,) = rig.double.rows("gap")
            assert (gap["reason"], gap["from_seq"], gap["to_seq"]) == (GapReason.RESYNC, 13, 13)

    uvloop.run(body())


class _Clock:
    """Seconds that a test adds to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed_s = 0.0
        monkeypatch.setattr(books, "monotonic_s", lambda: monotonic_s() + self.passed_s)


def _delta(seq: int, ts_recv: int = 1) -> tuple[int, BookEvent]:
    return seq, BookEvent(seq, seq - 1, 1, ts_recv, [(9.0, 1.0)], [])


def _whole(seq: int) -> BookEvent:
    return BookEvent(seq, 0, 1, 1, [(9.0, 1.0)], [], is_snapshot=True)


def _book() -> tuple[DeltaBook, list[DeltaBook], MemoryRings]:
    asked: list[DeltaBook] = []
    double = MemoryRings()
    spec = spec_of(kind=StreamKind.L2_BOOK)
    book = DeltaBook(spec, double.rings[BOOK.name], double.gaps, None, asked.append)
    book.subscribed()
    return book, asked, double


@pytest.mark.fault("N08")
def test_a_snapshot_that_is_a_little_ahead_is_waited_for_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    book, asked, double = _book()
    book.on_event(*_delta(1))
    book.on_snapshot(_whole(5))
    clock.passed_s = 9.0
    book.tick(1)
    assert len(asked) == 1, "events may be on their way"
    clock.passed_s = 10.5
    book.tick(1)
    assert len(asked) == 2
    assert "snapshot 5 is 4 ids ahead of the newest event 1" in book.reason
    book.on_snapshot(_whole(2))
    book.on_event(*_delta(2))
    assert book.is_synced
    assert [int(seq) for seq in double.rows("book")["seq"]] == [1, 2, 2]
    assert len(double.rows("gap")) == 0, "nothing is missing"


@pytest.mark.fault("N08")
def test_a_stream_that_is_late_is_given_its_lateness_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    book, asked, _ = _book()
    book.on_event(*_delta(1, ts_recv=30 * 10**9))
    book.on_snapshot(_whole(5))
    clock.passed_s = 39.0
    book.tick(1)
    assert len(asked) == 1
    clock.passed_s = 41.0
    book.tick(1)
    assert len(asked) == 2


@pytest.mark.fault("N08")
@pytest.mark.parametrize("ahead", [3, 10**9])
def test_a_book_that_is_renewed_runs_on_and_asks_again(
    monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    clock = _Clock(monkeypatch)
    book, asked, double = _book()
    book.on_event(*_delta(1))
    book.on_snapshot(_whole(1))
    assert book.is_synced
    book.renew()
    book.on_snapshot(_whole(1 + ahead))
    clock.passed_s = 10.5
    book.tick(1)
    assert len(asked) == 3
    assert (book.state, book.reason) == (StreamState.LIVE, "")
    book.on_snapshot(_whole(1))
    assert book.is_settled
    assert [int(seq) for seq in double.rows("book")["seq"]] == [1, 1, 1]
