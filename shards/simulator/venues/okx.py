"""OKX as the simulator serves it: swaps, and futures that pay funding as swaps do (X-Perp).

One address serves all channels. Trades come merged, every fourth of three fills. The rate, the mark
price and the index of a contract are said every second, each on its channel. A book has all levels,
which are about as many as the venue sends.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shards.simulator.core.contracts import Contract, Liquidation, Terms
from shards.simulator.core.encoder import (
    Asked,
    AskedFor,
    BookMessage,
    Encoder,
    OwnRow,
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
)
from shards.simulator.core.limits import CONNECTS, REQUESTS, WEIGHT, Per, VenueLimit
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import ID_STRIDE, Quote, SymbolState
from shards.simulator.core.usual import book_now, read_object, send_whole
from shards.simulator.core.venue import SimVenue, now_ms
from shards.simulator.venues.listed import binance_instruments
from shards.simulator.venues.okx_rest import (
    EXPIRY,
    MALFORMED,
    REST,
    family,
    funding_rate,
    levels_of,
    message,
    of_contract,
    open_interest,
    pair,
    type_of,
)

__all__ = ["Okx"]

_FIRST_TRADE_ID = 990_000_000
_MERGED_EVERY, _MERGED_FILLS = 4, 3
_XPERP_EVERY = 4
_CONNECTION = "a4d3ae55"
_INDEX, _LIQUIDATIONS = "index-tickers", "liquidation-orders"


class TradeTexts:
    """Writes the trades of one symbol on one grid: a frame each."""

    head = close = b""
    rows_per_frame = 1

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        symbol, decimals = state.grid.symbol, state.grid.qty_decimals
        self._state, self._price_text, self._prices = state, price_text, PriceTexts(price_text)
        self._head = (
            f'{{"arg":{{"channel":"trades","instId":"{symbol}"}},"data":[{{"instId":"{symbol}",'
            '"tradeId":"'
        )
        sizes = state.market.sizes.tolist()
        self._sizes = [f'","sz":"{decimal_text(qty, decimals)}","side":"' for qty in sizes]
        self._size_table = TextTable([text.encode() for text in self._sizes])
        self._sides = TextTable([b'sell","count":"', b'buy","count":"'])

    def _tail(self, ts_ms: int) -> str:
        return f'","source":"0","ts":"{ts_ms}","seqId":{self._state.last_update}}}]}}'

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        return (
            f'{self._head}{trade.id}","px":"{self._price_text(trade.tick)}'
            f'{self._sizes[trade.size]}{"buy" if trade.buy else "sell"}","count":"'
            f"{_fills(trade.serial)}{self._tail(trade.ts_ms)}"
        )

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """Give the parts of a block whose ids do not get longer within it."""
        width = len(str(trades.ids[0]))
        if len(str(trades.ids[-1])) != width:
            return None
        serials = np.arange(trades.serial, trades.serial + len(trades.ids))
        prices = self._prices.rows_of(trades.ticks)
        return (
            self._head.encode(), decimal_columns(trades.ids, width), b'","px":"',
            (self._prices.table, prices), (self._size_table, trades.size),
            (self._sides, trades.buy.astype(np.int64)), decimal_columns(_fills(serials), 1),
            self._tail(trades.ts_ms).encode(),
        )  # fmt: skip


def _fills(serial: Any) -> Any:
    """How many fills the trades at these places of a tape, or at one, stand for."""
    return 1 + (_MERGED_FILLS - 1) * (serial % _MERGED_EVERY == _MERGED_EVERY - 1)


class Okx(Encoder):
    """The venue's protocol."""

    name = "okx"
    terms = Terms(
        rate_decimals=10, usual_rate=1_000_000, rate_limit=37_500_000, interval_ms=8 * 3_600_000,
        mark_decimals=None, says_next=True, with_fills=False,
    )  # fmt: skip
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("px",), "book": ("bids", "asks"), "quote": ("asks",), "funding": ("markPx",),
        "open_interest": ("oi",), "liquidation": ("bkPx",),
    }  # fmt: skip
    numbered_books = True
    sockets: Sequence[SocketPath] = (SocketPath("ws/v5/public", "public"),)
    channels: Mapping[str, str] = {
        "trades": "trade", "books": "book", "bbo-tbt": "quote", "mark-price": "funding",
        "funding-rate": "funding", "open-interest": "funding", _LIQUIDATIONS: "liquidation",
    }  # fmt: skip
    separator = ":"
    limits: Sequence[VenueLimit] = (
        VenueLimit(CONNECTS, 3, 1.0),
        VenueLimit(REQUESTS, 480, 3600.0, Per.SOCKET),
        # Of deep books on a socket the venue advises fewer than 30, which nobody counts here; of
        # calls it allows 20 in 2 s to each, here to all.
        VenueLimit(WEIGHT, 20, 2.0),
    )
    busy = (429, b'{"code":"50011","msg":"Too Many Requests","data":[]}')
    rest: Mapping[str, ServedCall] = REST
    statuses: Sequence[str] = ("live", "suspend", "preopen", "post_only")

    malformed: Mapping[str, bytes] = MALFORMED

    def grids(self, count: int) -> Sequence[Grid]:
        listed = enumerate(binance_instruments(count))
        return [replace(grid, symbol=_name(grid.symbol, rank)) for rank, grid in listed]

    def trade_ids(self, index: int, serial: int, count: int) -> Integers:
        """Of a merged trade the last of its ids."""
        serials = np.arange(serial, serial + count)
        more = (_MERGED_FILLS - 1) * ((serials + 1) // _MERGED_EVERY)
        return _FIRST_TRADE_ID + _MERGED_FILLS * ID_STRIDE * index + serials + more

    def trade_rows(self, state: SymbolState, price_text: Callable[[int], str]) -> TradeTexts:
        return TradeTexts(state, price_text)

    def topic(self, kind: str, symbol: str) -> str | None:
        if kind == "liquidation":
            symbol = type_of(symbol)
        return super().topic(kind, symbol)

    def wants(self, name: str, group: str) -> AskedFor | None:
        word = name.partition(":")[0]
        if word in (_INDEX, _LIQUIDATIONS):
            return AskedFor("", self.channels.get(word, word))
        return super().wants(name, group)

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        if text == "ping":
            session.send_text(b"pong")
            return None
        request = read_object(text)
        op, args = request.get("op"), request.get("args")
        try:
            topics = {_topic_name(arg): arg for arg in args or ()}
        except (TypeError, KeyError, AttributeError):
            op = ""
        if op not in ("subscribe", "unsubscribe") or args is None:
            _say(session, None, event="error", code="60012", msg=f"Invalid request: {text!r}")
            return None
        return Asked([*topics], op == "subscribe", request.get("id"), topics, is_apart=True)

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        (topic,) = request.topics
        arg = request.said[topic]
        if not _is_there(venue, topic):
            words = ",".join(f"{key}:{value}" for key, value in arg.items())
            words = f"Wrong URL or {words} doesn't exist."
            _say(session, request.number, event="error", code="60018", msg=words)
            return ()
        op = "subscribe" if request.begins else "unsubscribe"
        _say(session, request.number, event=op, arg=arg)
        return () if request.begins and topic in session.names else (topic,)

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        channel, _, of = topic.partition(":")
        if channel in (_INDEX, _LIQUIDATIONS):
            for index in range(len(venue.grids)):
                venue.contract_at(index)
        elif channel == "books" and (state := venue.state(of)) is not None:
            state.chain("books")
            # All that has changed is said before, so that the next event follows the snapshot. To a
            # second listener it is no news: who goes from one socket to the next has it all.
            venue.step_book(state, now_ms())
            event = book_now(state, "books")
            if venue.hub.topic(topic) is None:
                send_whole(venue, session, state, event)
            else:
                session.send_text(self.whole(state, event))

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        return _words(
            request.number if request else None,
            event="error", code="60014", msg="Requests too frequent",
        )  # fmt: skip

    def notice(self, now_ms: int) -> bytes:
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return compact({"event": "notice", "code": "64008", "msg": text, "connId": _CONNECTION})

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return _book(state, event, "update")

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        return _book(state, event, "snapshot")

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bids, asks = (levels_of(state, [side] if side else []) for side in quote)
        row = {"asks": asks, "bids": bids, "ts": str(now_ms), "seqId": state.last_update}
        return message("bbo-tbt", state.grid.symbol, [row])

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        mark = decimal_text(contract.mark, contract.mark_decimals)
        return _of(contract, "mark-price", of_contract(contract, markPx=mark))[1]

    def own_rows(self, contract: Contract) -> Iterable[OwnRow]:
        index = "-".join(pair(contract.instrument.symbol))
        price = decimal_text(contract.index_price, contract.mark_decimals)
        row = {"instId": index, "idxPx": price, "ts": str(contract.ts_ms)}
        yield OwnRow(
            "index", f"index-tickers:{index}", message("index-tickers", index, [row]), None
        )
        topic, said = _of(contract, "funding-rate", funding_rate(contract))
        yield OwnRow("rate", topic, said, None)
        topic, said = _of(contract, "open-interest", open_interest(contract))
        interest = contract.ledger_open_interest(rest=0)
        yield OwnRow("open_interest", topic, said, interest)

    def liquidation(self, contract: Contract, order: Liquidation) -> bytes:
        grid, symbol = contract.instrument, contract.instrument.symbol
        side, position = ("sell", "long") if order.sold else ("buy", "short")
        detail = {
            "side": side, "posSide": position, "bkPx": self.price_text(grid, order.price),
            "sz": decimal_text(order.qty, grid.qty_decimals), "bkLoss": "0", "ccy": "",
            "ts": str(order.ts_ms),
        }  # fmt: skip
        row = {
            "instType": type_of(symbol), "instFamily": family(symbol), "instId": symbol,
            "uly": "-".join(pair(symbol)), "details": [detail],
        }  # fmt: skip
        return message("liquidation-orders", type_of(symbol), [row])


def _name(symbol: str, rank: int) -> str:
    is_dated = rank % _XPERP_EVERY == _XPERP_EVERY - 1
    return symbol.removesuffix("USDT") + (f"-USD_UM_XPERP-{EXPIRY}" if is_dated else "-USDT-SWAP")


def _topic_name(arg: Mapping[str, str]) -> str:
    """Name the topic of an argument; one without a name is of nothing."""
    return f"{arg['channel']}:{arg.get('instId') or arg.get('instType') or ''}"


def _words(number: object, **event: object) -> bytes:
    named = {} if number is None else {"id": number}
    return compact({**named, **event, "connId": _CONNECTION})


def _say(session: Session, number: object, **event: object) -> None:
    session.send_text(_words(number, **event))


def _is_there(venue: SimVenue, name: str) -> bool:
    channel, _, of = name.partition(":")
    symbols = [grid.symbol for grid in venue.grids]
    if channel == _LIQUIDATIONS:
        return of in ("SWAP", "FUTURES", "MARGIN", "OPTION")
    if channel == _INDEX:
        return any("-".join(pair(symbol)) == of for symbol in symbols)
    return channel in venue.encoder.channels and of in symbols


def _of(contract: Contract, channel: str, row: object) -> tuple[str, bytes]:
    """Name a topic of a contract, and write a message on it."""
    symbol = contract.instrument.symbol
    return f"{channel}:{symbol}", message(channel, symbol, [row])


def _book(state: SymbolState, event: BookMessage, action: str) -> bytes:
    row = {
        "asks": levels_of(state, event.asks), "bids": levels_of(state, event.bids),
        "ts": str(event.ts_ms), "checksum": 0, "seqId": event.last,
        "prevSeqId": -1 if action == "snapshot" else event.previous,
    }  # fmt: skip
    return message("books", state.grid.symbol, [row], action=action)
