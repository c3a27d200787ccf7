"""A name that makes the venue hang up is found, and costs the others a few cuts."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from engine.data.layout import open_layout
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamState
from shards.session.venue_session import VenueSession
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.transport import hangups
from shards.transport.hangups import MOMENT_S, Hangups
from shards.venues import VENUES
from shards.venues.listing import Listing
from tests.shards.doubles import MemoryRings, free_leases, spec_of


def test_who_is_alone_when_the_venue_hangs_up_twice_did_it() -> None:
    found = Hangups()
    found.sent(["old"], 0.0)
    found.sent(["a", "b", "c"], 10.0)
    assert found.hung_up(10.2) is None
    assert [found.must_go_alone(topic) for topic in ("old", "a", "b", "c")] == [False, *[True] * 3]
    found.opened()
    found.sent(["old"], 11.0)
    assert found.pause_s(11.4) == pytest.approx(MOMENT_S - 0.4)
    found.sent(["a"], 12.1)
    found.cleared("a")
    found.sent(["b"], 13.2)
    assert found.hung_up(13.3) is None, "it may have been the network"
    found.opened()
    found.sent(["b"], 14.2)
    assert found.hung_up(14.3) == "b"
    assert found.is_left_out("b")
    assert found.must_go_alone("c")
    assert found.due_again(14.3 + 9.9) == []
    assert found.due_again(14.3 + 10) == ["b"]
    assert found.must_go_alone("b")
    found.opened()
    found.sent(["b"], 30.0)
    assert found.hung_up(30.1) == "b"
    assert found.due_again(30.1 + 19.9) == [], "twice as long"
    found.forget("b")
    assert not found.is_left_out("b")


def test_who_is_tried_again_and_lives_is_above_suspicion() -> None:
    found = Hangups()
    found.sent(["a"], 10.0)
    found.hung_up(10.1)
    found.sent(["a"], 11.0)
    assert found.hung_up(11.1) is None
    found.sent(["a"], 12.0)
    found.cleared("a")
    assert not found.must_go_alone("a")
    found.sent(["a"], 13.0)
    assert found.hung_up(13.1) is None
    found.sent(["a"], 14.0)
    assert found.hung_up(14.1) is None, "counted anew"


def test_a_cut_long_after_the_last_subscription_casts_no_suspicion() -> None:
    found = Hangups()
    found.sent(["a"], 10.0)
    assert found.hung_up(10.0 + MOMENT_S) is None
    assert not found.must_go_alone("a")


GHOST = "GHOST"


@pytest.mark.fault("X18")
@pytest.mark.whole
def test_a_coin_only_the_listing_knows_is_left_out_and_the_others_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangups, "_LEFT_OUT_S", 1.0)
    venue = VENUES["hyperliquid_perp"]

    def with_ghost(body: bytes) -> Listing:
        known = venue.listing.parse(body).known
        return Listing({**known, GHOST: known["BTC"]})

    async def body() -> None:
        simulator = Simulator(SimulatorSettings(symbols=3, trades_per_s=500))
        await simulator.start()
        address = f"127.0.0.1:{simulator.port}/{venue.name}"
        faults: list[BaseException] = []
        session = VenueSession(
            replace(venue, listing=replace(venue.listing, parse=with_ghost)),
            VenueSettings(rest_url=f"http://{address}", ws_url=f"ws://{address}"),
            MemoryRings().rings, open_layout(tmp_path / "state", tmp_path), faults.append,
            free_leases(),
        )  # fmt: skip
        symbols = ["BTC", GHOST, "ETH", "SOL"]
        session.start([spec_of(n, venue.name, symbol) for n, symbol in enumerate(symbols)])
        ghost, others = session.streams[1], [session.streams[n] for n in (0, 2, 3)]
        async with asyncio.timeout(60):
            while ghost.state is not StreamState.FAILED:
                await asyncio.sleep(0.01)
            assert "hangs up when this is subscribed" in ghost.reason
            while {stream.state for stream in others} != {StreamState.LIVE}:
                await asyncio.sleep(0.01)
                assert ghost.state in (StreamState.FAILED, StreamState.SYNCING)
            simulated = simulator.venues[venue.name]
            simulated.list_symbol(replace(simulated.grids[0], symbol=GHOST))
            while ghost.status().state is not StreamState.LIVE:
                await asyncio.sleep(0.01)
        assert faults == []
        await session.close()
        await simulator.close()

    uvloop.run(body())
