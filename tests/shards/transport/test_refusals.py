"""For how long a venue that refuses is left alone: every form in which it may say so."""

import asyncio
import email.utils
from pathlib import Path

import pytest
import uvloop

from engine.base.clock import wall_ns
from engine.base.errors import VenueError
from engine.messages.limits import LimitFeedback
from shards.transport import refusals
from shards.transport.refusals import speaks_of_ban, told_wait_s
from tests.shards.fake_venue import Answer, binance_symbol, exchange_info, running

NOW_S = 1_795_661_000
DATE = email.utils.formatdate(NOW_S, usegmt=True)
YEAR_S = 365 * 86_400
CAP_S = 3 * 86_400


def _until(ms: int, address: str = "IP(203.0.113.9) ") -> bytes:
    return (
        b'{"code":-1003,"msg":"Way too many requests; %sbanned until %d. Please use the'
        b' websocket for live updates to avoid bans."}' % (address.encode(), ms)
    )


_SOCKET_ANSWER = (
    b'{"id":"1","status":418,"error":{"code":-1003,"msg":"Way too many requests; IP banned",'
    b'"data":{"serverTime":%d,"retryAfter":%d}}}'
)


@pytest.mark.fault("N09")
@pytest.mark.parametrize(
    ("headers", "body", "wait_s"),
    [
        ({"Date": DATE}, _until((NOW_S + 85) * 1000 + 790), 85.79),
        ({"Date": DATE}, _until((NOW_S + 85) * 1000, "IP "), 85.0),
        ({"Date": DATE}, _until(NOW_S + 85), 85.0),
        ({"Date": DATE, "Retry-After": "120"}, _until((NOW_S + 85) * 1000), 120.0),
        ({"Date": DATE, "Retry-After": "60"}, _until((NOW_S + 85) * 1000), 85.0),
        ({"Date": DATE}, _until((NOW_S + YEAR_S) * 1000), CAP_S),
        ({"Date": DATE}, _until((NOW_S - 5) * 1000), None),
        ({}, _SOCKET_ANSWER % (NOW_S * 1000, (NOW_S + 30) * 1000), 30.0),
        ({"Retry-After": "7"}, b"", 7.0),
        ({"Retry-After": "0"}, b"", 1.0),
        ({"Retry-After": "-3"}, b"", 1.0),
        ({"Retry-After": "1e9"}, b"", CAP_S),
        ({"Retry-After": "inf"}, b"", CAP_S),
        ({"Retry-After": "nan"}, b"", None),
        ({"Retry-After": "soon"}, b"<html>", None),
        ({"Date": DATE, "Retry-After": email.utils.formatdate(NOW_S + 90, usegmt=True)}, b"", 90.0),
        ({"Date": "never", "Retry-After": "Tue, 99 Foo"}, b"banned until tomorrow", None),
        ({}, b'{"code":-1003,"msg":"Too many requests; current limit is 2400 a minute."}', None),
        ({}, b"null", None),
        ({}, b"banned until " + b"9" * 500, CAP_S),
    ],
)  # fmt: skip
@pytest.mark.parametrize("our_clock_s", [NOW_S - YEAR_S, NOW_S + YEAR_S])
def test_a_wait_is_read_by_the_venues_clock(
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
    body: bytes,
    wait_s: float | None,
    our_clock_s: int,
) -> None:
    monkeypatch.setattr(refusals, "wall_ns", lambda: our_clock_s * 10**9)
    assert told_wait_s(headers, body) == (wait_s if wait_s is None else pytest.approx(wait_s))


@pytest.mark.fault("N09")
@pytest.mark.parametrize(("ahead_s", "wait_s"), [(85.0, 85.0), (-5.0, None), (YEAR_S, CAP_S)])
def test_without_a_date_our_clock_has_to_do(
    monkeypatch: pytest.MonkeyPatch, ahead_s: float, wait_s: float | None
) -> None:
    monkeypatch.setattr(refusals, "wall_ns", lambda: NOW_S * 10**9)
    assert told_wait_s({}, _until(int((NOW_S + ahead_s) * 1000))) == wait_s


def test_a_long_answer_is_not_searched() -> None:
    assert speaks_of_ban(_until(NOW_S * 1000))
    assert not speaks_of_ban(b'{"symbols":[]}')
    assert not speaks_of_ban(b" " * 5000 + b"banned until 1795661085790")


INFO = "/fapi/v1/exchangeInfo"


@pytest.mark.fault("N09")
@pytest.mark.parametrize("status", [418, 429, 400, 200])
def test_a_ban_that_only_the_body_speaks_of_holds_every_process(
    tmp_path: Path, status: int
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            ban = Answer(_until(wall_ns() // 10**6 + 500_000), status)
            rig.fake.answer(INFO, ban, Answer(exchange_info(binance_symbol("BTCUSDT"))))
            with pytest.raises(VenueError, match="nobody asks"):
                await rig.fetch_listing()

            def blocked() -> list[float]:
                reports = rig.desk.reports()
                return [each.blocked_s for each in reports if each.pool == "rest_weight"]

            await rig.until(lambda: blocked()[0] > 0)
            assert 490 < blocked()[0] <= 501
            told = [each for each in rig.told if isinstance(each, LimitFeedback)]
            assert {each.status for each in told} == {status if status in (418, 429) else 418}
            asking = asyncio.create_task(rig.fetch_listing())
            await rig.until(lambda: "blocked" in rig.session._rest.waits_for("rest_weight"))
            asking.cancel()
            assert rig.fake.count(INFO) == 1

    uvloop.run(body())


@pytest.mark.fault("N09")
def test_a_refusal_whose_body_never_comes_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.transport.rest._WORDS_TIMEOUT_S", 0.1)

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer(INFO, Answer(b"x" * 500, 418, drip_s=10.0))
            with pytest.raises(VenueError, match="banned"):
                await rig.fetch_listing()
            await rig.until(lambda: rig.desk.refusal)
            assert "banned" in rig.desk.refusal

    uvloop.run(body())
