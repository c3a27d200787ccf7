"""Coinbase Exchange as the simulator serves it: the older feed of the same spot market.

Snapshots of books say no time. Heartbeats tell the last trade of each product.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from uuid import UUID

from shards.simulator.core.encoder import Answer, BookMessage, Query, ServedCall
from shards.simulator.core.frames import Trade, compact, iso_text
from shards.simulator.core.limits import MESSAGES, Then, VenueLimit
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import Quote, SymbolState
from shards.simulator.core.usual import RowByRow
from shards.simulator.core.venue import SimVenue, now_ms
from shards.simulator.venues.coinbase.market import SpotMarket, maker_side

__all__ = ["CoinbaseExchange"]


class MatchRows(RowByRow):
    """Writes the trades of one product on one grid: a message each."""

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        super().__init__(state, price_text)
        self._state = state
        self._orders = [str(UUID(bytes=state.rng.bytes(16))) for _ in range(64)]

    def row(self, trade: Trade, word: str = "match") -> str:
        orders = self._orders
        return (
            f'{{"type":"{word}","trade_id":{trade.id},"maker_order_id":"{orders[trade.id & 31]}",'
            f'"taker_order_id":"{orders[32 + (trade.id & 31)]}","side":"{maker_side(trade)}",'
            f'"size":"{self.sizes[trade.size]}","price":"{self.price_text(trade.tick)}",'
            f'"product_id":"{self.symbol}","sequence":{self._state.last_update},'
            f'"time":"{iso_text(trade.ts_ms * 1000)}"}}'
        )


class CoinbaseExchange(SpotMarket):
    """The feed of the exchange."""

    name = "coinbase_exchange"
    limits: Sequence[VenueLimit] = (
        *SpotMarket.limits,
        VenueLimit(MESSAGES, 100, 1.0, then=Then.HANG_UP),
    )
    channels: Mapping[str, str] = {
        "matches": "trade", "level2_batch": "book", "ticker": "quote", "heartbeat": "heartbeat",
    }  # fmt: skip
    trade_rows = MatchRows
    spoiled: Mapping[str, Sequence[str]] = {
        "trade": ("price",), "book": ("changes",), "quote": ("best_bid",),
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.rest = {
            "products": ServedCall(_list_products),
            "time": ServedCall(_serve_time),
            "products/{product_id}/trades": ServedCall(_serve_trades),
        }
        self.malformed = {
            "wrong_types": b'{"type":"match","product_id":"BTC-USD","trade_id":[],"price":"x"}',
            "missing_fields": b'{"type":"match","product_id":"BTC-USD"}',
            "no_levels": b'{"type":"l2update","product_id":"BTC-USD","changes":[["buy"]]}',
        }

    def names_of(self, request: Query) -> Sequence[str]:
        channels, products = request.get("channels") or [], request.get("product_ids") or []
        if not set(channels) <= self.channels.keys():
            return ()
        return [f"{channel}:{product}" for channel in channels for product in products]

    def acknowledge(self, session: Session, subscribed: Mapping[str, Sequence[str]]) -> None:
        channels = [
            {"name": name, "product_ids": products} for name, products in subscribed.items()
        ]
        session.send_text(compact({"type": "subscriptions", "channels": channels}))

    def push_heartbeats(self, venue: SimVenue, now_ms: int) -> None:
        """Of each product somebody listens to, with its last trade, sent or not."""
        for index, grid in enumerate(venue.grids):
            name = f"heartbeat:{grid.symbol}"
            topic = venue.hub.topic(name)
            if topic is not None:
                state = venue.state_at(index)
                heartbeat = {
                    "type": "heartbeat", "sequence": state.last_update,
                    "last_trade_id": int(self.trade_ids(index, state.serial - 1, 1)[0]),
                    "product_id": grid.symbol, "time": iso_text(now_ms * 1000),
                }  # fmt: skip
                topic.push(name, compact(heartbeat))

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        sides = {"asks": state.level_texts(event.asks), "bids": state.level_texts(event.bids)}
        return compact({"type": "snapshot", "product_id": state.grid.symbol, **sides})

    def change(self, state: SymbolState, event: BookMessage) -> bytes:
        changes = [
            (side, *level)
            for side, levels in (("buy", event.bids), ("sell", event.asks))
            for level in state.level_texts(levels)
        ]
        said = {"type": "l2update", "product_id": state.grid.symbol, "changes": changes}
        return compact({**said, "time": iso_text(event.last)})

    def recent(self, state: SymbolState) -> Iterable[bytes]:
        rows = state.trade_rows
        assert isinstance(rows, MatchRows)
        return [rows.row(trade, "last_match").encode() for trade in state.newest_sent(1)]

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        bid, ask = state.side_texts(quote)
        ticker = {
            "type": "ticker", "sequence": state.last_update, "product_id": state.grid.symbol,
            "price": bid[0], "best_bid": bid[0], "best_bid_size": bid[1], "best_ask": ask[0],
            "best_ask_size": ask[1], "side": "sell", "time": iso_text(state.last_update),
        }  # fmt: skip
        return compact(ticker)


def _serve_time(_: SimVenue, __: Query) -> Answer:
    at_ms = now_ms()
    return Answer(compact({"iso": iso_text(at_ms * 1000), "epoch": at_ms / 1000}))


def _list_products(venue: SimVenue, _: Query) -> Answer:
    rows: list[object] = []
    for index, grid in enumerate(venue.grids):
        base, quote = grid.symbol.split("-")
        rows.append(
            {
                "id": grid.symbol, "base_currency": base, "quote_currency": quote,
                "quote_increment": grid.tick_text, "base_increment": grid.step_text,
                "display_name": grid.symbol, "min_market_funds": "1", "margin_enabled": False,
                "post_only": False, "limit_only": False, "cancel_only": False,
                "status": venue.statuses[index], "status_message": "",
                "trading_disabled": venue.halted(index), "auction_mode": False,
            }
        )  # fmt: skip
    return Answer(compact(rows))


_FETCHED = ("time", "trade_id", "price", "size", "side")
"""What a trade says that is fetched."""


def _serve_trades(venue: SimVenue, query: Query) -> Answer:
    """Give the newest trades, or those before an id; newest first."""
    index = venue.index_of(query["product_id"])
    if index is None:
        return Answer(compact({"message": "NotFound"}), 404)
    state, limit = venue.state_at(index), min(int(query.get("limit", "1000")), 1000)
    end = int(query["after"]) if "after" in query else None
    first_id = int(venue.encoder.trade_ids(index, 0, 1)[0])
    start = None if end is None else max(0, end - first_id - limit)
    found = [each for each in state.recent(start, limit) if end is None or each.id < end]
    matches = [json.loads(state.trade_rows.row(each)) for each in reversed(found)]
    return Answer(compact([{name: match[name] for name in _FETCHED} for match in matches]))
