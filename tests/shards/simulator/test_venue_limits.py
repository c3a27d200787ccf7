"""Every limit of every venue: who keeps it is served, who exceeds it gets what the venue does, and
the ledger of limits says so.
"""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import pytest

from shards.simulator.core.limits import (
    CONNECTS,
    MESSAGES,
    NAME_CHARS,
    SOCKETS,
    SUBSCRIPTIONS,
    TOPICS,
    Per,
    Then,
    VenueLimit,
    table,
)
from shards.simulator.core.sessions import Session
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues import ENCODERS
from tests.shards.simulator.conftest import receive

if TYPE_CHECKING:
    from tests.shards.simulator.conftest import Client, Simulated

NOW_NS = 1_795_000_000_000_000_000
BY_NAME = {encoder().name: encoder for encoder in ENCODERS}
CASES = [
    pytest.param(name, limit, id=f"{name}-{limit.what}")
    for name, encoder in BY_NAME.items()
    for limit in encoder().limits
]


class Ways(NamedTuple):
    """How a venue is used."""

    socket: str
    subscribe: Callable[[list[str]], dict[str, Any]]
    call: str
    listing: str = ""
    body: dict[str, Any] | None = None
    call_weight: int = 1


def binance(socket: str, api: str) -> Ways:
    return Ways(
        socket, lambda names: {"method": "SUBSCRIBE", "params": names, "id": 1},
        f"{api}/ping", f"{api}/fundingInfo",
    )  # fmt: skip


def bybit(category: str) -> Ways:
    return Ways(
        f"v5/public/{category}", lambda names: {"op": "subscribe", "args": names},
        f"v5/market/instruments-info?category={category}",
    )  # fmt: skip


def hyperliquid(coin: str) -> Ways:
    return Ways(
        "ws", lambda _: {"method": "subscribe", "subscription": {"type": "bbo", "coin": coin}},
        "info", body={"type": "meta"}, call_weight=20,
    )  # fmt: skip


WAYS = {
    "binance_linear": binance("market/ws", "fapi/v1"),
    "binance_inverse": binance("market/ws", "dapi/v1"),
    "binance_spot": binance("ws", "api/v3"),
    "bybit_linear": bybit("linear"),
    "bybit_inverse": bybit("inverse"),
    "bybit_spot": bybit("spot"),
    "hyperliquid_perp": hyperliquid("BTC"),
    "hyperliquid_builder": hyperliquid("xyz:TSLA"),
    "hyperliquid_spot": hyperliquid("@107"),
    "okx": Ways(
        "ws/v5/public",
        lambda names: {"op": "subscribe", "args": [{"channel": "x", "instId": n} for n in names]},
        "api/v5/public/time",
    ),
    "deribit": Ways(
        "ws/api/v2",
        lambda names: {"id": 1, "method": "public/subscribe", "params": {"channels": names}},
        "api/v2/public/get_time", "api/v2/public/get_instruments",
    ),
    "kraken_spot": Ways(
        "v2",
        lambda names: {"method": "subscribe", "params": {"channel": "ticker", "symbol": names}},
        "0/public/Assets",
    ),
    "kraken_futures": Ways(
        "ws/v1", lambda names: {"event": "subscribe", "feed": "trade", "product_ids": names},
        "derivatives/api/v3/instruments",
    ),
    "coinbase": Ways(
        "", lambda names: {"type": "subscribe", "channel": "ticker", "product_ids": names},
        "api/v3/brokerage/time",
    ),
    "coinbase_exchange": Ways(
        "", lambda names: {"type": "subscribe", "channels": ["ticker"], "product_ids": names},
        "time",
    ),
}  # fmt: skip
SOCKET_LIMITS = (CONNECTS, SOCKETS)
WORDS = {
    ("binance", SUBSCRIPTIONS): "too many streams",
    ("hyperliquid", SUBSCRIPTIONS): "Cannot subscribe to more than 1000 channels.",
    ("hyperliquid", MESSAGES): "Cannot send more than 2000 messages per minute.",
    ("bybit", NAME_CHARS): "error:args length >21000",
    ("bybit", TOPICS): "error:args size >10",
    ("okx", "requests"): "60014",
    ("deribit", "requests"): "10028",
}


