"""Polling against a server of the test's own: cadence, batches, failures, and their states."""

import asyncio
import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from aiohttp import web

from engine.base.clock import monotonic_s
from engine.data.flags import Flag, GapReason
from engine.data.layout import open_layout
from engine.data.names import StreamKind, Transport
from engine.limits.lease_desk import LeaseDesk
from engine.limits.leases import Lease, LeaseClient
from engine.messages.limits import LeaseGranted, LeaseRequest
from engine.messages.pipes import FromChild
from engine.messages.settings import LimitSettings, VenueSettings
from engine.messages.streams import StreamState
from shards.feeds.passing import baton
from shards.feeds.unnumbered import UnnumberedFeed
from shards.session.venue_session import VenueSession
from shards.transport.poller import Poller, PollShare
from shards.transport.rest import VenueRest
from shards.venues import VENUES
from shards.venues.kit import PollChannel
from tests.shards.doubles import MemoryRings, Open, free_leases, spec_of
from tests.shards.fake_venue import Answer, binance_symbol, exchange_info, running

VENUE = VENUES["binance_linear"]
SYMBOLS = ["BTCUSDT", "ETHUSDT"]
Reply = tuple[int, object]


FILTERS = [
    {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
    {"filterType": "LOT_SIZE", "stepSize": "0.001"},
]


class Server:
    """REST of a venue: every answer has a later time than the one before. `script` overrides the
    next answers of a path.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.asked_s: list[float] = []
        self.script: dict[str, list[Reply]] = {}
        self.symbols = list(SYMBOLS)
        self.refused_s = 0.0
        self.is_broken = False
        self._time_ms = 1_795_000_000_000
        self.gate = asyncio.Event()
        """Answers wait for it."""
        self.gate.set()

    async def answer(self, request: web.Request) -> web.Response:
        key = request.path_qs
        self.asked[key] += 1
        self.asked_s.append(monotonic_s())
        self._time_ms += 1000
        status, body = 200, self._body(request)
        headers = {}
        if self.is_broken:
            status, body = 500, "oops"
        await self.gate.wait()
        if self.script.get(key):
            status, body = self.script[key].pop(0)
        if status == 429:
            headers["Retry-After"] = "1"
            self.refused_s = monotonic_s()
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    def _body(self, request: web.Request) -> object:
        symbol = request.query.get("symbol", "")
        if request.path.endswith("exchangeInfo"):
            return {"symbols": [
                {"symbol": s, "status": "TRADING", "baseAsset": s[:3], "quoteAsset": "USDT",
                 "filters": FILTERS} for s in self.symbols
            ]}  # fmt: skip
        if request.path.endswith("openInterest"):
            return {"symbol": symbol, "openInterest": "12.5", "time": self._time_ms}
        states = [
            {"symbol": s, "markPrice": "1.5", "indexPrice": "1.25", "lastFundingRate": "0.0001",
             "nextFundingTime": 0, "time": self._time_ms} for s in self.symbols
        ]  # fmt: skip
        return next(s for s in states if s["symbol"] == symbol) if symbol else states


class Rig:
    """A server, its client, rings, and pollers on them."""

    def __init__(self, url: str, server: Server) -> None:
        self.server = server
        self.rest = VenueRest(VENUE, url, free_leases())
        self.double = MemoryRings()
        self.published = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def publish(self) -> None:
        self.double.rings.publish()
        self.published.set()

    def poller(
        self, kind: StreamKind, interval_s: float = 0.02, share: PollShare | None = None
    ) -> Poller:
        channel = VENUE.channels[kind, Transport.HTTP_POLL]
        assert isinstance(channel, PollChannel)
        poller = Poller(
            "binance_linear", channel, self.rest, self.publish,
            interval_s=interval_s, share=share or PollShare(Open(), 1e6, lambda: False),
        )  # fmt: skip
        self._tasks.append(asyncio.create_task(poller.run()))
        return poller

    def stream(self, slot: int, symbol: str, kind: StreamKind) -> UnnumberedFeed:
        spec = spec_of(slot, symbol=symbol, kind=kind, transport=Transport.HTTP_POLL)
        stream = self.double.feed(spec, VENUE)
        assert isinstance(stream, UnnumberedFeed)
        return stream

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for rows, or for a state that may last no longer than the next publication."""
        async with asyncio.timeout(30):
            while not done():
                self.published.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.published.wait(), 0.002)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.rest.close()


