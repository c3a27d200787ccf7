"""The simulated Deribit keeps the venue's rules."""

import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import pytest

from shards.simulator.core.frames import Trades, render, text_frame
from shards.simulator.core.market import SIZE_COUNT, Grid
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues.deribit import encoder
from shards.simulator.venues.deribit.encoder import Deribit, Heart
from shards.simulator.venues.deribit.texts import DeribitRows
from tests.shards.simulator.conftest import receive

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

BOOK, TRADES = "book.BTC-PERPETUAL.100ms", "trades.BTC-PERPETUAL.100ms"
SETTINGS = SimulatorSettings(symbols=2, trades_per_s=200.0, liquidations_per_minute=6000.0)


async def ask(
    socket: aiohttp.ClientWebSocketResponse, method: str, params: object, number: int = 7
) -> Any:
    """What a request is answered with; what comes before the answer is passed over."""
    request = {"jsonrpc": "2.0", "id": number, "method": f"public/{method}", "params": params}
    await socket.send_json(request)
    while (answer := await receive(socket)).get("id") != number:
        pass
    return answer


async def data(socket: aiohttp.ClientWebSocketResponse, channel: str) -> Any:
    """What the channel brings next."""
    while (said := await receive(socket)).get("params", {}).get("channel") != channel:
        pass
    return said["params"]["data"]


def on_socket(simulated: "Simulated", scenario: Callable[[Any, "Client"], Awaitable[None]]) -> None:
    async def body(client: "Client") -> None:
        await scenario(await client.socket("/deribit/ws/api/v2"), client)

    simulated(SETTINGS, body, [Deribit])


def test_names_that_lead_nowhere_are_left_out_of_the_answer(simulated: "Simulated") -> None:
    async def scenario(socket: Any, _: "Client") -> None:
        nowhere = ["trades.BTC-PERPETUAL", "trades.NONE.100ms", "book.BTC-PERPETUAL.none.10.100ms",
                   "quote.BTC-PERPETUAL.100ms", "trades.BTC-PERPETUAL.agg2", "", "."]  # fmt: skip
        answer = await ask(socket, "subscribe", {"channels": [BOOK, *nowhere, TRADES]})
        assert set(answer["result"]) == {BOOK, TRADES}
        assert (await ask(socket, "subscribe", {"channels": nowhere}))["result"] == []
        raw = await ask(socket, "subscribe", {"channels": ["book.BTC-PERPETUAL.raw"]})
        assert raw["error"]["code"] == 13778

    on_socket(simulated, scenario)


def test_a_book_is_a_snapshot_and_changes_that_name_the_one_before(
    simulated: "Simulated",
) -> None:
    """Also for a second client, which comes between two changes."""

    async def scenario(socket: Any, client: "Client") -> None:
        for each in (socket, await client.socket("/deribit/ws/api/v2")):
            await ask(each, "subscribe", {"channels": [BOOK]})
            last = await data(each, BOOK)
            assert last["type"] == "snapshot"
            for _ in range(5):
                change = await data(each, BOOK)
                assert change["type"] == "change"
                assert change["prev_change_id"] == last["change_id"]
                assert all(
                    (word == "delete") == (amount == 0)
                    for word, _, amount in change["bids"] + change["asks"]
                )
                last = change

    on_socket(simulated, scenario)


def test_a_snapshot_comes_with_a_new_subscription_alone(simulated: "Simulated") -> None:
    async def scenario(socket: Any, _: "Client") -> None:
        await ask(socket, "subscribe", {"channels": [BOOK]})
        assert (await data(socket, BOOK))["type"] == "snapshot"
        await ask(socket, "subscribe", {"channels": [BOOK]})
        assert (await data(socket, BOOK))["type"] == "change"
        assert (await ask(socket, "unsubscribe", {"channels": [BOOK]}))["result"] == [BOOK]
        await ask(socket, "subscribe", {"channels": [BOOK]})
        assert (await data(socket, BOOK))["type"] == "snapshot"

    on_socket(simulated, scenario)


def test_trades_are_numbered_without_holes_and_liquidations_among_them(
    simulated: "Simulated",
) -> None:
    async def scenario(socket: Any, _: "Client") -> None:
        await ask(socket, "subscribe", {"channels": [TRADES]})
        rows: list[Any] = []
        while not any("liquidation" in row for row in rows) or len(rows) < 100:
            rows += await data(socket, TRADES)
        seqs = [row["trade_seq"] for row in rows]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))

    on_socket(simulated, scenario)


