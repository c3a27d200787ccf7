"""A venue that answers what a test gives it, byte by byte, over REST and over real sockets.

The simulator is a well-behaved venue with faults; this one has no behaviour at all. REST paths
answer a scripted `Answer`, sockets are shaken hands with (or not) and then belong to the test,
which sends whatever bytes it likes. `FakeVenue` is a plain server for any client; `running` adds a
shard's session with it.
"""

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.data.layout import open_layout
from engine.limits.lease_desk import LeaseDesk
from engine.limits.leases import LeaseClient
from engine.messages.limits import (
    LeaseAnswer,
    LeaseRequest,
    LimitFeedback,
    PlacesWanted,
)
from engine.messages.pipes import FromChild
from engine.messages.settings import VenueSettings
from shards.session.venue_session import VenueSession
from shards.venues import VENUES
from shards.venues.budgets import limits_of
from shards.venues.kit import Venue
from tests.shards.doubles import MemoryRings
from tests.waiting import until

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError)
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True)
class Answer:
    """A whole HTTP reply. `drip_s` is a pause after each byte of the body."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    drip_s: float = 0.0

    @property
    def head(self) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status} Said", f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]  # fmt: skip
        return "\r\n".join(lines).encode() + b"\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    body: bytes


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = False
) -> bytes:
    """The bytes of a WebSocket frame; `rsv` has RSV1 as 4, RSV2 as 2, RSV3 as 1."""
    size = len(payload)
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


class FakeSocket:
    """The venue's end of a socket. Nothing is answered that the test does not answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.received: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.ended = asyncio.Event()
        """The client's end is gone."""

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    def send(self, payload: bytes | Mapping[str, Any]) -> None:
        """Send a text frame."""
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.raw(frame(TEXT, text))

    async def message(self) -> dict[str, Any]:
        """The next text the client has sent."""
        while True:
            opcode, payload = await asyncio.wait_for(self.received.get(), 10)
            if opcode == TEXT:
                found: dict[str, Any] = json.loads(payload)
                return found

    def texts(self) -> list[dict[str, Any]]:
        """All it has sent and nobody has looked at."""
        found = []
        while not self.received.empty():
            opcode, payload = self.received.get_nowait()
            if opcode == TEXT:
                found.append(json.loads(payload))
        return found

    def pause(self) -> None:
        """Read nothing any more of what the client sends."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    @property
    def _transport(self) -> Any:
        return self.writer.transport

    def cut(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()

    async def read(self) -> None:
        """Take in what the client sends, until it is gone."""
        with contextlib.suppress(*_GONE):
            while True:
                first, second = await self._reader.readexactly(2)
                size = second & 0x7F
                if size == 126:
                    (size,) = struct.unpack("!H", await self._reader.readexactly(2))
                elif size == 127:
                    (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
                mask = await self._reader.readexactly(4)
                data = await self._reader.readexactly(size)
                plain = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
                self.received.put_nowait((first & 0xF, plain))
        self.ended.set()


class FakeVenue:
    """The server. `answers` are by path without query, the last of a list for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[Asked] = []
        self.handshakes: list[Answer | None] = []
        """What the next handshakes are answered with; None hangs. Then sockets open."""
        self.handshake_count = 0
        self.handshake_delay_s = 0.0
        self.greeting = b""
        """Sent in the same segment as the answer to the handshake."""
        self.closes_at_once = False
        self.sockets: asyncio.Queue[FakeSocket] = asyncio.Queue()
        self.scheme = "http"
        self.port = 0
        self._server: asyncio.Server | None = None
        self._work: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Of REST."""
        return f"{self.scheme}://localhost:{self.port}"

    @property
    def ws_url(self) -> str:
        """Of sockets."""
        return self.url.replace("http", "ws", 1)

    def answer(
        self, path: str, *answers: Answer | bytes | str | Sequence[Any] | Mapping[str, Any]
    ) -> None:
        """What a path answers from now on: replies, bodies, or JSON."""
        self.answers[path] = [_as_answer(each) for each in answers]

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(each.path.partition("?")[0] == path for each in self.asked)

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Listen on a free port of this machine."""
        self.scheme = "https" if context else "http"
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Drop everything."""
        if self._server is not None:
            self._server.close()
        for task in list(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def socket(self) -> FakeSocket:
        """The next socket that a client has opened."""
        return await asyncio.wait_for(self.sockets.get(), 10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._work.add(task)
        try:
            with contextlib.suppress(*_GONE, asyncio.CancelledError):
                while await self._request(reader, writer):
                    pass
        finally:
            self._work.discard(task)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is a socket, or over."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        method, path, _ = first.split(" ", 2)
        if headers.get("upgrade", "").lower() == "websocket":
            await self._socket(headers["sec-websocket-key"], reader, writer)
            return False
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(method, path, body))
        await self._reply(writer, self._next(path.partition("?")[0], body))
        return True

    def _next(self, path: str, body: bytes) -> Answer:
        """Calls of one path that differ in their bodies' `type` are paths of their own."""
        if body[:1] == b"{" and f"{path}#{(kind := json.loads(body).get('type'))}" in self.answers:
            path = f"{path}#{kind}"
        left = self.answers.get(path, [Answer(b"nothing here", 404)])
        return left.pop(0) if len(left) > 1 else left[0]

    async def _reply(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        writer.write(answer.head + (b"" if answer.drip_s else answer.body))
        for byte in answer.body if answer.drip_s else b"":
            writer.write(bytes([byte]))
            await asyncio.sleep(answer.drip_s)
        await writer.drain()

    async def _socket(
        self, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.handshake_count += 1
        if self.handshakes:
            if (answer := self.handshakes.pop(0)) is None:
                await asyncio.sleep(3600)
            else:
                await self._reply(writer, answer)
            return
        await asyncio.sleep(self.handshake_delay_s)
        accept = base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest()).decode()  # noqa: S324 - RFC 6455
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n" + self.greeting
        )
        if self.closes_at_once:
            await writer.drain()
            return
        socket = FakeSocket(reader, writer)
        self.sockets.put_nowait(socket)
        await socket.read()
        await asyncio.sleep(3600)  # this end never closes by itself


