"""Listings, delistings and changes of instruments while the simulator runs.

What changes shows in the venue's metadata at once. A delisted instrument stops trading: its streams
fall silent (or its books go empty), and it trades again when it is listed again.
"""

from collections.abc import Mapping

from shards.simulator.core.market import Grid
from shards.simulator.core.venue import SimVenue

__all__ = ["change_instruments"]

_ACTIONS = ("list", "delist", "change")
_SYMBOL_LENGTH = 32

Request = Mapping[str, object]


def change_instruments(venues: Mapping[str, SimVenue], request: object) -> dict[str, object]:
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
    index = venue.index_of(symbol)
    if action == "list":
        known = None if index is None else venue.grids[index]
        price = _number(request, "price", 12.5)
        venue.list_symbol(known or venue.encoder.grid(symbol, price, request, None))
    elif index is None:
        raise ValueError(f"unknown symbol {symbol!r}")
    elif action == "delist":
        venue.set_status(index, _status(venue, request, venue.encoder.statuses[1]))
    else:
        _change(venue, index, request)
    index = venue.index_of(symbol)
    assert index is not None
    named = {"venue": venue.hub.name, "action": action, "symbol": symbol}
    return {**named, **venue.encoder.describe(venue, index)}


def _change(venue: SimVenue, index: int, request: Request) -> None:
    changeable = venue.encoder.changeable
    if not changeable & request.keys():
        raise ValueError(f"only {', '.join(sorted(changeable))} can change at this venue")
    hours = request.get("funding_interval_hours", venue.contracts.interval_h(index))
    if type(hours) is not int or not 1 <= hours <= 24:
        raise ValueError(f"funding_interval_hours must be 1 to 24, not {hours!r}")
    status = _status(venue, request, venue.statuses[index])
    now = venue.grids[index]
    price = float(venue.middle(index) * now.tick / 10**now.price_decimals)
    grid = venue.encoder.grid(now.symbol, price, request, now)
    if _steps(grid) != _steps(now):
        venue.change_grid(index, grid)
    venue.set_status(index, status)
    venue.contracts.change_interval(index, hours)


def _steps(grid: Grid) -> tuple[int, int, int]:
    return grid.tick, grid.price_decimals, grid.qty_decimals


def _number(request: Request, name: str, default: float) -> float:
    value = request.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")
    return float(value)


def _status(venue: SimVenue, request: Request, default: str) -> str:
    status, known = request.get("status", default), venue.encoder.statuses
    if status not in known:
        raise ValueError(f"status must be one of {', '.join(sorted(known))}, not {status!r}")
    return str(status)
