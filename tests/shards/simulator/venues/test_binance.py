"""The simulated Binance venue keeps the venue's rules, and its ledger is what it sent."""

import asyncio
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shards.simulator.core.ledger import Rows, read_ledger
from shards.simulator.core.pace import MAX_RATE
from shards.simulator.settings import SimulatorSettings

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

TRADE_KEYS = ["e", "E", "s", "a", "p", "q", "nq", "f", "l", "T", "m", "st"]
DEPTH_KEYS = ["e", "E", "T", "s", "ps", "U", "u", "pu", "b", "a", "st"]


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=10)


def trade_rows(symbols: tuple[tuple[str, str], ...], rows: Rows) -> list[tuple[object, ...]]:
    """Make ledger rows comparable with what a frame says."""
    return [
        (
            symbols[row["symbol"]][1],
            int(row["ts_event"]),
            int(row["trade_id"]),
            chr(row["side"]),
            Decimal(int(row["price_mantissa"])).scaleb(-int(row["price_decimals"])),
            Decimal(int(row["qty_mantissa"])).scaleb(-int(row["qty_decimals"])),
        )
        for row in rows
    ]


def sent_trade(event: dict[str, Any]) -> tuple[object, ...]:
    side = "S" if event["m"] else "B"
    price, qty = Decimal(event["p"]), Decimal(event["q"])
    return event["s"], event["T"] * 1_000_000, event["a"], side, price, qty


def run_trades(simulated: "Simulated", ledger: Path, rate: float, *, combined: bool) -> None:
    async def scenario(client: "Client") -> None:
        path = "/binance_linear/market/" + ("stream" if combined else "ws")
        socket = await client.socket(path)
        names = ["btcusdt@aggTrade", "ethusdt@aggTrade"]
        await socket.send_json({"method": "SUBSCRIBE", "params": names, "id": 7})
        assert await receive(socket) == {"result": None, "id": 7}
        first = [await receive(socket) for _ in range(100)]
        events = list(first)

        async def keep_reading() -> None:
            while True:
                events.append(await receive(socket))

        # A pause waits until all is sent, which needs somebody who reads.
        reading = asyncio.create_task(keep_reading())
        status = await client.post("/simulator/pause")
        while len(events) < status["sent"]["trade"]:
            assert not reading.done()
            await asyncio.sleep(0.001)
        reading.cancel()
        if combined:
            assert all(e["stream"] == f"{e['data']['s'].lower()}@aggTrade" for e in events)
            events = [event["data"] for event in events]
        assert all(list(event) == TRADE_KEYS for event in events)
        for symbol in ("BTCUSDT", "ETHUSDT"):
            ids = [event["a"] for event in events if event["s"] == symbol]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
            raw = [(event["f"], event["l"]) for event in events if event["s"] == symbol]
            assert all(first <= last for first, last in raw)
            assert all(a[1] < b[0] for a, b in pairwise(raw))
        written = read_ledger(ledger)
        assert trade_rows(written.symbols, written.trade) == [sent_trade(e) for e in events]
        assert status["buffered_bytes"] == 0

    settings = SimulatorSettings(trades_per_s=rate, symbols=3, ledger=ledger)
    simulated(settings, scenario)


def test_raw_trades_equal_the_ledger(simulated: "Simulated", tmp_path: Path) -> None:
    run_trades(simulated, tmp_path / "ledger", 5000.0, combined=False)


@pytest.mark.whole
def test_wrapped_trades_at_full_speed_equal_the_ledger(
    simulated: "Simulated", tmp_path: Path
) -> None:
    run_trades(simulated, tmp_path / "ledger", MAX_RATE, combined=True)


def apply(book: dict[str, dict[Decimal, Decimal]], event: dict[str, Any]) -> None:
    for side in ("b", "a"):
        for price, qty in event[side]:
            book[side][Decimal(price)] = Decimal(qty)
            if Decimal(qty) == 0:
                del book[side][Decimal(price)]


