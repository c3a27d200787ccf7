"""Streams that fall silent on a live socket: real sockets, a venue of the test's own."""

from pathlib import Path

import pytest

from engine.base.clock import monotonic_s
from engine.data.flags import GapReason
from shards.feeds import handover
from shards.session import venue_session
from shards.transport import sockets
from shards.venues import VENUES
from tests.shards.doubles import with_places
from tests.shards.transport.test_replacement import delivering, gaps, replaced, ticking_until
from tests.shards.venue_rig import SYMBOLS, Rig, message, run, trade

STALE_AFTER_S = 0.3


@pytest.fixture(autouse=True)
def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_CONFIRMED_S", 0.2)
    monkeypatch.setattr(sockets, "_LINGER_S", 0.1)


@pytest.mark.fault("X04")
def test_a_stream_its_socket_brings_no_more_goes_to_another_one(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await delivering(rig, 2)
        await ticking_until(rig, lambda: rig.session.streams[0].state == "stale")
        assert "subscribed again" in rig.session.streams[0].reason
        assert (await message(first))["method"] == "SUBSCRIBE"
        second = await replaced(rig)
        assert "on another socket as well" in rig.session.streams[0].reason
        second.send(trade(SYMBOLS[0], 5))
        await ticking_until(rig, lambda: rig.ids(0) == [1, 2, 5])
        assert gaps(rig) == [(0, 3, 4, GapReason.SILENCE)]
        await ticking_until(rig, lambda: len(rig.session.connections) == 1)
        second.send(trade(SYMBOLS[0], 6))
        await rig.until(lambda: rig.ids(0) == [1, 2, 5, 6])

    run(tmp_path, test, stale_after_s=STALE_AFTER_S)


@pytest.mark.fault("K02")
def test_while_the_process_stood_still_no_stream_was_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_s = 0

    async def test(rig: Rig) -> None:
        nonlocal late_s
        await delivering(rig, 2)
        rig.session.tick()
        monkeypatch.setattr(venue_session, "monotonic_s", lambda: monotonic_s() + late_s)
        late_s += 100
        rig.session.tick(overslept_s=100)
        assert rig.session.streams[0].state == "live"
        late_s += 100
        rig.session.tick()
        assert rig.session.streams[0].state == "stale"

    run(tmp_path, test, stale_after_s=60)


@pytest.mark.fault("X04")
@pytest.mark.whole
def test_a_quiet_instrument_stays_where_it_is_and_may_be_quiet_for_longer(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await delivering(rig, 2)
        second = await replaced(rig)
        first.send(trade(SYMBOLS[0], 3))
        second.send(trade(SYMBOLS[0], 3))
        await ticking_until(rig, lambda: rig.ids(0) == [1, 2, 3])
        woke_s = monotonic_s()
        if len(rig.session.connections) == 2:  # the socket that asked in vain is let go of
            await ticking_until(rig, lambda: len(rig.session.connections) == 1)
        await replaced(rig)
        assert monotonic_s() - woke_s >= 4 * STALE_AFTER_S
        assert gaps(rig) == []

    run(tmp_path, test, stale_after_s=STALE_AFTER_S)


@pytest.mark.fault("X04")
def test_a_socket_that_keeps_its_quiet_stream_reconnects_like_any_other(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        first = await delivering(rig, 2)
        await replaced(rig)
        first.send(trade(SYMBOLS[0], 3))
        await ticking_until(rig, lambda: len(rig.session.connections) == 1)
        first.transport.disconnect()
        third = await replaced(rig)
        third.send(trade(SYMBOLS[0], 4))
        await rig.until(lambda: rig.ids(0) == [1, 2, 3, 4])
        assert gaps(rig) == []

    run(tmp_path, test, stale_after_s=STALE_AFTER_S)


@pytest.mark.fault("X04")
def test_silence_opens_no_socket_that_the_venue_does_not_allow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = with_places(VENUES["binance_linear"], subscriptions=200, sockets=1)

    async def test(rig: Rig) -> None:
        await delivering(rig, 2)
        (stream,) = rig.session.streams
        await ticking_until(rig, lambda: "no other socket is allowed" in stream.reason)
        for _ in range(10):
            rig.session.tick()
        assert stream.state == "stale"
        assert len(rig.session.connections) == 1
        assert caplog.text.count("no other socket is allowed") == 1, "said once"

    run(tmp_path, test, venue=venue, stale_after_s=STALE_AFTER_S)


@pytest.mark.fault("X04")
def test_many_silent_streams_share_one_more_socket(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        await delivering(rig, *[1] * 8)
        await ticking_until(rig, lambda: not rig.sockets.empty())
        second = await rig.socket()
        topics = 0
        while topics < 8:
            await ticking_until(rig, lambda: not second.received.empty())
            topics += len((await message(second))["params"])
        assert len(rig.session.connections) == 2
        assert rig.sockets.empty()

    run(tmp_path, test, stale_after_s=STALE_AFTER_S)


@pytest.mark.whole
def test_many_that_fall_silent_at_once_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(rig: Rig) -> None:
        await delivering(rig, *[1] * 40)
        states = [stream.status for stream in rig.session.streams]
        await ticking_until(rig, lambda: all(each().state == "stale" for each in states))

    run(tmp_path, test, stale_after_s=2.0)
    assert caplog.text.count("subscribed again") < 40
    assert "more streams fell silent" in caplog.text