def run(test: Callable[[Rig], Awaitable[None]]) -> None:
    """Run a test against a fresh server."""

    async def body() -> None:
        server = Server()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        rig = Rig(f"http://{host}:{port}", server)
        try:
            await asyncio.wait_for(test(rig), 20)
        finally:
            await rig.close()
            await runner.cleanup()

    uvloop.run(body())


def test_each_stream_is_sampled_again_and_again() -> None:
    async def test(rig: Rig) -> None:
        poller = rig.poller(StreamKind.OPEN_INTEREST, interval_s=0.5)
        streams = [rig.stream(n, s, StreamKind.OPEN_INTEREST) for n, s in enumerate(SYMBOLS)]
        for stream in streams:
            poller.add(stream)
            assert stream.status().state is StreamState.SYNCING
        await rig.until(lambda: min(stream.row_count for stream in streams) >= 3)
        assert [stream.status().state for stream in streams] == [StreamState.LIVE] * 2
        rows = rig.double.rows("open_interest")
        assert set(rows["stream"].tolist()) == {0, 1}
        assert set(rows["qty"].tolist()) == {12.5}
        assert len(rig.double.rows("gap")) == 0
        assert all(stream.frame_count >= 3 for stream in streams)

    run(test)


def test_a_stream_of_another_process_is_sampled_when_it_is_due_and_not_before() -> None:
    """Budgets allow for one sample an interval, whoever takes it."""

    async def test(rig: Rig) -> None:
        kind = StreamKind.OPEN_INTEREST
        present, after = rig.poller(kind, interval_s=1.0), rig.poller(kind, interval_s=1.0)
        stream, heir = rig.stream(1, "BTCUSDT", kind), rig.stream(1, "BTCUSDT", kind)
        present.add(stream)
        await rig.until(lambda: stream.row_count == 1)
        assert not present.is_asking(stream)
        present.remove(stream)
        stream.let_go()
        baton.inherit(heir, baton.tell(stream))
        after.add(heir, goes_on=True)
        await rig.until(lambda: heir.row_count == 2)
        first_s, second_s = rig.server.asked_s[:2]
        assert second_s - first_s > 0.5
        assert len(rig.double.rows("gap")) == 0

    run(test)


@pytest.mark.fault("N06")
def test_each_answer_is_a_row_though_the_venues_time_stands() -> None:
    async def test(rig: Rig) -> None:
        said = {"symbol": "BTCUSDT", "openInterest": "12.5", "time": 1_795_000_000_000}
        rig.server.script["/fapi/v1/openInterest?symbol=BTCUSDT"] = [(200, said)] * 16
        interval_s, began_s = 0.02, monotonic_s()
        poller = rig.poller(StreamKind.OPEN_INTEREST, interval_s)
        stream = rig.stream(0, "BTCUSDT", StreamKind.OPEN_INTEREST)
        poller.add(stream)
        await rig.until(lambda: stream.row_count >= 17)
        rows, gaps = rig.double.rows("open_interest"), rig.double.rows("gap")
        intervals = (monotonic_s() - began_s) / interval_s
        assert (rows["ts_event"] == 1_795_000_000_000 * 1_000_000).sum() == 16
        assert len(set(rows["ts_recv"].tolist())) == len(rows)
        assert stream.duplicate_count == 0
        # A machine that stands still for longer than an interval misses polls, and says so.
        assert len(gaps) <= intervals - (len(rows) - 1), "no more than intervals without a poll"

    run(test)


