"""A recorded Binance session, served again: the same bytes, at the recorded pace or faster.

Reads the capture format of the test data: `<time>: <frame>` lines for the socket, after a first
line with its address, and `<address> -> <time>: <body>` lines for REST. Only `binance_linear` is
replayed; the other venue stays reachable and silent.
"""

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from aiohttp import web

from engine.base.clock import monotonic_ns, wall_ns
from shards.simulator.core.encoder import Encoder
from shards.simulator.core.frames import compact, text_frame
from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, BOOK, TRADE, Ledger, Rows
from shards.simulator.core.limits import RestGate
from shards.simulator.core.sessions import Hub, Session, write_all
from shards.simulator.routes import rest_answer

__all__ = ["Capture", "ReplayVenue", "add_replay_rest", "read_capture"]

_NUMBER = 0
"""Of the venue in the ledger."""

_START_DELAY_S = 1.0
_BATCH_FRAMES = 50
_POLL_S = 0.005
_REST_LINE = re.compile(r"^(https?://\S+) -> ([0-9.]+): (.*)$")
_SOCKET_LINE = re.compile(r"^([0-9.]+): (\{.*)$")


@dataclass(frozen=True, slots=True)
class Frame:
    """One recorded frame of a combined stream."""

    at_s: float
    stream: str
    whole: bytes
    payload: bytes
    """Exactly the bytes of `data`, as a raw socket would have carried them."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A recorded session."""

    frames: tuple[Frame, ...]
    exchange_info: bytes
    depth: dict[str, tuple[bytes, ...]]
    """REST depth bodies by symbol, in the order they were recorded."""

    @property
    def symbols(self) -> list[str]:
        """What the venue listed."""
        return [entry["symbol"] for entry in json.loads(self.exchange_info)["symbols"]]


def read_capture(directory: Path) -> Capture:
    """Read every capture file of a directory."""
    frames: list[Frame] = []
    exchange_info = b""
    depth: dict[str, list[bytes]] = {}
    for path in sorted(directory.iterdir()):
        for line in path.read_text("utf-8").splitlines():
            if call := _REST_LINE.match(line):
                address, body = urlsplit(call[1]), call[3].encode()
                if address.path.endswith("/exchangeInfo"):
                    exchange_info = body
                elif address.path.endswith("/depth"):
                    symbol = parse_qs(address.query)["symbol"][0]
                    depth.setdefault(symbol, []).append(body)
            elif received := _SOCKET_LINE.match(line):
                frames.append(_frame(float(received[1]), received[2]))
    if not frames or not exchange_info:
        message = f"{directory} holds no recorded session: frames and exchangeInfo are needed"
        raise ValueError(message)
    frames.sort(key=lambda frame: frame.at_s)
    bodies = {symbol: tuple(recorded) for symbol, recorded in depth.items()}
    return Capture(tuple(frames), exchange_info, bodies)


def _frame(at_s: float, text: str) -> Frame:
    start = text.index('"data":') + len('"data":')
    stream = json.loads(text)["stream"]
    return Frame(at_s, stream, text.encode(), text[start : text.rindex("}")].encode())


