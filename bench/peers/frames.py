"""The frames that every decoder gets, and what they say, in exact numbers."""

from decimal import Decimal
from typing import Final, NamedTuple

from bench.frames import Market, binance_book, binance_trades

SYMBOL: Final = "BTCUSDT"
Levels = dict[Decimal, Decimal]
"""Quantities by price."""


class Said(NamedTuple):
    """A trade."""

    id: int
    price: Decimal
    qty: Decimal


def trade(number: int, count: int = 1) -> bytes:
    """A trade of Binance's futures with a price and a size of its own."""
    frame = binance_trades(number, count)
    said = said_by(number)
    frame = frame.replace(b'"p":"81234.50"', f'"p":"{said.price}"'.encode())
    return frame.replace(b'"q":"0.250"', f'"q":"{said.qty}"'.encode())


def said_by(number: int) -> Said:
    """What `trade` of this number says."""
    cents, thousandths = 8_100_000 + number % 30_011, 1 + number % 7919
    return Said(number, Decimal(cents).scaleb(-2), Decimal(thousandths).scaleb(-3))


def levels_of(frame: dict[str, list[list[str]]]) -> Levels:
    """Of a message of changes to a book: bids and asks, which have no price in common."""
    return {Decimal(p): Decimal(q) for side in ("b", "a") for p, q in frame[side]}


MARKET: Final = Market("binance_linear", SYMBOL, trade, binance_book, batch=1)
