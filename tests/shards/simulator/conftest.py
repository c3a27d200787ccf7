"""A simulator in the test's own event loop, and a client for it."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import aiohttp
import pytest
import uvloop

from shards.simulator.core.encoder import Encoder
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.simulator.venues import ENCODERS


class Client:
    """Talks to one simulator over real sockets."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.http = http
        self.url = f"http://127.0.0.1:{simulator.port}"

    async def get(self, path: str) -> Any:
        async with self.http.get(self.url + path) as response:
            return await response.json()

    async def get_text(self, path: str) -> bytes:
        async with self.http.get(self.url + path) as response:
            return await response.read()

    async def status_of(self, path: str) -> tuple[int, dict[str, str], Any]:
        async with self.http.get(self.url + path) as response:
            return response.status, dict(response.headers), await response.json()

    async def post(self, path: str, body: object = None) -> Any:
        async with self.http.post(self.url + path, json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    async def post_status(self, path: str, body: bytes) -> tuple[int, Any]:
        async with self.http.post(self.url + path, data=body) as response:
            return response.status, await response.json()

    async def socket(self, path: str) -> aiohttp.ClientWebSocketResponse:
        return await self.http.ws_connect(self.url + path, max_msg_size=1 << 24, timeout=_CLOSE)

    async def binance(self, group: str, *names: str) -> aiohttp.ClientWebSocketResponse:
        socket = await self.socket(f"/binance_linear/{group}/ws")
        await socket.send_json({"method": "SUBSCRIBE", "params": list(names), "id": 1})
        assert await socket.receive_str() == '{"result":null,"id":1}'
        return socket

    async def hyperliquid(self, **subscription: object) -> aiohttp.ClientWebSocketResponse:
        socket = await self.socket("/hyperliquid_perp/ws")
        await socket.send_json({"method": "subscribe", "subscription": subscription})
        assert (await receive(socket))["channel"] == "subscriptionResponse"
        return socket


_CLOSE = aiohttp.ClientWSTimeout(ws_close=0.2)


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    return json.loads(await socket.receive_str(timeout=10))


class Simulated(Protocol):
    def __call__(
        self,
        settings: SimulatorSettings,
        scenario: Callable[[Client], Awaitable[None]],
        encoders: Sequence[Callable[[], Encoder]] = ENCODERS,
    ) -> None: ...


@pytest.fixture
def simulated() -> Simulated:
    """Run a scenario against a fresh simulator."""

    async def serve(
        settings: SimulatorSettings,
        scenario: Callable[[Client], Awaitable[None]],
        encoders: Sequence[Callable[[], Encoder]],
    ) -> None:
        simulator = Simulator(settings, encoders)
        await simulator.start()
        try:
            async with aiohttp.ClientSession() as http:
                await scenario(Client(simulator, http))
        finally:
            await simulator.close()

    def run(
        settings: SimulatorSettings,
        scenario: Callable[[Client], Awaitable[None]],
        encoders: Sequence[Callable[[], Encoder]] = ENCODERS,
    ) -> None:
        uvloop.run(serve(settings, scenario, encoders))

    return run
