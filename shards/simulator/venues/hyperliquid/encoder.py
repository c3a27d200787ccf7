"""Hyperliquid as the simulator serves it: trades, whole books, contexts.

A venue each of its own perpetuals, of builders' perpetuals and of spot, as if they were alone; a
protocol for all. A context of spot has neither funding nor open interest, and is said once, to who
subscribes it.

Books come in two variants on two venue-wide clocks: 20 levels slow, 5 levels fast. Both carry the
same channel and coin; only `"fast":true` in the frame tells them apart. `activeAssetCtx` says what
`metaAndAssetCtxs` serves; the venue puts no time on either, and what depends on a book is null
while a side of it is empty. The venue sends no ping frames; clients ping it in JSON.
"""

import json
from asyncio import get_running_loop
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from shards.simulator.core.contracts import Contract, Terms
from shards.simulator.core.encoder import (
    Asked,
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    SocketPath,
)
from shards.simulator.core.frames import (
    Integers,
    Part,
    PriceTexts,
    TextTable,
    Trade,
    Trades,
    compact,
    decimal_columns,
    decimal_text,
    hex_columns,
    trimmed_text,
)
from shards.simulator.core.limits import (
    CONNECTS,
    MESSAGES,
    SOCKETS,
    SUBSCRIPTIONS,
    WEIGHT,
    VenueLimit,
    Window,
    now_ms,
)
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Levels, Quote, SymbolState
from shards.simulator.core.usual import bad_trades, read_object
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.hyperliquid.info import (
    INFO,
    answer,
    context,
    spot_context,
)
from shards.simulator.venues.hyperliquid.listed import (
    DEXES,
    builder_instrument,
    builder_instruments,
    spot_instrument,
    spot_instruments,
)
from shards.simulator.venues.listed import coin_instrument, hyperliquid_instruments

__all__ = ["CoinTradeRows", "Hyperliquid", "HyperliquidBuilder", "HyperliquidSpot", "size_text"]

_HISTORY_ROWS = 50
_HISTORY_MS = 20_000
_FIRST_HISTORY_ROWS = 10
_TID_LOW = 10**14
_TID_SPAN = 9 * 10**14
_TID_STRIDE = 123_456_789_012_347
"""Coprime to the span: ids look random, repeat only after all were used, and fit 50 bits."""

_LIVELY_COINS = 5
_DROP_DELAY_S = 0.1
_SIDES = np.array([b"A", b"B"], "V1")
_SIGNIFICANT_FIGURES = frozenset({None, 2, 3, 4, 5})
_MANTISSA_FIGURES = 5
_TRADE = {
    "side": '"B"', "px": '"81234.0"', "sz": '"0.01250"', "time": "1795000000123",
    "hash": f'"0x{"0" * 64}"', "tid": "512345678901234",
    "users": f'["0x{"1" * 40}","0x{"2" * 40}"]',
}  # fmt: skip
_BAD = {
    "wrong_types": {"px": "81234", "tid": '"x"'},
    "nan_price": {"px": '"NaN"'},
    "infinite_price": {"px": '"Infinity"'},
    "huge_number": {"tid": "9" * 400},
}


def size_text(mantissa: int, decimals: int) -> str:
    """Print a size as Hyperliquid does: szDecimals decimals, but always at least one."""
    return decimal_text(mantissa, decimals) if decimals else f"{mantissa}.0"