class Full:
    """A client that has as much as it may."""

    def __init__(self, name_count: int) -> None:
        self.names = [str(number) for number in range(name_count)]
        self.meters: dict[VenueLimit, Any] = {}


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no window end."""
    for reader in ("wall_ns", "monotonic_ns"):
        monkeypatch.setattr(table, reader, lambda: NOW_NS)
    yield


class Scene:
    """A venue that is used up to one of its limits."""

    def __init__(self, client: "Client", name: str, limit: VenueLimit) -> None:
        self.client, self.name, self.limit = client, name, limit
        self.ways = WAYS[name]
        self.venue = client.simulator.venues[name]
        self.limits = self.venue.gate.limits

    async def opened(self) -> aiohttp.ClientWebSocketResponse:
        return await self.client.socket(f"/{self.name}/{self.ways.socket}")

    def use_up(self, but: int, session: Session | None = None) -> None:
        """Leave so much of the limit."""
        if self.limit.window_s:
            meter = self.limits.meter(self.limit.what, session)
            assert meter is not None
            meter.add(self.limit.most - but)
        elif self.limit.what == SOCKETS:
            self.limits.follow([Full(0)] * (self.limit.most - but))
        elif self.limit.per is Per.ADDRESS:
            self.limits.follow([Full(self.limit.most - but)])

    async def call(self) -> int:
        """Use the REST pool that the limit is of; its status."""
        is_own = self.limit.what != "weight"
        path = self.ways.listing if is_own else self.ways.call
        url = f"{self.client.url}/{self.name}/{path}"
        http = self.client.http
        asked = http.post(url, json=self.ways.body) if self.ways.body else http.get(url)
        async with asked as reply:
            return reply.status

    async def ledger(self) -> Any:
        found = (await self.client.get("/simulator/limits"))[self.name]
        (line,) = [each for each in found if each["limit"] == self.limit.what]
        return line


async def fill_calls(scene: Scene) -> None:
    weight = scene.ways.call_weight if scene.limit.what == "weight" else 1
    scene.use_up(weight)
    assert await scene.call() == 200
    assert (await scene.ledger())["exceeded"] == 0
    assert await scene.call() == scene.venue.encoder.busy[0]


async def fill_sockets(scene: Scene) -> None:
    scene.use_up(1)
    kept = await scene.opened()
    assert (await scene.ledger())["exceeded"] == 0
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await scene.opened()
    assert refused.value.status == 429
    await kept.close()


def more_than(limit: VenueLimit) -> list[str]:
    """Topics that one request may not name."""
    if limit.what == NAME_CHARS:
        return ["x" * (limit.most + 1)]
    is_held = not limit.window_s and limit.per is not Per.ADDRESS
    return [f"x{number}" for number in range(limit.most + 1 if is_held else 1)]


async def fill_messages(scene: Scene) -> None:
    limit, socket = scene.limit, await scene.opened()
    (session,) = scene.venue.hub.sessions
    request = scene.ways.subscribe(more_than(limit))
    scene.use_up(1 if limit.window_s else 0, session)
    if limit.window_s:
        await socket.send_json(request)
    await socket.send_json(request)
    heard = []
    words = WORDS.get((scene.name.partition("_")[0], limit.what))
    while limit.then is not Then.NOTHING:
        message = await socket.receive(timeout=30)
        if message.type is not aiohttp.WSMsgType.TEXT:
            assert limit.then is Then.HANG_UP, message
            break
        heard.append(message.data)
        if words and words in message.data and limit.then is Then.REFUSE:
            break
    assert words is None or any(words in text for text in heard)
    if limit.then is Then.REFUSE:
        assert not socket.closed
    if limit.then is Then.NOTHING:
        assert json.loads(json.dumps(await receive(socket)))["result"] == [], "advice binds nobody"


def test_every_venue_limits_handshakes_and_calls() -> None:
    for name, encoder in BY_NAME.items():
        assert {CONNECTS, "weight"} <= {limit.what for limit in encoder().limits}, name


@pytest.mark.parametrize(("name", "limit"), CASES)
def test_who_exceeds_a_limit_gets_what_the_venue_does(
    simulated: "Simulated", name: str, limit: VenueLimit
) -> None:
    async def scenario(client: "Client") -> None:
        scene = Scene(client, name, limit)
        if limit.what in SOCKET_LIMITS:
            await fill_sockets(scene)
        elif limit.what in (MESSAGES, "requests", SUBSCRIPTIONS, NAME_CHARS, TOPICS):
            await fill_messages(scene)
        else:
            await fill_calls(scene)
        line = await scene.ledger()
        assert line["exceeded"] >= 1
        assert line["used_max"] > line["most"] == limit.most

    settings = SimulatorSettings(symbols=1, trades_per_s=0.0, enforce_limits=True)
    simulated(settings, scenario, [BY_NAME[name]])


def test_who_is_not_held_to_limits_is_told_of_them_in_the_ledger(simulated: "Simulated") -> None:
    async def scenario(client: "Client") -> None:
        for _ in range(3):
            await client.get("/kraken_spot/0/public/Assets")
        limits = client.simulator.venues["kraken_spot"].gate.limits
        (used,) = [each for each in limits.ledger() if each["limit"] == "weight"]
        assert (used["used_max"], used["exceeded"]) == (3, 0)
        meter = limits.meter("weight")
        assert meter is not None
        meter.add(57)
        assert (await client.status_of("/kraken_spot/0/public/Assets"))[0] == 200
        (used,) = [each for each in limits.ledger() if each["limit"] == "weight"]
        assert (used["used_max"], used["exceeded"]) == (61, 1)

    simulated(SimulatorSettings(symbols=1), scenario, [BY_NAME["kraken_spot"]])


def test_markets_at_one_server_have_a_limit_together(simulated: "Simulated") -> None:
    perp, spot = "hyperliquid_perp", "hyperliquid_spot"

    async def scenario(client: "Client") -> None:
        limits = client.simulator.venues[perp].gate.limits
        meter = limits.meter("weight")
        assert meter is not None
        meter.add(1200)
        status, _ = await client.post_status(f"/{spot}/info", b'{"type":"meta"}')
        assert status == 429
        limits.follow([Full(0)] * 10)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.socket(f"/{spot}/ws")

    settings = SimulatorSettings(symbols=1, enforce_limits=True)
    simulated(settings, scenario, [BY_NAME[perp], BY_NAME[spot]])


def test_a_pool_fills_up_evenly_and_a_window_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = NOW_NS
    monkeypatch.setattr(table, "monotonic_ns", lambda: now_ns)
    pool = table.meter_of(VenueLimit("x", 10, 5.0, window=table.Window.FILLS))
    window = table.meter_of(VenueLimit("x", 10, 5.0))
    assert (pool.add(10), window.add(10)) == (10, 10)
    now_ns += 2_500_000_000
    assert (pool.used(), window.used()) == (5, 10)
    assert (pool.add(), window.add()) == (6, 11)
    now_ns += 2_500_000_000
    assert (pool.used(), window.used()) == (1, 1)
    assert (pool.peak, window.peak) == (10, 11)
