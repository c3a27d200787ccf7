"""What a shard knows of a venue's listing, and when it asks again."""

from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from engine.base.clock import monotonic_s
from engine.data.instrument import Instrument
from engine.messages.limits import LeaseGranted, LeaseRequest
from engine.messages.streams import StreamState
from shards.session import instruments
from tests.shards.venue_rig import SYMBOLS, Rig, described, message, run, spec


def test_a_symbol_nobody_lists_is_never_subscribed_and_found_once_it_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_MISSING_AGE_S", 0.0)

    async def test(rig: Rig) -> None:
        rig.listed.remove(SYMBOLS[7])
        rig.session.start([spec(0)])
        server = await rig.socket()
        await message(server)
        rig.session.start([spec(7)])
        await rig.until(lambda: rig.session.streams[-1].state == "failed")
        assert "did you mean" in rig.session.streams[-1].reason
        rig.listed.append(SYMBOLS[7])
        rig.session.stop([7])
        rig.session.start([spec(7)])
        assert (await message(server))["params"] == ["s7usdt@aggTrade"]
        assert rig.listing_count == 3

    run(tmp_path, test)


@pytest.mark.fault("H05")
@pytest.mark.whole
def test_a_hostile_answer_costs_another_call_and_not_the_shard(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        for body in (
            b'{"x":' + b"[" * 100_000,
            b'{"symbols":[{"symbol":"\xff"}]}',
            b"<html>",
            b"null",
            b'{"symbols":[]}',
        ):
            rig.refusals.append(web.Response(body=body))
        rig.session.start([spec(0)])
        await rig.socket()
        assert rig.listing_count == 6
        assert rig.faults == []

    run(tmp_path, test)


def test_nothing_is_asked_of_a_venue_without_a_lease(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        rig.withheld = {"rest_weight"}
        rig.session.start([spec(0)])
        await rig.until(lambda: rig.sent)
        request = rig.sent[0]
        assert isinstance(request, LeaseRequest)
        assert (request.pool, request.units, rig.listing_count) == ("rest_weight", 1, 0)
        rig.withheld.clear()
        rig.leases.granted(LeaseGranted(request.request_id))
        await rig.socket()
        pools = [each.pool for each in rig.sent if isinstance(each, LeaseRequest)]
        assert pools == ["rest_weight", "ws_connects"]

    run(tmp_path, test)


def test_what_the_engine_heard_later_is_not_hidden_by_a_young_listing(tmp_path: Path) -> None:
    """A tick size has changed, and a symbol is gone, since this shard asked a moment ago."""

    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        await message(await rig.socket())
        rig.tick_size = "0.0001"
        known = Instrument(
            "binance_linear", SYMBOLS[1], 4, 3, SYMBOLS[1], "USDT", "0.0001", "0.001",
            status="TRADING",
        )  # fmt: skip
        before = msgspec.structs.replace(spec(1), instrument=known, listed_s=0.0)
        rig.session.start([before])
        await rig.until(lambda: len(rig.stored) == 2)
        assert rig.stored[1][1].price_decimals == 2, "from an earlier run"
        rig.session.stop([1])
        later = msgspec.structs.replace(before, listed_s=monotonic_s(), slot=11)
        rig.session.start([later])
        await rig.until(lambda: len(rig.stored) == 3)
        assert rig.stored[2][11].price_decimals == 4
        assert rig.listing_count == 2
        rig.listed.remove(SYMBOLS[2])
        gone = msgspec.structs.replace(spec(2), listed_s=monotonic_s())
        rig.session.start([gone])
        await rig.until(lambda: rig.session.streams[-1].state is StreamState.FAILED)
        assert rig.listing_count == 3
        rig.session.start([msgspec.structs.replace(spec(3), instrument=known, listed_s=1e-9)])
        await rig.until(lambda: len(rig.stored) == 4)
        assert rig.listing_count == 3, "an earlier one is no news"

    run(tmp_path, test)


def test_facts_are_asked_for_again_when_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(rig: Rig) -> None:
        rig.session.start([spec(0)])
        server = await rig.socket()
        await message(server)
        rig.tick_size = "0.0001"
        rig.session.start([spec(1)])
        await message(server)
        assert [news[slot].price_decimals for slot, news in enumerate(rig.stored)] == [2, 2]
        monkeypatch.setattr(instruments, "_MISSING_AGE_S", 0.0)
        rig.session.start([described(2)])
        await message(server)
        assert rig.stored[2][2].price_decimals == 4, "what the engine knows is something else"
        monkeypatch.setattr(instruments, "_AGE_S_MAX", 0.0)
        rig.tick_size = "0.001"
        rig.session.start([spec(3)])
        await message(server)
        assert rig.stored[3][3].price_decimals == 3, "the listing is old"
        assert rig.listing_count == 3
        first, same, second, third = rig.listed_s
        assert 0 < first == same < second < third, "whoever read the listing last is right"

    run(tmp_path, test)
