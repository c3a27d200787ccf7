"""Kraken spot as the simulator serves it (WebSocket v2): trades, books with checksums, quotes.

Numbers are JSON numbers with all the digits that a pair has. Books are served 1000 levels deep and
at no other depth; whole ones have no time, so the ledger has them the µs before the next change.
There is no heartbeat: the market is never idle for a second.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np

from shards.simulator.core.contracts import Terms
from shards.simulator.core.encoder import (
    Answer,
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import Integers, Part, Trade, Trades, compact, decimal_text
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import ID_STRIDE, Levels, Quote, SymbolState
from shards.simulator.core.venue import SimVenue, now_ms

__all__ = ["KrakenSpot", "read_request", "tell_past"]

# pair, start price, price decimals, quantity decimals: no more than 15 digits of a size
_TABLE: tuple[tuple[str, float, int, int], ...] = (
    ("BTC/USD", 81234.1, 1, 8), ("ETH/USD", 3123.45, 2, 8), ("SOL/USD", 187.42, 2, 8),
    ("XRP/USD", 2.34567, 5, 8), ("DOGE/USD", 0.2134567, 7, 8), ("ADA/USD", 0.654321, 6, 8),
    ("LTC/USD", 98.76, 2, 8), ("LINK/USD", 17.65432, 5, 8), ("DOT/USD", 4.3215, 4, 8),
    ("AVAX/USD", 28.76, 2, 8), ("ETH/BTC", 0.03845, 5, 8), ("XRP/BTC", 0.0000288765, 10, 5),
)  # fmt: skip
_FIRST_TRADE_ID = 98_000_000
_HISTORY_ROWS = 50
_PAST_MS, _FIRST_PAST = 20_000, 10
_DEPTH = 1000
_SUMMED = 10
_KINDS = {"trade": "trade", "book": "book", "ticker": "quote"}
_TOPICS = {"trade": "trade", "quote": "ticker"}
_REST_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
"""Currencies that REST calls by another name than the socket."""


@lru_cache(1024)
def _moment(ts_us: int) -> str:
    at = datetime.fromtimestamp(ts_us // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ts_us % 1_000_000:06d}Z"


class PairTradeRows:
    """Writes the trades of one pair on one grid."""

    head, close = b'{"channel":"trade","type":"update","data":[', b"]}"
    rows_per_frame = 10

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        self._symbol, self._price_text = state.grid.symbol, price_text
        decimals = state.grid.qty_decimals
        self._sizes = [decimal_text(qty, decimals) for qty in state.market.sizes.tolist()]

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        return (
            f'{{"symbol":"{self._symbol}","side":"{"buy" if trade.buy else "sell"}",'
            f'"price":{self._price_text(trade.tick)},"qty":{self._sizes[trade.size]},'
            f'"ord_type":"{"market" if trade.serial % 3 else "limit"}","trade_id":{trade.id},'
            f'"timestamp":"{_moment(trade.ts_ms * 1000)}"}}'
        )

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """One by one is fast enough."""
        return None


class KrakenSpot(Encoder):
    """The venue's protocol."""

    name = "kraken_spot"
    terms = Terms(8, 0, 0, 3_600_000, None)
    """It has no contracts."""
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("price",), "book": ("price",), "quote": ("bid",),
    }  # fmt: skip
    spoiled_among = 3
    numbered_books = True
    sockets: Sequence[SocketPath] = (SocketPath("v2", "new"),)
    connects_per_minute: float = 15
    weight_limit = 60
    statuses: Sequence[str] = ("online", "delisted", "cancel_only", "post_only", "maintenance")

    def __init__(self) -> None:
        self.rest = {
            "0/public/AssetPairs": ServedCall(_list_pairs, lambda _: 1),
            "0/public/Assets": ServedCall(_list_assets, lambda _: 1),
        }
        self._whole: dict[int, list[tuple[SimVenue, Session, BookMessage]]] = {}
        """By symbol: books that were sent whole since their last change."""
        self._last_us = 0
        """When the last change of a book was."""

    def grids(self, count: int) -> Sequence[Grid]:
        rows = list(_TABLE[:count])
        rows += [(f"SIM{n:03d}/USD", 2.0 + n % 50, 4, 8) for n in range(len(rows), count)]
        return [
            Grid.around(symbol, price, (decimals, 1, qty_decimals), rank)
            for rank, (symbol, price, decimals, qty_decimals) in enumerate(rows)
        ]

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        first = _FIRST_TRADE_ID + ID_STRIDE * index + serial
        return np.arange(first, first + count)

    def price_text(self, grid: Grid, tick: int) -> str:
        return decimal_text(tick * grid.tick, grid.price_decimals)

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> PairTradeRows:
        return PairTradeRows(state, price_text)

    def topic(self, kind: str, symbol: str) -> str | None:
        return f"{_TOPICS[kind]} {symbol}" if kind in _TOPICS else None

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream} {symbol}"

    def due(self, stream: str, steps: int | None) -> bool:
        return True

    def wants(self, name: str, group: str) -> AskedFor | None:
        channel, _, symbol = name.partition(" ")
        return AskedFor(symbol, _KINDS[channel], "book" if channel == "book" else "")

    def hear(self, venue: SimVenue, session: Session, text: str | bytes) -> None:
        if session.group == "new":
            session.group = "greeted"
            session.send_text(_STATUS)
        request = read_request(text)
        params, number = request.get("params"), request.get("req_id")
        params = params if isinstance(params, dict) else {}
        method, symbols = request.get("method"), params.get("symbol")
        if method == "ping":
            session.send_text(compact({"method": "pong", **_times(number)}))
        elif params.get("channel") not in _KINDS or not isinstance(symbols, list):
            _refuse(session, method, "Malformed request", number)
        elif method == "subscribe" and params.get("depth", _DEPTH) != _DEPTH:
            _refuse(session, method, "Subscription depth not supported", number)
        elif method in ("subscribe", "unsubscribe"):
            take = self._subscribe if method == "subscribe" else _unsubscribe
            for symbol in symbols:
                take(venue, session, {**params, "symbol": symbol}, number)

    def _subscribe(self, venue: SimVenue, session: Session, asked: Query, number: object) -> None:
        channel, symbol = asked["channel"], asked["symbol"]
        state, topic = venue.state(symbol), f"{channel} {symbol}"
        if state is None:
            text = f"Currency pair not supported {symbol}"
            _refuse(session, "subscribe", text, number, symbol)
        elif topic in session.names:
            _refuse(session, "subscribe", "Already subscribed", number, symbol)
        else:
            done = {"method": "subscribe", "result": asked, "success": True, **_times(number)}
            session.send_text(compact(done))
            if asked.get("snapshot", True):
                self._send_snapshot(venue, session, state, channel)
            venue.subscribe(session, [topic])

    def _send_snapshot(
        self, venue: SimVenue, session: Session, state: SymbolState, channel: str
    ) -> None:
        rows = state.trade_rows
        if channel == "trade":
            head = rows.head.replace(b'"update"', b'"snapshot"')
            tell_past(venue, session, state, _HISTORY_ROWS, lambda said: head + said + rows.close)
        elif channel == "book":
            event = BookMessage("book", 0, 0, 0, 0, *state.top(_DEPTH))
            if session.send_text(_write_book(state, event, "snapshot")):
                self._whole.setdefault(state.index, []).append((venue, session, event))

    def messages(self, event: BookMessage) -> Sequence[BookMessage]:
        """A message has no number but its time, in µs; nothing is said of no change."""
        if not (event.bids or event.asks):
            return ()
        at_us = event.ts_ms * 1000
        self._last_us = max(at_us, self._last_us + 1)  # a ms may have several changes
        early_ns = (at_us - self._last_us) * 1000
        return (event._replace(last=self._last_us, previous=0, early_ns=early_ns),)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        for venue, session, whole in self._whole.pop(state.index, ()):
            if f"book {state.grid.symbol}" in session.names and session in venue.hub.sessions:
                dated = whole._replace(
                    ts_ms=event.ts_ms, last=event.last - 1, early_ns=event.early_ns + 1000
                )
                venue.record_book(state, dated, whole=True)
        return _write_book(state, event, "update", f',"timestamp":"{_moment(event.last)}"')

    def quote_number(self, state: SymbolState, now_ms: int) -> int:
        return now_ms * 1000

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bid, ask = (_level_texts(state, [side or (0, 0)])[0] for side in quote)
        last = bid[0]
        return (
            f'{{"channel":"ticker","type":"update","data":[{{"symbol":"{state.grid.symbol}",'
            f'"bid":{bid[0]},"bid_qty":{bid[1]},"ask":{ask[0]},"ask_qty":{ask[1]},"last":{last},'
            f'"volume":2100.5,"vwap":{last},"low":{last},"high":{last},"change":0.0,'
            f'"change_pct":0.0,"timestamp":"{_moment(now_ms * 1000)}"}}]}}'
        ).encode()


