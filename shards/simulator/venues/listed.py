"""Which instruments the venues list at the start, and the grids of those listed later."""

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from math import floor, log10

from shards.simulator.core.market import Grid
from shards.simulator.core.usual import listed_grids

__all__ = [
    "binance_instrument",
    "binance_instruments",
    "coin_grid",
    "coin_instrument",
    "delivery_ms",
    "hyperliquid_instruments",
    "inverse_instruments",
    "spot_instruments",
]

# symbol, start price, price decimals printed, tick in units of the last decimal, quantity decimals
_BINANCE_TABLE: tuple[tuple[str, float, int, int, int], ...] = (
    ("BTCUSDT", 81234.5, 2, 10, 3), ("ETHUSDT", 3123.45, 2, 1, 3), ("SOLUSDT", 187.42, 4, 100, 2),
    ("XRPUSDT", 2.3456, 4, 1, 1), ("DOGEUSDT", 0.21345, 5, 1, 0), ("BNBUSDT", 912.34, 3, 10, 2),
    ("ADAUSDT", 0.6543, 5, 10, 0), ("SUIUSDT", 3.4567, 6, 100, 1), ("LINKUSDT", 17.654, 3, 1, 2),
    ("AVAXUSDT", 28.765, 4, 10, 0), ("BTCUSDT_301227", 82345.6, 1, 1, 3),
    ("LTCUSDT", 98.76, 2, 1, 3), ("BCHUSDT", 512.34, 2, 1, 3),
    ("TRXUSDT", 0.31234, 5, 1, 0), ("DOTUSDT", 4.321, 3, 1, 1), ("UNIUSDT", 8.765, 4, 10, 0),
    ("AAVEUSDT", 245.67, 3, 10, 1), ("NEARUSDT", 2.987, 4, 10, 0), ("APTUSDT", 5.4321, 5, 10, 1),
    ("ARBUSDT", 0.4321, 6, 100, 1), ("OPUSDT", 0.7654, 7, 1000, 1), ("ATOMUSDT", 4.567, 3, 1, 2),
    ("FILUSDT", 2.345, 3, 1, 1), ("ETCUSDT", 19.876, 3, 1, 2), ("XLMUSDT", 0.29876, 5, 1, 0),
    ("ICPUSDT", 5.678, 3, 1, 0), ("INJUSDT", 12.345, 6, 1000, 1), ("TIAUSDT", 1.6543, 7, 1000, 0),
    ("SEIUSDT", 0.2345, 7, 1000, 0), ("WLDUSDT", 1.2345, 7, 1000, 0),
    ("ENAUSDT", 0.5678, 7, 1000, 0), ("JUPUSDT", 0.4567, 7, 1000, 0),
    ("PENDLEUSDT", 4.5678, 7, 1000, 0), ("LDOUSDT", 1.0987, 6, 100, 0),
    ("CRVUSDT", 0.7654, 4, 1, 1), ("GALAUSDT", 0.015678, 6, 1, 0), ("SANDUSDT", 0.28765, 5, 1, 0),
    ("1000PEPEUSDT", 0.0112345, 7, 1, 0), ("1000SHIBUSDT", 0.012345, 6, 1, 0),
    ("1000BONKUSDT", 0.023456, 6, 1, 0), ("WIFUSDT", 0.8765, 7, 1000, 1),
    ("ORDIUSDT", 9.876, 6, 1000, 1), ("HYPEUSDT", 38.765, 5, 100, 2), ("TAOUSDT", 387.65, 2, 1, 3),
    ("XMRUSDT", 345.67, 2, 1, 3),
)  # fmt: skip

# symbol, start price, price decimals
_INVERSE_TABLE: tuple[tuple[str, float, int], ...] = (
    ("BTCUSD_PERP", 81234.5, 1), ("ETHUSD_PERP", 3123.45, 2), ("BTCUSD_301227", 82345.6, 1),
    ("SOLUSD_PERP", 187.42, 2), ("XRPUSD_PERP", 2.3456, 4), ("ETHUSD_301227", 3211.23, 2),
    ("BNBUSD_PERP", 912.345, 3), ("DOGEUSD_PERP", 0.21345, 5), ("LINKUSD_PERP", 17.654, 3),
    ("BCHUSD_PERP", 512.34, 2), ("LTCUSD_PERP", 98.765, 3), ("AVAXUSD_PERP", 28.765, 3),
)  # fmt: skip

# coin, szDecimals, start price
_HYPERLIQUID_TABLE: tuple[tuple[str, int, float], ...] = (
    ("BTC", 5, 81234.0), ("ETH", 4, 3123.4), ("SOL", 2, 187.42), ("HYPE", 2, 38.765),
    ("XRP", 0, 2.3456), ("DOGE", 0, 0.21345), ("kPEPE", 0, 0.012345), ("SUI", 1, 3.4567),
    ("LINK", 1, 17.654), ("AVAX", 2, 28.765), ("BNB", 3, 912.34), ("ADA", 0, 0.6543),
    ("LTC", 2, 98.765), ("BCH", 3, 512.34), ("TRX", 0, 0.31234), ("DOT", 1, 4.3215),
    ("UNI", 1, 8.7654), ("AAVE", 2, 245.67), ("NEAR", 1, 2.9876), ("APT", 2, 5.4321),
    ("ARB", 1, 0.43215), ("OP", 1, 0.76543), ("ATOM", 2, 4.5678), ("FIL", 1, 2.3456),
    ("ETC", 2, 19.876), ("XLM", 0, 0.29876), ("INJ", 1, 12.345), ("TIA", 1, 1.6543),
    ("SEI", 0, 0.23456), ("WLD", 1, 1.2345), ("ENA", 0, 0.56789), ("JUP", 0, 0.45678),
    ("PENDLE", 0, 4.5678), ("LDO", 1, 1.0987), ("CRV", 1, 0.76543), ("kSHIB", 0, 0.012345),
    ("kBONK", 0, 0.023456), ("WIF", 0, 0.87654), ("ORDI", 2, 9.8765), ("TAO", 3, 387.65),
)  # fmt: skip

