"""A session with a venue whose listing has rows that nobody understands."""

import asyncio
from pathlib import Path

import msgspec
import pytest
import uvloop

from engine.data.instrument import Instrument
from engine.messages.streams import StreamState
from shards.session import instruments
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import (
    Answer,
    agg_trade,
    binance_symbol,
    coin,
    exchange_info,
    running,
)

INFO, META = "/fapi/v1/exchangeInfo", "/info#meta"


@pytest.mark.fault("N04")
def test_only_the_stream_that_wants_an_odd_symbol_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            odd = binance_symbol("ETHUSDT", quoteAsset=None)
            rig.fake.answer(INFO, exchange_info(binance_symbol("BTCUSDT"), odd, None))
            symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
            rig.session.start([spec_of(n, symbol=symbol) for n, symbol in enumerate(symbols)])
            socket = await rig.fake.socket()
            assert (await socket.message())["params"] == ["btcusdt@aggTrade"]
            socket.send(agg_trade("BTCUSDT", 1))
            good, bad, absent = rig.session.streams
            await rig.until(lambda: good.state is StreamState.LIVE)
            assert (bad.state, absent.state) == (StreamState.FAILED, StreamState.FAILED)
            assert bad.reason == (
                "binance_linear lists 'ETHUSDT', but its row cannot be read: quoteAsset:"
                " Expected `str`, got `null`"
            )
            assert absent.reason == (
                "unknown symbol: binance_linear lists no 'SOLUSDT' (1 rows of its listing have no"
                " name that can be read)"
            )
            assert rig.fake.count(INFO) == 1

    uvloop.run(body())
    assert caplog.text.count("ETHUSDT") == 2, "one line, which names stream and symbol"


@pytest.mark.fault("N04")
def test_a_stream_whose_row_becomes_odd_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine knew of it is as true as it was; a stop would lose rows for a typo."""
    monkeypatch.setattr(instruments, "_AGE_S_MAX", 0.0)

    async def body() -> None:
        async with running(tmp_path, "hyperliquid_perp") as rig:
            rig.fake.answer(
                META, {"universe": [coin("BTC", isDelisted=None), coin("ETH")]}
            )  # fmt: skip
            facts = Instrument("hyperliquid_perp", "BTC", 1, 5, "BTC", "USDC")
            known = spec_of(0, "hyperliquid_perp", "BTC")
            known = msgspec.structs.replace(known, instrument=facts)
            rig.session.start([known])
            socket = await rig.fake.socket()
            assert (await socket.message())["subscription"]["coin"] == "BTC"
            rig.session.start([spec_of(1, "hyperliquid_perp", "ETH")])
            assert (await socket.message())["subscription"]["coin"] == "ETH"
            await asyncio.sleep(0)
            assert [s.state for s in rig.session.streams] == [StreamState.SYNCING] * 2
            assert rig.stored == [{0: facts}, {1: rig.stored[1][1]}]

    uvloop.run(body())


@pytest.mark.fault("N04")
def test_a_listing_without_one_readable_row_is_asked_for_again(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            odd = exchange_info(binance_symbol("BTCUSDT", status=...))
            rig.fake.answer(INFO, Answer(odd), Answer(exchange_info(binance_symbol("BTCUSDT"))))
            rig.session.start([spec_of()])
            await rig.until(lambda: "none of 1 rows" in rig.session.streams[0].reason)
            assert "BTCUSDT: status: required" in rig.session.streams[0].reason
            await rig.fake.socket()

    uvloop.run(body())


@pytest.mark.fault("N11")
def test_many_unknown_symbols_do_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among 20,000 names those alike take a tenth of a second to find, for each of them."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.fake.answer(INFO, exchange_info(binance_symbol("BTCUSDT")))
            turn, turns = 0, list[int]()

            def counting(*_: object) -> list[str]:
                turns.append(turn)
                return []

            async def turning() -> None:
                nonlocal turn
                while True:
                    turn += 1
                    await asyncio.sleep(0)

            monkeypatch.setattr(instruments, "near_names", counting)
            others = asyncio.create_task(turning())
            rig.session.start([spec_of(n, symbol=f"NO{n}") for n in range(50)])
            await rig.until(lambda: len(turns) == 50)
            others.cancel()
            assert len(set(turns)) == 50

    uvloop.run(body())