def _as_answer(each: Answer | bytes | str | Sequence[Any] | Mapping[str, Any]) -> Answer:
    if isinstance(each, Answer):
        return each
    if isinstance(each, str):
        return Answer(each.encode())
    return Answer(each if isinstance(each, bytes) else json.dumps(each).encode())


class FakeRig:
    """Sessions of shards with a fake venue, that share one lease desk as in an engine."""

    def __init__(self, venue: Venue, fake: FakeVenue, directory: Path, **settings: Any) -> None:
        self.venue, self.fake = venue, fake
        self.double = MemoryRings()
        self.faults: list[BaseException] = []
        self.told: list[FromChild] = []
        self._layout = open_layout(directory / "state", directory)
        addresses = {"rest_url": fake.url, "ws_url": fake.ws_url}
        self._settings = VenueSettings(**(addresses | settings))
        self.desk = LeaseDesk(limits_of(venue), self._layout.limits, self._answer)
        self._clients: dict[str, LeaseClient] = {}
        self.sessions: list[VenueSession] = []
        self.session = self.shard("shard-0", self.double)

    def shard(self, name: str, double: MemoryRings | None = None) -> VenueSession:
        """One more shard's session."""

        def send(message: FromChild) -> None:
            self.told.append(message)
            asyncio.get_running_loop().call_soon(self._hear, name, message)

        client = self._clients[name] = LeaseClient(send)
        rings = (double or MemoryRings()).rings
        self.sessions.append(
            VenueSession(
                self.venue,
                self._settings,
                rings,
                self._layout,
                self.faults.append,
                client,
            )
        )
        return self.sessions[-1]

    def _hear(self, name: str, message: FromChild) -> None:
        if isinstance(message, PlacesWanted):
            self.desk.want(name, message)
        elif isinstance(message, LimitFeedback):
            self.desk.feedback(message)
        elif isinstance(message, LeaseRequest):
            self.desk.ask(name, message)

    def _answer(self, name: str, message: LeaseAnswer) -> None:
        self._clients[name].take(message)

    async def fetch_listing(self) -> list[bytes]:
        """As the control process does."""
        return await self.session._rest.listing()

    async def until(self, condition: Any, within_s: float = 10.0) -> None:
        """Tick, as a shard does, until something is so."""
        await until(condition, timeout_s=within_s, doing=self._tick)

    def _tick(self) -> None:
        for session in self.sessions:
            session.tick()


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[FakeVenue]:
    """A fake venue alone, with TLS if there is a context."""
    fake = FakeVenue()
    await fake.start(context)
    try:
        yield fake
    finally:
        await fake.close()


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    venue: Venue | str = "binance_linear",
    **settings: Any,
) -> AsyncIterator[FakeRig]:
    """A fake venue and a session with it; both end, and the session must not have had a fault."""
    fake = FakeVenue()
    await fake.start()
    spec = VENUES[venue] if isinstance(venue, str) else venue
    rig = FakeRig(spec, fake, directory, **settings)
    try:
        yield rig
        assert rig.faults == []
    finally:
        async with asyncio.timeout(30):  # else a test that fails would never end
            for session in rig.sessions:
                await session.close()
        await rig.desk.close()
        await fake.close()


def binance_symbol(name: str, /, **changes: Any) -> dict[str, Any]:
    """A row of `exchangeInfo`; a change to `...` leaves the field out."""
    row: dict[str, Any] = {
        "symbol": name, "status": "TRADING", "baseAsset": name.removesuffix("USDT"),
        "quoteAsset": "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
            {"filterType": "LOT_SIZE", "stepSize": "0.001"},
        ],
    }  # fmt: skip
    return {key: value for key, value in (row | changes).items() if value is not ...}


def exchange_info(*rows: Any) -> bytes:
    """`exchangeInfo` of these rows."""
    return json.dumps({"symbols": rows}).encode()


def coin(name: str, /, **changes: Any) -> dict[str, Any]:
    """A row of Hyperliquid's `meta`; a change to `...` leaves the field out."""
    row: dict[str, Any] = {"name": name, "szDecimals": 5, "maxLeverage": 40}
    return {key: value for key, value in (row | changes).items() if value is not ...}


def agg_trade(symbol: str, trade_id: int) -> bytes:
    """A trade of Binance."""
    return json.dumps(
        {"e": "aggTrade", "E": 1, "s": symbol, "a": trade_id, "p": "10.5", "q": "2", "f": 1,
         "l": 1, "T": 1_700_000_000_000 + trade_id, "m": False}
    ).encode()  # fmt: skip
