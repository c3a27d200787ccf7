"""Binance USD-M futures as the simulator serves it: its messages, topics and control messages. The
other markets of Binance (`binance_markets`) are what differs from it.

Served on /market: `<s>@aggTrade`, `@markPrice`, `@markPrice@1s`, `@forceOrder`; on /public:
`<s>@bookTicker`, `@depth` and `@depth<5|10|20>` at every speed. Any other name, or a name on the
wrong category, is acknowledged and stays silent, as the real venue does. `markPrice@1s` says what
`premiumIndex` serves; open interest has no stream.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from shards.simulator.core.contracts import Contract, Liquidation, Terms
from shards.simulator.core.encoder import (
    Asked,
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import (
    Part,
    PriceTexts,
    TextTable,
    Trade,
    Trades,
    compact,
    decimal_columns,
    decimal_text,
)
from shards.simulator.core.limits import (
    CONNECTS,
    MESSAGES,
    SUBSCRIPTIONS,
    WEIGHT,
    Per,
    Then,
    VenueLimit,
    Window,
)
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import bad_trades
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.binance.rest import (
    FUNDING_CALLS,
    REST,
    levels_text,
    rate_text,
)
from shards.simulator.venues.listed import binance_instrument, binance_instruments, delivery_ms

__all__ = ["FUTURES_WEIGHT", "Binance", "TradeStyle", "socket_limits"]

_DEPTH = re.compile(r"depth(5|10|20)?(@100ms|@250ms|@500ms|@0ms)?")
"""Depth streams behind the symbol. Without a speed: 250 ms. A number of levels: always the top."""

_PUBLIC_KINDS = {"bookTicker": "quote"}
_MARKET_KINDS = {
    "aggTrade": "trade",
    "markPrice": "funding",
    "markPrice@1s": "funding",
    "forceOrder": "liquidation",
}
_TOPICS = {"trade": "aggTrade", "quote": "bookTicker", "liquidation": "forceOrder"}
_SLOW_MARK_TICKS = 3
"""`markPrice` without a speed is pushed every 3 s."""


class TradeStyle(NamedTuple):
    """How a market's aggregate trades differ from those of the others."""

    has_plain_sizes: bool
    """The size without retail price improvement is said as well."""
    served_end: str
    """What stands last, pushed and served."""
    pushed_end: str
    """What stands behind that, pushed."""


class AggTradeRows:
    """Writes the trades of one symbol on one grid: a frame each."""

    head = close = b""
    rows_per_frame = 1

    def __init__(
        self, state: SymbolState, price_text: Callable[[int], str], style: TradeStyle
    ) -> None:
        self._symbol, self._qty_text = state.grid.symbol, state.qty_text
        self._price_text, self._prices = price_text, PriceTexts(price_text)
        self._style = style
        pairs = zip(state.market.sizes.tolist(), state.market.plain_sizes.tolist(), strict=True)
        self._sizes = [self._sizes_text(*pair) for pair in pairs]
        self._size_table = TextTable([text.encode() for text in self._sizes])
        end = f"{style.served_end}{style.pushed_end}}}"
        self._tails = TextTable([f"{maker}{end}".encode() for maker in ("true", "false")])

    def _sizes_text(self, qty: int, plain: int) -> str:
        text = f'","q":"{self._qty_text(qty)}"'
        if self._style.has_plain_sizes:
            text += f',"nq":"{self._qty_text(plain)}"'
        return f'{text},"f":'

    def served(self, trade: Trade) -> str:
        """Write what stream and REST both say of a trade, without braces."""
        # "m" says that the buyer was the maker: true when the taker sold.
        return (
            f'"a":{trade.id},"p":"{self._price_text(trade.tick)}{self._sizes[trade.size]}'
            f'{trade.first_raw},"l":{trade.last_raw},"T":{trade.ts_ms},'
            f'"m":{"false" if trade.buy else "true"}{self._style.served_end}'
        )

    def _head(self, ts_ms: int) -> str:
        return f'{{"e":"aggTrade","E":{ts_ms},"s":"{self._symbol}",'

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        return f"{self._head(trade.ts_ms)}{self.served(trade)}{self._style.pushed_end}}}"

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """Give the parts of a block whose numbers do not get longer within it."""
        columns = []
        for numbers in (trades.ids, trades.first_raw, trades.last_raw):
            width = len(str(numbers[0]))
            if len(str(numbers[-1])) != width:
                return None
            columns.append(decimal_columns(numbers, width))
        prices = self._prices.rows_of(trades.ticks)
        return (
            f'{self._head(trades.ts_ms)}"a":'.encode(), columns[0], b',"p":"',
            (self._prices.table, prices), (self._size_table, trades.size), columns[1], b',"l":',
            columns[2], f',"T":{trades.ts_ms},"m":'.encode(),
            (self._tails, trades.buy.astype(np.int64)),
        )  # fmt: skip