@pytest.mark.fault("N03")
def test_a_poll_that_cannot_be_read_is_declared_and_repeated() -> None:
    """An answer that is none at all is no sample; one with a value of nonsense is."""

    async def test(rig: Rig) -> None:
        bad = {"symbol": "BTCUSDT", "openInterest": "NaN", "time": 1_795_000_000_000}
        error = {"code": -1000, "msg": "An unknown error occurred."}
        script: list[Reply] = [(200, bad), (200, "<html>maintenance</html>"), (200, error)]
        rig.server.script["/fapi/v1/openInterest?symbol=BTCUSDT"] = script
        poller = rig.poller(StreamKind.OPEN_INTEREST, interval_s=60)
        stream = rig.stream(0, "BTCUSDT", StreamKind.OPEN_INTEREST)
        poller.add(stream)
        await rig.until(lambda: stream.row_count == 1)
        assert stream.refused_count == 1
        (gap,) = rig.double.rows("gap")
        assert (gap["reason"], gap["missing"]) == (GapReason.UNREADABLE, 1)
        assert sum(poller.malformed_by_reason.values()) == 2, "the page is said by the call"

    run(test)


def test_one_call_serves_all_where_that_is_cheaper() -> None:
    async def test(rig: Rig) -> None:
        poller = rig.poller(StreamKind.FUNDING)
        streams = [
            rig.stream(n, symbol, StreamKind.FUNDING)
            for n, symbol in enumerate([*SYMBOLS, *(f"X{n}USDT" for n in range(8))])
        ]
        for stream in streams[:9]:
            poller.add(stream)
        await rig.until(lambda: streams[0].row_count >= 2)
        asked = rig.server.asked
        assert asked["/fapi/v1/premiumIndex?symbol=BTCUSDT"] >= 2
        assert asked["/fapi/v1/premiumIndex"] == 0
        poller.add(streams[9])  # ten calls of weight 1 cost what one of weight 10 does
        before = streams[1].row_count
        await rig.until(lambda: asked["/fapi/v1/premiumIndex"] >= 2
                        and streams[1].row_count >= before + 2)  # fmt: skip
        poller.remove(streams[9])
        single = asked["/fapi/v1/premiumIndex?symbol=ETHUSDT"]
        await rig.until(lambda: asked["/fapi/v1/premiumIndex?symbol=ETHUSDT"] >= single + 2)

    run(test)


def test_what_a_call_was_to_bring_that_ended_for_another_is_declared() -> None:
    async def test(rig: Rig) -> None:
        poller = rig.poller(StreamKind.FUNDING, interval_s=0.05)
        streams = [
            rig.stream(n, symbol, StreamKind.FUNDING)
            for n, symbol in enumerate([*SYMBOLS, *(f"X{n}USDT" for n in range(8))])
        ]
        rig.server.symbols = [stream.key.symbol for stream in streams]
        for stream in streams:
            poller.add(stream)
        await rig.until(lambda: min(stream.row_count for stream in streams) >= 1)
        rig.server.gate.clear()
        await asyncio.sleep(0.25)  # at least three samples are due and not taken
        poller.remove(streams[9])  # from here on each stream has a call of its own
        before = streams[0].row_count
        rig.server.gate.set()
        await rig.until(lambda: streams[0].row_count > before)
        gaps = rig.double.rows("gap")
        assert 0 in gaps["stream"].tolist()
        assert set(gaps["reason"].tolist()) == {GapReason.POLL_MISSED}

    run(test)


def test_a_stream_that_was_removed_is_asked_for_no_more() -> None:
    async def test(rig: Rig) -> None:
        poller = rig.poller(StreamKind.OPEN_INTEREST)
        gone, kept = (rig.stream(n, s, StreamKind.OPEN_INTEREST) for n, s in enumerate(SYMBOLS))
        poller.add(gone)
        poller.add(kept)
        await rig.until(lambda: min(gone.row_count, kept.row_count) >= 1)
        poller.remove(gone)
        rows, before = gone.row_count, kept.row_count
        await rig.until(lambda: kept.row_count >= before + 3)
        assert gone.row_count == rows
        assert poller.streams == [kept]

    run(test)


