"""Kraken spot as the simulator serves it (WebSocket v2): trades, books with checksums, quotes.

Numbers are JSON numbers with all the digits that a pair has. Books are served 1000 levels deep and
at no other depth; whole ones have no time. There is no heartbeat: the market is never idle for a
second.
"""

import zlib
from collections.abc import Mapping, Sequence

from shards.simulator.core.contracts import Terms
from shards.simulator.core.encoder import (
    Answer,
    Asked,
    BookMessage,
    Encoder,
    Query,
    SocketPath,
)
from shards.simulator.core.frames import Trade, compact, iso_text
from shards.simulator.core.limits import CONNECTS, WEIGHT, VenueLimit
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import (
    RowByRow,
    UndatedWholes,
    calls_under,
    listed_grids,
    read_object,
    tell_past,
)
from shards.simulator.core.venue import SimVenue, now_ms

__all__ = ["KrakenSpot"]

# pair, start price, price decimals, tick in units of the last, quantity decimals: no more than 15
# digits of a size
_TABLE: tuple[tuple[str, float, int, int, int], ...] = (
    ("BTC/USD", 81234.1, 1, 1, 8), ("ETH/USD", 3123.45, 2, 1, 8), ("SOL/USD", 187.42, 2, 1, 8),
    ("XRP/USD", 2.34567, 5, 1, 8), ("DOGE/USD", 0.2134567, 7, 1, 8), ("ADA/USD", 0.654321, 6, 1, 8),
    ("LTC/USD", 98.76, 2, 1, 8), ("LINK/USD", 17.65432, 5, 1, 8), ("DOT/USD", 4.3215, 4, 1, 8),
    ("AVAX/USD", 28.76, 2, 1, 8), ("ETH/BTC", 0.03845, 5, 1, 8),
    ("XRP/BTC", 0.0000288765, 10, 1, 5),
)  # fmt: skip
_HISTORY_ROWS = 50
_DEPTH = 1000
_SUMMED = 10
_REST_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
"""Currencies that REST calls by another name than the socket."""