_NEW_RANK = 5
"""A newly listed instrument trades about as much as the sixth of the list."""

_TICKS_LEAST = 1500
"""A price must be this many ticks: books reach hundreds of ticks down and may not reach zero."""


def binance_instruments(count: int) -> tuple[Grid, ...]:
    """List the first `count` contracts; past the real names, synthetic ones follow."""
    return tuple(
        listed_grids(
            _BINANCE_TABLE, count,
            lambda n: (f"SIM{n:03d}USDT", round(1.0 + (n * 7919 % 9000) / 100.0, 3), 4, 1, 1),
        )
    )  # fmt: skip


def spot_instruments(count: int) -> tuple[Grid, ...]:
    """List the first `count` pairs: those of the contracts that have no date."""
    undated = [grid for grid in binance_instruments(count + 1) if delivery_ms(grid.symbol) is None]
    return tuple(undated[:count])


def inverse_instruments(count: int) -> tuple[Grid, ...]:
    """List the first `count` contracts of a fixed value; past the real names, synthetic ones."""
    rows = list(_INVERSE_TABLE[:count])
    rows += [(f"SIM{n:03d}USD_PERP", 20.0 + n, 3) for n in range(len(rows), count)]
    return tuple(
        Grid.around(symbol, price, (decimals, 1, 0), rank)
        for rank, (symbol, price, decimals) in enumerate(rows)
    )


def delivery_ms(symbol: str) -> int | None:
    """When a contract is delivered, as its symbol says: at 8 o'clock of a day; None where never."""
    match = re.search(r"_(\d{6})$", symbol)
    if match is None:
        return None
    day = datetime.strptime(f"{match[1]}08", "%y%m%d%H").replace(tzinfo=UTC)
    return int(day.timestamp()) * 1000


def coin_grid(row: tuple[str, int, float], rank: int, decimals_max: int = 6) -> Grid:
    """Derive the grid from the price: five significant figures, at most `decimals_max` - szDecimals
    decimals.

    The band keeps the number of integer digits constant, so one tick is legal all through it.
    """
    coin, size_decimals, price = row
    magnitude = floor(log10(price))
    decimals = max(0, min(decimals_max - size_decimals, 4 - magnitude))
    start = round(price * 10**decimals)
    ceiling = 10 ** (decimals + magnitude + 1) - 1
    low = max(start // 2, min(start - 100, 10 ** (decimals + magnitude)))
    band = low, min(start + start // 2, ceiling - 1000)
    return Grid.around(coin, price, (decimals, 1, size_decimals), rank, band)


def hyperliquid_instruments(count: int) -> tuple[Grid, ...]:
    """List the first `count` coins; past the real names, synthetic ones follow."""
    rows = list(_HYPERLIQUID_TABLE[:count])
    for number in range(len(rows), count):
        price = round(2.0 + (number * 7919 % 6000) / 1000.0, 4)
        rows.append((f"SIM{number:03d}", 1, price))
    return tuple(coin_grid(row, rank) for rank, row in enumerate(rows))


def binance_instrument(
    symbol: str, price: float, request: Mapping[str, object], now: Grid | None
) -> Grid:
    """Make the contract a request describes; what it leaves out stays as it is `now`.

    Raises ValueError for a grid the price does not fit on.
    """
    usual = (now.tick_text, now.step_text) if now else ("0.001", "0.1")
    tick, decimals = _step(request, "tick_size", usual[0])
    step, qty_decimals = _step(request, "step_size", usual[1])
    if step != 1:
        raise ValueError(f"step_size must be a power of ten, not {request['step_size']!r}")
    return _tall(Grid.around(symbol, price, (decimals, tick, qty_decimals), _NEW_RANK))


def coin_instrument(
    coin: str,
    price: float,
    request: Mapping[str, object],
    now: Grid | None,
    decimals_max: int = 6,
) -> Grid:
    """Make the coin a request describes. Raises ValueError for a grid the price does not fit on."""
    decimals = request.get("sz_decimals", now.qty_decimals if now else 2)
    if type(decimals) is not int or not 0 <= decimals <= 5:
        raise ValueError(f"sz_decimals must be a whole number from 0 to 5, not {decimals!r}")
    made = coin_grid((coin, decimals, price), _NEW_RANK, decimals_max)
    start = made.start_ticks
    low, high = min(made.low_ticks, start - 100), max(made.high_ticks, start + 100)
    return _tall(replace(made, low_ticks=low, high_ticks=high))


def _tall(instrument: Grid) -> Grid:
    if instrument.start_ticks < _TICKS_LEAST:
        raise ValueError(f"the price must be at least {_TICKS_LEAST} ticks")
    return instrument


def _step(request: Mapping[str, object], name: str, usual: str) -> tuple[int, int]:
    """Split a step size into its mantissa and decimals: 0.10 is (10, 2)."""
    text = request.get(name, usual)
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a text like {usual!r}, not {text!r}")
    try:
        sign, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:
        raise ValueError(f"{name} must be a decimal number, not {text!r}") from None
    mantissa = int("".join(map(str, digits)))
    if sign or not mantissa or not isinstance(exponent, int) or not -8 <= exponent <= 0:
        raise ValueError(f"{name} must be above 0 with at most 8 decimals, not {text!r}")
    return mantissa, -exponent