class CoinTradeRows:
    """Writes the trades of one coin on one grid."""

    head, close = b'{"channel":"trades","data":[', b"]}"
    rows_per_frame = 50

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        grid, rng = state.grid, state.rng
        self._price_text, self._prices = price_text, PriceTexts(price_text)
        self._coin = f'{{"coin":"{grid.symbol}","side":"'
        sizes = state.market.sizes.tolist()
        self._sizes = [f'","sz":"{state.qty_text(qty)}' for qty in sizes]
        self._size_table = TextTable([text.encode() for text in self._sizes])
        self._hashes = [rng.bytes(28).hex() for _ in range(256)]
        traders = [rng.bytes(20).hex() for _ in range(64)]
        pairs = rng.integers(0, 64, (256, 2)).tolist()
        self._users = [f'"0x{traders[buyer]}","0x{traders[seller]}"' for buyer, seller in pairs]
        self._hash_rows = np.array([text.encode() for text in self._hashes], "V56")
        self._user_rows = np.array([text.encode() for text in self._users], "V89")

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        pool = trade.serial & 255
        return (
            f'{self._coin}{"B" if trade.buy else "A"}","px":"{self._price_text(trade.tick)}'
            f'{self._sizes[trade.size]}","time":{trade.ts_ms},'
            f'"hash":"0x{trade.serial & 0xFFFFFFFF:08x}{self._hashes[pool]}",'
            f'"tid":{trade.id},"users":[{self._users[pool]}]}}'
        )

    def parts(self, trades: Trades) -> Sequence[Part]:
        """Give the parts of a block: ids have fifteen digits each."""
        serials = np.arange(trades.serial, trades.serial + len(trades.ids))
        pool = serials & 255
        prices = self._prices.rows_of(trades.ticks)
        return (
            self._coin.encode(), _SIDES.take(trades.buy), b'","px":"', (self._prices.table, prices),
            (self._size_table, trades.size), f'","time":{trades.ts_ms},"hash":"0x'.encode(),
            hex_columns(serials & 0xFFFFFFFF), self._hash_rows.take(pool), b'","tid":',
            decimal_columns(trades.ids, 15), b',"users":[', self._user_rows.take(pool), b"]}",
        )  # fmt: skip