@pytest.mark.fault("H03")
def test_failed_polls_back_off_say_why_and_leave_a_gap() -> None:
    async def test(rig: Rig) -> None:
        path = "/fapi/v1/openInterest?symbol=BTCUSDT"
        poller = rig.poller(StreamKind.OPEN_INTEREST, interval_s=0.25)
        stream = rig.stream(1, "BTCUSDT", StreamKind.OPEN_INTEREST)
        other = rig.stream(2, "ETHUSDT", StreamKind.OPEN_INTEREST)
        poller.add(stream)
        poller.add(other)
        await rig.until(lambda: stream.row_count >= 1)
        rig.server.script[path] = [(500, "oops"), (500, "oops")]
        await rig.until(lambda: stream.status().state is StreamState.BACKOFF)
        assert "HTTP 500" in stream.status().reason
        before = other.row_count
        await rig.until(lambda: stream.status().state is StreamState.LIVE)
        assert other.row_count > before, "a neighbour is not held up"
        gaps = rig.double.rows("gap")
        assert 1 in gaps["stream"].tolist()
        assert set(gaps["reason"].tolist()) == {GapReason.POLL_MISSED}
        assert other.status().state is StreamState.LIVE

    run(test)


@pytest.mark.fault("H01")
def test_a_venue_that_says_wait_is_asked_nothing_until_then() -> None:
    async def test(rig: Rig) -> None:
        poller = rig.poller(StreamKind.OPEN_INTEREST)
        streams = [rig.stream(n, s, StreamKind.OPEN_INTEREST) for n, s in enumerate(SYMBOLS)]
        for stream in streams:
            poller.add(stream)
        await rig.until(lambda: min(stream.row_count for stream in streams) >= 1)
        path = "/fapi/v1/openInterest?symbol=BTCUSDT"
        rig.server.script[path] = [(429, "slow down")]
        await rig.until(lambda: streams[0].status().state is StreamState.BACKOFF)
        assert "nobody asks for 1 s" in streams[0].status().reason
        await rig.until(lambda: streams[0].status().state is StreamState.LIVE)
        refused_s = rig.server.refused_s
        meanwhile = [at_s for at_s in rig.server.asked_s if refused_s < at_s < refused_s + 1.0]
        assert len(meanwhile) <= 1, "the other stream's request may have been under way"

    run(test)


class Blocked(Open):
    """Nobody comes through."""

    wait = "waiting for the budget rest_polls, blocked 57 s"

    async def acquire(self, units: float = 1.0) -> None:
        """For ever."""
        await asyncio.Event().wait()


def test_a_poll_on_its_schedule_is_not_late_because_intervals_became_shorter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(rig: Rig) -> None:
        is_scarce = True
        share = PollShare(Blocked(), 6.0, lambda: is_scarce)
        poller = rig.poller(StreamKind.OPEN_INTEREST, interval_s=10.0, share=share)
        stream = rig.stream(1, "BTCUSDT", StreamKind.OPEN_INTEREST)
        poller.add(stream)
        assert poller.interval_s == 30.0
        now_s = 1000.0
        monkeypatch.setattr("shards.transport.poller.monotonic_s", lambda: now_s)
        for due_s, is_scarce_then, late in ((1000.0, True, False), (1030.0, False, False),
                                            (1040.0, False, True)):  # fmt: skip
            is_scarce, now_s = is_scarce_then, due_s + (11.0 if late else 0.5)
            body = b'{"symbol":"BTCUSDT","openInterest":"1","time":%d}' % int(due_s * 1e9)
            assert poller._deliver("BTCUSDT", body, due_s) == ""
            assert len(rig.double.rows("gap")) == int(late)

    run(test)


@pytest.mark.fault("H02")
def test_streams_nobody_may_ask_for_say_so() -> None:
    async def test(rig: Rig) -> None:
        share = PollShare(Blocked(), 1e6, lambda: False)
        poller = rig.poller(StreamKind.OPEN_INTEREST, share=share)
        stream = rig.stream(1, "BTCUSDT", StreamKind.OPEN_INTEREST)
        poller.add(stream)
        for later_s, state in ((0.0, StreamState.SYNCING), (900.0, StreamState.STALE)):
            poller.watch(monotonic_s() + later_s)
            assert (stream.status().state, stream.status().reason) == (state, Blocked.wait)

    run(test)


