"""Hyperliquid perpetuals as the simulator serves them: trades, whole books, contexts.

Books come in two variants on two venue-wide clocks: 20 levels slow, 5 levels fast. Both carry the
same channel and coin; only `"fast":true` in the frame tells them apart. `activeAssetCtx` says what
`metaAndAssetCtxs` serves; the venue puts no time on either, and what depends on a book is null
while a side of it is empty. The venue sends no ping frames; clients ping it in JSON.
"""

import json
from asyncio import get_running_loop
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np

from shards.simulator.core.contracts import Contract, Terms
from shards.simulator.core.encoder import (
    Answer,
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    ServedCall,
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
    signed_text,
    trimmed_text,
)
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Levels, Quote, SymbolState
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.listed import coin_instrument, hyperliquid_instruments

__all__ = ["Hyperliquid", "size_text"]

_HISTORY_ROWS = 50
_HISTORY_MS = 20_000
_FIRST_HISTORY_ROWS = 10
_TID_LOW = 10**14
_TID_SPAN = 9 * 10**14
_TID_STRIDE = 123_456_789_012_347
"""Coprime to the span: ids look random, repeat only after all were used, and fit 50 bits."""

_LIVELY_COINS = 5
_DROP_DELAY_S = 0.1
_HISTORY_PAGE = 500
_ROWS_PER_WEIGHT = {"recentTrades": 20, "fundingHistory": 20}
"""Answers that cost one more for so many rows."""
_KINDS = {"trades": "trade", "l2Book": "book", "bbo": "quote", "activeAssetCtx": "funding"}
_TOPICS = {"trade": "trades", "quote": "bbo"}
_SIDES = np.array([b"A", b"B"], "V1")
_SIGNIFICANT_FIGURES = frozenset({None, 2, 3, 4, 5})
_MANTISSA_FIGURES = 5


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
        self._sizes = [f'","sz":"{size_text(qty, grid.qty_decimals)}' for qty in sizes]
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
    """The venue's protocol."""

    name = "hyperliquid_perp"
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
    connects_per_minute: float = 30
    changeable = frozenset({"sz_decimals"})

    def __init__(self) -> None:
        self.rest = {"info": ServedCall(_info, _weigh, "POST")}
        self.malformed = {
            "wrong_types": _coin_trade(px="81234", tid='"x"'),
            "missing_fields": b'{"channel":"trades","data":[{"coin":"BTC"}]}',
            "nan_price": _coin_trade(px='"NaN"'),
            "infinite_price": _coin_trade(px='"Infinity"'),
            "huge_number": _coin_trade(tid="9" * 400),
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

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> CoinTradeRows:
        return CoinTradeRows(state, price_text)

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"{_TOPICS[kind]}:{symbol}" if kind in _TOPICS else None

    def funding_topics(self, contract: Contract) -> Sequence[str]:
        return (f"activeAssetCtx:{contract.instrument.symbol}",)

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"l2Book:{symbol}:{stream}"

    def top(self, stream: str) -> int:
        return 5 if stream == "fast" else 20

    def wants(self, name: str, group: str) -> AskedFor | None:
        kind, _, coin = name.partition(":")
        coin, _, stream = coin.partition(":")
        return AskedFor(coin, _KINDS[kind], stream)

    def hear(self, venue: SimVenue, session: Session, text: str | bytes) -> None:
        """Answer one message; nonsense gets an error and the socket stays open."""
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        request = request if isinstance(request, dict) else {}
        method, wanted, inner = (request.get(key) for key in ("method", "subscription", "request"))
        payload = inner.get("payload") if isinstance(inner, dict) else None
        if method == "ping":
            session.send_text(b'{"channel":"pong"}')
        elif method == "post" and isinstance(payload, dict):
            body = _answer(venue, payload)
            found = None if body is None else json.loads(body)
            data = {"type": payload.get("type"), "data": found}
            response = {"type": "info", "payload": data}
            _say(session, "post", {"id": request.get("id"), "response": response})
        elif method == "subscribe" and isinstance(wanted, dict):
            self._subscribe(venue, session, wanted)
        elif method == "unsubscribe" and isinstance(wanted, dict):
            _unsubscribe(venue, session, wanted)
        else:
            text = json.dumps(request) if method == "post" else text
            shown = text if isinstance(text, str) else text.decode(errors="replace")
            words = f"Error parsing JSON into valid websocket request: {shown[:500]}"
            _say(session, "error", words)

    def _subscribe(self, venue: SimVenue, session: Session, wanted: dict[str, Any]) -> None:
        state = venue.state(str(wanted.get("coin"))) if _is_served(wanted) else None
        name = _topic_name(wanted)
        if state is None:
            # No error: the venue just drops the connection with everything on it.
            get_running_loop().call_later(_DROP_DELAY_S, session.transport.abort)
        elif name in session.names:
            _say(session, "error", f"Already subscribed: {_printed(wanted)}")
        else:
            _acknowledge(session, "subscribe", wanted)
            if wanted["type"] == "trades":
                _send_history(venue, session, state)
            venue.subscribe(session, [name])

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
        size = size_text(qty, state.grid.qty_decimals)
        orders = self._order_counts[state.index][(tick ^ qty) & 1023]
        return f'{{"px":"{state.price_text(tick)}","sz":"{size}","n":{orders}}}'

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        sides = ",".join(
            "null" if side is None else self._level_text(state, *side) for side in quote
        )
        data = f'{{"coin":"{state.grid.symbol}","time":{now_ms},"bbo":[{sides}]}}'
        return f'{{"channel":"bbo","data":{data}}}'.encode()

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        data = {"coin": contract.instrument.symbol, "ctx": _context(venue, contract)}
        return compact({"channel": "activeAssetCtx", "data": data})


@lru_cache
def _tid_steps(count: int) -> Integers:
    return np.arange(count) * _TID_STRIDE


def _say(session: Session, channel: str, content: object) -> None:
    session.send_text(compact({"channel": channel, "data": content}))


def _is_served(wanted: Query) -> bool:
    """Tell whether the venue can serve a subscription at all."""
    figures, mantissa = wanted.get("nSigFigs"), wanted.get("mantissa")
    fits = figures in _SIGNIFICANT_FIGURES and (not mantissa or figures == _MANTISSA_FIGURES)
    return wanted.get("type") in _KINDS and fits


def _topic_name(wanted: Query) -> str:
    """Name the topic; aggregated books get a name nothing is ever pushed to."""
    kind, coin, figures = wanted.get("type"), wanted.get("coin"), wanted.get("nSigFigs")
    if kind != "l2Book":
        return f"{kind}:{coin}"
    if figures is not None:
        return f"l2Book:{coin}:{figures}:{wanted.get('mantissa')}"
    return f"l2Book:{coin}:{'fast' if wanted.get('fast') else 'slow'}"


def _printed(wanted: Query) -> str:
    return compact(wanted).decode()


def _unsubscribe(venue: SimVenue, session: Session, wanted: dict[str, Any]) -> None:
    name = _topic_name(wanted)
    if name not in session.names:
        _say(session, "error", f"Already unsubscribed: {_printed(wanted)}")
        return
    venue.unsubscribe(session, [name])
    _acknowledge(session, "unsubscribe", wanted)


def _acknowledge(session: Session, method: str, wanted: dict[str, Any]) -> None:
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


def _context(venue: SimVenue, contract: Contract) -> dict[str, object]:
    grid, decimals = contract.instrument, contract.mark_decimals
    bid, ask = venue.quote(contract.index)
    middle, impact, premium = None, None, None
    if bid is not None and ask is not None:
        middle = trimmed_text(5 * (bid[0] + ask[0]), decimals + 1)
        impact = [trimmed_text(side[0], decimals) for side in (bid, ask)]
        above = (contract.mark - contract.index_price) * 10**10 // contract.index_price
        premium = signed_text(above, 10)
    return {
        "funding": signed_text(contract.rate, contract.terms.rate_decimals),
        "openInterest": decimal_text(contract.open_interest, grid.qty_decimals),
        "prevDayPx": trimmed_text(grid.start_ticks, grid.price_decimals),
        "dayNtlVlm": f"{contract.ticks * 1234 + 2_100_000_000}.5",
        "premium": premium,
        "oraclePx": trimmed_text(contract.index_price, decimals),
        "markPx": trimmed_text(contract.mark, decimals),
        "midPx": middle,
        "impactPxs": impact,
        "dayBaseVlm": f"{contract.ticks + 26_000}.1",
    }


def _weigh(query: Query) -> int:
    return 2 if query.get("type") == "l2Book" else 20


def _info(venue: SimVenue, query: Query) -> Answer:
    """Answer `POST /info`, which sockets can ask, too."""
    body = _answer(venue, query)
    if body is None:
        text = b"Failed to deserialize the JSON body into the target type"
        return Answer(text, 422, "text/plain")
    rows = _ROWS_PER_WEIGHT.get(query["type"])
    return Answer(body, extra_weight=body.count(b'"coin"') // rows if rows else 0)


def _answer(venue: SimVenue, query: Query) -> bytes | None:
    """Answer a query; None for one the venue does not understand."""
    answer = _ANSWERS.get(str(query.get("type")))
    return None if answer is None else answer(venue, query)


def _meta(venue: SimVenue) -> dict[str, object]:
    universe = [
        {"szDecimals": grid.qty_decimals, "name": grid.symbol, "maxLeverage": 20,
         "marginTableId": 20, **({"isDelisted": True} if venue.halted(index) else {})}
        for index, grid in enumerate(venue.grids)
    ]  # fmt: skip
    return {"universe": universe, "marginTables": [], "collateralToken": 0}


def _contexts(venue: SimVenue, _: Query) -> bytes:
    """Give metadata, and one context a coin by position."""
    at_ms, contexts = now_ms(), []
    for index in range(len(venue.grids)):
        contract = venue.contract_at(index)
        context = _context(venue, contract)
        contexts.append(venue.serve_contract("funding", contract, context, at_ms))
    return compact([_meta(venue), contexts])


def _book(venue: SimVenue, query: Query) -> bytes:
    state = venue.state(query.get("coin"))
    if state is None:
        return b"null"
    at_ms = now_ms()
    _, bids, asks = venue.serve_book(state, 20, at_ms)
    levels = cast("Hyperliquid", venue.encoder).levels_text(state, bids, asks)
    return f'{{"coin":"{state.grid.symbol}","time":{at_ms},"levels":{levels}}}'.encode()


def _recent_trades(venue: SimVenue, query: Query) -> bytes:
    state = venue.state(query.get("coin"))
    if state is None:
        return b"null"
    newest = reversed(state.newest_sent(10))
    return f"[{','.join(state.trade_rows.row(trade) for trade in newest)}]".encode()


def _funding_history(venue: SimVenue, query: Query) -> bytes | None:
    """Give what was paid, ascending, a page at most."""
    start_ms, end_ms = query.get("startTime"), query.get("endTime")
    if not isinstance(start_ms, int) or not isinstance(end_ms, int | None):
        return None
    contract = venue.contract(query.get("coin"))
    if contract is None:
        return b"null"
    decimals = contract.terms.rate_decimals
    rows: list[object] = [
        {
            "coin": contract.instrument.symbol,
            "fundingRate": signed_text(paid.rate, decimals),
            "premium": signed_text(paid.rate * 8, decimals),
            "time": paid.ts_ms,
        }
        for paid in contract.paid(start_ms, end_ms)
    ]
    return compact(rows[:_HISTORY_PAGE])


_ANSWERS: dict[str, Callable[[SimVenue, Query], bytes | None]] = {
    "meta": lambda venue, _: compact(_meta(venue)),
    "metaAndAssetCtxs": _contexts,
    "l2Book": _book,
    "recentTrades": _recent_trades,
    "fundingHistory": _funding_history,
}


def _coin_trade(**changes: str) -> bytes:
    fields = {
        "coin": '"BTC"', "side": '"B"', "px": '"81234.0"', "sz": '"0.01250"',
        "time": "1795000000123", "hash": f'"0x{"0" * 64}"', "tid": "512345678901234",
        "users": f'["0x{"1" * 40}","0x{"2" * 40}"]', **changes,
    }  # fmt: skip
    row = ",".join(f'"{key}":{value}' for key, value in fields.items())
    return f'{{"channel":"trades","data":[{{{row}}}]}}'.encode()
