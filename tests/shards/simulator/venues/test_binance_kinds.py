"""Quotes, marks, liquidations and polled values of the simulated Binance venue."""

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, LedgerRows, Rows, read_ledger
from shards.simulator.settings import SimulatorSettings

pytestmark = pytest.mark.whole

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

REST = "/binance_linear/fapi/v1/"
QUOTE_KEYS = ["e", "u", "s", "ps", "b", "B", "a", "A", "T", "E", "st"]
MARK_KEYS = ["e", "E", "s", "p", "ap", "i", "P", "r", "T", "st"]
EIGHT_HOURS_MS = 8 * 3_600_000


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return await socket.receive_json(timeout=10)


async def rest_of(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[Any]:
    return [await receive(socket) for _ in range(count)]


def value(row: Rows, field: str, decimals: str) -> Decimal:
    return Decimal(int(row[f"{field}_mantissa"])).scaleb(-int(row[f"{decimals}_decimals"]))


def quotes_of(rows: Rows) -> list[tuple[object, ...]]:
    return [
        (
            int(row["ts_event"]) // 1_000_000,
            int(row["seq"]),
            value(row, "bid", "price"),
            value(row, "bid_qty", "qty"),
            value(row, "ask", "price"),
            value(row, "ask_qty", "qty"),
        )
        for row in rows
    ]


def funding_of(ledger: LedgerRows, *, rest: int) -> list[tuple[object, ...]]:
    return [
        (
            ledger.symbols[int(row["symbol"])][1],
            int(row["ts_event"]) // 1_000_000,
            value(row, "rate", "rate"),
            value(row, "mark", "price"),
            value(row, "index", "price"),
            int(row["next_ts"]) // 1_000_000,
        )
        for row in ledger.funding[ledger.funding["rest"] == rest]
    ]


def test_quotes_follow_the_book_and_share_its_update_ids(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        quotes = await client.binance("public", "btcusdt@bookTicker")
        books = await client.binance("public", "btcusdt@depth5@0ms")
        events = await rest_of(quotes, 25)
        tops = {top["u"]: top for top in await rest_of(books, 25)}
        await client.post("/simulator/pause")
        sent = client.simulator.status()["sent"]["quote"]
        events += await rest_of(quotes, sent - len(events))
        assert all(list(event) == QUOTE_KEYS for event in events)
        assert all(earlier["u"] < later["u"] for earlier, later in pairwise(events))
        touches = [tuple(event[key] for key in "bBaA") for event in events]
        assert all(earlier != later for earlier, later in pairwise(touches))
        shared = [event for event in events if event["u"] in tops]
        assert len(shared) > 10
        for event in shared:
            top = tops[event["u"]]
            assert [event["b"], event["B"]] == top["b"][0]
            assert [event["a"], event["A"]] == top["a"][0]
        rows = read_ledger(tmp_path).quote
        assert quotes_of(rows) == [
            (event["T"], event["u"], *(Decimal(event[key]) for key in "bBaA")) for event in events
        ]
        assert set(rows["sides"].tolist()) == {BID_PRESENT | ASK_PRESENT}

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=1, ledger=tmp_path), scenario)