def test_a_client_that_does_not_answer_is_hung_up_on(
    simulated: "Simulated", monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(socket: Any, _: "Client") -> None:
        refused = await ask(socket, "set_heartbeat", {"interval": 9})
        assert refused["error"]["code"] == -32602
        assert (await ask(socket, "set_heartbeat", {"interval": 10}))["result"] == "ok"
        for answers in (True, True, False):
            kinds = [(await receive(socket))["params"]["type"] for _ in range(2)]
            assert kinds == ["heartbeat", "test_request"]
            if answers:
                assert "version" in (await ask(socket, "test", {}))["result"]
        message = await socket.receive(timeout=30)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)

    monkeypatch.setattr(
        encoder, "Heart", lambda session, interval_s: Heart(session, interval_s / 50)
    )
    on_socket(simulated, scenario)


@pytest.mark.parametrize(
    ("text", "code"),
    [("{", -32700), ("[]", -32600), ('{"params":[]}', -32600), ('{"method":"no"}', -32601),
     ('{"method":"public/subscribe"}', -32602),
     ('{"method":"public/subscribe","params":{"channels":[1]}}', -32602)],
)  # fmt: skip
def test_nonsense_is_refused_and_the_socket_stays(
    simulated: "Simulated", text: str, code: int
) -> None:
    async def scenario(socket: Any, _: "Client") -> None:
        await socket.send_str(text)
        assert (await receive(socket))["error"]["code"] == code
        assert isinstance((await ask(socket, "get_time", {}))["result"], int)

    on_socket(simulated, scenario)


def test_calls_answer_as_on_a_socket(simulated: "Simulated") -> None:
    async def scenario(socket: Any, client: "Client") -> None:
        path = "/deribit/api/v2/public"
        listed = await client.get(f"{path}/get_instruments?currency=any&expired=false")
        on_it = await ask(socket, "get_instruments", {"currency": "any"})
        assert listed["result"] == on_it["result"]
        names = [row["instrument_name"] for row in listed["result"]]
        assert names == ["BTC-PERPETUAL", "ETH-PERPETUAL"]
        ticker = await client.get(f"{path}/ticker?instrument_name=ETH-PERPETUAL")
        assert ticker["result"]["instrument_name"] == "ETH-PERPETUAL"
        status, _, answer = await client.status_of(f"{path}/ticker?instrument_name=NONE")
        assert (status, answer["error"]["code"]) == (400, 13020)

    on_socket(simulated, scenario)


@pytest.mark.parametrize("grid", Deribit().grids(9), ids=lambda grid: grid.symbol)
@pytest.mark.parametrize("first", [300_000_000, 999_999_950])
def test_a_block_of_trades_is_its_rows(grid: Grid, first: int) -> None:
    """Also where numbers get longer within it, and when it is JSON."""
    random, count = np.random.default_rng(first), 257
    market = SimpleNamespace(sizes=random.integers(1, 10**6, SIZE_COUNT))
    venue, state = Deribit(), SimpleNamespace(grid=grid, market=market)
    rows = DeribitRows(state, lambda tick: venue.price_text(grid, tick))  # type: ignore[arg-type]
    ids = np.arange(first, first + count)
    trades = Trades(
        1_795_000_000_123, 0, ids, random.integers(grid.low_ticks, grid.low_ticks + 3000, count),
        random.integers(0, SIZE_COUNT, count), random.random(count) < 0.5, ids, ids,
    )  # fmt: skip
    texts = [rows.row(trade).encode() for trade in trades.each()]
    frames = [
        rows.head + b",".join(texts[at : at + rows.rows_per_frame]) + rows.close
        for at in range(0, count, rows.rows_per_frame)
    ]
    assert bytes(render(rows, trades, (b"", b""))) == b"".join(map(text_frame, frames))
    said = [each for frame in frames for each in json.loads(frame)["params"]["data"]]
    assert [each["trade_seq"] for each in said] == ids.tolist()
    assert {each["direction"] for each in said} == {"buy", "sell"}
    assert all(each["amount"] == each["contracts"] for each in said)
