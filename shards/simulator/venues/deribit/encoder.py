"""Deribit perpetuals as the simulator serves them: JSON-RPC over a socket, and the same calls by
REST.

Books are snapshots that are pushed when a channel is subscribed, then changes that name the one
before, at three paces. A liquidation is a trade with a mark. Channels that lead nowhere are left
out of the answer; those of pace `raw` are for who logs in, which any name and secret may.
Heartbeats come once they were asked for; a `test_request` that stays unanswered costs the socket.
Amounts of inverse contracts are whole dollars: their real lots of ten are not kept.
"""

import json
from asyncio import get_running_loop
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from shards.simulator.core.contracts import Contract, Terms
from shards.simulator.core.encoder import (
    Asked,
    AskedFor,
    BookMessage,
    Encoder,
    Query,
    ServedCall,
    SocketPath,
)
from shards.simulator.core.frames import Trade, compact, trimmed_text
from shards.simulator.core.limits import (
    CONNECTS,
    REQUESTS,
    SOCKETS,
    TOPICS,
    WEIGHT,
    Per,
    Then,
    VenueLimit,
    Window,
)
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import bad_trades, book_now, send_whole
from shards.simulator.core.venue import SimVenue, now_ms
from shards.simulator.venues.deribit.calls import (
    CALLS,
    LISTINGS,
    TOO_MANY,
    RpcError,
    perpetuals,
    refusal,
    result,
    serve,
    ticker,
)
from shards.simulator.venues.deribit.texts import (
    A_TRADE,
    PACES,
    DeribitRows,
    book_text,
    head,
    number,
)

__all__ = ["Deribit"]

_SLOW_STEPS: Final = 10
_HEARTBEAT_LEAST_S: Final = 10
_KNOWN: Final = "known"
"""The category of sockets on which somebody has logged in."""
_KINDS: Final = {"trades": "trade", "book": "book", "quote": "quote", "ticker": "funding"}


class Heart:
    """The heartbeats of one socket."""

    def __init__(self, session: Session, interval_s: float) -> None:
        self._session = session
        self.interval_s = interval_s
        self.is_tested = False
        """Whether an answer is due."""

    def wait(self) -> None:
        """Beat after an interval."""
        get_running_loop().call_later(self.interval_s, self.beat)

    def beat(self) -> None:
        """Ask whether the client is there; hang up on one that has not answered the last time."""
        transport = self._session.transport
        if self.is_tested:
            transport.abort()
        if transport.is_closing():
            return
        for kind in ("heartbeat", "test_request"):
            said = {"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": kind}}
            self._session.send_text(compact(said))
        self.is_tested = True
        self.wait()


_BAD: Final = {
    "wrong_types": {"trade_seq": '"x"', "direction": "7"},
    "nan_price": {"price": "NaN"},
    "infinite_price": {"price": "Infinity"},
    "huge_number": {"trade_seq": "9" * 400},
}


class ChannelName(NamedTuple):
    """What a channel's name says."""

    word: str
    symbol: str
    pace: str


