"""`POST /info` of the simulated Hyperliquid: metadata, contexts, books, history.

What is not of the venue that is asked is empty: a venue of pairs has a first dex without coins.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from shards.simulator.core.contracts import Contract
from shards.simulator.core.encoder import Answer, Query, ServedCall
from shards.simulator.core.frames import compact, decimal_text, signed_text, trimmed_text
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.symbol import Levels, SymbolState
from shards.simulator.core.venue import SimVenue
from shards.simulator.venues.hyperliquid.listed import Pair, dex_of, pair_of, token_rows

__all__ = ["INFO", "answer", "context", "spot_context"]

_HISTORY_PAGE = 500
_ROWS_PER_WEIGHT = {"recentTrades": 20, "fundingHistory": 20}
"""Answers that cost one more for so many rows."""
_LIGHT = frozenset({"l2Book", "allMids"})


class Coins(Protocol):
    """What answers must know of the venue."""

    dexes: Mapping[str, int]
    has_pairs: bool

    def levels_text(self, state: SymbolState, bids: Levels, asks: Levels) -> str:
        """Print both sides of a book."""


def _coins(venue: SimVenue) -> Coins:
    return cast("Coins", venue.encoder)


def context(venue: SimVenue, contract: Contract) -> dict[str, object]:
    """Say a perpetual's values of this second."""
    grid, decimals = contract.instrument, contract.mark_decimals
    bid, ask = venue.quote(contract.index)
    middle, impact, premium = None, None, None
    if bid is not None and ask is not None:
        middle = trimmed_text(5 * (bid[0] + ask[0]), decimals + 1)
        impact = [trimmed_text(side[0], decimals) for side in (bid, ask)]
        above = (contract.mark - contract.index_price) * 10**10 // contract.index_price
        premium = signed_text(above, 10)
    return {
        "funding": signed_text(contract.rate, contract.terms.rate_decimals),
        "openInterest": decimal_text(contract.open_interest, grid.qty_decimals),
        "prevDayPx": trimmed_text(grid.start_ticks, grid.price_decimals),
        "dayNtlVlm": f"{contract.ticks * 1234 + 2_100_000_000}.5",
        "premium": premium,
        "oraclePx": trimmed_text(contract.index_price, decimals),
        "markPx": trimmed_text(contract.mark, decimals),
        "midPx": middle,
        "impactPxs": impact,
        "dayBaseVlm": f"{contract.ticks + 26_000}.1",
    }


def spot_context(venue: SimVenue, index: int) -> dict[str, object]:
    """Say what a pair trades at: it pays no funding, and nothing of it is open."""
    contract, grid = venue.contract_at(index), venue.grids[index]
    bid, ask = venue.quote(index)
    middle = None
    if bid is not None and ask is not None:
        middle = trimmed_text(5 * (bid[0] + ask[0]), grid.price_decimals + 1)
    return {
        "prevDayPx": trimmed_text(grid.start_ticks, grid.price_decimals),
        "dayNtlVlm": f"{contract.ticks * 1234 + 14_350_747}.92152",
        "markPx": trimmed_text(contract.mark, contract.mark_decimals),
        "midPx": middle,
        "circulatingSupply": "597683272.12003005",
        "coin": grid.symbol,
        "totalSupply": "597683276.64275002",
        "dayBaseVlm": f"{contract.ticks + 65_824_101}.0",
    }


def _weigh(query: Query) -> int:
    return 2 if query.get("type") in _LIGHT else 20


