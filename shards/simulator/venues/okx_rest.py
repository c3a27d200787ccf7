"""REST of the simulated OKX, and what its messages are made of."""

from collections.abc import Callable, Mapping, Sequence

from shards.simulator.core.contracts import Contract
from shards.simulator.core.encoder import Answer, Query, ServedCall
from shards.simulator.core.frames import compact, decimal_text, signed_text
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.symbol import Levels, SymbolState
from shards.simulator.core.venue import SimVenue

__all__ = [
    "EXPIRY",
    "MALFORMED",
    "REST",
    "family",
    "funding_rate",
    "levels_of",
    "message",
    "of_contract",
    "open_interest",
    "pair",
    "type_of",
]

EXPIRY = "310404"
_EXPIRY_MS, _LISTED_MS = 1_933_056_000_000, 1_611_916_828_000
_TYPES = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION")
_EMPTY = ("alias", "baseCcy", "quoteCcy", "optType", "stk", "auctionEndTime")


def type_of(symbol: str) -> str:
    """Give an instrument's type."""
    return "SWAP" if symbol.endswith("-SWAP") else "FUTURES"


def pair(symbol: str) -> tuple[str, str]:
    """Give base and quote currency; with a dash between they are the name of the index."""
    base, quote, *_ = symbol.split("-")
    return base, quote.partition("_")[0]


def family(symbol: str) -> str:
    """Name the instruments that differ in their dates alone."""
    return "-".join(symbol.split("-")[:2])


def message(channel: str, name: str, rows: Sequence[object], **more: object) -> bytes:
    """Write a message of a channel about an instrument, or a type of them."""
    key = "instType" if channel == "liquidation-orders" else "instId"
    return compact({"arg": {"channel": channel, key: name}, **more, "data": rows})


def levels_of(state: SymbolState, levels: Levels) -> list[list[str]]:
    """Say levels: price, size, a number without meaning, orders."""
    decimals = state.grid.qty_decimals
    return [
        [state.price_text(tick), decimal_text(qty, decimals), "0", "1" if qty else "0"]
        for tick, qty in levels
    ]


def of_contract(contract: Contract, **values: str) -> dict[str, object]:
    """Say values of a contract, of its present moment."""
    symbol = contract.instrument.symbol
    return {"instType": type_of(symbol), "instId": symbol, **values, "ts": str(contract.ts_ms)}


def funding_rate(contract: Contract) -> dict[str, object]:
    """Say the rate that is paid next."""
    paid_ms = contract.next_funding_ms
    return of_contract(
        contract, fundingRate=signed_text(contract.rate, contract.terms.rate_decimals),
        fundingTime=str(paid_ms), nextFundingTime=str(paid_ms + contract.interval_ms),
        nextFundingRate="", method="current_period", formulaType="withRate", settState="settled",
    )  # fmt: skip


def open_interest(contract: Contract) -> dict[str, object]:
    """Say open interest, in contracts; the coins are a hundredth of them."""
    interest, decimals = contract.open_interest, contract.instrument.qty_decimals
    coins = decimal_text(interest, decimals + 2)
    return of_contract(contract, oi=decimal_text(interest, decimals), oiCcy=coins)


def _answer(*rows: object) -> Answer:
    return Answer(compact({"code": "0", "msg": "", "data": list(rows)}))


def _refusal(code: str, words: str) -> Answer:
    return Answer(compact({"code": code, "msg": words, "data": []}))


def _instruments(venue: SimVenue, query: Query) -> Answer:
    """Give those of a type."""
    kind = query.get("instType")
    if kind not in _TYPES:
        return _refusal("51000", "Parameter instType error")
    listed = zip(venue.grids, venue.statuses, strict=True)
    return _answer(*(_row(*each) for each in listed if type_of(each[0].symbol) == kind))


def _row(grid: Grid, status: str) -> dict[str, object]:
    base, quote = pair(grid.symbol)
    kind = type_of(grid.symbol)
    return {
        **dict.fromkeys(_EMPTY, ""),
        "instId": grid.symbol, "instType": kind, "uly": f"{base}-{quote}",
        "instFamily": family(grid.symbol), "settleCcy": quote, "ctVal": "0.01", "ctMult": "1",
        "ctValCcy": base, "ctType": "linear", "tickSz": grid.tick_text, "lotSz": grid.step_text,
        "minSz": grid.step_text, "lever": "50", "listTime": str(_LISTED_MS),
        "expTime": str(_EXPIRY_MS) if kind == "FUTURES" else "", "state": status,
        "ruleType": "normal", "category": "1",
    }  # fmt: skip


def _of_contract(
    kind: str, say: Callable[[Contract], dict[str, object]]
) -> Callable[[SimVenue, Query], Answer]:
    def serve(venue: SimVenue, query: Query) -> Answer:
        contract = venue.contract(query.get("instId"))
        if contract is None:
            return _refusal("51001", "Instrument ID doesn't exist.")
        return _answer(venue.serve_contract(kind, contract, say(contract), contract.ts_ms))

    return serve


REST: Mapping[str, ServedCall] = {
    f"api/v5/public/{name}": ServedCall(call)
    for name, call in (
        ("instruments", _instruments),
        ("time", lambda *_: _answer({"ts": str(now_ms())})),
        ("funding-rate", _of_contract("funding", funding_rate)),
        ("open-interest", _of_contract("open_interest", open_interest)),
    )
}

_TRADE: Mapping[str, object] = {
    "instId": "BTC-USDT-SWAP", "tradeId": "990000123", "px": "81234.5", "sz": "3", "side": "buy",
    "ts": "1795000000321", "count": "2", "seqId": 7700012345,
}  # fmt: skip
_NONSENSE: Mapping[str, Mapping[str, object]] = {
    "wrong_types": {"px": 81234.5, "tradeId": []},
    "missing_fields": {"sz": None},
    "nan_price": {"px": "NaN"},
    "infinite_price": {"px": "Infinity"},
    "huge_number": {"tradeId": "9" * 400},
}
MALFORMED: Mapping[str, bytes] = {
    name: message("trades", "BTC-USDT-SWAP", [{**_TRADE, **changes}])
    for name, changes in _NONSENSE.items()
}
"""Trades that are none."""
