"""Coinbase Advanced Trade as the simulator serves it: spot products, and a perpetual future.

The messages of each socket are numbered. Snapshots of books say when they were changed last. What
is polled of the future is what `market/products/<id>` says.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from shards.simulator.core.contracts import Contract
from shards.simulator.core.encoder import Answer, BookMessage, Query
from shards.simulator.core.frames import Trade, compact, decimal_text, iso_text, signed_text
from shards.simulator.core.limits import MESSAGES, Then, VenueLimit
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import RowByRow, bad_trades, calls_under
from shards.simulator.core.venue import SimVenue, now_ms
from shards.simulator.venues.coinbase.market import SPOT, SpotMarket, maker_side, now_text

__all__ = ["Coinbase"]

_FUTURES: tuple[tuple[str, float, int, int, int], ...] = (("BIP-20DEC30-CDE", 81235.0, 0, 5, 0),)
_FUTURES_AT = 2
"""Futures come behind so many spot products."""
_COUNTER = b"@message-number@"
_RECENT_TRADES = 50


def _message(channel: str, events: str, at: str) -> bytes:
    head = f'{{"channel":"{channel}","client_id":"","timestamp":"{at}","sequence_num":'
    return b'%b%b,"events":%b}' % (head.encode(), _COUNTER, events.encode())


class MarketTradeRows(RowByRow):
    """Writes the trades of one product on one grid."""

    close, rows_per_frame = b"]}]}", 100

    @property
    def head(self) -> bytes:
        """What a message of now begins with."""
        whole = _message("market_trades", '[{"type":"update","trades":[]}]', now_text())
        return whole.removesuffix(self.close)

    def row(self, trade: Trade) -> str:
        return (
            f'{{"trade_id":"{trade.id}","product_id":"{self.symbol}",'
            f'"price":"{self.price_text(trade.tick)}","size":"{self.sizes[trade.size]}",'
            f'"side":"{maker_side(trade).upper()}","time":"{iso_text(trade.ts_ms * 1000)}"}}'
        )


class Coinbase(SpotMarket):
    """Advanced Trade."""

    name = "coinbase"
    counter = _COUNTER
    limits: Sequence[VenueLimit] = (
        *SpotMarket.limits,
        VenueLimit(MESSAGES, 8, 1.0, then=Then.HANG_UP),
    )
    channels: Mapping[str, str] = {"market_trades": "trade", "level2": "book", "ticker": "quote"}
    trade_rows = MarketTradeRows
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("price",), "book": ("price_level",), "quote": ("best_bid",),
        "funding": ("open_interest",),
    }  # fmt: skip
    spoiled_among = 3
    _table = (*SPOT[:_FUTURES_AT], *_FUTURES, *SPOT[_FUTURES_AT:])

    def __init__(self) -> None:
        super().__init__()
        calls = {
            "time": _serve_time,
            "market/products": _list_products,
            "market/products/{product_id}": _serve_product,
        }
        self.rest = calls_under("api/v3/brokerage", calls)
        self.malformed = {
            **bad_trades('{"channel":"market_trades","events":[{"trades":[%s]}]}', _TRADE, _BAD),
            "missing_fields": b'{"channel":"market_trades","events":[{"trades":[{"side":"BUY"}]}]}',
        }

    def names_of(self, request: Query) -> Sequence[str]:
        channel = request.get("channel")
        if channel == "heartbeats":
            return (channel,)
        products = request.get("product_ids") or []
        return [f"{channel}:{each}" for each in products] if channel in self.channels else ()

    def acknowledge(self, session: Session, subscribed: Mapping[str, Sequence[str]]) -> None:
        events = json.dumps([{"subscriptions": subscribed}])
        session.send_text(_message("subscriptions", events, now_text()))

    def push_heartbeats(self, venue: SimVenue, now_ms: int) -> None:
        at = iso_text(now_ms * 1000)
        events = json.dumps([{"current_time": at, "heartbeat_counter": str(now_ms // 1000)}])
        for session in venue.hub.sessions:
            if "heartbeats" in session.names:
                session.send_text(_message("heartbeats", events, at))

    def change(self, state: SymbolState, event: BookMessage) -> bytes:
        return self._write(state, event, "update")

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        return self._write(state, event, "snapshot")

    def _write(self, state: SymbolState, event: BookMessage, form: str) -> bytes:
        at = iso_text(event.last)
        updates = ",".join(
            f'{{"side":"{side}","event_time":"{at}","price_level":"{price}","new_quantity":"{qty}"}}'
            for side, levels in (("bid", event.bids), ("offer", event.asks))
            for price, qty in state.level_texts(levels)
        )
        product = state.grid.symbol
        events = f'[{{"type":"{form}","product_id":"{product}","updates":[{updates}]}}]'
        return _message("l2_data", events, at)

    def recent(self, state: SymbolState) -> Iterable[bytes]:
        """Of a market without a past there is no message."""
        rows = list(map(state.trade_rows.row, reversed(state.newest_sent(_RECENT_TRADES))))
        events = f'[{{"type":"snapshot","trades":[{",".join(rows)}]}}]'
        return (_message("market_trades", events, now_text()),) if rows else ()

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bid, ask = state.side_texts(quote)
        ticker = {
            "type": "ticker", "product_id": state.grid.symbol, "price": bid[0],
            "best_bid": bid[0], "best_bid_quantity": bid[1],
            "best_ask": ask[0], "best_ask_quantity": ask[1],
        }  # fmt: skip
        events = json.dumps([{"type": "update", "tickers": [ticker]}], separators=(",", ":"))
        return _message("ticker", events, iso_text(state.last_update))


_TRADE = {
    "trade_id": '"995000123"', "product_id": '"BTC-USD"', "price": '"81234.50"',
    "size": '"0.01"', "side": '"BUY"', "time": '"2026-11-22T10:00:00.123456Z"',
}  # fmt: skip
_BAD = {
    "wrong_types": {"price": "[]", "trade_id": '"x"'},
    "nan_price": {"price": '"NaN"'},
    "huge_number": {"trade_id": '"%s"' % ("9" * 400)},
}


def _serve_time(_: SimVenue, __: Query) -> Answer:
    at_ms = now_ms()
    iso = iso_text(at_ms * 1000)
    return Answer(
        compact({"iso": iso, "epochSeconds": str(at_ms // 1000), "epochMillis": str(at_ms)})
    )


def _product(venue: SimVenue, index: int) -> dict[str, object]:
    """Write a product, without what a future has more."""
    grid, status = venue.grids[index], venue.statuses[index]
    base = grid.symbol.partition("-")[0]
    is_future = grid.symbol.endswith("-CDE")
    halted = venue.halted(index)
    return {
        "product_id": grid.symbol, "price": venue.encoder.price_text(grid, grid.start_ticks),
        "base_increment": grid.step_text, "quote_increment": grid.tick_text,
        "price_increment": grid.tick_text, "base_min_size": grid.step_text,
        "quote_min_size": "1", "status": status if halted or not is_future else "",
        "product_type": "FUTURE" if is_future else "SPOT",
        "base_currency_id": "" if is_future else base, "quote_currency_id": "USD",
        "is_disabled": False, "trading_disabled": halted, "view_only": False,
        "cancel_only": False, "limit_only": False, "post_only": False, "auction_mode": False,
        "alias": "", "alias_to": [], "display_name": "BTC PERP" if is_future else grid.symbol,
    }  # fmt: skip


def _details(contract: Contract) -> dict[str, object]:
    lots = contract.instrument.qty_decimals
    return {
        "venue": "cde", "contract_code": "BIP", "contract_expiry": "2030-12-20T16:00:00Z",
        "contract_size": "0.01", "contract_root_unit": "BTC", "contract_expiry_type": "EXPIRING",
        "funding_interval": "3600s",
        "open_interest": decimal_text(contract.open_interest, lots),
        "funding_rate": signed_text(contract.rate, contract.terms.rate_decimals),
    }  # fmt: skip


def _list_products(venue: SimVenue, query: Query) -> Answer:
    found = []
    for index in range(len(venue.grids)):
        product = _product(venue, index)
        if product["product_type"] == query.get("product_type", "SPOT"):
            if product["product_type"] == "FUTURE":
                product["future_product_details"] = _details(venue.contract_at(index))
            found.append(product)
    return Answer(compact({"products": found, "num_products": len(found), "pagination": None}))


def _serve_product(venue: SimVenue, query: Query) -> Answer:
    """Give one; what a future says of funding and open interest goes into the ledger."""
    index = venue.index_of(query["product_id"])
    if index is None:
        return Answer(compact({"error": "NOT_FOUND", "message": "unknown product"}), 404)
    product = _product(venue, index)
    if product["product_type"] == "FUTURE":
        contract = venue.contract_at(index)
        details = venue.serve_contract("funding", contract, _details(contract), now_ms())
        product["future_product_details"] = details
    return Answer(compact(product))