_STATUS = (
    b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online",'
    b'"api_version":"v2","connection_id":13834774380200032777}]}'
)


def tell_past(
    venue: SimVenue, session: Session, state: SymbolState, count: int,
    write: Callable[[bytes], bytes], *, newest_first: bool = False,
) -> None:  # fmt: skip
    """Repeat the last trades to a new subscriber."""
    past = state.first_past(now_ms(), _PAST_MS, _FIRST_PAST)
    trades = [one for each in past for one in each.each()] or state.newest_sent(count)
    texts = [state.trade_rows.row(one) for one in trades]
    said = ",".join(reversed(texts) if newest_first else texts)
    venue.record_trades(state, past, sent=session.send_text(write(said.encode())))


def read_request(text: str | bytes) -> dict[str, object]:
    """Read what a client says; nothing, where it is no JSON object."""
    try:
        request = json.loads(text)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _times(number: object) -> dict[str, object]:
    said: dict[str, object] = dict.fromkeys(("time_in", "time_out"), _moment(now_ms()))
    return said if number is None else {**said, "req_id": number}


def _refuse(
    session: Session, method: object, text: str, number: object, symbol: object = None
) -> None:
    said: dict[str, object] = {"method": method, "error": text, "success": False}
    about = {} if symbol is None else {"symbol": symbol}
    session.send_text(compact({**said, **about, **_times(number)}))


