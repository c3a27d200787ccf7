"""REST of the simulated Bybit categories."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from shards.simulator.core.contracts import Contract
from shards.simulator.core.encoder import Answer, Query, ServedCall
from shards.simulator.core.frames import compact, decimal_text, signed_text
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.symbol import Levels, SymbolState
from shards.simulator.core.usual import calls_under
from shards.simulator.core.venue import SimVenue

__all__ = ["levels_text", "rest_of", "ticker_fields"]

_LAUNCH_MS: Final = 1_584_230_400_000
_SIDES: Final = 2
"""The venue counts what is open on both."""
_BOOK: Final = "orderbook.1000"

Fields = Mapping[str, str]


def levels_text(state: SymbolState, levels: Levels) -> str:
    """Print levels as the inside of a JSON array of [price, quantity]."""
    return ",".join(f'["{price}","{qty}"]' for price, qty in state.level_texts(levels))


def ticker_fields(venue: SimVenue, contract: Contract) -> Fields:
    """What a ticker says of a contract in this second."""
    grid, decimals = contract.instrument, contract.mark_decimals
    index = venue.index_of(grid.symbol)
    assert index is not None
    touch: dict[str, str] = {}
    for name, side in zip(("bid1", "ask1"), venue.quote(index), strict=True):
        tick, qty = side or (0, 0)
        touch[f"{name}Price"] = venue.encoder.price_text(grid, tick)
        touch[f"{name}Size"] = decimal_text(qty, grid.qty_decimals)
    interest, mark = contract.open_interest, contract.mark
    return {
        "markPrice": decimal_text(mark, decimals),
        "indexPrice": decimal_text(contract.index_price, decimals),
        "openInterest": decimal_text(_SIDES * interest, grid.qty_decimals),
        "singleOpenInterest": decimal_text(interest, grid.qty_decimals),
        "nextFundingTime": str(contract.next_funding_ms),
        "fundingRate": signed_text(contract.rate, contract.terms.rate_decimals),
        "fundingIntervalHour": str(contract.interval_ms // 3_600_000),
        "fundingCap": "0.00375",
        **touch,
    }


def _answer(result: Mapping[str, object], code: int = 0, message: str = "OK") -> Answer:
    said = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}}
    return Answer(compact({**said, "time": now_ms()}))


_NO_SYMBOL: Final = (10001, "params error: symbol invalid")
_NO_CATEGORY: Final = (10001, "params error: category invalid")
_NO_LIMIT: Final = (10001, "params error: limit invalid")


class _Rest:
    """The calls of one category."""

    def __init__(self, category: str) -> None:
        self._category = category

    def calls(self) -> Mapping[str, Callable[[SimVenue, Query], Answer]]:
        found: dict[str, Callable[[SimVenue, Query], Answer]] = {
            "instruments-info": self._instruments,
            "orderbook": self._orderbook,
            "recent-trade": self._recent_trades,
        }
        if self._category != "spot":
            found |= {"tickers": self._tickers, "funding/history": self._funding_history}
        return {path: self._checked(call) for path, call in found.items()}

    def _checked(
        self, call: Callable[[SimVenue, Query], Answer]
    ) -> Callable[[SimVenue, Query], Answer]:
        def answer(venue: SimVenue, query: Query) -> Answer:
            if query.get("category") != self._category:
                return _answer({}, *_NO_CATEGORY)
            return call(venue, query)

        return answer

    def _listed(self, rows: Sequence[object], **more: object) -> Answer:
        return _answer({"category": self._category, "list": rows, **more})

    def _instruments(self, venue: SimVenue, query: Query) -> Answer:
        """Give what trades; where there is paging, a cursor with the place of the next row."""
        grids = [venue.grids[index] for index in venue.trading]
        if "symbol" in query:
            grids = [grid for grid in grids if grid.symbol == query["symbol"]]
        if self._category == "spot":
            return self._listed([_spot_row(grid) for grid in grids])
        limit = _whole(query, "limit", 500, 1000)
        if limit is None:
            return _answer({}, *_NO_LIMIT)
        first = int(query.get("cursor", "first=0").removeprefix("first="))
        end = first + limit
        cursor = f"first%3D{end}" if end < len(grids) else ""
        rows = [self._contract_row(grid, venue) for grid in grids[first:end]]
        return self._listed(rows, nextPageCursor=cursor)

    def _contract_row(self, grid: Grid, venue: SimVenue) -> Mapping[str, object]:
        is_linear = self._category == "linear"
        base = grid.symbol.removesuffix("USDT").removesuffix("USD")
        return {
            "symbol": grid.symbol,
            "contractType": "LinearPerpetual" if is_linear else "InversePerpetual",
            "status": venue.encoder.statuses[0],
            "baseCoin": base,
            "quoteCoin": "USDT" if is_linear else "USD",
            "settleCoin": "USDT" if is_linear else base,
            "launchTime": str(_LAUNCH_MS),
            "deliveryTime": "0",
            "deliveryFeeRate": "",
            "priceScale": str(grid.price_decimals),
            "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
            "priceFilter": {
                "minPrice": grid.tick_text,
                "maxPrice": decimal_text(4 * grid.high_ticks * grid.tick, grid.price_decimals),
                "tickSize": grid.tick_text,
            },
            "lotSizeFilter": {
                "maxOrderQty": "10000000", "minOrderQty": grid.step_text,
                "qtyStep": grid.step_text, "minNotionalValue": "5",
            },
            "fundingInterval": venue.encoder.terms.interval_ms // 60_000,
            "isPreListing": False,
            "symbolType": "",
        }  # fmt: skip

    def _tickers(self, venue: SimVenue, query: Query) -> Answer:
        indexes = venue.trading
        if "symbol" in query:
            index = venue.index_of(query["symbol"])
            if index is None:
                return _answer({}, *_NO_SYMBOL)
            indexes = [index]
        return self._listed([_ticker(venue, venue.contract_at(index)) for index in indexes])

    def _orderbook(self, venue: SimVenue, query: Query) -> Answer:
        """Give a book as of the last event of the stream that says as many levels."""
        state = venue.state(query.get("symbol"))
        limit = _whole(query, "limit", 25, 1000)
        if state is None or limit is None:
            return _answer({}, *(_NO_SYMBOL if state is None else _NO_LIMIT))
        link = state.chain(_BOOK)
        bids, asks = (state.level_texts(side[:limit]) for side in link.whole())
        said = {"s": state.grid.symbol, "b": bids, "a": asks, "u": link.last}
        return _answer({**said, **dict.fromkeys(("ts", "cts"), now_ms())})

    def _recent_trades(self, venue: SimVenue, query: Query) -> Answer:
        """Give the newest trades that somebody got, the newest first."""
        state = venue.state(query.get("symbol"))
        most = 60 if self._category == "spot" else 1000
        limit = _whole(query, "limit", min(500, most), most)
        if state is None or limit is None:
            return _answer({}, *(_NO_SYMBOL if state is None else _NO_LIMIT))
        rows = state.trade_rows
        told = [rows.served(trade) for trade in reversed(state.newest_sent(limit))]  # type: ignore[attr-defined]
        return self._listed(told)

    def _funding_history(self, venue: SimVenue, query: Query) -> Answer:
        """Give what was paid, the newest first."""
        contract, limit = venue.contract(query.get("symbol")), _whole(query, "limit", 200, 200)
        if contract is None or limit is None:
            return _answer({}, *(_NO_SYMBOL if contract is None else _NO_LIMIT))
        start_ms, end_ms = int(query.get("startTime", "0")), query.get("endTime")
        paid = contract.paid(start_ms, None if end_ms is None else int(end_ms))
        decimals = contract.terms.rate_decimals
        rows = [
            {
                "symbol": contract.instrument.symbol,
                "fundingRate": signed_text(each.rate, decimals),
                "fundingRateTimestamp": str(each.ts_ms),
            }
            for each in reversed(paid)
        ]
        return self._listed(rows[:limit])


def _spot_row(grid: Grid) -> Mapping[str, object]:
    return {
        "symbol": grid.symbol,
        "baseCoin": grid.symbol.removesuffix("USDT"),
        "quoteCoin": "USDT",
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "utaOnly",
        "lotSizeFilter": {
            "basePrecision": grid.step_text, "quotePrecision": "0.00000001",
            "minOrderQty": grid.step_text, "maxOrderQty": "10000000", "minOrderAmt": "5",
            "maxOrderAmt": "8000000",
        },
        "priceFilter": {"tickSize": grid.tick_text},
        "symbolType": "",
    }  # fmt: skip


def _ticker(venue: SimVenue, contract: Contract) -> Mapping[str, object]:
    answer: dict[str, object] = {
        "symbol": contract.instrument.symbol,
        **ticker_fields(venue, contract),
        "deliveryTime": "0",
        "basisRate": "",
        "deliveryFeeRate": "",
        "predictedDeliveryPrice": "",
    }
    return venue.serve_contract("funding", contract, answer, now_ms())


def _whole(query: Query, name: str, usual: int, most: int) -> int | None:
    """Read a whole number above 0; None where it is not one."""
    text = str(query.get(name, usual))
    number = int(text) if text.isascii() and text.isdigit() else 0
    return min(number, most) if number else None


def _time(_: SimVenue, __: Query) -> Answer:
    at_ms = now_ms()
    return _answer({"timeSecond": str(at_ms // 1000), "timeNano": str(at_ms * 1_000_000)})


def rest_of(category: str) -> Mapping[str, ServedCall]:
    """The calls of a category by path; each weighs the same."""
    return calls_under("v5/market", {"time": _time, **_Rest(category).calls()})
