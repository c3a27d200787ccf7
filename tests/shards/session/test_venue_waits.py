"""What a hostile or sick venue can make us wait for, and write about: nothing without an end."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import VenueError
from engine.data.names import StreamKind, Transport
from engine.messages.limits import LimitFeedback
from engine.messages.streams import StreamState
from shards.transport import rest
from shards.venues import VENUES
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import (
    CLOSE,
    TEXT,
    Answer,
    FakeRig,
    agg_trade,
    coin,
    frame,
    running,
)

INFO = "/fapi/v1/exchangeInfo"
HL = VENUES["hyperliquid_perp"]


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name.startswith("shards")]


def _quick(rig: FakeRig, first_s: float, most_s: float) -> list[float]:
    """Have the rig's connection try again soon; returns the delays it will have chosen."""
    chosen: list[float] = []
    (only,) = rig.session.connections
    trouble = only._trouble
    trouble._backoff._first_s, trouble._backoff._most_s = first_s, most_s
    met = trouble.met

    def noting(error: Exception | str) -> float:
        chosen.append(met(error))
        return chosen[-1]

    trouble.met = noting  # type: ignore[method-assign]
    return chosen


@pytest.mark.fault("N39")
def test_a_venue_that_accepts_and_hangs_up_is_asked_less_and_less_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.closes_at_once = True
            rig.session.start([spec_of()])
            await rig.until(lambda: rig.session.connections)
            chosen = _quick(rig, 0.01, 10.0)
            await rig.until(lambda: len(chosen) >= 6)
            assert chosen[5] > 8 * chosen[0]

    uvloop.run(body())
    said = [line for line in _lines(caplog) if "disconnected" in line]
    assert len(said) == 1, said


@pytest.mark.fault("N09")
def test_a_flood_of_words_about_one_ban_is_told_once(tmp_path: Path) -> None:
    """Each telling is written to the disk by the process that all others wait for."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            socket = await rig.fake.socket()
            until = wall_ns() // 10**6 + 500_000
            refusal = {"id": 1, "error": {"code": -1003, "msg": f"IP banned until {until}."}}
            socket.raw(frame(TEXT, json.dumps(refusal).encode()) * 2000)
            socket.send(agg_trade("BTCUSDT", 1))
            await rig.until(lambda: rig.session.streams[0].row_count == 1)
            told = [each for each in rig.told if isinstance(each, LimitFeedback)]
            assert len([each for each in told if each.retry_after_s is not None]) == 1
            longer = {"id": 1, "error": {"code": -1003, "msg": f"banned until {until + 90_000}."}}
            socket.send(longer)

            def blocked_s() -> float:
                reports = rig.desk.reports()
                return max(each.blocked_s for each in reports if each.pool == "ws_connects")

            await rig.until(lambda: blocked_s() > 550)

    uvloop.run(body())


@pytest.mark.fault("N39")
def test_an_acknowledged_subscription_is_no_work_done(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            await rig.until(lambda: rig.session.connections)
            chosen = _quick(rig, 0.01, 10.0)
            for _ in range(5):
                socket = await rig.fake.socket()
                said = await socket.message()
                socket.send({"result": None, "id": said["id"]})
                socket.raw(frame(CLOSE, b"\x03\xe8"))
                await rig.until(socket.ended.is_set)
            await rig.until(lambda: len(chosen) == 5)
            assert chosen[4] > 5 * chosen[0]
            socket = await rig.fake.socket()
            socket.send(agg_trade("BTCUSDT", 1))
            await rig.until(lambda: rig.session.streams[0].state is StreamState.LIVE)
            socket.raw(frame(CLOSE, b"\x03\xe8"))
            await rig.until(lambda: len(chosen) == 6)
            assert chosen[5] <= 0.01, "rows came: the delay starts over"

    uvloop.run(body())


@pytest.mark.fault("N39")
def test_a_breach_after_rows_still_grows_the_delay(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            await rig.until(lambda: rig.session.connections)
            chosen = _quick(rig, 0.01, 10.0)
            for number in range(5):
                socket = await rig.fake.socket()
                row = frame(1, agg_trade("BTCUSDT", number + 1))
                socket.raw(row + frame(1, b"{}", rsv=4))
            await rig.until(lambda: len(chosen) == 5)
            assert chosen[4] > 5 * chosen[0]

    uvloop.run(body())


@pytest.mark.fault("N39")
@pytest.mark.parametrize("path", ["/fapi/v1/openInterest", "/fapi/v1/depth"])
@pytest.mark.whole
def test_calls_that_fail_again_and_again_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.session.book_snapshots._DELAY_S_MAX", 0.02)

    async def body() -> None:
        async with running(tmp_path, poll_interval_s={StreamKind.OPEN_INTEREST: 0.1}) as rig:
            rig.fake.answer("/fapi/v1/openInterest", {})
            rig.fake.answer(path, Answer(b"overloaded", 503))
            way = Transport.HTTP_POLL
            rig.session.start(
                [spec_of(1, kind=StreamKind.OPEN_INTEREST, transport=way)]
                if "open" in path
                else [spec_of(2, kind=StreamKind.L2_BOOK)]
            )
            if path.endswith("depth"):
                socket = await rig.fake.socket()
                socket.send(
                    {"e": "depthUpdate", "E": 1, "T": 1, "s": "BTCUSDT", "U": 1, "u": 2, "pu": 0,
                     "b": [["1", "1"]], "a": []}
                )  # fmt: skip
            await rig.until(lambda: rig.fake.count(path) >= 4)

    uvloop.run(body())
    assert len([line for line in _lines(caplog) if "503" in line]) == 1


@pytest.mark.fault("N49")
@pytest.mark.parametrize("what", ["handshake", "tcp"])
def test_opening_a_socket_has_a_deadline_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Neither a venue that never answers the handshake, nor one that never accepts."""
    monkeypatch.setattr("shards.transport.socket._CONNECT_TIMEOUT_S", 0.5)

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.handshakes = [None]
            if what == "tcp":

                async def never(*_: object, **__: object) -> None:
                    await asyncio.sleep(3600)

                monkeypatch.setattr("shards.transport.socket.ws_connect", never)
            rig.session.start([spec_of()])
            began_s = monotonic_s()
            await rig.until(lambda: rig.session.streams[0].state is StreamState.BACKOFF)
            assert monotonic_s() - began_s < 3.0
            assert "cannot connect: TimeoutError" in rig.session.streams[0].reason

    uvloop.run(body())


