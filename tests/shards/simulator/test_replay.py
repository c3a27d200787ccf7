"""A replay sends the recorded bytes, and records what they say."""

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shards.simulator.core.ledger import read_ledger
from shards.simulator.replay import read_capture
from shards.simulator.settings import SimulatorSettings

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

ADDRESS = "wss://fstream.binance.com/stream?streams=abcusdt@aggTrade/abcusdt@depth@100ms"
TRADES = [
    '{"e":"aggTrade","E":1626992741100,"s":"ABCUSDT","a":7,"p":"1.2300","q":"10","f":1,"l":2,'
    '"T":1626992741099,"m":true}',
    '{"e":"aggTrade","E":1626992741900,"s":"ABCUSDT","a":8,"p":"1.23","q":"0.5","f":3,"l":3,'
    '"T":1626992741898,"m":false}',
]
DEPTHS = [
    '{"e":"depthUpdate","E":1626992741200,"T":1626992741199,"s":"ABCUSDT","U":5,"u":9,"pu":4,'
    '"b":[["1.2200","5"],["1.2100","0"]],"a":[["1.2400","1.50"]]}',
    '{"e":"depthUpdate","E":1626992741300,"T":1626992741299,"s":"ABCUSDT","U":12,"u":14,"pu":9,'
    '"b":[],"a":[]}',
]
QUOTE = (
    '{"e":"bookTicker","u":14,"s":"ABCUSDT","b":"1.2200","B":"5","a":"1.24","A":"1.50",'
    '"T":1626992741298,"E":1626992741300}'
)
BOOK = (
    '{"lastUpdateId":6,"E":1626992741190,"T":1626992741188,"bids":[["1.2200","4"]],'
    '"asks":[["1.2400","1"]]}'
)


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Write a small session in the recorded format."""
    folder = tmp_path / "capture"
    folder.mkdir()
    frames = [("abcusdt@aggTrade", text) for text in TRADES]
    frames += [("abcusdt@depth@100ms", text) for text in DEPTHS]
    frames.append(("abcusdt@bookTicker", QUOTE))
    frames.append(("abcusdt@kline_1m", '{"e":"kline","E":1,"s":"ABCUSDT","k":{}}'))
    lines = [f"{ADDRESS} <-> 1626992740.179554"]
    for number, (stream, text) in enumerate(frames):
        lines.append(f'{1626992741 + number / 10}: {{"stream":"{stream}","data":{text}}}')
    (folder / "X.ws.1.0").write_text("\n".join(lines) + "\n", "utf-8")
    base = "https://fapi.binance.com/fapi/v1"
    (folder / "X.http.0.0").write_text(
        f"{base}/depth?symbol=ABCUSDT&limit=1000 -> 1626992741.3: {BOOK}\n", "utf-8"
    )
    info = '{"symbols":[{"symbol":"ABCUSDT"},{"symbol":"XYZUSDT"}]}'
    (folder / "X.0").write_text(f"{base}/exchangeInfo -> 1626992740.1: {info}\n", "utf-8")
    return folder


async def texts(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    return [await socket.receive_str(timeout=10) for _ in range(count)]


def test_the_capture_comes_back_byte_for_byte_and_the_ledger_agrees(
    simulated: "Simulated", capture: Path, tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        raw = await client.binance("market", "abcusdt@aggTrade")
        combined = await client.socket(
            "/binance_linear/public/stream?streams=abcusdt@depth@100ms/abcusdt@aggTrade"
        )
        quotes = await client.binance("public", "abcusdt@bookTicker")
        body = await client.get_text("/binance_linear/fapi/v1/depth?symbol=ABCUSDT&limit=1000")
        assert body.decode() == BOOK
        assert (await client.get("/binance_linear/fapi/v1/exchangeInfo"))["symbols"]
        status, _, _ = await client.status_of("/binance_linear/fapi/v1/depth?symbol=XYZUSDT")
        assert status == 400
        assert await texts(raw, 2) == TRADES
        wrapped = [f'{{"stream":"abcusdt@depth@100ms","data":{text}}}' for text in DEPTHS]
        assert await texts(combined, 2) == wrapped
        assert await texts(quotes, 1) == [QUOTE]
        await client.post("/simulator/replay")
        assert await texts(raw, 2) == TRADES
        replay: dict[str, Any] = (await client.post("/simulator/pause"))["replay"]
        assert replay["frames"] == 6

    settings = SimulatorSettings(replay=capture, speed=0.0, ledger=tmp_path / "ledger")
    simulated(settings, scenario)
    ledger = read_ledger(tmp_path / "ledger")
    values = [
        (
            int(row["trade_id"]),
            chr(row["side"]),
            Decimal(int(row["price_mantissa"])).scaleb(-int(row["price_decimals"])),
            Decimal(int(row["qty_mantissa"])).scaleb(-int(row["qty_decimals"])),
            int(row["ts_event"]),
        )
        for row in ledger.trade[:2]
    ]
    parsed = [json.loads(text) for text in TRADES]
    assert values == [
        (
            event["a"],
            "S" if event["m"] else "B",
            Decimal(event["p"]),
            Decimal(event["q"]),
            event["T"] * 1_000_000,
        )
        for event in parsed
    ]
    sides = [chr(side) for side in ledger.book["side"][:4]]
    assert sides == ["b", "b", "a", "-"]
    assert ledger.book["prev_seq"][:4].tolist() == [4, 4, 4, 9]
    assert ledger.snapshot["seq"].tolist() == [6, 6]
    quote = ledger.quote[0]
    assert [quote[name] for name in ("seq", "bid_mantissa", "ask_mantissa")] == [14, 12200, 12400]
    assert [quote[name] for name in ("bid_qty_mantissa", "ask_qty_mantissa")] == [500, 150]
    assert (quote["price_decimals"], quote["qty_decimals"]) == (4, 2)
    assert ledger.symbols[0] == ("binance_linear", "ABCUSDT")


def test_a_paced_replay_says_when_it_is_done(simulated: "Simulated", capture: Path) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "abcusdt@aggTrade")
        await client.post("/simulator/replay")
        assert await texts(socket, 2) == TRADES
        replay = client.simulator.status()["replay"]
        while not replay["done"]:
            await socket.ping()
            replay = (await client.get("/simulator/status"))["replay"]
        assert (replay["sent_frames"], replay["skipped_frames"]) == (2, 4)

    simulated(SimulatorSettings(replay=capture, speed=2.0), scenario)


def test_a_folder_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no recorded session"):
        read_capture(tmp_path)
