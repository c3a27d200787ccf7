"""Calls of the simulated Deribit, by REST or on a socket, and the envelopes of what it says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from shards.simulator.core.contracts import Contract
from shards.simulator.core.encoder import Answer, Query
from shards.simulator.core.frames import compact
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.usual import listed_grids
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.deribit.texts import number

__all__ = [
    "CALLS",
    "LISTINGS",
    "TOO_MANY",
    "RpcError",
    "perpetuals",
    "refusal",
    "result",
    "serve",
    "ticker",
]

_FAR_MS: Final = 32_503_708_800_000
"""When what has no end is delivered: in the year 3000."""
_CREATED_MS: Final = 1_534_167_754_000
_DOLLARS: Final = 400.0
"""Of a typical trade of an inverse contract."""

# instrument, start price, price decimals printed, tick in units of the last, quantity decimals
_TABLE: Final[tuple[tuple[str, float, int, int, int], ...]] = (
    ("BTC-PERPETUAL", 81234.5, 1, 5, 0), ("ETH-PERPETUAL", 3123.45, 2, 5, 0),
    ("BTC_USDC-PERPETUAL", 81234.5, 1, 5, 4), ("ETH_USDC-PERPETUAL", 3123.45, 2, 5, 3),
    ("SOL_USDC-PERPETUAL", 187.42, 2, 1, 1), ("XRP_USDC-PERPETUAL", 2.3456, 4, 1, 0),
    ("DOGE_USDC-PERPETUAL", 0.21345, 5, 1, 0), ("AVAX_USDC-PERPETUAL", 28.765, 3, 1, 1),
)  # fmt: skip


class RpcError(Exception):
    """Why a request is refused."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


LISTINGS: Final = "get_instruments"
"""The call that has a limit of its own."""
TOO_MANY: Final = RpcError(10028, "too_many_requests")

Call = Callable[[SimVenue, Query], object]


def serve(call: Call, venue: SimVenue, query: Query) -> Answer:
    """Answer a call by REST."""
    try:
        return Answer(result(call(venue, query), None))
    except RpcError as error:
        return Answer(refusal(error, None), 400)


def result(said: object, request_id: object) -> bytes:
    """Answer a request."""
    return _answer({"result": said}, request_id)


def refusal(error: RpcError, request_id: object) -> bytes:
    """Refuse a request."""
    return _answer({"error": {"code": error.code, "message": str(error)}}, request_id)


def _answer(said: Mapping[str, object], request_id: object) -> bytes:
    named = {} if request_id is None else {"id": request_id}
    at_us = now_ms() * 1000
    times = {"usIn": at_us, "usOut": at_us + 900, "usDiff": 900, "testnet": False}
    return compact({"jsonrpc": "2.0", **named, **said, **times})


def is_inverse(symbol: str) -> bool:
    """Tell whether a contract is priced in dollars and settled in its coin."""
    return "_" not in symbol


def perpetuals(count: int) -> Sequence[Grid]:
    """List the first `count` perpetuals; past the real names, synthetic ones follow."""
    made = listed_grids(
        _TABLE, count,
        lambda n: (f"SIM{n:03d}_USDC-PERPETUAL", 1.0 + (n * 7919 % 9000) / 100.0, 4, 1, 1),
    )  # fmt: skip
    return [replace(g, median_qty=_DOLLARS) if is_inverse(g.symbol) else g for g in made]


def _contract(venue: SimVenue, query: Query) -> Contract:
    contract = venue.contract(query.get("instrument_name"))
    if contract is None:
        raise RpcError(13020, "instrument_not_found")
    return contract


