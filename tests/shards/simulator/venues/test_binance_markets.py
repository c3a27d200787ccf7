"""What the simulated COIN-M and spot say otherwise than USD-M does."""

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shards.simulator.core.ledger import NO_RATE, SETTLED, LedgerRows, Rows, read_ledger
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.binance.linear import Binance
from shards.simulator.venues.binance.markets import BinanceInverse, BinanceSpot
from tests.shards.simulator.conftest import receive

pytestmark = pytest.mark.whole

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

SPOT, INVERSE = "/binance_spot", "/binance_inverse"
PERPETUAL, DATED = "BTCUSD_PERP", "BTCUSD_301227"
Socket = Any


async def subscribed(client: "Client", path: str, *names: str) -> Socket:
    socket = await client.socket(path)
    await socket.send_json({"method": "SUBSCRIBE", "params": list(names), "id": 1})
    assert await socket.receive_str() == '{"result":null,"id":1}'
    return socket


async def rows_of(socket: Socket, count: int) -> list[Any]:
    return [await receive(socket) for _ in range(count)]


def of(ledger: LedgerRows, rows: Rows, symbol: str) -> Rows:
    names = [name for _, name in ledger.symbols]
    found: Rows = rows[rows["symbol"] == names.index(symbol)]
    return found


def value(row: Rows, name: str, unit: str) -> Decimal:
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{unit}_decimals"]))


def test_spot_numbers_its_depth_without_a_hole_and_writes_eight_decimals(
    simulated: "Simulated", tmp_path: Path
) -> None:
    events: list[Any] = []

    async def scenario(client: "Client") -> None:
        socket = await subscribed(client, f"{SPOT}/ws", "btcusdt@depth@100ms")
        events.extend(await rows_of(socket, 5))
        snapshot = await client.get(f"{SPOT}/api/v3/depth?symbol=BTCUSDT&limit=5000")
        events.extend(await rows_of(socket, 5))
        last = snapshot["lastUpdateId"]
        assert list(snapshot) == ["lastUpdateId", "bids", "asks"]
        joins = [event["U"] <= last + 1 <= event["u"] for event in events]
        assert joins.count(True) == 1 or events[-1]["u"] == last
        status, _, refused = await client.status_of(f"{SPOT}/api/v3/depth?symbol=BTCUSDT&limit=0")
        assert (status, refused["code"]) == (400, -1130)

    settings = SimulatorSettings(trades_per_s=100.0, symbols=2, ledger=tmp_path)
    simulated(settings, scenario, [BinanceSpot])
    assert {tuple(event) for event in events} == {("e", "E", "s", "U", "u", "b", "a")}
    assert all(after["U"] == before["u"] + 1 for before, after in pairwise(events))
    texts = [text for event in events for side in "ba" for level in event[side] for text in level]
    assert texts
    assert {len(text.partition(".")[2]) for text in texts} == {8}
    said = {(event["u"], event["U"] - 1) for event in events}
    assert said <= set(read_ledger(tmp_path).book[["seq", "prev_seq"]].tolist())


def test_spot_says_neither_type_nor_time_of_quotes(simulated: "Simulated", tmp_path: Path) -> None:
    quotes: list[Any] = []

    async def scenario(client: "Client") -> None:
        socket = await subscribed(client, f"{SPOT}/ws", "btcusdt@bookTicker", "btcusdt@markPrice")
        quotes.extend(await rows_of(socket, 10))
        rest = await client.get(f"{SPOT}/api/v3/ticker/bookTicker?symbol=BTCUSDT")
        assert list(rest) == ["symbol", "bidPrice", "bidQty", "askPrice", "askQty"]

    settings = SimulatorSettings(trades_per_s=100.0, symbols=2, ledger=tmp_path)
    simulated(settings, scenario, [BinanceSpot])
    assert {tuple(quote) for quote in quotes} == {("u", "s", "b", "B", "a", "A")}
    ledger = read_ledger(tmp_path)
    recorded = {
        int(row["seq"]): (value(row, "bid", "price"), value(row, "ask_qty", "qty"))
        for row in ledger.quote
    }
    assert all(recorded[q["u"]] == (Decimal(q["b"]), Decimal(q["A"])) for q in quotes)


