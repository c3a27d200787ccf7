"""REST answers that say how much may be asked, or that nothing may."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from engine.messages.limits import LimitFeedback
from engine.messages.streams import StreamState
from shards.session import instruments
from tests.shards.venue_rig import Rig, run, spec


@pytest.mark.fault("H02")
def test_a_ban_is_passed_on_and_what_was_granted_before_it_waits(tmp_path: Path) -> None:
    async def test(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        rig.refusals.append(web.Response(status=418, headers={"Retry-After": "1"}))
        began_s = loop.time()
        rig.session.start([spec(0)])
        await rig.socket()
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
        rig.session.start([spec(0)])
        pools = {"rest_weight", "rest_polls", "rest_funding"}
        await rig.until(
            lambda: pools == {each.pool for each in rig.desk.reports() if each.blocked_s}
        )
        assert {each.blocked_reason for each in rig.desk.reports() if each.blocked_s} == {words}
        assert rig.desk.refusal.startswith(f"binance_linear: {words}; asked again in ")
        (stream,) = rig.session.streams

        def says_so() -> bool:
            rig.session.tick()
            return words in stream.status().reason

        await rig.until(says_so)
        await rig.until(lambda: "blocked" in rig.session._instruments.trouble)
        assert words in rig.session._instruments.trouble
        assert rig.listing_count == 1

    run(tmp_path, test)


@pytest.mark.fault("H07")
def test_the_weight_a_venue_announces_is_followed_downwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruments, "_AGE_S_MAX", 0.0)

    async def test(rig: Rig) -> None:
        minute = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        orders = {**minute, "rateLimitType": "ORDERS", "limit": 10}
        for number, (announced, allowed) in enumerate(
            (
                ([{**minute, "limit": 1200}, orders], 1200),
                ([{**minute, "limit": 9000}], 2400),
                ([{**minute, "limit": 9000}, {**minute, "interval": "HOUR", "limit": 6000}], 100),
                ([], 100),
                ([{**minute, "limit": 0}], 100),
                ([{**minute, "interval": "FORTNIGHT", "limit": 1}], 100),
                ([{**minute, "limit": 2400}], 2400),
            )
        ):
            rig.rate_limits = announced
            rig.session.start([spec(number)])
            await rig.until(lambda: rig.session.streams[-1].state is StreamState.SYNCING)
            await rig.until(lambda: rig.listing_count == len(rig.session.streams))
            assert rig.budget("rest_weight") == pytest.approx(0.8 * allowed)
            assert rig.budget("rest_polls") == pytest.approx(0.48 * allowed)
            rig.session.tick()
            assert rig.session._poll_share.weight_per_minute == pytest.approx(0.432 * allowed)

    run(tmp_path, test)
