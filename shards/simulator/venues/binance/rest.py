"""REST of the simulated Binance USD-M venue: metadata, snapshots, history, polled values."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from shards.simulator.core.contracts import Contract, Settlement
from shards.simulator.core.encoder import Answer, Query, ServedCall
from shards.simulator.core.frames import compact, decimal_text, signed_text
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.symbol import Levels, SymbolState
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.listed import delivery_ms

__all__ = [
    "BAD_LIMIT", "FUNDING_CALLS", "NO_SYMBOL", "REST", "Row", "agg_trades", "by_symbol",
    "calls_of", "depth_weight", "exchange_info", "fixed", "funding_info", "funding_rate",
    "futures_depth", "integer", "json_answer", "levels_text", "listed_contract", "of_contract",
    "open_interest", "padded", "premium", "quotes", "rate_text", "size_filters",
]  # fmt: skip

DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
FUNDING_CALLS = "funding_calls"
"""The limit of calls that weigh nothing."""
_ONBOARD_MS = 1_569_398_400_000
_PERPETUAL_MS = 4_133_404_800_000
_USUAL_INTERVAL_H = 8

Row: TypeAlias = dict[str, object]
Rows: TypeAlias = Sequence[Row]


def padded(text: str, places: int) -> str:
    """Give a number at least so many decimals; 0: those that it has."""
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<{places}}" if places else text


def levels_text(state: SymbolState, levels: Levels) -> str:
    """Print levels as the inside of a JSON array of [price, quantity]."""
    return ",".join(f'["{price}","{qty}"]' for price, qty in state.level_texts(levels))


def rate_text(contract: Contract) -> str:
    """Print the rate; nothing where the contract pays none."""
    if not contract.pays:
        return ""
    return signed_text(contract.rate, contract.terms.rate_decimals)


def json_answer(value: object) -> Answer:
    return Answer(compact(cast("list[object]", value)))


def _bad(code: int, message: str) -> Answer:
    return Answer(compact({"code": code, "msg": message}), 400)


NO_SYMBOL = _bad(-1121, "Invalid symbol.")
BAD_LIMIT = _bad(-1130, "Data sent for parameter 'limit' is not valid.")
_BAD_PARAMETER = _bad(-1130, "Data sent for a parameter is not valid.")


def integer(query: Query, name: str, default: int | None) -> int | None:
    """Read a whole number; -1, never legal here, when it is not one."""
    text = query.get(name)
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() else -1


def depth_weight(query: Query) -> int:
    return DEPTH_WEIGHTS.get(integer(query, "limit", 500) or 0, 1)


def fixed(weight: int) -> Callable[[Query], int]:
    return lambda _: weight


def by_symbol(one: int, every: int) -> Callable[[Query], int]:
    return lambda query: one if "symbol" in query else every


def exchange_info(
    venue: SimVenue, symbol: Callable[[Grid, str], Row], *more: Mapping[str, object]
) -> Answer:
    """Say the limit, and what is listed; `more` stands before the one and the other."""
    first, second = more or ({}, {})
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE"}
    return json_answer({
        "timezone": "UTC",
        "serverTime": now_ms(),
        **first,
        "rateLimits": [{**limit, "intervalNum": 1, "limit": venue.gate.weight_limit}],
        "exchangeFilters": [],
        **second,
        "symbols": [symbol(*each) for each in zip(venue.grids, venue.statuses, strict=True)],
    })  # fmt: skip


def _exchange_info(venue: SimVenue, _: Query) -> Answer:
    assets = [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}]
    more = {"futuresType": "U_MARGINED"}, {"assets": assets}
    return exchange_info(venue, _symbol, *more)


def futures_depth(more: Callable[[str], str] = lambda _: "") -> Callable[[SimVenue, Query], Answer]:
    """Serve snapshots of books; `more` is said of a symbol behind the times."""

    def answer(venue: SimVenue, query: Query) -> Answer:
        state, limit = venue.state(query.get("symbol")), integer(query, "limit", 500)
        if state is None or limit is None or limit not in DEPTH_WEIGHTS:
            return NO_SYMBOL if state is None else BAD_LIMIT
        at_ms = now_ms()
        last, bids, asks = venue.serve_book(state, limit, at_ms)
        text = (
            f'{{"lastUpdateId":{last},"E":{at_ms},"T":{at_ms},{more(state.grid.symbol)}'
            f'"bids":[{levels_text(state, bids)}],"asks":[{levels_text(state, asks)}]}}'
        )
        return Answer(text.encode())

    return answer


def agg_trades(venue: SimVenue, query: Query) -> Answer:
    """Give trades by id, also those that were withheld from the stream."""
    state = venue.state(query.get("symbol"))
    if state is None:
        return NO_SYMBOL
    limit, from_id = integer(query, "limit", 500), integer(query, "fromId", None)
    if limit is None or not 1 <= limit <= 1000 or from_id == -1:
        return _BAD_PARAMETER
    first = None
    if from_id is not None:
        first = from_id - int(venue.encoder.trade_ids(state.index, 0, 1)[0])
    served = state.trade_rows.served  # type: ignore[attr-defined]
    rows = ",".join(f"{{{served(trade)}}}" for trade in state.recent(first, limit))
    return Answer(f"[{rows}]".encode())


def of_contract(
    serve: Callable[[SimVenue, Contract, Query], Answer],
) -> Callable[[SimVenue, Query], Answer]:
    def answer(venue: SimVenue, query: Query) -> Answer:
        contract = venue.contract(query.get("symbol"))
        return NO_SYMBOL if contract is None else serve(venue, contract, query)

    return answer


def _premium_index(venue: SimVenue, query: Query) -> Answer:
    if "symbol" in query:
        one = of_contract(lambda _, contract, __: json_answer(premium(venue, contract)))
        return one(venue, query)
    return json_answer([premium(venue, venue.contract_at(index)) for index in venue.trading])


def premium(venue: SimVenue, contract: Contract) -> dict[str, object]:
    decimals = contract.mark_decimals
    answer: dict[str, object] = {
        "symbol": contract.instrument.symbol,
        "markPrice": decimal_text(contract.mark, decimals),
        "indexPrice": decimal_text(contract.index_price, decimals),
        "estimatedSettlePrice": decimal_text(contract.settle, decimals),
        "lastFundingRate": rate_text(contract),
        "interestRate": "0.00010000" if contract.pays else "",
        "nextFundingTime": contract.next_funding_ms,
        "time": contract.ts_ms,
    }
    return venue.serve_contract("funding", contract, answer, contract.ts_ms)


def open_interest(venue: SimVenue, contract: Contract, _: Query, **more: object) -> Answer:
    """Say what is open of a contract."""
    grid = contract.instrument
    answer: Row = {
        "openInterest": decimal_text(contract.open_interest, grid.qty_decimals),
        "symbol": grid.symbol,
        "time": contract.ts_ms,
        **more,
    }
    return json_answer(venue.serve_contract("open_interest", contract, answer, contract.ts_ms))


def funding_rate(venue: SimVenue, contract: Contract, query: Query) -> Answer:
    """Give what was paid, ascending; the newest where no start is given."""
    limit = integer(query, "limit", 100)
    start_ms, end_ms = integer(query, "startTime", None), integer(query, "endTime", None)
    if limit is None or not 1 <= limit <= 1000 or -1 in (start_ms, end_ms):
        return _BAD_PARAMETER
    paid = contract.paid(start_ms or 0, end_ms)
    told = paid[-limit:] if start_ms is None else paid[:limit]
    _record_paid(venue, contract, told)
    return json_answer([
        {
            "symbol": contract.instrument.symbol,
            "fundingTime": each.ts_ms,
            "fundingRate": signed_text(each.rate, contract.terms.rate_decimals),
            "markPrice": decimal_text(each.mark, contract.mark_decimals),
            "rateType": "Regular",
        }
        for each in told
    ])  # fmt: skip


def _record_paid(venue: SimVenue, contract: Contract, told: Sequence[Settlement]) -> None:
    """Put what is told for the first time into the ledger."""
    for paid in told:
        if paid.ts_ms not in contract.served_settled_ms:
            contract.served_settled_ms.add(paid.ts_ms)
            venue.hub.served_counts["funding"] += 1
            venue.ledger.funding(contract.ledger_settlement(paid))


def funding_info(venue: SimVenue, _: Query) -> Answer:
    """Give only the intervals that are not as usual. What is left out is said, too."""
    return json_answer(funding_rows(venue))


def funding_rows(venue: SimVenue) -> Rows:
    """Give the rows of `fundingInfo`."""
    limits = {"adjustedFundingRateCap": "0.02000000", "adjustedFundingRateFloor": "-0.02000000"}
    return [
        {"symbol": symbol, **limits, "fundingIntervalHours": hours, "disclaimer": False}
        for symbol, hours in venue.say_intervals()
        if hours != _USUAL_INTERVAL_H
    ]


def quotes(
    say: Callable[[Row], Row] = lambda row: row, *, as_list: bool = False
) -> Callable[[SimVenue, Query], Answer]:
    """Serve best bids and offers as a market says them, of one symbol alone or `as_list`."""

    def answer(venue: SimVenue, query: Query) -> Answer:
        at_ms = now_ms()
        if "symbol" not in query:
            states = (venue.state_at(index) for index in venue.trading)
            return json_answer([say(_touch(venue, state, at_ms)) for state in states])
        state = venue.state(query["symbol"])
        if state is None:
            return NO_SYMBOL
        row = say(_touch(venue, state, at_ms))
        return json_answer([row] if as_list else row)

    return answer


def _touch(venue: SimVenue, state: SymbolState, at_ms: int) -> dict[str, object]:
    (bid, bid_qty), (ask, ask_qty) = state.side_texts(venue.serve_quote(state, at_ms))
    return {
        "symbol": state.grid.symbol,
        "bidPrice": bid,
        "bidQty": bid_qty,
        "askPrice": ask,
        "askQty": ask_qty,
        "time": at_ms,
        "lastUpdateId": state.last_update,
    }


def size_filters(grid: Grid, places: int = 0) -> Rows:
    """Say the steps of prices and quantities, with so many decimals at least."""
    highest = decimal_text(4 * grid.high_ticks * grid.tick, grid.price_decimals)
    tick, step, top, most = (
        padded(text, places) for text in (grid.tick_text, grid.step_text, highest, "10000000")
    )
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": top, "tickSize": tick},
        {"filterType": "LOT_SIZE", "stepSize": step, "maxQty": most, "minQty": step},
    ]


def listed_contract(grid: Grid, status: str, quote: str, margin: str) -> Row:
    """Say of a contract what both markets of futures do."""
    pair, _, date = grid.symbol.partition("_")
    base = pair.removesuffix(quote)
    price, lot = size_filters(grid)
    return {
        "symbol": grid.symbol, "pair": pair,
        "contractType": "CURRENT_QUARTER" if date not in ("", "PERP") else "PERPETUAL",
        "deliveryDate": delivery_ms(grid.symbol) or _PERPETUAL_MS, "onboardDate": _ONBOARD_MS,
        "status": status, "maintMarginPercent": "2.5000", "requiredMarginPercent": "5.0000",
        "baseAsset": base, "quoteAsset": quote, "marginAsset": margin or base,
        "pricePrecision": grid.price_decimals, "quantityPrecision": grid.qty_decimals,
        "baseAssetPrecision": 8, "quotePrecision": 8, "underlyingType": "COIN",
        "underlyingSubType": [], "triggerProtect": "0.0500", "liquidationFee": "0.012000",
        "marketTakeBound": "0.05",
        "filters": [
            price, lot, {**lot, "filterType": "MARKET_LOT_SIZE"},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500",
             "multiplierDecimal": "4"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP"], "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
    }  # fmt: skip


def _symbol(grid: Grid, status: str) -> Row:
    return listed_contract(grid, status, "USDT", "USDT")


Calls = Mapping[str, tuple[Callable[[SimVenue, Query], Answer], Callable[[Query], int]]]


def calls_of(path: str, calls: Calls) -> Mapping[str, ServedCall]:
    """Serve a market's calls below a path, and those that all have."""
    both: Calls = {
        "ping": (lambda _, __: Answer(b"{}"), fixed(1)),
        "time": (lambda _, __: json_answer({"serverTime": now_ms()}), fixed(1)),
    }
    return {f"{path}/{name}": ServedCall(*call) for name, call in {**both, **calls}.items()}


_FUNDING = {
    "fundingRate": of_contract(funding_rate),
    "fundingInfo": funding_info,
}
REST = {
    **calls_of(
        "fapi/v1",
        {
            "exchangeInfo": (_exchange_info, fixed(1)),
            "depth": (futures_depth(), depth_weight),
            "aggTrades": (agg_trades, fixed(20)),
            "premiumIndex": (_premium_index, by_symbol(1, 10)),
            "openInterest": (of_contract(open_interest), fixed(1)),
            "ticker/bookTicker": (quotes(), by_symbol(2, 5)),
        },
    ),
    **{f"fapi/v1/{name}": ServedCall(call, pool=FUNDING_CALLS) for name, call in _FUNDING.items()},
}