def test_marks_come_every_second_and_equal_what_rest_serves(
    simulated: "Simulated", tmp_path: Path
) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@markPrice@1s", "btcusdt@bookTicker")
        events = await rest_of(socket, 3)
        polled = await client.get(REST + "premiumIndex?symbol=BTCUSDT")
        again = await client.get(REST + "premiumIndex?symbol=BTCUSDT")
        await client.post("/simulator/pause")
        assert polled == again
        assert all(list(event) == MARK_KEYS for event in events)
        assert all(900 < b["E"] - a["E"] < 1500 for a, b in pairwise(events[1:]))
        for event in events:
            assert event["e"] == "markPriceUpdate"
            assert all(len(event[key].partition(".")[2]) == 8 for key in ("p", "ap", "i", "P", "r"))
            assert event["T"] % EIGHT_HOURS_MS == 0
            assert 0 < event["T"] - event["E"] <= EIGHT_HOURS_MS
            assert 0.99 < float(event["p"]) / 81234.5 < 1.01
        assert len({event["r"] for event in events}) == 3, "the rate drifts"
        assert (polled["time"], polled["markPrice"]) == (events[-1]["E"], events[-1]["p"])
        assert polled["lastFundingRate"] == events[-1]["r"]
        ledger = read_ledger(tmp_path)
        assert funding_of(ledger, rest=0) == [
            (e["s"], e["E"], Decimal(e["r"]), Decimal(e["p"]), Decimal(e["i"]), e["T"])
            for e in events
        ]
        assert funding_of(ledger, rest=1) == funding_of(ledger, rest=0)[-1:]

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=1, ledger=tmp_path), scenario)


def test_polled_values_are_in_the_ledger_once(simulated: "Simulated", tmp_path: Path) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@markPrice@1s")
        interests, indexes = [], []
        for _ in range(3):
            await receive(socket)
            for _ in range(2):
                interests.append(await client.get(REST + "openInterest?symbol=BTCUSDT"))
                indexes += await client.get(REST + "premiumIndex")
        await client.post("/simulator/pause")
        ledger = read_ledger(tmp_path)
        served = {
            (ledger.symbols[int(row["symbol"])][1], int(row["ts_event"]) // 1_000_000): value(
                row, "qty", "qty"
            )
            for row in ledger.open_interest
        }
        assert len(served) == len(ledger.open_interest) >= 3
        assert served == {
            (row["symbol"], row["time"]): Decimal(row["openInterest"]) for row in interests
        }
        assert {row["symbol"] for row in indexes} == {"BTCUSDT", "ETHUSDT"}
        rows = funding_of(ledger, rest=1)
        assert len(rows) == len(set(rows))
        assert {row[:2] for row in rows} == {(row["symbol"], row["time"]) for row in indexes}
        counted = client.simulator.status()["served"]
        assert counted["open_interest"] == len(ledger.open_interest)
        assert counted["funding"] == len(rows)

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=2, ledger=tmp_path), scenario)


def test_liquidations_are_a_sample_of_one_a_second(simulated: "Simulated", tmp_path: Path) -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@forceOrder", "ethusdt@forceOrder")
        events = await rest_of(socket, 5)
        await client.post("/simulator/pause")
        sent = client.simulator.status()["sent"]["liquidation"]
        events += await rest_of(socket, sent - len(events))
        for symbol in ("BTCUSDT", "ETHUSDT"):
            times = [event["o"]["T"] for event in events if event["o"]["s"] == symbol]
            assert all(later - earlier >= 1000 for earlier, later in pairwise(times))
        for event in events:
            order = event["o"]
            assert list(event) == ["e", "E", "o", "ps", "st"]
            assert list(order) == ["s", "S", "o", "f", "q", "p", "ap", "X", "l", "z", "T"]
            assert Decimal(order["z"]) <= Decimal(order["q"])
            worse = 1 if order["S"] == "BUY" else -1
            assert worse * (Decimal(order["p"]) - Decimal(order["ap"])) >= 0
        ledger = read_ledger(tmp_path)
        assert [
            (
                int(row["ts_event"]) // 1_000_000,
                "SELL" if chr(row["side"]) == "S" else "BUY",
                value(row, "price", "price"),
                value(row, "avg_price", "price"),
                value(row, "qty", "qty"),
                value(row, "filled_qty", "qty"),
            )
            for row in ledger.liquidation
        ] == [
            (o["T"], o["S"], *(Decimal(o[key]) for key in ("p", "ap", "q", "z")))
            for o in (event["o"] for event in events)
        ]

    settings = SimulatorSettings(
        trades_per_s=0.0, symbols=2, ledger=tmp_path, liquidations_per_minute=1000.0
    )
    simulated(settings, scenario)


