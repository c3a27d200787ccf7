"""What the simulated Deribit writes of a market: trades and books."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from shards.simulator.core.encoder import BookMessage
from shards.simulator.core.frames import (
    Part,
    PriceTexts,
    TextTable,
    Trade,
    Trades,
    decimal_columns,
    signed_text,
    trimmed_text,
)
from shards.simulator.core.symbol import Levels, SymbolState

__all__ = ["A_TRADE", "PACES", "DeribitRows", "book_text", "head", "number"]

PACES: Final = ("100ms", "agg2", "raw")
_SIDES: Final = TextTable([b"sell", b"buy"])


def head(channel: str) -> bytes:
    """Begin a notification; its data and two braces follow."""
    return (
        '{"jsonrpc":"2.0","method":"subscription","params":'
        f'{{"channel":"{channel}","data":'.encode()
    )


def number(mantissa: int, decimals: int) -> float:
    """Give a decimal as the number that JSON has of it: the same digits, for there are few."""
    return float(signed_text(mantissa, decimals))


class DeribitRows:
    """Writes the trades of one instrument on one grid."""

    close, rows_per_frame = b"]}}", 100

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        grid = state.grid
        base = grid.symbol.partition("-")[0].partition("_")[0]
        start = price_text(grid.start_ticks)
        self.head = head(f"trades.{grid.symbol}.{PACES[0]}") + b"["
        self.forced: set[int] = set()
        """The ids of trades that were liquidations."""
        self._price_text, self._prices = price_text, PriceTexts(price_text)
        self._mark = f',"mark_price":{start},"direction":"'
        self._index = f'","index_price":{start},"amount":'
        self._name = f',"instrument_name":"{grid.symbol}","contracts":'
        self._id = ',"trade_id":"' + ("" if base == "BTC" else f"{base}-")
        self._sizes = [trimmed_text(qty, grid.qty_decimals) for qty in state.market.sizes.tolist()]
        self._size_table = TextTable([text.encode() for text in self._sizes])

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        size = self._sizes[trade.size]
        mark = ',"liquidation":"T"' if trade.id in self.forced else ""
        return (
            f'{{"timestamp":{trade.ts_ms},"tick_direction":1,"price":{self._price_text(trade.tick)}'
            f"{self._mark}{'buy' if trade.buy else 'sell'}{self._index}{size}{self._name}{size}"
            f',"trade_seq":{trade.id}{self._id}{trade.id}"{mark}}}'
        )

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """Give the parts of a block whose numbers do not get longer within it."""
        width = len(str(trades.ids[0]))
        if len(str(trades.ids[-1])) != width:
            return None
        prices = self._prices.rows_of(trades.ticks)
        ids, sizes = decimal_columns(trades.ids, width), (self._size_table, trades.size)
        return (
            f'{{"timestamp":{trades.ts_ms},"tick_direction":1,"price":'.encode(),
            (self._prices.table, prices), self._mark.encode(),
            (_SIDES, trades.buy.astype(np.int64)), self._index.encode(), sizes,
            self._name.encode(), sizes, b',"trade_seq":', ids, self._id.encode(), ids, b'"}',
        )  # fmt: skip


def book_text(state: SymbolState, event: BookMessage, *, whole: bool) -> bytes:
    symbol = state.grid.symbol
    before = "" if whole else f'"prev_change_id":{event.previous},'
    return (
        head(f"book.{symbol}.{event.stream}")
        + (
            f'{{"type":"{"snapshot" if whole else "change"}","timestamp":{event.ts_ms},{before}'
            f'"instrument_name":"{symbol}","change_id":{event.last},'
            f'"bids":[{_levels(state, event.bids, whole=whole)}],'
            f'"asks":[{_levels(state, event.asks, whole=whole)}]}}}}}}'
        ).encode()
    )


def _levels(state: SymbolState, levels: Levels, *, whole: bool) -> str:
    word, sizes = "new" if whole else "change", [qty for _, qty in levels]
    texts = zip(state.level_texts(levels), sizes, strict=True)
    return ",".join(
        f'["{word if size else "delete"}",{price},{qty}]' for (price, qty), size in texts
    )


A_TRADE: Final = {
    "timestamp": "1795000000123", "tick_direction": "1", "price": "81234.5",
    "mark_price": "81234.5", "direction": '"buy"', "index_price": "81234.5", "amount": "50.0",
    "instrument_name": '"BTC-PERPETUAL"', "contracts": "5.0", "trade_seq": "300000123",
    "trade_id": '"410000001"',
}  # fmt: skip
"""As JSON texts, by name."""