@pytest.mark.parametrize("speed", ["@100ms", "@0ms"])
def test_deltas_on_top_of_the_snapshot_give_the_book_and_chain(
    simulated: "Simulated", tmp_path: Path, speed: str
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("public", f"btcusdt@depth{speed}")
        events = [await receive(socket) for _ in range(2)]
        snapshot = await client.get("/binance_linear/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
        events += [await receive(socket) for _ in range(12)]
        await client.post("/simulator/pause")
        count = client.simulator.status()["venues"]["binance_linear"]["book_events"]
        events += [await receive(socket) for _ in range(count - len(events))]
        assert all(list(event) == DEPTH_KEYS for event in events)
        pairs = list(pairwise(events))
        assert all(later["pu"] == earlier["u"] for earlier, later in pairs)
        assert any(later["U"] != earlier["u"] + 1 for earlier, later in pairs)
        assert all(event["U"] <= event["u"] for event in events)
        last_id = snapshot["lastUpdateId"]
        later = [event for event in events if event["u"] > last_id]
        assert later[0]["pu"] == last_id or later[0]["U"] <= last_id <= later[0]["u"]
        book = {
            "b": {Decimal(price): Decimal(qty) for price, qty in snapshot["bids"]},
            "a": {Decimal(price): Decimal(qty) for price, qty in snapshot["asks"]},
        }
        assert min(len(side) for side in book.values()) >= 200
        for event in later:
            apply(book, event)
            assert max(book["b"]) < min(book["a"])
        final = await client.get("/binance_linear/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
        if final["lastUpdateId"] == events[-1]["u"]:
            assert sorted(book["b"].items(), reverse=True) == decimals(final["bids"])
            assert sorted(book["a"].items()) == decimals(final["asks"])
        else:  # the touch changed its size since; the event that says so was still to come
            assert speed == "@100ms"
            assert sorted(book["b"].items(), reverse=True)[1:] == decimals(final["bids"])[1:]
            assert sorted(book["a"].items())[1:] == decimals(final["asks"])[1:]
        client.simulator.ledger.flush()
        check_book_ledger(tmp_path, events, final)

    settings = SimulatorSettings(trades_per_s=10.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)


def decimals(levels: list[list[str]]) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(price), Decimal(qty)) for price, qty in levels]


def check_book_ledger(path: Path, events: list[Any], final: dict[str, Any]) -> None:
    ledger = read_ledger(path)
    expected = [
        (event["u"], event["pu"], side, Decimal(price), Decimal(qty))
        for event in events
        for side in ("b", "a")
        for price, qty in event[side]
    ]
    assert book_rows(ledger.book) == expected
    last = ledger.snapshot[ledger.snapshot["seq"] == final["lastUpdateId"]]
    levels = [("b", *level) for level in decimals(final["bids"])]
    levels += [("a", *level) for level in decimals(final["asks"])]
    assert [row[2:] for row in book_rows(last)] == levels
    assert set(ledger.snapshot["snapshot"].tolist()) == {1}
    assert set(ledger.book["snapshot"].tolist()) == {0}


def book_rows(rows: Rows) -> list[tuple[object, ...]]:
    return [
        (
            int(row["seq"]),
            int(row["prev_seq"]),
            chr(row["side"]),
            Decimal(int(row["price_mantissa"])).scaleb(-int(row["price_decimals"])),
            Decimal(int(row["qty_mantissa"])).scaleb(-int(row["qty_decimals"])),
        )
        for row in rows
    ]


def test_a_wrong_category_or_unknown_stream_is_acknowledged_and_silent(
    simulated: "Simulated",
) -> None:
    async def scenario(client: "Client") -> None:
        names = ["btcusdt@aggTrade", "nosuch@depth@100ms", "BTCUSDT@depth@100ms", "x"]
        silent = await client.binance("public", *names)
        live = await client.binance("market", "btcusdt@aggTrade")
        for _ in range(200):
            assert (await receive(live))["e"] == "aggTrade"
        await silent.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        # Anything pushed before would have come first.
        assert await receive(silent) == {"result": names, "id": 2}

    simulated(SimulatorSettings(trades_per_s=5000.0, symbols=2), scenario)


def test_streams_in_the_address_and_unsubscribing(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        raw = await client.socket("/binance_linear/market/ws/btcusdt@aggTrade")
        assert (await receive(raw))["s"] == "BTCUSDT"
        listed = "streams=btcusdt@aggTrade/ethusdt@aggTrade"
        both = await client.socket(f"/binance_linear/market/stream?{listed}")
        seen = {(await receive(both))["stream"] for _ in range(200)}
        assert seen == {"btcusdt@aggTrade", "ethusdt@aggTrade"}
        await raw.send_json({"method": "UNSUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 4})
        while (await receive(raw)).get("e") == "aggTrade":
            pass
        await raw.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 5})
        assert await receive(raw) == {"result": [], "id": 5}

    simulated(SimulatorSettings(trades_per_s=2000.0, symbols=2), scenario)


def test_nonsense_requests_get_an_error_and_keep_the_socket(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.socket("/binance_linear/public/ws")
        for text, code in (
            ("{", 3),
            ("[]", 2),
            ('{"method":"SUBSCRIBE","params":["a"],"id":"x"}', 2),
            ('{"method":"DANCE"}', 2),
        ):
            await socket.send_str(text)
            assert (await receive(socket))["code"] == code
        await socket.send_str('{"method":"SUBSCRIBE","params":"a","id":3}')
        answer = await receive(socket)
        assert (answer["error"]["code"], answer["id"]) == (1, 3)
        await socket.ping(b"still here")
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 9})
        assert await receive(socket) == {"result": [], "id": 9}

    simulated(SimulatorSettings(symbols=1), scenario)


def test_rest_answers_carry_the_used_weight_and_refuse_unknown_symbols(
    simulated: "Simulated",
) -> None:
    async def scenario(client: "Client") -> None:
        base = "/binance_linear/fapi/v1/"
        for call in ("ping", "time", "exchangeInfo", "depth?symbol=BTCUSDT&limit=5"):
            status, headers, _ = await client.status_of(base + call)
            assert status == 200
            assert int(headers["X-MBX-USED-WEIGHT-1M"]) >= 1
        for call in ("depth?symbol=NOPEUSDT", "aggTrades?symbol=btcusdt", "depth"):
            status, headers, body = await client.status_of(base + call)
            assert (status, body) == (400, {"code": -1121, "msg": "Invalid symbol."})
            assert "X-MBX-USED-WEIGHT-1M" in headers
        status, _, body = await client.status_of(base + "depth?symbol=BTCUSDT&limit=7")
        assert (status, body["code"]) == (400, -1130)
        info = await client.get(base + "exchangeInfo")
        assert [entry["symbol"] for entry in info["symbols"]] == ["BTCUSDT", "ETHUSDT"]
        filters = {f["filterType"]: f for f in info["symbols"][0]["filters"]}
        assert filters["PRICE_FILTER"]["tickSize"] == "0.10"
        assert filters["LOT_SIZE"]["stepSize"] == "0.001"

    simulated(SimulatorSettings(symbols=2), scenario)


def test_agg_trades_by_id_repeat_what_the_stream_said(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@aggTrade")
        events = [await receive(socket) for _ in range(300)]
        first = events[0]["a"]
        path = "/binance_linear/fapi/v1/aggTrades?symbol=BTCUSDT"
        rows = await client.get(f"{path}&fromId={first}&limit=300")
        keys = ("a", "p", "q", "nq", "f", "l", "T", "m")
        assert rows == [{key: event[key] for key in keys} for event in events]
        assert await client.get(f"{path}&fromId={first + 10**9}") == []

    simulated(SimulatorSettings(trades_per_s=20_000.0, symbols=1), scenario)


def test_two_sockets_get_the_same_and_the_ledger_has_it_once(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        one = await client.binance("market", "btcusdt@aggTrade")
        two = await client.binance("market", "btcusdt@aggTrade")
        shared = [await receive(two) for _ in range(50)]
        events = [await receive(one)]
        while events[-1]["a"] < shared[-1]["a"]:
            events.append(await receive(one))
        assert events[-50:] == shared
        await client.post("/simulator/pause")
        ids = read_ledger(tmp_path).trade["trade_id"].tolist()
        assert ids == list(range(ids[0], ids[0] + len(ids)))

    settings = SimulatorSettings(trades_per_s=1000.0, symbols=1, ledger=tmp_path)
    simulated(settings, scenario)