class ReplayVenue:
    """Serves a capture to whoever subscribed; frames of topics nobody has are skipped."""

    def __init__(
        self, capture: Capture, speed: float, ledger: Ledger, encoder: Encoder, gate: RestGate
    ) -> None:
        """Replay at `speed` times the recorded pace; 0 is as fast as sockets take it."""
        self.encoder, self.gate = encoder, gate
        self.symbols = capture.symbols
        self.hub = Hub(encoder.name, self.symbols)
        self.done = False
        self.sent_frames = 0
        self.skipped_frames = 0
        self.paused = False
        self._capture = capture
        self._speed = speed
        self._ledger = ledger
        self._index = {symbol: number for number, symbol in enumerate(self.symbols)}
        self._streams = {frame.stream for frame in capture.frames}
        self._asked = asyncio.Event()

    def start(self) -> None:
        """Replay from the first frame, now."""
        self._asked.set()

    def subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Subscribe; names that were not recorded stay silent."""
        for name in names:
            if name not in session.names:
                session.names[name] = None
                if name in self._streams and self.encoder.wants(name, session.group):
                    self.hub.subscribe(session, name)

    def unsubscribe(self, session: Session, names: Iterable[str]) -> None:
        """Forget subscriptions."""
        for name in names:
            session.names.pop(name, None)
            self.hub.unsubscribe(session, name)

    async def run(self) -> None:
        """Wait for the start, replay once, and again each time it is asked for."""
        while True:
            await self._wait_for_start()
            self._asked.clear()
            self.done = False
            await self._play()
            self._ledger.flush()
            self.done = True

    async def _wait_for_start(self) -> None:
        while not self._asked.is_set():
            first_ns = self.hub.first_subscription_ns
            if not self.done and first_ns and monotonic_ns() - first_ns >= _START_DELAY_S * 1e9:
                return
            await asyncio.sleep(0.01)

    async def _play(self) -> None:
        first_s = self._capture.frames[0].at_s
        started_ns = monotonic_ns()
        for number, frame in enumerate(self._capture.frames):
            if self._speed > 0:
                due_ns = started_ns + int((frame.at_s - first_s) / self._speed * 1e9)
                await asyncio.sleep(max(0, due_ns - monotonic_ns()) / 1e9)
            elif number % _BATCH_FRAMES == 0:
                await asyncio.sleep(0)
            await self._ready()
            self._send(frame)

    async def _ready(self) -> None:
        # Write buffers and the silence are polled: no event says that a buffer has room.
        while self.paused or self.hub.silent() or not self._room():
            await asyncio.sleep(_POLL_S)

    def _room(self) -> bool:
        return all(topic.writable() for topic in self.hub.topics.values())

    def _send(self, frame: Frame) -> None:
        topic = self.hub.topic(frame.stream)
        delivered = False
        if topic is not None:
            delivered = write_all(topic.raw, text_frame(frame.payload))
            delivered |= write_all(topic.combined, text_frame(frame.whole))
        if delivered:
            self.sent_frames += 1
            self._record(frame)
        else:
            self.skipped_frames += 1

    def _record(self, frame: Frame) -> None:
        event = json.loads(frame.payload, parse_float=Decimal)
        if event["e"] == "aggTrade":
            self.hub.trade_counts[self._index[event["s"]]] += 1
            self._ledger.trades(self._trade_row(event))
        elif event["e"] == "depthUpdate":
            levels = len(event["b"]) + len(event["a"])
            self.hub.book_event_count += 1
            self.hub.book_counts[self._index[event["s"]]] += max(1, levels)
            chain = (event["u"], event["pu"])
            sides = (event["b"], event["a"])
            self._ledger.book(self.book_rows(event["s"], event["T"], chain, sides))
        elif event["e"] == "bookTicker":
            self.hub.counts["quote"][self._index[event["s"]]] += 1
            self._ledger.quote(self._quote_row(event))

    def _quote_row(self, event: dict[str, Any]) -> tuple[int, ...]:
        (bid, ask), price_decimals = _alike(event["b"], event["a"])
        (bid_qty, ask_qty), qty_decimals = _alike(event["B"], event["A"])
        return (
            _NUMBER, self._index[event["s"]], event["T"] * 1_000_000, event["u"],
            bid, bid_qty, ask, ask_qty, price_decimals, qty_decimals,
            BID_PRESENT * (bid > 0) + ASK_PRESENT * (ask > 0), 0,
        )  # fmt: skip

    def _trade_row(self, event: dict[str, Any]) -> Rows:
        row = np.empty(1, TRADE)
        row["venue"] = _NUMBER
        row["symbol"] = self._index[event["s"]]
        row["ts_event"] = event["T"] * 1_000_000
        row["trade_id"] = event["a"]
        row["side"] = ord("S") if event["m"] else ord("B")
        row["price_mantissa"], row["price_decimals"] = _parts(event["p"])
        row["qty_mantissa"], row["qty_decimals"] = _parts(event["q"])
        return row

    def book_rows(
        self,
        symbol: str,
        ts_ms: int,
        chain: tuple[int, int],
        sides: tuple[list[list[str]], list[list[str]]],
    ) -> Rows:
        """Make ledger rows of the levels as the text has them."""
        bids, asks = sides
        listed = [*(("b", level) for level in bids), *(("a", level) for level in asks)]
        rows = np.zeros(max(1, len(listed)), BOOK)
        rows["venue"] = _NUMBER
        rows["symbol"] = self._index[symbol]
        rows["ts_event"] = ts_ms * 1_000_000
        rows["seq"], rows["prev_seq"] = chain
        rows["side"] = ord("-")
        for row, (side, (price, qty)) in zip(rows, listed, strict=False):
            row["side"] = ord(side)
            row["price_mantissa"], row["price_decimals"] = _parts(price)
            row["qty_mantissa"], row["qty_decimals"] = _parts(qty)
        return rows

    def depth(self, symbol: str) -> bytes | None:
        """Give the recorded depth body of a symbol and put it into the ledger."""
        bodies = self._capture.depth.get(symbol)
        if not bodies:
            return None
        body = bodies[0]
        book = json.loads(body)
        chain = (book["lastUpdateId"], 0)
        rows = self.book_rows(symbol, book["T"], chain, (book["bids"], book["asks"]))
        rows["snapshot"] = 1
        self._ledger.snapshot(rows)
        return body

    @property
    def exchange_info(self) -> bytes:
        """The recorded exchangeInfo body."""
        return self._capture.exchange_info

    def status(self) -> dict[str, object]:
        """Tell how far the replay is."""
        return {
            "done": self.done,
            "frames": len(self._capture.frames),
            "sent_frames": self.sent_frames,
            "skipped_frames": self.skipped_frames,
        }


def _parts(text: str) -> tuple[int, int]:
    """Split a decimal text into mantissa and decimals."""
    parts = Decimal(text).as_tuple()
    decimals = -int(parts.exponent)
    assert decimals >= 0
    return int("".join(map(str, parts.digits))), decimals


def _alike(*texts: str) -> tuple[list[int], int]:
    """Split decimal texts into mantissas of the same decimals."""
    parts = [_parts(text) for text in texts]
    most = max(decimals for _, decimals in parts)
    return [mantissa * 10 ** (most - decimals) for mantissa, decimals in parts], most


def add_replay_rest(app: web.Application, venue: ReplayVenue) -> None:
    """Serve REST from the recorded bodies."""

    async def handle(request: web.Request) -> web.Response:
        refusal = venue.gate.admit(1)
        if refusal is not None:
            return refusal
        call = request.match_info["call"]
        body, status = b"[]" if call == "aggTrades" else b"{}", 200
        if call == "exchangeInfo":
            body = venue.exchange_info
        elif call == "depth":
            recorded = venue.depth(request.query.get("symbol", ""))
            body, status = (recorded, 200) if recorded else (_UNKNOWN_SYMBOL, 400)
        elif call == "time":
            body = compact({"serverTime": wall_ns() // 1_000_000})
        elif call not in ("ping", "aggTrades"):
            status = 404
        return rest_answer(venue.gate, body, status)

    app.router.add_get(f"/{venue.encoder.name}/fapi/v1/{{call}}", handle)


_UNKNOWN_SYMBOL = compact({"code": -1121, "msg": "Invalid symbol."})