def ticker(venue: SimVenue, contract: Contract) -> dict[str, object]:
    """Say a contract's values of this second."""
    grid, decimals = contract.instrument, contract.mark_decimals
    bid, ask = (level or (0, 0) for level in venue.quote(contract.index))
    index_price = number(contract.index_price, decimals)
    return {
        "timestamp": contract.ts_ms,
        "state": venue.statuses[contract.index],
        "stats": {"high": None, "low": None, "price_change": None, "volume": 0.0},
        "index_price": index_price,
        "instrument_name": grid.symbol,
        "last_price": number(bid[0] * grid.tick, grid.price_decimals),
        "settlement_price": number(contract.settle, decimals),
        "min_price": number(grid.low_ticks * grid.tick, grid.price_decimals),
        "max_price": number(grid.high_ticks * grid.tick, grid.price_decimals),
        "open_interest": number(contract.open_interest, grid.qty_decimals),
        "mark_price": number(contract.mark, decimals),
        "interest_value": 0.0028213400122472977,
        "best_bid_price": number(bid[0] * grid.tick, grid.price_decimals),
        "best_bid_amount": number(bid[1], grid.qty_decimals),
        "best_ask_price": number(ask[0] * grid.tick, grid.price_decimals),
        "best_ask_amount": number(ask[1], grid.qty_decimals),
        "estimated_delivery_price": index_price,
        "current_funding": number(contract.rate, contract.terms.rate_decimals),
        "funding_8h": number(contract.rate // 2, contract.terms.rate_decimals),
    }


def _serve_ticker(venue: SimVenue, query: Query) -> object:
    contract = _contract(venue, query)
    said = ticker(venue, contract)
    return venue.serve_contract("funding", contract, said, contract.ts_ms)


def _instruments(venue: SimVenue, query: Query) -> object:
    """List the perpetuals of one currency or of any."""
    wanted, kind = query.get("currency", "any"), query.get("kind", "future")
    rows = [_instrument(venue, index, grid) for index, grid in enumerate(venue.grids)]
    settled = [row for row in rows if wanted in ("any", row["settlement_currency"])]
    return settled if kind in ("future", "any") else []


def _instrument(venue: SimVenue, index: int, grid: Grid) -> dict[str, object]:
    base = grid.symbol.partition("-")[0].partition("_")[0]
    inverse, lot = is_inverse(grid.symbol), number(1, grid.qty_decimals)
    quote = "USD" if inverse else "USDC"
    tick = number(grid.tick, grid.price_decimals)
    return {
        "price_index": f"{base.lower()}_{quote.lower()}",
        "kind": "future",
        "instrument_name": grid.symbol,
        "max_leverage": 50,
        "maker_commission": 0.0,
        "taker_commission": 0.0005,
        "instrument_type": "reversed" if inverse else "linear",
        "expiration_timestamp": _FAR_MS,
        "creation_timestamp": _CREATED_MS,
        "is_active": not venue.halted(index),
        "state": venue.statuses[index],
        "tick_size": tick,
        "contract_size": lot,
        "instrument_id": 124972 + index,
        "min_trade_amount": lot,
        "max_liquidation_commission": 0.0075,
        "block_trade_commission": 0.00025,
        "block_trade_min_trade_amount": 200000,
        "block_trade_tick_size": tick,
        "settlement_currency": base if inverse else quote,
        "settlement_period": "perpetual",
        "base_currency": base,
        "counter_currency": quote,
        "quote_currency": quote,
        "tick_size_steps": [],
    }


def _currencies(venue: SimVenue, _: Query) -> object:
    """List what contracts are settled in."""
    rows = (_instrument(venue, index, grid) for index, grid in enumerate(venue.grids))
    return [
        {"currency": name, "currency_long": name, "fee_precision": 4, "min_confirmations": 1,
         "min_withdrawal_fee": 0.0, "withdrawal_fee": 0.0, "withdrawal_priorities": [],
         "coin_type": name, "in_cross_collateral_pool": False}
        for name in dict.fromkeys(str(row["settlement_currency"]) for row in rows)
    ]  # fmt: skip


def _time(_: SimVenue, __: Query) -> object:
    return now_ms()


CALLS: Final[Mapping[str, Call]] = {
    "get_time": _time,
    "get_currencies": _currencies,
    LISTINGS: _instruments,
    "ticker": _serve_ticker,
}
"""By name behind `public/`."""
