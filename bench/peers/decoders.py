"""Ways to make trades and levels of a venue's messages, ours and those of others.

Each takes a run of messages as its own socket would hand them on: `bytes` where it reads them, else
`str`. What came out of the last run is kept and compared. Nobody sequences trades but we, who find
gaps and repetitions on the way and write into shared memory; books are kept by cryptofeed and ccxt,
and by the plain ones, which a shard leaves to those who read.
"""

import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from bench.decoding import TS_RECV, Lane
from bench.frames import BEGIN_MS
from bench.peers.frames import MARKET, SYMBOL, Levels, Said
from bench.peers.others import installed
from engine.data.kind import RecordArray
from engine.data.names import StreamKind

Message = bytes | str
_BASE, _QUOTE = "BTC", "USDT"


class Decoder(Protocol):
    """One stream's."""

    def take(self, frames: Sequence[Message]) -> None:
        """Decode all of them."""

    def trades(self) -> list[Said]:
        """Those of the last run."""

    def levels(self) -> Levels:
        """Of the book, or those of the last message."""

    def level_count(self) -> int:
        """How many the last run brought; 0 where it is not told one by one."""


class Ours:
    """The decoder, the feed and the ring of a shard."""

    def __init__(self, kind: StreamKind, size: int) -> None:
        self._lane = Lane(MARKET, kind, size)
        self._kind = self._lane.feed.kind.name
        self._size = size
        self._first_seq = 0
        self._lane.supply()  # which begins the book

    def take(self, frames: Sequence[Message]) -> None:
        self._lane.take(frames)  # type: ignore[arg-type]  # ours are bytes

    def make_room(self) -> None:
        """The reader has everything: not what a decoder pays for."""
        self._first_seq = self._lane.feed.ring.next_seq
        self._lane.rings.readers[self._kind].release(self._first_seq)

    def trades(self) -> list[Said]:
        rows = self._rows()
        names = ("trade_id", "price", "qty")
        return [
            Said(number, _exact(price), _exact(qty))
            for number, price, qty in zip(*(rows[name].tolist() for name in names), strict=True)
        ]

    def levels(self) -> Levels:
        rows = self._rows()[-self._size :]
        return {
            _exact(price): _exact(qty)
            for price, qty in zip(rows["price"].tolist(), rows["qty"].tolist(), strict=True)
        }

    def level_count(self) -> int:
        return len(self._rows())

    def _rows(self) -> RecordArray:
        reader, found, seq = self._lane.rings.readers[self._kind], [], self._first_seq
        while seq < reader.head:
            found.append(reader.poll(seq).copy())
            seq += len(found[-1])
        return np.concatenate(found)


class Plain:
    """What most write: a parser of JSON, then dicts; floats, or Decimals if they are careful."""

    def __init__(self, parse: Callable[[Message], Any], number: Callable[[str], Any]) -> None:
        self._parse, self._number = parse, number
        self._trades: list[dict[str, Any]] = []
        self._sides: dict[str, dict[Any, Any]] = {"b": {}, "a": {}}
        self._level_count = 0

    def take(self, frames: Sequence[Message]) -> None:
        self._trades, self._level_count = [], 0
        for frame in frames:
            message = self._parse(frame)
            if message["e"] == "aggTrade":
                self._trades.append(self._trade(message))
            else:
                self._change(message)

    def _trade(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": message["a"],
            "symbol": message["s"],
            "side": "sell" if message["m"] else "buy",
            "price": self._number(message["p"]),
            "qty": self._number(message["q"]),
            "time": message["T"],
            "recv": TS_RECV,
        }

    def _change(self, message: dict[str, Any]) -> None:
        number = self._number
        for side, levels in self._sides.items():
            for price_text, qty_text in message[side]:
                price, qty = number(price_text), number(qty_text)
                if qty:
                    levels[price] = qty
                else:
                    levels.pop(price, None)
            self._level_count += len(message[side])

    def trades(self) -> list[Said]:
        return [Said(t["id"], _exact(t["price"]), _exact(t["qty"])) for t in self._trades]

    def levels(self) -> Levels:
        sides = self._sides.values()
        return {_exact(p): _exact(q) for side in sides for p, q in side.items()}

    def level_count(self) -> int:
        return self._level_count


class _AggTrade(msgspec.Struct, gc=False):
    a: int
    s: str
    p: float
    q: float
    T: int
    m: bool


class _Depth(msgspec.Struct, gc=False):
    s: str
    U: int
    u: int
    pu: int
    T: int
    b: list[tuple[float, float]]
    a: list[tuple[float, float]]


class Structs:
    """msgspec alone, into a class of the message: what a decoder that keeps nothing would cost."""

    def __init__(self, kind: StreamKind) -> None:
        message: type[Any] = _AggTrade if kind is StreamKind.TRADES else _Depth
        decoder = msgspec.json.Decoder(message, strict=False)
        self._decode: Callable[[Message], Any] = decoder.decode
        self._found: list[Any] = []

    def take(self, frames: Sequence[Message]) -> None:
        self._found = list(map(self._decode, frames))

    def trades(self) -> list[Said]:
        return [Said(each.a, _exact(each.p), _exact(each.q)) for each in self._found]

    def levels(self) -> Levels:
        last = self._found[-1]
        return {_exact(p): _exact(q) for p, q in [*last.b, *last.a]}

    def level_count(self) -> int:
        return sum(len(each.b) + len(each.a) for each in self._found)


