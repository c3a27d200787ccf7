"""Listings, delistings and changes of instruments while the simulator runs.

What changes shows in the venue's metadata at once. A delisted instrument stops trading: its streams
fall silent (Hyperliquid's books go empty), and it trades again when it is listed again.
"""

from collections.abc import Mapping

from engine.base.clock import wall_ns
from shards.simulator.core.instruments import (
    Grid,
    binance_instrument,
    hyperliquid_instrument,
)
from shards.simulator.venues.binance import BinanceVenue
from shards.simulator.venues.hyperliquid import HyperliquidVenue

__all__ = ["change_instruments"]

_ACTIONS = ("list", "delist", "change")
_STATUSES = frozenset(
    {"PENDING_TRADING", "TRADING", "PRE_SETTLE", "SETTLING", "CLOSE", "DELIVERING", "DELIVERED"}
)
_SYMBOL_LENGTH = 32

Request = Mapping[str, object]


def change_instruments(
    venues: Mapping[str, BinanceVenue | HyperliquidVenue], request: object
) -> dict[str, object]:
    """Do what the request asks; give what came of it. Raises ValueError with what is wrong."""
    if not isinstance(request, dict):
        raise ValueError("the body must be a JSON object")
    venue = venues.get(str(request.get("venue")))
    if venue is None:
        raise ValueError(f"venue must be one of {', '.join(sorted(venues))}")
    action, symbol = request.get("action"), request.get("symbol")
    if action not in _ACTIONS:
        raise ValueError(f"action must be one of {', '.join(_ACTIONS)}, not {action!r}")
    if not isinstance(symbol, str) or not 0 < len(symbol) <= _SYMBOL_LENGTH:
        raise ValueError("symbol must be a name")
    known = symbol in venue.hub.symbols
    if action != "list" and not known:
        raise ValueError(f"unknown symbol {symbol!r}")
    index = venue.hub.symbols.index(symbol) if known else -1
    changed = (
        _on_binance(venue, str(action), index, request)
        if isinstance(venue, BinanceVenue)
        else _on_hyperliquid(venue, str(action), index, request)
    )
    return {"venue": venue.hub.name, "action": action, "symbol": symbol, **changed}


def _on_binance(
    venue: BinanceVenue, action: str, index: int, request: Request
) -> dict[str, object]:
    symbol = str(request["symbol"])
    if action == "list":
        price = _number(request, "price", 12.5)
        tick, step = _text(request, "tick_size", "0.001"), _text(request, "step_size", "0.1")
        known = venue.instruments[index] if index >= 0 else None
        venue.list_symbol(known or binance_instrument(symbol, price, tick, step))
        index = venue.hub.symbols.index(symbol)
    elif action == "delist":
        venue.set_status(index, _status(request, "SETTLING"))
    else:
        _change_binance(venue, index, request)
    instrument = venue.instruments[index]
    return {
        "status": venue.statuses[index],
        "funding_interval_hours": venue.contracts.interval_h(index),
        "tick_size": instrument.tick_text,
        "step_size": instrument.step_text,
    }


def _change_binance(venue: BinanceVenue, index: int, request: Request) -> None:
    now = venue.instruments[index]
    hours = request.get("funding_interval_hours", venue.contracts.interval_h(index))
    if type(hours) is not int or not 1 <= hours <= 24:
        raise ValueError(f"funding_interval_hours must be 1 to 24, not {hours!r}")
    tick = _text(request, "tick_size", now.tick_text)
    step = _text(request, "step_size", now.step_text)
    if (tick, step) != (now.tick_text, now.step_text):
        price = _price(now, venue.middle(index))
        grid = binance_instrument(now.symbol, price, tick, step)
        venue.change_grid(index, grid, wall_ns() // 1_000_000)
    venue.set_status(index, _status(request, venue.statuses[index]))
    venue.contracts.change_interval(index, hours)


def _on_hyperliquid(
    venue: HyperliquidVenue, action: str, index: int, request: Request
) -> dict[str, object]:
    symbol = str(request["symbol"])
    size_decimals = request.get("sz_decimals")
    if size_decimals is not None and not isinstance(size_decimals, int):
        raise ValueError(f"sz_decimals must be a whole number, not {size_decimals!r}")
    if action == "list":
        price = _number(request, "price", 12.5)
        known = venue.instruments[index] if index >= 0 else None
        size_decimals = 2 if size_decimals is None else size_decimals
        venue.list_coin(known or hyperliquid_instrument(symbol, price, size_decimals))
        index = venue.hub.symbols.index(symbol)
    elif action == "delist":
        venue.set_delisted(index, delisted=True)
    else:
        if size_decimals is None:
            raise ValueError("only sz_decimals can change at this venue")
        price = _price(venue.instruments[index], venue.middle(index))
        venue.change_grid(index, hyperliquid_instrument(symbol, price, size_decimals))
    return {
        "delisted": venue.delisted[index],
        "sz_decimals": venue.instruments[index].qty_decimals,
    }


def _price(instrument: Grid, ticks: float) -> float:
    return float(ticks * instrument.tick / 10**instrument.price_decimals)


def _number(request: Request, name: str, default: float) -> float:
    value = request.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")
    return float(value)


def _text(request: Request, name: str, default: str) -> str:
    value = request.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a text like {default!r}, not {value!r}")
    return value


def _status(request: Request, default: str) -> str:
    status = _text(request, "status", default)
    if status not in _STATUSES:
        raise ValueError(f"status must be one of {', '.join(sorted(_STATUSES))}, not {status!r}")
    return status