def test_inverse_says_what_contracts_are_and_answers_with_lists(
    simulated: "Simulated", tmp_path: Path
) -> None:
    marks: list[Any] = []
    orders: list[Any] = []

    async def scenario(client: "Client") -> None:
        base = f"{INVERSE}/dapi/v1"
        info = await client.get(f"{base}/exchangeInfo")
        listed = {row["symbol"]: row for row in info["symbols"]}
        facts = ("pair", "contractType", "contractStatus", "contractSize", "marginAsset")
        assert [listed[PERPETUAL][fact] for fact in facts] == [
            "BTCUSD", "PERPETUAL", "TRADING", 100, "BTC",
        ]  # fmt: skip
        assert [listed["ETHUSD_PERP"]["contractSize"], listed[DATED]["contractType"]] == [
            10, "CURRENT_QUARTER",
        ]  # fmt: skip
        assert listed[DATED]["deliveryDate"] == 1_924_588_800_000
        (dated,) = await client.get(f"{base}/premiumIndex?symbol={DATED}")
        assert (dated["lastFundingRate"], dated["nextFundingTime"]) == ("", 0)
        pair = await client.get(f"{base}/premiumIndex?pair=BTCUSD")
        assert [row["symbol"] for row in pair] == [PERPETUAL, DATED]
        assert await client.get(f"{base}/fundingRate?symbol={DATED}") == []
        names = [row["symbol"] for row in await client.get(f"{base}/fundingInfo")]
        assert DATED not in names
        (touch,) = await client.get(f"{base}/ticker/bookTicker?symbol={PERPETUAL}")
        assert touch["pair"] == "BTCUSD"
        socket = await subscribed(
            client, f"{INVERSE}/market/ws",
            f"{PERPETUAL.lower()}@markPrice@1s", f"{DATED.lower()}@markPrice@1s",
            f"{PERPETUAL.lower()}@forceOrder",
        )  # fmt: skip
        while len(marks) < 4 or not orders:
            message = await receive(socket)
            (orders if message["e"] == "forceOrder" else marks).append(message)

    settings = SimulatorSettings(
        trades_per_s=100.0, symbols=4, ledger=tmp_path, liquidations_per_minute=3000.0
    )
    simulated(settings, scenario, [BinanceInverse])
    assert {tuple(mark) for mark in marks} == {("e", "E", "s", "p", "P", "i", "r", "T", "st")}
    assert {(mark["r"], mark["T"]) for mark in marks if mark["s"] == DATED} == {("", 0)}
    assert all(order["o"]["ps"] == "BTCUSD" and order["st"] == 2 for order in orders)
    ledger = read_ledger(tmp_path)
    states = ledger.funding[ledger.funding["rest"] < SETTLED]
    assert set(of(ledger, states, DATED)["rate_decimals"]) == {NO_RATE}
    assert set(of(ledger, states, PERPETUAL)["rate_decimals"]) == {8}


def test_what_was_paid_is_in_the_ledger_once(simulated: "Simulated", tmp_path: Path) -> None:
    told: list[Any] = []

    async def scenario(client: "Client") -> None:
        path = "/binance_linear/fapi/v1/fundingRate?symbol=BTCUSDT"
        told.extend(await client.get(f"{path}&limit=10"))
        again = await client.get(f"{path}&startTime={told[3]['fundingTime']}&limit=2")
        assert again == told[3:5]

    settings = SimulatorSettings(trades_per_s=0.0, symbols=2, ledger=tmp_path)
    simulated(settings, scenario, [Binance])
    rows = read_ledger(tmp_path).funding
    assert set(rows["rest"]) == {SETTLED}
    assert [
        (int(row["ts_event"]) // 1_000_000, value(row, "rate", "rate"), value(row, "mark", "price"))
        for row in rows
    ] == [
        (row["fundingTime"], Decimal(row["fundingRate"]), Decimal(row["markPrice"])) for row in told
    ]
