"""Trades of the simulated Bybit: UUIDs, or numbers on spot.

Of an id of 128 bits the market counts the lower half; the upper one is made of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from shards.simulator.core.frames import (
    Integers,
    Part,
    PriceTexts,
    TextTable,
    Trade,
    Trades,
    decimal_columns,
    decimal_text,
    hex_columns,
)
from shards.simulator.core.symbol import ID_STRIDE, SymbolState
from shards.simulator.core.venue import now_ms

__all__ = ["FIRST_SEQ", "BybitTradeRows", "spot_ids", "uuid_halves", "uuid_text"]

FIRST_SEQ: Final = 530_400_000_000
_FIRST_SPOT_ID: Final = 2_290_000_000_000_000_000
_SIXTY_TWO_BITS: Final = (1 << 62) - 1
_ALL_BITS: Final = (1 << 64) - 1
_ID_STEP: Final = 0x2545F4914F6CDD1D
_UPPER_FACTOR: Final = 0x9E3779B97F4A7C15
"""Odd: ids look random, and repeat only after all were used."""


def uuid_halves(index: int, serial: int, count: int) -> Integers:
    """Give the lower halves of ids; their two highest bits are those of any such id."""
    numbers = np.arange(serial, serial + count, dtype=np.uint64) + np.uint64(index * ID_STRIDE)
    mixed = numbers * np.uint64(_ID_STEP) & np.uint64(_SIXTY_TWO_BITS)
    return (mixed | np.uint64(1 << 63)).view(np.int64)


def spot_ids(index: int, serial: int, count: int) -> Integers:
    """Give the ids of spot, which grow by one."""
    first = _FIRST_SPOT_ID + (index << 40) + serial
    return np.arange(first, first + count)


def uuid_text(lower: int) -> str:
    """Print the id of 128 bits whose lower half, as a signed number, is `lower`."""
    digits = f"{_upper(lower):016x}{lower & _ALL_BITS:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _upper(lower: int) -> int:
    """The other half: what a fifth version of such ids has there, made of the lower one."""
    mixed = lower * _UPPER_FACTOR & _ALL_BITS
    return mixed & ~0xF000 | 0x5000


def _uuid_parts(lower: Integers) -> Sequence[Part]:
    """The same of a block, as columns with what is between them."""
    bits = lower.view(np.uint64)
    mixed = bits * np.uint64(_UPPER_FACTOR)
    upper = (mixed & np.uint64(_ALL_BITS ^ 0xF000)) | np.uint64(0x5000)
    words = [
        hex_columns((half >> np.uint64(shift) & np.uint64(0xFFFF_FFFF)).astype(np.int64))
        for half in (upper, bits)
        for shift in (32, 0)
    ]
    first, (second, third), (fourth, fifth) = words[0], _halved(words[1]), _halved(words[2])
    return first, b"-", second, b"-", third, b"-", fourth, b"-", fifth, words[3]


def _halved(words: "np.ndarray[tuple[int], np.dtype[np.void]]") -> Sequence[Part]:
    halves = words.view("V4").reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


class BybitTradeRows:
    """Writes the trades of one symbol on one grid."""

    close, rows_per_frame = b"]}", 100

    def __init__(self, state: SymbolState, price_text: Callable[[int], str], *, spot: bool) -> None:
        grid, sizes = state.grid, state.market.sizes.tolist()
        self._symbol, self._spot = grid.symbol, spot
        self._price_text, self._prices = price_text, PriceTexts(price_text)
        self._sides = ['Sell","v":"', 'Buy","v":"']
        self._sizes = [f'{decimal_text(qty, grid.qty_decimals)}","p":"' for qty in sizes]
        self._side_table = TextTable([text.encode() for text in self._sides])
        self._size_table = TextTable([text.encode() for text in self._sizes])

    @property
    def head(self) -> bytes:
        """What a frame begins with, as of now."""
        return (
            f'{{"topic":"publicTrade.{self._symbol}","type":"snapshot","ts":{now_ms()},"data":['
        ).encode()

    def _number(self, trade: Trade) -> str:
        return str(trade.id) if self._spot else uuid_text(trade.id)

    def served(self, trade: Trade) -> Mapping[str, object]:
        """Say of a trade what REST does."""
        return {
            "execId": self._number(trade),
            "symbol": self._symbol,
            "price": self._price_text(trade.tick),
            "size": self._sizes[trade.size].partition('"')[0],
            "side": "Buy" if trade.buy else "Sell",
            "time": str(trade.ts_ms),
            "isBlockTrade": False,
            "isRPITrade": False,
            "seq": str(FIRST_SEQ + trade.serial),
        }

    def row(self, trade: Trade) -> str:
        """Write one trade."""
        return (
            f'{{"T":{trade.ts_ms},"s":"{self._symbol}","S":"{self._sides[trade.buy]}'
            f'{self._sizes[trade.size]}{self._price_text(trade.tick)}","i":"{self._number(trade)}",'
            f'"BT":false,"RPI":false,"seq":{FIRST_SEQ + trade.serial}}}'
        )

    def parts(self, trades: Trades) -> Sequence[Part]:
        """Give the parts of a block: its numbers have one width for long."""
        head = f'{{"T":{trades.ts_ms},"s":"{self._symbol}","S":"'.encode()
        serials = np.arange(trades.serial, trades.serial + len(trades.ids))
        prices = self._prices.rows_of(trades.ticks)
        number = [decimal_columns(trades.ids, 19)] if self._spot else _uuid_parts(trades.ids)
        return (
            head, (self._side_table, trades.buy.astype(np.int64)),
            (self._size_table, trades.size), (self._prices.table, prices),
            b'","i":"', *number, b'","BT":false,"RPI":false,"seq":',
            decimal_columns(FIRST_SEQ + serials, 12), b"}",
        )  # fmt: skip