class Cryptofeed:
    """`BinanceFutures.message_handler`, with callbacks that keep what they are given. It wants the
    envelope of a combined stream around a message.
    """

    def __init__(self, kind: StreamKind) -> None:
        defines = installed("cryptofeed.defines")
        exchange = installed("cryptofeed.exchanges").BinanceFutures
        order_book = installed("cryptofeed.types").OrderBook
        symbol = installed("cryptofeed.symbols").Symbol(_BASE, _QUOTE, type=defines.PERPETUAL)
        names = installed("cryptofeed.symbols").Symbols
        name = symbol.normalized
        names.set(exchange.id, {name: SYMBOL}, {})  # else it asks the venue
        self.found: list[Any] = []
        self._level_count = 0
        channel, callback = (
            (defines.TRADES, self._on_trade)
            if kind is StreamKind.TRADES
            else (defines.L2_BOOK, self._on_book)
        )
        self._feed = exchange(symbols=[name], channels=[channel], callbacks={channel: callback})
        self.handle: Callable[..., Awaitable[None]] = self._feed.message_handler
        if kind is not StreamKind.TRADES:
            self._feed._l2_book[name] = order_book(exchange.id, name, bids={}, asks={})
            self._feed.last_update_id[name] = 1 * 10 + 9
            self._feed._l2_book[name].delta = {}

    async def _on_trade(self, trade: Any, _recv_s: float) -> None:
        self.found.append(trade)

    async def _on_book(self, book: Any, _recv_s: float) -> None:
        self.found = [book]
        self._level_count += sum(map(len, book.delta.values()))

    def take(self, frames: Sequence[Message]) -> None:
        self.found, self._level_count = [], 0
        with contextlib.suppress(StopIteration):
            self._handle_all(frames).send(None)
            raise AssertionError("it waits for something, which no message makes it do")

    async def _handle_all(self, frames: Sequence[Message]) -> None:
        handle, recv_s = self.handle, TS_RECV / 1e9
        for frame in frames:
            await handle(frame, None, recv_s)

    def trades(self) -> list[Said]:
        return [Said(int(each.id), each.price, each.amount) for each in self.found]

    def levels(self) -> Levels:
        book = self.found[-1].book.to_dict()
        return {p: q for side in book.values() for p, q in side.items()}

    def level_count(self) -> int:
        return self._level_count


class CcxtPro:
    """What ccxt pro's client does with a text that its socket has read. It parses with orjson where
    that is installed, as here.
    """

    URL: Final = "wss://fstream.binance.com/ws"

    def __init__(self, kind: StreamKind) -> None:
        exchange = installed("ccxt.pro").binance({"options": {"tradesLimit": 10_000}})
        market = exchange.safe_market_structure(
            {
                "id": SYMBOL, "symbol": "BTC/USDT:USDT", "base": _BASE, "quote": _QUOTE,
                "settle": _QUOTE, "baseId": _BASE, "quoteId": _QUOTE, "settleId": _QUOTE,
                "type": "swap", "swap": True, "spot": False, "contract": True, "linear": True,
                "inverse": False, "active": True, "contractSize": 1.0,
                "precision": {"amount": 0.001, "price": 0.01},
            }
        )  # fmt: skip
        exchange.set_markets([market])
        self._symbol = market["symbol"]
        self._exchange = exchange
        client = installed("ccxt.async_support.base.ws.client").Client
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        self._client = client(self.URL, exchange.handle_message, nothing, nothing, nothing, {})
        if kind is not StreamKind.TRADES:
            book = exchange.order_book({}, 1000)
            whole = {"bids": [], "asks": [], "nonce": 1 * 10 + 9, "timestamp": BEGIN_MS}
            book.reset(whole)
            exchange.orderbooks[self._symbol] = book
        self._count = 0

    def take(self, frames: Sequence[Message]) -> None:
        hear: Callable[[Message], None] = self._client.handle_text_or_binary_message
        for frame in frames:
            hear(frame)
        self._count = len(frames)

    def trades(self) -> list[Said]:
        found = list(self._exchange.trades[self._symbol])[-self._count :]
        return [Said(int(t["id"]), _exact(t["price"]), _exact(t["amount"])) for t in found]

    def levels(self) -> Levels:
        book = self._exchange.orderbooks[self._symbol]
        return {_exact(p): _exact(q) for p, q in [*book["bids"], *book["asks"]]}

    def level_count(self) -> int:
        return 0


def _exact(number: float | Decimal) -> Decimal:
    """What its shortest text says: up to 15 digits that is what the venue has sent."""
    return number if isinstance(number, Decimal) else Decimal(repr(number))


def _standard(number: Callable[[str], Any]) -> Callable[[StreamKind, int], Decoder]:
    return lambda _kind, _size: Plain(json.loads, number)


DECODERS: Final[dict[str, Callable[[StreamKind, int], Decoder]]] = {
    "ours": Ours,
    "msgspec alone": lambda kind, _: Structs(kind),
    "orjson, dicts, floats": lambda _kind, _size: Plain(installed("orjson").loads, float),
    "json, dicts, floats": _standard(float),
    "json, dicts, Decimals": _standard(Decimal),
    "cryptofeed": lambda kind, _: Cryptofeed(kind),
    "ccxt pro": lambda kind, _: CcxtPro(kind),
}
READS_BYTES: Final = frozenset({"ours", "msgspec alone", "orjson, dicts, floats"})
"""The others are given text, and what it takes to make that of bytes is not counted."""


def as_read(name: str, frame: bytes, topic: str) -> Message:
    """A message as the socket of this decoder hands it on."""
    if name == "cryptofeed":
        return f'{{"stream":"{topic}","data":{frame.decode()}}}'
    return frame if name in READS_BYTES else frame.decode()