def test_no_liquidations_when_their_rate_is_zero(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        socket = await client.binance("market", "btcusdt@forceOrder", "btcusdt@markPrice@1s")
        assert {event["e"] for event in await rest_of(socket, 3)} == {"markPriceUpdate"}

    settings = SimulatorSettings(trades_per_s=0.0, symbols=1, liquidations_per_minute=0.0)
    simulated(settings, scenario)


@pytest.mark.parametrize(("name", "spacing_ms"), [("depth", 250), ("depth@500ms", 500)])
def test_slower_depth_streams_chain_on_their_own(
    simulated: "Simulated", name: str, spacing_ms: int
) -> None:
    async def scenario(client: "Client") -> None:
        slow = await client.binance("public", f"btcusdt@{name}")
        await client.binance("public", "btcusdt@depth@100ms")
        snapshot = await client.get(REST + "depth?symbol=BTCUSDT&limit=1000")
        tops = await client.binance("public", "btcusdt@depth20@500ms")
        events = await rest_of(slow, 6)
        assert all(later["pu"] == earlier["u"] for earlier, later in pairwise(events))
        span_ms = events[-1]["E"] - events[0]["E"]
        assert span_ms >= 5 * spacing_ms * 0.8
        book = {side: dict(snapshot[long]) for side, long in (("b", "bids"), ("a", "asks"))}
        later = [event for event in events if event["u"] > snapshot["lastUpdateId"]]
        states = {}
        for event in later:
            for side in ("b", "a"):
                book[side].update(event[side])
                book[side] = {p: q for p, q in book[side].items() if Decimal(q) > 0}
            states[event["u"]] = {side: dict(book[side]) for side in ("b", "a")}
        shared = [top for top in await rest_of(tops, 3) if top["u"] in states]
        assert shared
        for top in shared:
            for side, reverse in (("b", True), ("a", False)):
                levels = sorted(states[top["u"]][side].items(), key=by_price, reverse=reverse)
                assert [list(level) for level in levels[:20]] == top[side]

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=1), scenario)


def by_price(level: tuple[str, str]) -> Decimal:
    return Decimal(level[0])


def test_funding_history_and_quotes_by_rest(simulated: "Simulated", tmp_path: Path) -> None:
    async def scenario(client: "Client") -> None:
        paid = await client.get(REST + "fundingRate?symbol=BTCUSDT&limit=1000")
        times = [row["fundingTime"] for row in paid]
        assert len(paid) == 30
        assert all(b - a == EIGHT_HOURS_MS for a, b in pairwise(times))
        assert list(paid[0]) == ["symbol", "fundingTime", "fundingRate", "markPrice", "rateType"]
        path = f"fundingRate?symbol=BTCUSDT&startTime={times[3]}&endTime={times[9]}&limit=4"
        assert await client.get(REST + path) == paid[3:7]
        assert await client.get(REST + "fundingRate?symbol=BTCUSDT&limit=2") == paid[-2:]
        await client.post("/simulator/pause")
        one = await client.get(REST + "ticker/bookTicker?symbol=BTCUSDT")
        every = await client.get(REST + "ticker/bookTicker")
        assert [quote["symbol"] for quote in every] == ["BTCUSDT", "ETHUSDT"]
        client.simulator.ledger.flush()
        rows = read_ledger(tmp_path).quote
        assert rows["rest"].tolist() == [1, 1]
        keys = ("bidPrice", "bidQty", "askPrice", "askQty")
        assert quotes_of(rows)[0][1:] == (
            one["lastUpdateId"],
            *(Decimal(one[key]) for key in keys),
        )
        for call in ("premiumIndex", "openInterest", "fundingRate", "ticker/bookTicker"):
            status, _, body = await client.status_of(f"{REST}{call}?symbol=NOPE")
            assert (status, body["code"]) == (400, -1121)

    simulated(SimulatorSettings(trades_per_s=0.0, symbols=2, ledger=tmp_path), scenario)