@pytest.mark.fault("X11")
def test_unusable_answers_are_counted_and_tried_again() -> None:
    async def test(rig: Rig) -> None:
        path = "/fapi/v1/openInterest?symbol=BTCUSDT"
        rig.server.script[path] = [
            (200, "{"), (200, {"symbol": "BTCUSDT", "openInterest": "nan", "time": 1}),
        ]  # fmt: skip
        poller = rig.poller(StreamKind.OPEN_INTEREST)
        stream = rig.stream(1, "BTCUSDT", StreamKind.OPEN_INTEREST)
        poller.add(stream)
        await rig.until(lambda: stream.row_count >= 1)
        assert poller.malformed_by_reason == {"json": 1, "schema": 1}

    run(test)


def test_a_stream_the_answer_does_not_name_is_stale_until_it_does() -> None:
    async def test(rig: Rig) -> None:
        poller = rig.poller(StreamKind.FUNDING)
        streams = [
            rig.stream(n, f"X{n}USDT", StreamKind.FUNDING) for n in range(9)
        ] + [rig.stream(9, "BTCUSDT", StreamKind.FUNDING)]  # fmt: skip
        for stream in streams:
            poller.add(stream)
        await rig.until(lambda: streams[9].row_count >= 1)
        poller.watch(monotonic_s() + 31)
        assert streams[0].status().state is StreamState.STALE
        assert "no answer of the venue has named it" in streams[0].status().reason
        rig.server.symbols.append("X0USDT")
        await rig.until(lambda: streams[0].row_count >= 2)
        assert streams[0].status().state is StreamState.LIVE
        times = rig.double.rows("funding")
        first_ts = times["ts_event"][times["stream"] == 0][0]
        gaps = rig.double.rows("gap")
        assert first_ts not in gaps["to_ts"][gaps["stream"] == 0], "nothing is missing before it"
        rig.server.symbols.remove("X0USDT")
        missed = rig.server.asked.total() + 3
        await rig.until(lambda: rig.server.asked.total() >= missed)
        rig.server.symbols.append("X0USDT")
        rows = streams[0].row_count
        await rig.until(lambda: streams[0].row_count > rows)
        taken = rig.double.rows("funding")
        times = taken["ts_event"][taken["stream"] == 0]
        gaps = rig.double.rows("gap")  # a slow machine may have missed samples of its own
        (gap,) = gaps[(gaps["stream"] == 0) & (gaps["to_ts"] == times[rows])]
        assert (gap["from_ts"], gap["reason"]) == (times[rows - 1], GapReason.POLL_MISSED)

    run(test)


def test_intervals_the_budget_cannot_bear_grow_alike_and_the_streams_say_so() -> None:
    async def test(rig: Rig) -> None:
        books_wait = False
        share = PollShare(Open(), 120, lambda: books_wait)
        points = rig.poller(StreamKind.OPEN_INTEREST, 0.5, share)
        rates = rig.poller(StreamKind.FUNDING, 1.0, share)
        assert (points.interval_s, rates.interval_s) == (0.5, 1.0), "nothing to poll yet"
        streams = [rig.stream(n, s, StreamKind.OPEN_INTEREST) for n, s in enumerate(SYMBOLS)]
        points.add(streams[0])
        assert (points.interval_s, rates.interval_s) == (0.5, 1.0), "2 calls a second fit"
        points.add(streams[1])
        rates.add(rig.stream(2, "BTCUSDT", StreamKind.FUNDING))
        assert points.weight_per_minute + rates.weight_per_minute == 300
        assert (points.interval_s, rates.interval_s) == (1.25, 2.5)
        await rig.until(lambda: streams[0].row_count >= 1)
        assert streams[0].status().state is StreamState.LIVE
        assert streams[0].status().reason == "polled every 1.25 s, as the REST budget allows"
        books_wait = True
        assert points.interval_s == pytest.approx(3.75)
        books_wait = False
        points.remove(streams[1])
        rates.remove(rates.streams[0])
        await rig.until(lambda: streams[0].status().reason == "")

    run(test)