_TRADE = {
    "e": '"aggTrade"', "E": "1795000000120", "s": '"BTCUSDT"', "a": "4200000000",
    "p": '"81234.50"', "q": '"0.250"', "nq": '"0.200"', "f": "8100000101", "l": "8100000104",
    "T": "1795000000015", "m": "true", "st": "1",
}  # fmt: skip
_BAD = {
    "wrong_types": {"a": '"x"', "p": "81234.5", "m": '"yes"'},
    "nan_price": {"p": '"NaN"'},
    "infinite_price": {"p": '"Infinity"'},
    "huge_number": {"a": "9" * 400},
}


FUTURES_WEIGHT = VenueLimit(WEIGHT, 2400, 60.0, window=Window.TURNS, shared="binance_futures")
"""Of both markets of futures together."""


def socket_limits(messages_per_s: int) -> tuple[VenueLimit, ...]:
    """Give what a market lets its sockets do."""
    return (
        VenueLimit(CONNECTS, 300, 300.0),
        VenueLimit(MESSAGES, messages_per_s, 1.0, Per.SOCKET, Then.HANG_UP),
        VenueLimit(SUBSCRIPTIONS, 1024, per=Per.SOCKET),
    )


class Binance(Encoder):
    """The venue's protocol."""

    name: str = "binance_linear"
    trade_style = TradeStyle(has_plain_sizes=True, served_end="", pushed_end=',"st":1')
    end = ',"st":1'
    """What stands last in messages."""
    terms = Terms(
        rate_decimals=8, usual_rate=10_000, rate_limit=375_000, interval_ms=8 * 3_600_000,
        mark_decimals=8, intervals_h=(8, 4, 1), says_next=True,
    )  # fmt: skip
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("p",), "book": ("b", "a"), "quote": ("A",), "funding": ("p", "markPrice"),
        "open_interest": ("openInterest",), "liquidation": ("p",),
    }  # fmt: skip
    numbered_books = True
    fills = True
    first_books: tuple[str, ...] = ("depth@100ms",)
    history_rows = 1 << 17
    """More than sockets at full speed hold in flight."""
    sockets: Sequence[SocketPath] = tuple(
        SocketPath(f"{group}/{path}{names}", group, path == "stream")
        for group in ("public", "market")
        for path in ("ws", "stream")
        for names in ("", "/{streams:.+}")
    )
    pings = True
    limits: Sequence[VenueLimit] = (
        *socket_limits(10),
        FUTURES_WEIGHT,
        VenueLimit(FUNDING_CALLS, 500, 300.0, window=Window.TURNS),
    )
    first_trade_id = 4_100_000_000
    rest: Mapping[str, ServedCall] = REST
    weight_header: str | None = "X-MBX-USED-WEIGHT-1M"
    bans = True
    a_stream: str = "btcusdt@aggTrade"
    statuses: Sequence[str] = (
        "TRADING", "SETTLING", "PENDING_TRADING", "PRE_SETTLE", "CLOSE", "DELIVERING", "DELIVERED",
    )  # fmt: skip
    changeable = frozenset({"status", "tick_size", "step_size", "funding_interval_hours"})

    def __init__(self) -> None:
        self.malformed = {
            **bad_trades("%s", _TRADE, _BAD),
            "missing_fields": b'{"e":"aggTrade","E":1795000000120,"s":"BTCUSDT"}',
        }

    def grids(self, count: int) -> Sequence[Grid]:
        return binance_instruments(count)

    def grid(self, symbol: str, price: float, request: Query, now: Grid | None) -> Grid:
        return binance_instrument(symbol, price, request, now)

    def describe(self, venue: SimVenue, index: int) -> Mapping[str, object]:
        return {
            "status": venue.statuses[index],
            "funding_interval_hours": venue.contracts.interval_h(index),
            "tick_size": venue.grids[index].tick_text,
            "step_size": venue.grids[index].step_text,
        }

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> AggTradeRows:
        return AggTradeRows(state, price_text, self.trade_style)

    def pays_funding(self, symbol: str) -> bool:
        return delivery_ms(symbol) is None

    def pair(self, symbol: str) -> str:
        """Give the pair of a contract, which contracts of several dates share."""
        return symbol.partition("_")[0]

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"{symbol.lower()}@{_TOPICS[kind]}"

    def funding_topics(self, contract: Contract) -> Sequence[str]:
        fast = f"{contract.instrument.symbol.lower()}@markPrice@1s"
        return (fast, fast[:-3]) if contract.ticks % _SLOW_MARK_TICKS == 0 else (fast,)

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{symbol.lower()}@{stream}"

    def top(self, stream: str) -> int:
        return _top(stream)

    def due(self, stream: str, steps: int | None) -> bool:
        if stream.endswith("@0ms"):
            return True
        if steps is None or stream.endswith("@100ms"):
            return steps is not None
        if stream.endswith("@500ms"):
            return steps % 5 == 0
        return steps * 2 % 5 < 2  # every 250 ms: after three steps, then after two

    def wants(self, name: str, group: str) -> AskedFor | None:
        symbol, _, kind = name.partition("@")
        if symbol != symbol.lower():
            return None
        kinds = _MARKET_KINDS if group == "market" else _PUBLIC_KINDS
        if kind in kinds:
            return AskedFor(symbol.upper(), kinds[kind])
        is_book = group == "public" and _DEPTH.fullmatch(kind)
        return AskedFor(symbol.upper(), "book", kind) if is_book else None

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        request = _request(session, text)
        if isinstance(request, bytes):
            session.send_text(request)
            return None
        return request

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        """An acknowledgement never proves that data will flow."""
        session.send_text(compact({"result": None, "id": request.number}))
        return request.topics

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        if request is None:
            return b""
        return _refusal(2, "Invalid request: too many streams", request.number)

    def notice(self, now_ms: int) -> bytes:
        return b'{"e":"serverShutdown","E":%d}' % now_ms

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        symbol, ts_ms = state.grid.symbol, event.ts_ms
        bids, asks = (levels_text(state, side) for side in (event.bids, event.asks))
        return (
            f'{{"e":"depthUpdate","E":{ts_ms},"T":{ts_ms},"s":"{symbol}","ps":"{self.pair(symbol)}",'
            f'"U":{event.first},"u":{event.last},"pu":{event.previous},'
            f'"b":[{bids}],"a":[{asks}]{self.end}}}'
        ).encode()

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        symbol, ((bid, bid_qty), (ask, ask_qty)) = state.grid.symbol, state.side_texts(quote)
        return (
            f'{{"e":"bookTicker","u":{state.last_update},"s":"{symbol}","ps":"{self.pair(symbol)}",'
            f'"b":"{bid}","B":"{bid_qty}","a":"{ask}","A":"{ask_qty}",'
            f'"T":{now_ms},"E":{now_ms}{self.end}}}'
        ).encode()

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        mark, average, index, settle = (
            decimal_text(price, contract.mark_decimals)
            for price in (contract.mark, contract.average, contract.index_price, contract.settle)
        )
        return (
            f'{{"e":"markPriceUpdate","E":{contract.ts_ms},"s":"{contract.instrument.symbol}",'
            f'"p":"{mark}","ap":"{average}","i":"{index}","P":"{settle}",'
            f'"r":"{rate_text(contract)}","T":{contract.next_funding_ms}{self.end}}}'
        ).encode()

    def liquidation(self, contract: Contract, order: Liquidation) -> bytes:
        pair = self.pair(contract.instrument.symbol)
        return (
            f'{{"e":"forceOrder","E":{order.ts_ms + 5},"o":{{{self.order(contract, order)}}},'
            f'"ps":"{pair}"{self.end}}}'
        ).encode()

    def order(self, contract: Contract, order: Liquidation) -> str:
        """Write a forced order, without braces."""
        grid = contract.instrument
        price, average = (self.price_text(grid, tick) for tick in (order.price, order.average))
        qty, filled = (self.qty_text(grid, lots) for lots in (order.qty, order.filled))
        state = "FILLED" if order.filled == order.qty else "PARTIALLY_FILLED"
        return (
            f'"s":"{grid.symbol}","S":"{"SELL" if order.sold else "BUY"}","o":"LIMIT","f":"IOC",'
            f'"q":"{qty}","p":"{price}","ap":"{average}","X":"{state}","l":"{filled}",'
            f'"z":"{filled}","T":{order.ts_ms}'
        )


@lru_cache
def _top(stream: str) -> int:
    match = _DEPTH.fullmatch(stream)
    return int(match[1] or 0) if match else 0


def _request(session: Session, text: str | bytes) -> Asked | bytes:
    """Read a control message; give the answer to one that is not about subscriptions."""
    try:
        request = json.loads(text)
    except ValueError as error:
        return _refusal(3, f"Invalid JSON: {error}", None)
    if not isinstance(request, dict):
        return _refusal(2, "Invalid request: not an object", None)
    number = request.get("id")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        return _refusal(2, "Invalid request: request ID must be an unsigned integer", None)
    method, params = request.get("method"), request.get("params", [])
    if method == "LIST_SUBSCRIPTIONS":
        return compact({"result": list(session.names), "id": number})
    if method == "SET_PROPERTY":
        return _refusal(0, "Unknown property", number)
    if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
        return _refusal(2, f"Invalid request: unknown method {method!r}", number)
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        return _refusal(1, "Invalid value type: expected array of stream names", number)
    return Asked(params, method == "SUBSCRIBE", number)


def _refusal(code: int, message: str, number: object) -> bytes:
    error = {"code": code, "msg": message}
    return compact({"error": error, "id": number} if number is not None else error)