class Hyperliquid(Encoder):
    """The venue's protocol, and its own perpetuals."""

    name = "hyperliquid_perp"
    a_coin = "BTC"
    dexes: Mapping[str, int] = {"": 0}
    """Which dexes it has, in the order of their numbers, and the token each is margined in."""
    has_pairs = False
    """Its coins are pairs of tokens, of no dex."""
    terms = Terms(
        rate_decimals=10, usual_rate=125_000, rate_limit=400_000_000, interval_ms=3_600_000,
        mark_decimals=None, with_interest=True,
    )  # fmt: skip
    null_sides = True
    book_clocks: Mapping[str, float] = {"slow": 0.0, "fast": 0.54}
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("px",), "book": ("px",), "quote": ("px",),
        "funding": ("openInterest",),  # a price of a context may be null
    }  # fmt: skip
    spoiled_among = 3
    sockets: Sequence[SocketPath] = (SocketPath("ws", "ws"),)
    channels: Mapping[str, str] = {
        "trades": "trade", "l2Book": "book", "bbo": "quote", "activeAssetCtx": "funding",
    }  # fmt: skip
    limits: Sequence[VenueLimit] = (
        VenueLimit(CONNECTS, 30, 60.0, shared="hyperliquid"),
        VenueLimit(SOCKETS, 10, shared="hyperliquid"),
        VenueLimit(MESSAGES, 2000, 60.0, shared="hyperliquid"),
        VenueLimit(SUBSCRIPTIONS, 1000, shared="hyperliquid"),
        VenueLimit(WEIGHT, 1200, 60.0, window=Window.TURNS, shared="hyperliquid"),
    )
    trade_rows = CoinTradeRows
    changeable = frozenset({"sz_decimals"})

    def __init__(self) -> None:
        self.rest = {"info": INFO}
        coin = f'"{self.a_coin}"'
        self.malformed = {
            **bad_trades('{"channel":"trades","data":[%s]}', {"coin": coin, **_TRADE}, _BAD),
            "missing_fields": f'{{"channel":"trades","data":[{{"coin":{coin}}}]}}'.encode(),
        }
        self._order_counts: dict[int, list[int]] = {}

    def grids(self, count: int) -> Sequence[Grid]:
        return hyperliquid_instruments(count)

    def grid(self, symbol: str, price: float, request: Query, now: Grid | None) -> Grid:
        return coin_instrument(symbol, price, request, now)

    def describe(self, venue: SimVenue, index: int) -> Mapping[str, object]:
        return {"delisted": venue.halted(index), "sz_decimals": venue.grids[index].qty_decimals}

    def activity(self, index: int) -> int:
        return 8 if index < _LIVELY_COINS else 3

    def moves(self, state: SymbolState) -> bool:
        """A quiet coin's book often stands still between two frames."""
        return state.index < _LIVELY_COINS or state.rng.random() < 0.25

    def opened(self, state: SymbolState) -> None:
        state.serial = int(state.rng.integers(0, 1 << 40))
        self._order_counts[state.index] = state.rng.integers(1, 12, 1024).tolist()

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        first = serial * _TID_STRIDE % _TID_SPAN
        return _TID_LOW + (first + _tid_steps(count)) % _TID_SPAN

    def price_text(self, grid: Grid, tick: int) -> str:
        return trimmed_text(tick, grid.price_decimals)

    def qty_text(self, grid: Grid, qty: int) -> str:
        return size_text(qty, grid.qty_decimals)

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"l2Book {symbol} {stream}"

    def top(self, stream: str) -> int:
        return 5 if stream == "fast" else 20

    def wants(self, name: str, group: str) -> AskedFor | None:
        kind, _, coin = name.partition(" ")  # names of coins have colons
        coin, _, stream = coin.partition(" ")
        return AskedFor(coin, self.channels[kind], stream)

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        """Answer what is no subscription; nonsense gets an error and the socket stays open."""
        request = read_object(text)
        method, wanted, inner = (request.get(key) for key in ("method", "subscription", "request"))
        payload = inner.get("payload") if isinstance(inner, dict) else None
        if method == "ping":
            session.send_text(b'{"channel":"pong"}')
        elif method == "post" and isinstance(payload, dict):
            body = answer(venue, payload)
            found = None if body is None else json.loads(body)
            data = {"type": payload.get("type"), "data": found}
            response = {"type": "info", "payload": data}
            _say(session, "post", {"id": request.get("id"), "response": response})
        elif method in ("subscribe", "unsubscribe") and isinstance(wanted, dict):
            return Asked([_topic_name(wanted)], method == "subscribe", said=wanted)
        else:
            text = json.dumps(request) if method == "post" else text
            shown = text if isinstance(text, str) else text.decode(errors="replace")
            words = f"Error parsing JSON into valid websocket request: {shown[:500]}"
            _say(session, "error", words)
        return None

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        wanted, is_there = request.said, request.topics[0] in session.names
        is_served = not request.begins or self._is_served(venue, wanted)
        if not is_served:
            # No error: the venue just drops the connection with everything on it.
            get_running_loop().call_later(_DROP_DELAY_S, session.transport.abort)
        elif request.begins == is_there:
            word = "subscribed" if request.begins else "unsubscribed"
            _say(session, "error", f"Already {word}: {compact(wanted).decode()}")
        else:
            _acknowledge(session, "subscribe" if request.begins else "unsubscribe", wanted)
            return request.topics
        return ()

    def _is_served(self, venue: SimVenue, wanted: Query) -> bool:
        figures, mantissa = wanted.get("nSigFigs"), wanted.get("mantissa")
        fits = figures in _SIGNIFICANT_FIGURES and (not mantissa or figures == _MANTISSA_FIGURES)
        is_known = wanted.get("type") in self.channels and fits
        return is_known and venue.state(str(wanted.get("coin"))) is not None

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        state = venue.state(str(request.said["coin"]))
        assert state is not None
        self.subscribed(venue, session, state, request.said["type"])

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        words = f"Cannot subscribe to more than {limit.most} channels."
        if limit.what == MESSAGES:
            words = f"Cannot send more than {limit.most} messages per minute."
        return compact({"channel": "error", "data": words})

    def subscribed(self, venue: SimVenue, session: Session, state: SymbolState, kind: str) -> None:
        """Say what comes first."""
        if kind == "trades":
            _send_history(venue, session, state)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        fast = ',"fast":true' if event.stream == "fast" else ""
        levels = self.levels_text(state, event.bids, event.asks)
        data = f'{{"coin":"{state.grid.symbol}","time":{event.ts_ms},"levels":{levels}{fast}}}'
        return f'{{"channel":"l2Book","data":{data}}}'.encode()

    def levels_text(self, state: SymbolState, bids: Levels, asks: Levels) -> str:
        """Print both sides of a book."""
        sides = (
            ",".join(self._level_text(state, tick, qty) for tick, qty in side)
            for side in (bids, asks)
        )
        return f"[[{'],['.join(sides)}]]"

    def _level_text(self, state: SymbolState, tick: int, qty: int) -> str:
        size = state.qty_text(qty)
        orders = self._order_counts[state.index][(tick ^ qty) & 1023]
        return f'{{"px":"{state.price_text(tick)}","sz":"{size}","n":{orders}}}'

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        sides = ",".join(
            "null" if side is None else self._level_text(state, *side) for side in quote
        )
        data = f'{{"coin":"{state.grid.symbol}","time":{now_ms},"bbo":[{sides}]}}'
        return f'{{"channel":"bbo","data":{data}}}'.encode()

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        data = {"coin": contract.instrument.symbol, "ctx": context(venue, contract)}
        return compact({"channel": "activeAssetCtx", "data": data})