def _info(venue: SimVenue, query: Query) -> Answer:
    """Answer `POST /info`, which sockets can ask, too."""
    body = answer(venue, query)
    if body is None:
        text = b"Failed to deserialize the JSON body into the target type"
        return Answer(text, 422, "text/plain")
    rows = _ROWS_PER_WEIGHT.get(query["type"])
    return Answer(body, extra_weight=body.count(b'"coin"') // rows if rows else 0)


def answer(venue: SimVenue, query: Query) -> bytes | None:
    """Answer a query; None for one the venue does not understand."""
    give = _ANSWERS.get(str(query.get("type")))
    return None if give is None else give(venue, query)


def _coins_of(venue: SimVenue, dex: str) -> list[int]:
    """Give the coins of a dex, in its order."""
    if _coins(venue).has_pairs:
        return []
    return [index for index, grid in enumerate(venue.grids) if dex_of(grid.symbol) == dex]


def _meta(venue: SimVenue, dex: str) -> dict[str, object]:
    universe = [
        {"szDecimals": grid.qty_decimals, "name": grid.symbol, "maxLeverage": 20,
         "marginTableId": 20, **({"isDelisted": True} if venue.halted(index) else {})}
        for index in _coins_of(venue, dex)
        for grid in (venue.grids[index],)
    ]  # fmt: skip
    return {
        "universe": universe,
        "marginTables": [],
        "collateralToken": _coins(venue).dexes[dex],
    }


def _of_dex(give: Callable[[SimVenue, str], Any]) -> Callable[[SimVenue, Query], bytes]:
    """Answer for a dex, the first where none is named; null for one that is not there."""

    def answer_of(venue: SimVenue, query: Query) -> bytes:
        dex = str(query.get("dex") or "")
        return compact(give(venue, dex)) if dex in _coins(venue).dexes else b"null"

    return answer_of


def _meta_and_contexts(venue: SimVenue, dex: str) -> list[object]:
    """Give metadata, and one context a coin by position."""
    at_ms, contexts = now_ms(), []
    for index in _coins_of(venue, dex):
        contract = venue.contract_at(index)
        contexts.append(venue.serve_contract("funding", contract, context(venue, contract), at_ms))
    return [_meta(venue, dex), contexts]


def _perp_dexs(venue: SimVenue, _: Query) -> bytes:
    """Give the dexes by number; the first is null."""
    dexes: list[object] = [
        {
            "name": dex,
            "fullName": dex.upper(),
            "deployer": f"0x{number:040x}",
            "oracleUpdater": None,
            "feeRecipient": None,
            "assetToStreamingOiCap": [
                [venue.grids[index].symbol, "2500000.0"] for index in _coins_of(venue, dex)
            ],
            "assetToFundingMultiplier": [],
        }
        for number, dex in enumerate(_coins(venue).dexes)
        if dex
    ]
    return compact([None, *dexes])


def _pairs(venue: SimVenue) -> list[tuple[int, Grid, Pair]]:
    """Give the pairs that are listed, by number, with their places in the market; one that was
    delisted is not there.
    """
    if not _coins(venue).has_pairs:
        return []
    listed = [(index, venue.grids[index]) for index in venue.trading]
    pairs = [(index, grid, pair_of(grid.symbol)) for index, grid in listed]
    return sorted(pairs, key=lambda each: each[2].index)


def _spot_meta(venue: SimVenue) -> dict[str, object]:
    pairs = _pairs(venue)
    universe = [
        {"tokens": [pair.token, pair.quote], "name": grid.symbol, "index": pair.index,
         "isCanonical": not pair.index}
        for _, grid, pair in pairs
    ]  # fmt: skip
    sizes = {pair.token: grid.qty_decimals for _, grid, pair in pairs}
    names = {pair.token: pair.base for _, _, pair in pairs}
    return {"universe": universe, "tokens": token_rows(names, sizes)}


def _spot_meta_and_contexts(venue: SimVenue, _: Query) -> bytes:
    contexts: list[object] = [spot_context(venue, index) for index, _, _ in _pairs(venue)]
    return compact([_spot_meta(venue), contexts])


def _book(venue: SimVenue, query: Query) -> bytes:
    state = venue.state(query.get("coin"))
    if state is None:
        return b"null"
    at_ms = now_ms()
    _, bids, asks = venue.serve_book(state, 20, at_ms)
    levels = _coins(venue).levels_text(state, bids, asks)
    return f'{{"coin":"{state.grid.symbol}","time":{at_ms},"levels":{levels}}}'.encode()


def _recent_trades(venue: SimVenue, query: Query) -> bytes:
    state = venue.state(query.get("coin"))
    if state is None:
        return b"null"
    newest = reversed(state.newest_sent(10))
    return f"[{','.join(state.trade_rows.row(trade) for trade in newest)}]".encode()


def _funding_history(venue: SimVenue, query: Query) -> bytes | None:
    """Give what was paid, ascending, a page at most."""
    start_ms, end_ms = query.get("startTime"), query.get("endTime")
    if not isinstance(start_ms, int) or not isinstance(end_ms, int | None):
        return None
    contract = venue.contract(query.get("coin"))
    if contract is None:
        return b"null"
    decimals = contract.terms.rate_decimals
    rows: list[object] = [
        {
            "coin": contract.instrument.symbol,
            "fundingRate": signed_text(paid.rate, decimals),
            "premium": signed_text(paid.rate * 8, decimals),
            "time": paid.ts_ms,
        }
        for paid in contract.paid(start_ms, end_ms)
    ]
    return compact(rows[:_HISTORY_PAGE])


_ANSWERS: dict[str, Callable[[SimVenue, Query], bytes | None]] = {
    "meta": _of_dex(_meta),
    "metaAndAssetCtxs": _of_dex(_meta_and_contexts),
    "allPerpMetas": lambda venue, _: compact([_meta(venue, dex) for dex in _coins(venue).dexes]),
    "perpDexs": _perp_dexs,
    "spotMeta": lambda venue, _: compact(_spot_meta(venue)),
    "spotMetaAndAssetCtxs": _spot_meta_and_contexts,
    "l2Book": _book,
    "recentTrades": _recent_trades,
    "fundingHistory": _funding_history,
}

INFO = ServedCall(_info, _weigh, "POST")
