"""The interval of each funding row: as the venue says it, as soon as it says it, and never guessed.

A session of its own runs against the simulated venue, which lists a symbol at 8 h, one at 4 h and
one at 1 h, and is asked far more often than a real one.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.data.flags import GapReason
from engine.data.layout import open_layout
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamState
from engine.start.migrations import sql_dir
from shards.feeds.contracts import FundingRates
from shards.session import funding_intervals
from shards.session.venue_session import VenueSession
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.binance import rest as binance_rest
from shards.venues import VENUES
from shards.venues.kit import Venue
from tests.shards.doubles import MemoryRings, free_leases, spec_of
from tests.waiting import until

pytestmark = pytest.mark.whole

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
HOUR_S = 3600
BINANCE = VENUES["binance_linear"]


def often(refresh_s: float) -> Venue:
    assert BINANCE.funding_intervals is not None
    intervals = replace(BINANCE.funding_intervals, refresh_s=refresh_s)
    return replace(BINANCE, funding_intervals=intervals)


class Rig:
    """A simulated venue and a session with it."""

    def __init__(self, simulator: Simulator, venue: Venue, directory: Path) -> None:
        self.simulator = simulator
        self.url = f"http://127.0.0.1:{simulator.port}"
        self.double = MemoryRings()
        self.faults: list[BaseException] = []
        self.session = VenueSession(
            venue,
            VenueSettings(
                rest_url=f"{self.url}/{venue.name}",
                ws_url=f"ws://127.0.0.1:{simulator.port}/{venue.name}",
                poll_interval_s={StreamKind.FUNDING: 0.1},
            ),
            self.double.rings,
            open_layout(directory / "state", directory),
            self.faults.append,
            free_leases(),
        )

    def start(self, *symbols: str, transport: Transport = Transport.WS) -> None:
        first = 10 * (transport is Transport.HTTP_POLL)
        self.session.start([
            spec_of(first + SYMBOLS.index(symbol), symbol=symbol, kind=StreamKind.FUNDING,
                    transport=transport)
            for symbol in symbols
        ])  # fmt: skip

    def intervals(self, slot: int) -> list[int]:
        rows = self.double.rows("funding")
        found: list[int] = rows["interval_s"][rows["stream"] == slot].tolist()
        return found

    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition, doing=self.session.tick)
        assert self.faults == []

    async def post(self, path: str, **body: object) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self.url}/simulator/{path}", data=json.dumps(body)) as reply,
        ):
            assert reply.status == 200, await reply.text()


def run(tmp_path: Path, venue: Venue, test: Callable[[Rig], Awaitable[None]]) -> None:
    async def body() -> None:
        simulator = Simulator(SimulatorSettings(symbols=3, trades_per_s=0))
        await simulator.start()
        rig = Rig(simulator, venue, tmp_path)
        try:
            await test(rig)
        finally:
            await rig.session.close()
            await simulator.close()

    uvloop.run(body())


@pytest.mark.parametrize("transport", list(Transport))
def test_rows_say_their_interval_from_the_first_on(tmp_path: Path, transport: Transport) -> None:
    async def test(rig: Rig) -> None:
        rig.start("BTCUSDT", "ETHUSDT", transport=transport)
        rig.start("SOLUSDT", transport=transport)
        slots = [stream.slot for stream in rig.session.streams]
        await rig.until(lambda: all(rig.intervals(slot) for slot in slots))
        assert [set(rig.intervals(slot)) for slot in slots] == [
            {8 * HOUR_S}, {4 * HOUR_S}, {HOUR_S},
        ]  # fmt: skip
        gate = rig.simulator.status()["venues"]["binance_linear"]["rest"]
        assert gate["funding_calls"] == 1, "once for all streams, and not again for a minute"

    run(tmp_path, BINANCE, test)


@pytest.mark.parametrize("transport", list(Transport))
def test_an_interval_that_changes_is_picked_up(tmp_path: Path, transport: Transport) -> None:
    async def test(rig: Rig) -> None:
        rig.start("BTCUSDT", "ETHUSDT", transport=transport)
        btc, eth = (stream.slot for stream in rig.session.streams)
        await rig.until(lambda: rig.intervals(btc) and rig.intervals(eth))
        change = {"venue": "binance_linear", "action": "change"}
        await rig.post("instruments", **change, symbol="BTCUSDT", funding_interval_hours=4)
        await rig.post("instruments", **change, symbol="ETHUSDT", funding_interval_hours=8)
        await rig.until(lambda: rig.intervals(btc)[-1] == 4 * HOUR_S)
        await rig.until(lambda: rig.intervals(eth)[-1] == 8 * HOUR_S)
        assert sorted(rig.intervals(btc), reverse=True) == rig.intervals(btc), "one change"

    run(tmp_path, often(0.05), test)


@pytest.mark.fault("H03")
@pytest.mark.fault("N04")
def test_a_row_that_cannot_be_read_tells_nothing_of_its_symbol_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(rig: Rig) -> None:
        with monkeypatch.context() as broken:
            rows = [{"symbol": "ETHUSDT"}, {"symbol": "SOLUSDT", "fundingIntervalHours": 1}]
            broken.setattr(binance_rest, "funding_rows", lambda _: rows)
            rig.start("BTCUSDT", "ETHUSDT")
            btc, eth = (stream.slot for stream in rig.session.streams)
            rig.start("SOLUSDT")
            sol = rig.session.streams[-1].slot
            await rig.until(lambda: all(len(rig.intervals(n)) >= 2 for n in (btc, eth, sol)))
            assert set(rig.intervals(eth)) == {0}, "its own row is the odd one"
            assert set(rig.intervals(btc)) == {8 * HOUR_S}, "a symbol without a row pays as usual"
            assert set(rig.intervals(sol)) == {HOUR_S}
            rows[0] = {"symbol": None}
            await rig.until(lambda: rig.intervals(btc)[-1] == 0)
            assert rig.intervals(sol)[-1] == HOUR_S, "the row without a name is not its"
        await rig.until(lambda: rig.intervals(eth)[-1] == 4 * HOUR_S)

    run(tmp_path, often(0.05), test)


@pytest.mark.fault("H02")
def test_a_question_that_may_not_be_asked_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ban can last for days: rows come without an interval, other kinds at once."""
    monkeypatch.setattr(funding_intervals, "_PATIENCE_S", 0.3)

    async def test(rig: Rig) -> None:
        granted = rig.session._rest._leases["rest_funding"]
        granted.blocked_until_s = float("inf")
        rig.start("ETHUSDT")
        trades = spec_of(5, symbol="ETHUSDT")
        rig.session.start([trades])
        funding = rig.session.streams[0]
        await rig.until(lambda: rig.session.streams[1].state is StreamState.SYNCING)
        await rig.until(lambda: funding.state is StreamState.LIVE)
        assert set(rig.intervals(1)) == {0}

    run(tmp_path, BINANCE, test)