class Deribit(Encoder):
    """The venue's protocol."""

    name = "deribit"
    terms = Terms(
        rate_decimals=8, usual_rate=1_000, rate_limit=500_000, interval_ms=8 * 3_600_000,
        mark_decimals=None, with_interest=True,
    )  # fmt: skip
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("price",), "book": ("bids", "asks"), "quote": ("best_bid_price",),
        "funding": ("open_interest",), "liquidation": ("price",),
    }  # fmt: skip
    spoiled_among = 3
    numbered_books = True
    forced_trades = True
    sockets: Sequence[SocketPath] = (SocketPath("ws/api/v2", "ws"),)
    limits: Sequence[VenueLimit] = (
        # Of connects nothing is documented.
        VenueLimit(CONNECTS, 60, 60.0),
        VenueLimit(SOCKETS, 32),
        # Each costs a tenth of a pool, of which a third comes back in a second.
        VenueLimit(REQUESTS, 10, 3.0, then=Then.HANG_UP, window=Window.FILLS),
        VenueLimit(TOPICS, 500, per=Per.REQUEST, then=Then.NOTHING),
        VenueLimit(WEIGHT, 100, 5.0, window=Window.FILLS),
        VenueLimit(LISTINGS, 50, 50.0, window=Window.FILLS),
    )
    busy = (429, refusal(TOO_MANY, None))
    first_trade_id = 300_000_000
    trade_rows = DeribitRows
    statuses: Sequence[str] = ("open", "closed")

    def __init__(self) -> None:
        self.rest = {
            f"api/v2/public/{name}": ServedCall(
                partial(serve, call), pool=LISTINGS if name == LISTINGS else WEIGHT
            )
            for name, call in CALLS.items()
        }
        self._hearts: dict[Session, Heart] = {}
        trades = "trades.BTC-PERPETUAL.100ms"
        envelope = f"{head(trades).decode()}[%s]}}}}"
        self.malformed = {
            **bad_trades(envelope, A_TRADE, _BAD),
            "missing_fields": head(trades) + b'[{"price":1}]}}',
        }

    def grids(self, count: int) -> Sequence[Grid]:
        return perpetuals(count)

    def price_text(self, grid: Grid, tick: int) -> str:
        return trimmed_text(tick * grid.tick, grid.price_decimals)

    def qty_text(self, grid: Grid, qty: int) -> str:
        return trimmed_text(qty, grid.qty_decimals)

    def topic(self, kind: str, symbol: str) -> str:
        return f"quote.{symbol}" if kind == "quote" else f"trades.{symbol}.{PACES[0]}"

    def funding_topics(self, contract: Contract) -> Sequence[str]:
        return (f"ticker.{contract.instrument.symbol}.{PACES[0]}",)

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"book.{symbol}.{stream}"

    def due(self, stream: str, steps: int | None) -> bool:
        if steps is None or stream != "agg2":
            return stream == "raw" or steps is not None
        return steps % _SLOW_STEPS == 0

    def wants(self, name: str, group: str) -> AskedFor | None:
        channel = _channel(name)
        if channel is None:
            return None
        book = channel.pace if channel.word == "book" else ""
        return AskedFor(channel.symbol, _KINDS[channel.word], book)

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        """Carry out and answer what is no subscription."""
        request_id: object = None
        try:
            request = _read(text)
            request_id, params = request.get("id"), request.get("params") or {}
            method = str(request.get("method")).removeprefix("public/")
            if method in ("subscribe", "unsubscribe"):
                return Asked(_channels_in(params), method == "subscribe", request_id)
            said = self._carry_out(venue, session, method, params)
            session.send_text(result(said, request_id))
        except RpcError as error:
            session.send_text(refusal(error, request_id))
        return None

    def _carry_out(self, venue: SimVenue, session: Session, method: str, params: Query) -> object:
        if method == "auth":
            return _log_in(session, params)
        if method == "set_heartbeat":
            self._set_heartbeat(session, params.get("interval"))
            return "ok"
        if method == "test":
            if session in self._hearts:
                self._hearts[session].is_tested = False
            return {"version": "1.2.26"}
        if method not in CALLS:
            raise RpcError(-32601, "Method not found")
        return CALLS[method](venue, params)

    def _set_heartbeat(self, session: Session, interval_s: object) -> None:
        if not isinstance(interval_s, int) or interval_s < _HEARTBEAT_LEAST_S:
            raise RpcError(-32602, "Invalid params")
        for gone in [each for each in self._hearts if each.transport.is_closing()]:
            del self._hearts[gone]
        if session in self._hearts:
            self._hearts[session].interval_s = interval_s
        else:
            self._hearts[session] = Heart(session, interval_s)
            self._hearts[session].wait()

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        """What is subscribed already does not begin anew."""
        names = request.topics
        if not request.begins:
            ended = [name for name in names if name in session.names]
            session.send_text(result(ended, request.number))
            return ended
        if session.group != _KNOWN and any(name.endswith(".raw") for name in names):
            error = RpcError(13778, "raw_subscriptions_not_available_for_unauthorized")
            session.send_text(refusal(error, request.number))
            return ()
        found = {name: _channel(name) for name in names}
        served = [n for n, c in found.items() if c and venue.index_of(c.symbol) is not None]
        session.send_text(result([*reversed(served)], request.number))
        return [name for name in served if name not in session.names]

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        channel = _channel(topic)
        assert channel is not None
        state = venue.state(channel.symbol)
        assert state is not None
        if channel.word == "trades":
            venue.contract_at(state.index)  # which may be liquidated from now on
        if channel.word == "book":
            venue.say_changes(state, channel.pace, now_ms())
            send_whole(venue, session, state, book_now(state, channel.pace))

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        return refusal(TOO_MANY, request.number if request else None)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        return book_text(state, event, whole=False)

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        return book_text(state, event, whole=True)

    def quote_number(self, state: SymbolState, now_ms: int) -> int:
        """Give the time: quotes have no number."""
        return now_ms

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        symbol, decimals = state.grid.symbol, state.grid.qty_decimals
        data: dict[str, object] = {"timestamp": now_ms, "instrument_name": symbol}
        for side, level in zip(("bid", "ask"), quote, strict=True):
            tick, qty = level or (0, 0)
            data[f"best_{side}_price"] = float(state.price_text(tick))
            data[f"best_{side}_amount"] = number(qty, decimals)
        return head(f"quote.{symbol}") + compact(data) + b"}}"

    def funding(self, venue: SimVenue, contract: Contract) -> bytes:
        return head(self.funding_topics(contract)[0]) + compact(ticker(venue, contract)) + b"}}"

    def forced(self, state: SymbolState, trade: Trade) -> bytes:
        rows = state.trade_rows
        assert isinstance(rows, DeribitRows)
        rows.forced.add(trade.id)
        return rows.head + rows.row(trade).encode() + rows.close


def _read(text: str | bytes) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except ValueError:
        raise RpcError(-32700, "Parse error") from None
    if not isinstance(request, dict) or not isinstance(request.get("params", {}), dict | None):
        raise RpcError(-32600, "Invalid Request")
    return request


def _log_in(session: Session, params: Query) -> Mapping[str, object]:
    """Let in whoever has a name and a secret."""
    if not params.get("client_id") or not params.get("client_secret"):
        raise RpcError(13004, "invalid_credentials")
    session.group = _KNOWN
    return {"access_token": "1.simulated", "expires_in": 900, "token_type": "bearer"}


def _channels_in(params: Query) -> list[str]:
    names = params.get("channels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RpcError(-32602, "Invalid params")
    return names


def _channel(name: str) -> ChannelName | None:
    """Read a channel's name; None for one that leads nowhere."""
    word, *rest = name.split(".")
    paces = ("",) if word == "quote" else PACES if word == "book" else PACES[:1]
    symbol, pace = [*rest, ""][:2] if rest else ("", "")
    is_known = word in _KINDS and pace in paces and len(rest) == 1 + bool(pace)
    return ChannelName(word, symbol, pace) if is_known else None