class PairTradeRows(RowByRow):
    """Writes the trades of one pair on one grid."""

    head, close = b'{"channel":"trade","type":"update","data":[', b"]}"
    rows_per_frame = 10

    def row(self, trade: Trade) -> str:
        return (
            f'{{"symbol":"{self.symbol}","side":"{"buy" if trade.buy else "sell"}",'
            f'"price":{self.price_text(trade.tick)},"qty":{self.sizes[trade.size]},'
            f'"ord_type":"{"market" if trade.serial % 3 else "limit"}","trade_id":{trade.id},'
            f'"timestamp":"{iso_text(trade.ts_ms * 1000)}"}}'
        )


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
    channels: Mapping[str, str] = {"trade": "trade", "book": "book", "ticker": "quote"}
    sockets: Sequence[SocketPath] = (SocketPath("v2", "v2"),)
    greeting = (
        b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online",'
        b'"api_version":"v2","connection_id":13834774380200032777}]}'
    )
    limits: Sequence[VenueLimit] = (VenueLimit(CONNECTS, 150, 600.0), VenueLimit(WEIGHT, 60, 60.0))
    first_trade_id = 98_000_000
    trade_rows = PairTradeRows
    statuses: Sequence[str] = ("online", "delisted", "cancel_only", "post_only", "maintenance")

    def __init__(self) -> None:
        self.rest = calls_under("0/public", {"AssetPairs": _list_pairs, "Assets": _list_assets})
        self._wholes = UndatedWholes()
        self._last_us = 0
        """When the last change of a book was."""

    def grids(self, count: int) -> Sequence[Grid]:
        return listed_grids(_TABLE, count, lambda n: (f"SIM{n:03d}/USD", 2.0 + n % 50, 4, 1, 8))

    def due(self, stream: str, steps: int | None) -> bool:
        return True

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        request = read_object(text)
        params, number = request.get("params"), request.get("req_id")
        params = params if isinstance(params, dict) else {}
        method, symbols = request.get("method"), params.get("symbol")
        if method == "ping":
            session.send_text(compact({"method": "pong", **_times(number)}))
        elif params.get("channel") not in self.channels or not isinstance(symbols, list):
            _refuse(session, method, "Malformed request", number)
        elif method == "subscribe" and params.get("depth", _DEPTH) != _DEPTH:
            _refuse(session, method, "Subscription depth not supported", number)
        elif method in ("subscribe", "unsubscribe"):
            topics = [f"{params['channel']} {symbol}" for symbol in symbols]
            return Asked(topics, method == "subscribe", number, params, is_apart=True)
        return None

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        (topic,) = request.topics
        method = "subscribe" if request.begins else "unsubscribe"
        symbol, why = topic.partition(" ")[2], ""
        if request.begins and venue.state(symbol) is None:
            why = f"Currency pair not supported {symbol}"
        elif request.begins == (topic in session.names):
            why = "Already subscribed" if request.begins else "Subscription Not Found"
        if why:
            _refuse(session, method, why, request.number, symbol)
            return ()
        result = {**request.said, "symbol": symbol}
        done = {"method": method, "result": result, "success": True, **_times(request.number)}
        session.send_text(compact(done))
        return (topic,)

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        channel, _, symbol = topic.partition(" ")
        state = venue.state(symbol)
        if state is None or not request.said.get("snapshot", True):
            return
        rows = state.trade_rows
        if channel == "trade":
            head = rows.head.replace(b'"update"', b'"snapshot"')
            tell_past(venue, session, state, _HISTORY_ROWS, lambda said: head + said + rows.close)
        elif channel == "book":
            event = BookMessage("book", 0, 0, 0, 0, *state.top(_DEPTH))
            if session.send_text(_write_book(state, event, "snapshot")):
                self._wholes.add(venue, session, state, topic, event)

    def messages(self, event: BookMessage) -> Sequence[BookMessage]:
        """A message has no number but its time, in µs; nothing is said of no change."""
        if not (event.bids or event.asks):
            return ()
        at_us = event.ts_ms * 1000
        self._last_us = max(at_us, self._last_us + 1)  # a ms may have several changes
        early_ns = (at_us - self._last_us) * 1000
        return (event._replace(last=self._last_us, previous=0, early_ns=early_ns),)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        self._wholes.date(state, event)
        return _write_book(state, event, "update", f',"timestamp":"{iso_text(event.last)}"')

    def quote_number(self, state: SymbolState, now_ms: int) -> int:
        return now_ms * 1000

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bid, ask = state.side_texts(quote)
        last = bid[0]
        return (
            f'{{"channel":"ticker","type":"update","data":[{{"symbol":"{state.grid.symbol}",'
            f'"bid":{bid[0]},"bid_qty":{bid[1]},"ask":{ask[0]},"ask_qty":{ask[1]},"last":{last},'
            f'"volume":2100.5,"vwap":{last},"low":{last},"high":{last},"change":0.0,'
            f'"change_pct":0.0,"timestamp":"{iso_text(now_ms * 1000)}"}}]}}'
        ).encode()


def _times(number: object) -> dict[str, object]:
    said: dict[str, object] = dict.fromkeys(("time_in", "time_out"), iso_text(now_ms() * 1000))
    return said if number is None else {**said, "req_id": number}


def _refuse(
    session: Session, method: object, text: str, number: object, symbol: object = None
) -> None:
    said: dict[str, object] = {"method": method, "error": text, "success": False}
    about = {} if symbol is None else {"symbol": symbol}
    session.send_text(compact({**said, **about, **_times(number)}))


def _write_book(state: SymbolState, event: BookMessage, form: str, time: str = "") -> bytes:
    bids, asks = (
        ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in state.level_texts(side))
        for side in (event.bids, event.asks)
    )
    return (
        f'{{"channel":"book","type":"{form}","data":[{{"symbol":"{state.grid.symbol}",'
        f'"bids":[{bids}],"asks":[{asks}],"checksum":{_checksum(state)}{time}}}]}}'
    ).encode()


def _checksum(state: SymbolState) -> int:
    """Sum up the book as it is now: asks, then bids, of each the digits without leading zeros."""
    bids, asks = state.top(_SUMMED)
    texts = state.level_texts(asks) + state.level_texts(bids)
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