def _unsubscribe(venue: SimVenue, session: Session, asked: Query, number: object) -> None:
    topic = f"{asked['channel']} {asked['symbol']}"
    if topic not in session.names:
        _refuse(session, "unsubscribe", "Subscription Not Found", number, asked["symbol"])
        return
    venue.unsubscribe(session, [topic])
    done = {"method": "unsubscribe", "result": asked, "success": True, **_times(number)}
    session.send_text(compact(done))


def _level_texts(state: SymbolState, levels: Levels) -> list[tuple[str, str]]:
    decimals = state.grid.qty_decimals
    return [(state.price_text(tick), decimal_text(qty, decimals)) for tick, qty in levels]


def _write_book(state: SymbolState, event: BookMessage, form: str, time: str = "") -> bytes:
    bids, asks = (
        ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in _level_texts(state, side))
        for side in (event.bids, event.asks)
    )
    return (
        f'{{"channel":"book","type":"{form}","data":[{{"symbol":"{state.grid.symbol}",'
        f'"bids":[{bids}],"asks":[{asks}],"checksum":{_checksum(state)}{time}}}]}}'
    ).encode()


def _checksum(state: SymbolState) -> int:
    """Sum up the book as it is now: asks, then bids, of each the digits without leading zeros."""
    bids, asks = state.top(_SUMMED)
    texts = _level_texts(state, asks) + _level_texts(state, bids)
    digits = (number.replace(".", "").lstrip("0") for level in texts for number in level)
    return zlib.crc32("".join(digits).encode())


def _list_pairs(venue: SimVenue, _: Query) -> Answer:
    pairs = {}
    for grid, status in zip(venue.grids, venue.statuses, strict=True):
        base, quote = (_REST_NAMES.get(part, part) for part in grid.symbol.split("/"))
        pairs[base + quote] = {
            "altname": base + quote, "wsname": f"{base}/{quote}", "aclass_base": "currency",
            "base": base, "aclass_quote": "currency", "quote": quote, "lot": "unit",
            "cost_decimals": 5, "pair_decimals": grid.price_decimals,
            "lot_decimals": grid.qty_decimals, "lot_multiplier": 1, "leverage_buy": [],
            "leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]],
            "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40,
            "ordermin": grid.step_text, "costmin": "0.5", "tick_size": grid.tick_text,
            "status": status,
        }  # fmt: skip
    return Answer(compact({"error": [], "result": pairs}))


def _list_assets(venue: SimVenue, _: Query) -> Answer:
    names = {part for grid in venue.grids for part in grid.symbol.split("/")}
    facts = {"aclass": "currency", "decimals": 10, "display_decimals": 8, "status": "enabled"}
    assets = {
        name: {**facts, "altname": name}
        for name in sorted(_REST_NAMES.get(name, name) for name in names)
    }
    return Answer(compact({"error": [], "result": assets}))