def test_an_answer_that_is_too_old_counts_no_more(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.start("ETHUSDT", transport=Transport.HTTP_POLL)
        await rig.until(lambda: rig.intervals(11))
        stream, gate = rig.session.streams[0], rig.simulator._targets["binance_linear"].gate
        assert isinstance(stream, FundingRates)
        gate.refuse_count, gate.refuse_status = 1 << 30, 503
        await rig.until(lambda: stream.interval_s == 0)
        gate.refuse_count = 0
        await rig.until(lambda: stream.interval_s == 4 * HOUR_S)

    run(tmp_path, often(0.05), test)


def test_the_view_says_how_old_an_interval_may_be() -> None:
    intervals = BINANCE.funding_intervals
    assert intervals is not None
    trusted_s = intervals.refresh_s * funding_intervals._TRUSTED_REFRESHES
    assert (intervals.refresh_s, trusted_s) == (60, 600)
    comments = [
        text
        for path in sorted(sql_dir().glob("*.sql"))
        if "COLUMN funding_rates.funding_interval" in (text := path.read_text())
    ]
    assert "a minute before at most, and up to ten while" in comments[-1]


@pytest.mark.fault("X04")
def test_a_silent_stream_is_asked_for_again_and_declares_what_did_not_come(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.start("ETHUSDT")
        await rig.until(lambda: rig.intervals(1))
        (stream,) = rig.session.streams
        rig.session._sockets.tick(monotonic_s() + 16)
        assert stream.status().state is StreamState.STALE
        await rig.until(lambda: len(rig.double.rows("gap")) == 1)
        (gap,) = rig.double.rows("gap")
        assert (gap["stream"], gap["reason"]) == (1, GapReason.SILENCE)
        assert stream.status().state is StreamState.LIVE

    run(tmp_path, BINANCE, test)