@pytest.mark.fault("H03")
@pytest.mark.whole
def test_polls_of_a_venue_in_trouble_leave_the_books_their_budget() -> None:
    """All of 400 polls fail and are repeated, and many books want snapshots from the same budget:
    polls never take more than their pool has, so the others are served.
    """

    async def test(rig: Rig) -> None:
        window_s, weight, polls = 0.5, 60.0, 36.0
        limits = [
            LimitSettings("binance_linear", "rest_weight", weight, window_s),
            LimitSettings("binance_linear", "rest_polls", polls, window_s),
        ]
        with tempfile.TemporaryDirectory() as directory:

            def send(message: FromChild) -> None:
                assert isinstance(message, LeaseRequest)
                desk.ask("shard-0", message)

            def grant(_: str, message: object) -> None:
                assert isinstance(message, LeaseGranted)
                clients.granted(message)

            clients = LeaseClient(send)
            desk = LeaseDesk(limits, Path(directory) / "limits", grant)
            rest = VenueRest(VENUE, rig.rest._base_url, clients)
            rig.rest, kept = rest, rig.rest
            share = PollShare(Lease(clients, "binance_linear", "rest_polls"), 1e6, lambda: False)
            poller = rig.poller(StreamKind.OPEN_INTEREST, 0.1, share)
            rig.server.is_broken = True
            started_s = monotonic_s()
            for n in range(400):
                poller.add(rig.stream(n, f"X{n}USDT", StreamKind.OPEN_INTEREST))
            await rig.until(lambda: rig.server.asked.total() >= polls)
            snapshots = Lease(clients, "binance_linear", "rest_weight")
            for _ in range(4):
                await asyncio.gather(*(snapshots.acquire(20) for _ in range(2)))
            windows = (monotonic_s() - started_s) / window_s + 1
            assert rig.server.asked.total() <= polls * windows
            await rig.close()
            await desk.close()
            rig.rest = kept

    run(test)


def test_a_session_brings_up_polls_and_refuses_what_is_not_offered(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        faults: list[BaseException] = []
        session = VenueSession(
            VENUE,
            VenueSettings(
                rest_url=rig.rest._base_url, poll_interval_s={StreamKind.OPEN_INTEREST: 0.1}
            ),
            rig.double.rings,
            open_layout(tmp_path, tmp_path),
            faults.append,
            free_leases(),
        )
        poll = Transport.HTTP_POLL
        session.start([
            spec_of(1, symbol="BTCUSDT", kind=StreamKind.OPEN_INTEREST, transport=poll),
            spec_of(2, symbol="BTCUSDT", kind=StreamKind.TRADES, transport=poll),
        ])  # fmt: skip
        polled, trades = session.streams
        while polled.row_count < 2:
            await asyncio.sleep(0.01)
            session.tick()
        assert trades.state is StreamState.FAILED
        assert "binance_linear has no Trades HttpPoll; it offers Trades Ws" in trades.reason
        assert session.connections == []
        session.stop([1, 2])
        assert session.pollers[StreamKind.OPEN_INTEREST].streams == []
        session.start([spec_of(1, symbol="BTCUSDT", kind=StreamKind.OPEN_INTEREST, transport=poll)])
        assert session.streams == [polled]
        while polled.row_count < 2:
            await asyncio.sleep(0.01)
        await session.close()
        assert polled.state is StreamState.STOPPED
        assert faults == []

    run(test)


@pytest.mark.fault("H03")
@pytest.mark.whole
def test_one_answer_that_comes_late_is_one_gap(tmp_path: Path) -> None:
    """What is asked next, on its schedule, is not late as well."""

    async def body() -> None:
        async with running(tmp_path, poll_interval_s={StreamKind.OPEN_INTEREST: 1.0}) as rig:
            said = b'{"symbol":"BTCUSDT","openInterest":"1","time":1795000000000}'
            rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(binance_symbol("BTCUSDT")))
            late = Answer(said, drip_s=1.6 / len(said))
            rig.fake.answer("/fapi/v1/openInterest", Answer(said), late, Answer(said))
            rig.session.start(
                [spec_of(kind=StreamKind.OPEN_INTEREST, transport=Transport.HTTP_POLL)]
            )
            await rig.until(lambda: len(rig.double.rows("open_interest")) == 4)
            (gap,) = rig.double.rows("gap")
            assert gap["reason"] == GapReason.POLL_MISSED
            flags = rig.double.rows("open_interest")["flags"] & Flag.AFTER_GAP
            assert flags.astype(bool).tolist() == [False, True, False, False]

    uvloop.run(body())
