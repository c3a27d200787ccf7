"""REST answers that say how much may be asked, or that nothing may."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from engine.base.errors import VenueError
from engine.messages.limits import LeaseRequest, LimitFeedback
from tests.shards.venue_rig import Rig, run


@pytest.mark.fault("H02")
def test_a_ban_is_passed_on_and_what_was_granted_before_it_waits(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        rig.refusals.append(web.Response(status=418, headers={"Retry-After": "1"}))
        began_s = loop.time()
        with pytest.raises(VenueError, match="nobody asks for 1 s"):
            await rig.fetch_listing()
        await rig.fetch_listing()
        assert loop.time() - began_s >= 1.0
        feedback = [each for each in rig.sent if isinstance(each, LimitFeedback)]
        banned = LimitFeedback("binance_linear", "rest_weight", retry_after_s=1.0, status=418)
        pools = ("rest_funding", "rest_polls")
        others = [msgspec.structs.replace(banned, pool=pool) for pool in pools]
        used = LimitFeedback("binance_linear", "rest_weight", used=7.0)
        told = [feedback[0], *sorted(feedback[1:-1], key=lambda each: each.pool), feedback[-1]]
        assert told == [banned, *others, used], "a ban is about the address, whatever the pool"
        assert rig.listing_count == 2

    run(tmp_path, test)


@pytest.mark.fault("H03")
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "HTTP 403: its firewall refuses this address"),
        (451, "HTTP 451: it does not serve this region"),
    ],
)
def test_an_address_that_is_refused_asks_nothing_more(
    tmp_path: Path, status: int, words: str
) -> None:
    async def test(rig: Rig) -> None:
        rig.refusals.append(web.Response(status=status, body=b"<html>"))
        with pytest.raises(VenueError, match=re.escape(words)):
            await rig.fetch_listing()
        pools = {"rest_weight", "rest_polls", "rest_funding"}
        await rig.until(
            lambda: pools == {each.pool for each in rig.desk.reports() if each.blocked_s}
        )
        assert {each.blocked_reason for each in rig.desk.reports() if each.blocked_s} == {words}
        assert rig.desk.refusal.startswith(f"binance_linear: {words}; asked again in ")
        asking = asyncio.create_task(rig.fetch_listing())
        await rig.until(lambda: "blocked" in rig.session._rest.waits_for("rest_weight"))
        assert words in rig.session._rest.waits_for("rest_weight")
        asking.cancel()
        assert rig.listing_count == 1

    run(tmp_path, test)


@pytest.mark.fault("H07")
def test_the_weight_a_venue_announces_is_followed_downwards(tmp_path: Path) -> None:
    """By every shard: their polls spread over the minute what the desk will let through."""

    async def test(rig: Rig) -> None:
        minute = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        orders = {**minute, "rateLimitType": "ORDERS", "limit": 10}
        for announced, allowed in (
            ([{**minute, "limit": 1200}, orders], 1200),
            ([{**minute, "limit": 9000}], 2400),
            ([{**minute, "limit": 9000}, {**minute, "interval": "HOUR", "limit": 6000}], 100),
            ([], 100),
            ([{**minute, "limit": 0}], 100),
            ([{**minute, "interval": "FORTNIGHT", "limit": 1}], 100),
            ([{**minute, "limit": 2400}], 2400),
        ):
            rig.rate_limits = announced
            await rig.fetch_listing()
            await asyncio.sleep(0)  # the desk hears what the venue said
            assert rig.budget("rest_weight") == pytest.approx(0.8 * allowed)
            assert rig.budget("rest_polls") == pytest.approx(0.48 * allowed)
            rig.desk.ask("shard-0", LeaseRequest(1, "binance_linear", "rest_polls", 1.0))
            rig.session.tick()
            assert rig.session._poll_share.weight_per_minute == pytest.approx(0.432 * allowed)

    run(tmp_path, test)