@pytest.mark.fault("N49")
def test_a_handshake_that_is_answered_too_late_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a second socket would stay open beside the next one, and nobody would know of it."""
    monkeypatch.setattr("shards.transport.socket._CONNECT_TIMEOUT_S", 0.6)

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.handshake_delay_s = 1.5
            rig.session.start([spec_of()])
            await rig.until(lambda: rig.session.streams[0].state is StreamState.BACKOFF)
            rig.fake.handshake_delay_s = 0.0
            late = await rig.fake.socket()
            next_one = await rig.fake.socket()
            ended = {True: late, False: next_one}
            await rig.until(lambda: late.ended.is_set() or next_one.ended.is_set())
            assert sum(each.ended.is_set() for each in ended.values()) == 1
            assert len(rig.session.connections) == 1

    uvloop.run(body())


@pytest.mark.fault("N49")
def test_an_answer_that_comes_drop_by_drop_ends_with_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest, "_TIMEOUT", aiohttp.ClientTimeout(total=0.5))

    async def body() -> None:
        async with running(tmp_path, HL) as rig:
            rig.fake.answer("/info#meta", Answer(b" " * 5000, drip_s=0.01))
            began_s = monotonic_s()
            with pytest.raises(VenueError, match="TimeoutError"):
                await rig.fetch_listing()
            assert monotonic_s() - began_s < 3.0
            rig.fake.answer("/info#meta", {"universe": [coin("BTC")]})
            assert b"BTC" in (await rig.fetch_listing())[0]

    uvloop.run(body())


@pytest.mark.fault("N49")
def test_a_session_that_ends_as_an_answer_comes_ends(tmp_path: Path) -> None:
    """The task that waits for the answer must hear that it is to end, not only that it came."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer("/fapi/v1/fundingInfo", Answer(b"overloaded", 503))
            rig.session.start([spec_of(kind=StreamKind.FUNDING)])

            def source() -> Any:
                return rig.session._intervals

            while not (source() and source()._tried.is_set()):  # not a turn of the loop later
                await asyncio.sleep(0)
            async with asyncio.timeout(30):
                await rig.session.close()

    uvloop.run(body())
