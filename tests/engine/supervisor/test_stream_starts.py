"""Which streams shards are told to begin and when, without any process."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.data.instrument import Instrument, InstrumentKind
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.listings import ListingLoaded, ListingWanted
from engine.messages.pipes import ShardStatus
from engine.messages.streams import (
    StartStreams,
    StopStreams,
    StreamRequest,
    StreamState,
    StreamStatus,
)
from engine.streams import instrument_facts
from engine.streams.running_streams import RunningStreams
from engine.streams.wanted import Wanted
from engine.supervisor import stream_starts
from engine.supervisor.stream_starts import StreamStarts


class Rig:
    """One shard, not there yet, and a venue of which nothing is known."""

    def __init__(self, directory: Path) -> None:
        self.slots = Slots(directory / "streams.jsonl")
        wanted = Wanted(directory / "registry.jsonl")
        self.running = RunningStreams(self.slots, wanted, 1, max_rows_per_copy=1000)
        self.running.open([])
        self.begun: list[list[int]] = []
        self.ended: list[list[int]] = []
        self.looked: list[str] = []
        self.starts = StreamStarts(self.running, self.slots, self._to_shard, self._to_control)

    def _to_shard(self, shard: int, message: StartStreams | StopStreams) -> None:
        assert shard == 0
        if isinstance(message, StartStreams):
            self.begun.append([spec.slot for spec in message.streams])
        else:
            self.ended.append(message.slots)

    def _to_control(self, message: ListingWanted) -> None:
        self.looked.append(message.venue)

    def add(self, *symbols: str) -> None:
        keys = [StreamKey("acme", symbol, StreamKind.TRADES) for symbol in symbols]
        self.starts.start(self.running.add([StreamRequest(key) for key in keys])[1])

    def remove(self, symbol: str) -> None:
        key = StreamKey("acme", symbol, StreamKind.TRADES)
        self.starts.stop(self.running.remove([key])[1])

    def list(self, *symbols: str, **odd: str) -> None:
        known = [Instrument("acme", symbol, 2, 3) for symbol in symbols]
        self.starts.listed(ListingLoaded("acme", known, [], odd))

    def states(self) -> dict[str, str]:
        return {report.symbol: report.state.value for report in self.running.reports()}

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def said(*streams: StreamStatus) -> ShardStatus:
    return ShardStatus(0, list(streams), {}, {}, 1, 0, 0.0, 0, 0.0)


def run(tmp_path: Path, test: Callable[[Rig], Awaitable[None]]) -> None:
    async def body() -> None:
        await test(Rig(tmp_path))

    asyncio.run(body())


def test_streams_begin_once_their_shard_is_there_and_their_symbol_listed(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.add("A", "B")
        rig.list("A")
        assert rig.begun == [], "no shard"
        rig.starts.shard_ready(0)
        rig.add("C")
        rig.list("A", "B", "C")
        assert rig.begun == [[0], [1, 2]]
        assert [each.instrument is not None for each in rig.slots] == [True] * 3
        rig.starts.shard_ended(0, "killed")
        assert rig.running.reports()[0].reason == "killed"
        rig.starts.shard_ready(0)
        assert rig.begun[2:] == [[0, 1, 2]]

    run(tmp_path, test)


def test_a_stream_that_is_removed_while_it_waits_never_begins(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.starts.shard_ready(0)
        rig.add("A", "B")
        rig.remove("A")
        rig.list("B")
        rig.add("D", "E")
        rig.remove("D")  # before anybody has said that it is unknown
        await rig.settle()
        rig.remove("E")
        rig.list("A", "B", "D", "E")
        rig.starts.tick(0.0)
        assert (rig.begun, rig.ended) == ([[1]], [])
        assert rig.states() == {"B": "pending"}

    run(tmp_path, test)


@pytest.mark.fault("H02")
def test_what_began_on_old_facts_ends_when_the_venue_lists_it_no_more(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.add("A", "B", "C")
        rig.slots.describe_all(
            {slot: Instrument("acme", symbol, 2, 3) for slot, symbol in enumerate("ABC")}
        )
        rig.starts.shard_ready(0)
        assert rig.begun == [[0, 1, 2]]
        live = said(*(StreamStatus(slot, StreamState.LIVE, row_count=7) for slot in range(3)))
        rig.running.update(live)
        rig.list("B", C="status: required")
        assert rig.ended == [[0]]
        await rig.settle()
        rig.running.update(live)  # it was under way when the stream was ended
        gone = rig.running.reports()[0]
        assert (gone.state, gone.row_count) == (StreamState.FAILED, 7)
        assert gone.reason.startswith("unknown symbol: acme lists no 'A'")
        rig.list("A")
        assert rig.begun[1:] == [[0]], "it is listed again"
        assert rig.ended == [[0]], "what a listing had once goes on without"
        rig.running.update(said(StreamStatus(0, StreamState.LIVE, row_count=2, life=1)))
        assert rig.running.reports()[0].row_count == 9

    run(tmp_path, test)


@pytest.mark.fault("A10")
def test_a_symbol_that_is_not_listed_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(stream_starts, "monotonic_s", lambda: now_s)

    async def test(rig: Rig) -> None:
        nonlocal now_s
        rig.starts.shard_ready(0)
        rig.add("A")
        rig.list("B")
        await rig.settle()
        assert rig.states() == {"A": "failed"}
        for passed_s, looks in ((299.0, 0), (2.0, 1), (298.0, 1), (3.0, 2)):
            now_s += passed_s
            rig.starts.tick(now_s)
            assert len(rig.looked) == looks
        rig.list("B")
        await rig.settle()
        rig.add("C")
        rig.starts.tick(now_s)
        assert len(rig.looked) == 2, "the listing is young"
        now_s += 31.0
        rig.add("D")
        rig.starts.tick(now_s)
        assert len(rig.looked) == 3, "it may be listed since"
        rig.list("A", "B", "C", "D")
        assert rig.begun == [[0, 1, 2]]

    run(tmp_path, test)
    assert caplog.text.count("acme/A/Trades/Ws: unknown symbol: acme lists no 'A'") == 1


def test_a_kind_that_its_instrument_cannot_have_never_begins_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it once an earlier run has stored it, with an instrument whose kind it knew or not;
    the others begin.
    """
    interest = [StreamKey("acme", symbol, StreamKind.OPEN_INTEREST) for symbol in "ABCD"]
    spot = [Instrument("acme", each, 2, 3, kind=InstrumentKind.SPOT) for each in "ABCD"]

    async def test(rig: Rig) -> None:
        rig.running.add([StreamRequest(key) for key in interest])
        rig.slots.describe_all({0: spot[0], 1: Instrument("acme", "B", 2, 3), 3: spot[3]})
        rig.starts.shard_ready(0)
        assert rig.begun == [[1]], "nobody knows what B is"
        assert rig.states() == {"A": "failed", "B": "pending", "C": "pending", "D": "failed"}
        rig.add("A")
        assert rig.begun[1:] == [[4]], "its trades"
        rig.starts.listed(ListingLoaded("acme", spot, [], {}))
        assert (rig.begun[2:], rig.ended) == ([], [[1]])
        reports = rig.running.reports()[:4]
        assert {each.state for each in reports} == {StreamState.FAILED}
        assert reports[2].reason == "acme can have no OpenInterest of C, for its kind is spot"
        rig.starts.tick(1e9)
        assert rig.looked == [], "another listing says nothing else"
        listed = [Instrument("acme", each, 2, 3, kind=InstrumentKind.FUTURE) for each in "ABCD"]
        rig.starts.listed(ListingLoaded("acme", listed, [], {}))
        assert sorted(rig.begun[2]) == [0, 1, 2, 3], "the venue, or its reader, was wrong"

    run(tmp_path, test)
    assert "do not begin: 2 (e.g. acme can have no OpenInterest of A" in caplog.text


@pytest.mark.fault("N11")
def test_many_unknown_symbols_do_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among 20,000 names those alike take a tenth of a second to find, for each of them."""

    async def test(rig: Rig) -> None:
        turn, turns = 0, list[int]()

        def counting(*_: object) -> list[str]:
            turns.append(turn)
            return []

        monkeypatch.setattr(instrument_facts, "near_names", counting)
        rig.starts.shard_ready(0)
        rig.list("B")
        rig.add(*(f"NO{number}" for number in range(50)), "B")
        assert rig.begun == [[50]]
        while len(turns) < 50:
            turn += 1
            await asyncio.sleep(0)
        assert len(set(turns)) == 50

    run(tmp_path, test)