class HyperliquidBuilder(Hyperliquid):
    """Perpetuals of builders' dexes: their names begin with the dex's."""

    name = "hyperliquid_builder"
    a_coin = "xyz:TSLA"
    dexes: Mapping[str, int] = DEXES

    def grids(self, count: int) -> Sequence[Grid]:
        return builder_instruments(count)

    def grid(self, symbol: str, price: float, request: Query, now: Grid | None) -> Grid:
        return builder_instrument(symbol, price, request, now)


class HyperliquidSpot(Hyperliquid):
    """Pairs of tokens: most have a number for a name."""

    name = "hyperliquid_spot"
    a_coin = "@107"
    has_pairs = True
    terms = replace(Hyperliquid.terms, with_interest=False, says_interval=False)

    def grids(self, count: int) -> Sequence[Grid]:
        return spot_instruments(count)

    def grid(self, symbol: str, price: float, request: Query, now: Grid | None) -> Grid:
        return spot_instrument(symbol, price, request, now)

    def wants(self, name: str, group: str) -> AskedFor | None:
        asked = super().wants(name, group)
        return None if asked is None or asked.kind == "funding" else asked

    def subscribed(self, venue: SimVenue, session: Session, state: SymbolState, kind: str) -> None:
        super().subscribed(venue, session, state, kind)
        if kind == "activeAssetCtx":
            said = {"coin": state.grid.symbol, "ctx": spot_context(venue, state.index)}
            _say(session, "activeSpotAssetCtx", said)


@lru_cache
def _tid_steps(count: int) -> Integers:
    return np.arange(count) * _TID_STRIDE


def _say(session: Session, channel: str, content: object) -> None:
    session.send_text(compact({"channel": channel, "data": content}))


def _topic_name(wanted: Query) -> str:
    """Name the topic; aggregated books get a name nothing is ever pushed to."""
    kind, coin, figures = wanted.get("type"), wanted.get("coin"), wanted.get("nSigFigs")
    if kind != "l2Book":
        return f"{kind} {coin}"
    if figures is not None:
        return f"l2Book {coin} {figures} {wanted.get('mantissa')}"
    return f"l2Book {coin} {'fast' if wanted.get('fast') else 'slow'}"


def _acknowledge(session: Session, method: str, wanted: Query) -> None:
    if wanted.get("type") == "l2Book":
        wanted = {"nSigFigs": None, "mantissa": None, "fast": False, **wanted}
    _say(session, "subscriptionResponse", {"method": method, "subscription": wanted})


def _send_history(venue: SimVenue, session: Session, state: SymbolState) -> None:
    """Send a new subscriber its first frame: what traded in the last seconds. Later ones than the
    first get rows that the ledger has already.
    """
    at_ms = now_ms()
    past = state.first_past(at_ms, _HISTORY_MS - 1500, _FIRST_HISTORY_ROWS)
    trades = [trade for one in past for trade in one.each()]
    if not past:
        newest = state.newest_sent(_HISTORY_ROWS)
        trades = [trade for trade in newest if trade.ts_ms >= at_ms - _HISTORY_MS]
    rows = state.trade_rows
    texts = b",".join(rows.row(trade).encode() for trade in trades)
    venue.record_trades(state, past, sent=session.send_text(rows.head + texts + rows.close))
