"""Books of the simulated Binance venue: depth at every speed, snapshots, best bid and offer.

A book changes every 100 ms (`step`) and, at the touch only, half way between (`nudge`). Depth
events cover what happened since the last of their stream; `bookTicker` follows each change of the
touch at once, so a client that sees both finds them equal at equal `u`.
"""

import re

import numpy as np
from numpy.typing import NDArray

from shards.simulator.core.instruments import BINANCE_LINEAR, Grid, decimal_text
from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, BOOK, Ledger, Rows
from shards.simulator.core.market import Step
from shards.simulator.core.sessions import Hub
from shards.simulator.venues.binance_listing import DepthChain, SymbolState

__all__ = ["DEPTH_NAME", "BinanceBooks"]

Levels = list[tuple[int, int]]

DEPTH_NAME = re.compile(r"depth(5|10|20)?(@100ms|@250ms|@500ms|@0ms)?")
"""Depth streams behind the symbol. Without a speed: 250 ms. A number of levels: always the top."""

_BOTH_SIDES = BID_PRESENT | ASK_PRESENT


class BinanceBooks:
    """Moves books and says what changed."""

    def __init__(self, hub: Hub, ledger: Ledger) -> None:
        self._hub = hub
        self._ledger = ledger

    def step(self, listing: SymbolState, now_ms: int, *, withheld: bool = False) -> None:
        """Advance a book by 100 ms. Its ids go on whether or not anyone listens."""
        change = listing.market.step()
        listing.steps += 1
        listing.advance(change, listing.next_update())
        for name, chain in listing.chains.items():
            if _due(name, listing.steps):
                if not withheld:
                    self._push_depth(listing, name, chain, now_ms)
                chain.restart(listing.last_update)
        self.push_touch(listing, now_ms)

    def nudge(self, listing: SymbolState, now_ms: int) -> None:
        """Change the touch half way to the next step."""
        listing.advance(listing.market.nudge(), listing.next_update())
        for name, chain in listing.chains.items():
            if name.endswith("@0ms"):
                self._push_depth(listing, name, chain, now_ms)
                chain.restart(listing.last_update)
        self.push_touch(listing, now_ms)

    def change_grid(self, listing: SymbolState, instrument: Grid, now_ms: int) -> None:
        """Take every level away, then quote the levels of the new grid."""
        market = listing.market
        gone = Step(dict.fromkeys(market.bids, 0), dict.fromkeys(market.asks, 0))
        self._say(listing, gone, now_ms)
        listing.change_grid(instrument)
        market = listing.market
        self._say(listing, Step(dict(market.bids), dict(market.asks)), now_ms)
        self.push_touch(listing, now_ms)

    def _say(self, listing: SymbolState, change: Step, now_ms: int) -> None:
        listing.advance(change, listing.next_update())
        for name, chain in listing.chains.items():
            self._push_depth(listing, name, chain, now_ms)
            chain.restart(listing.last_update)

    def _push_depth(self, listing: SymbolState, name: str, chain: DepthChain, now_ms: int) -> None:
        symbol = listing.instrument.symbol
        stream = f"{symbol.lower()}@{name}"
        topic = self._hub.topic(stream)
        if topic is None:
            return
        count = top_count(name)
        if count:
            bids, asks = listing.market.top(count)
        else:
            bids = sorted(chain.bids.items(), reverse=True)
            asks = sorted(chain.asks.items())
        last, previous = listing.last_update, chain.last
        payload = (
            f'{{"e":"depthUpdate","E":{now_ms},"T":{now_ms},"s":"{symbol}","ps":"{symbol}",'
            f'"U":{chain.first},"u":{last},"pu":{previous},"b":[{listing.levels_text(bids)}],'
            f'"a":[{listing.levels_text(asks)}],"st":1}}'
        )
        spoiled = self._hub.spoiler.frame("book", symbol, payload.encode())
        if spoiled is not None:
            if topic.push(stream, spoiled):
                times, levels = (now_ms, last), max(1, len(bids) + len(asks))
                self._ledger.unreadable(BINANCE_LINEAR, listing.number, "book", times, levels)
        elif topic.push(stream, payload.encode()):
            self._hub.book_event_count += 1
            self._hub.book_counts[listing.index] += max(1, len(bids) + len(asks))
            if self._ledger.enabled:
                rows = book_rows(listing, now_ms, (last, previous), bids, asks)
                rows["snapshot"] = int(count > 0)
                self._ledger.book(rows)

    def push_touch(self, listing: SymbolState, now_ms: int) -> None:
        """Push the best bid and offer if it changed."""
        touch = listing.market.touch()
        if touch == listing.touch:
            return
        listing.touch = touch
        symbol = listing.instrument.symbol
        stream = f"{symbol.lower()}@bookTicker"
        topic = self._hub.topic(stream)
        if topic is None:
            return
        bid, bid_qty, ask, ask_qty = self._touch_texts(listing)
        payload = (
            f'{{"e":"bookTicker","u":{listing.last_update},"s":"{symbol}","ps":"{symbol}",'
            f'"b":"{bid}","B":"{bid_qty}","a":"{ask}","A":"{ask_qty}",'
            f'"T":{now_ms},"E":{now_ms},"st":1}}'
        )
        spoiled = self._hub.spoiler.frame("quote", symbol, payload.encode())
        if spoiled is not None:
            if topic.push(stream, spoiled):
                times = now_ms, listing.last_update
                self._ledger.unreadable(BINANCE_LINEAR, listing.number, "quote", times, 1)
        elif topic.push(stream, payload.encode()):
            self._hub.counts["quote"][listing.index] += 1
            self._ledger.quote(_quote_row(listing, now_ms, rest=0))

    def touch(self, listing: SymbolState, now_ms: int) -> dict[str, object]:
        """Answer `GET /ticker/bookTicker` for one symbol."""
        bid, bid_qty, ask, ask_qty = self._touch_texts(listing)
        if listing.served_update < listing.last_update:
            listing.served_update = listing.last_update
            self._hub.served_counts["quote"] += 1
            self._ledger.quote(_quote_row(listing, now_ms, rest=1))
        return {
            "symbol": listing.instrument.symbol,
            "bidPrice": bid,
            "bidQty": bid_qty,
            "askPrice": ask,
            "askQty": ask_qty,
            "time": now_ms,
            "lastUpdateId": listing.last_update,
        }

    @staticmethod
    def _touch_texts(listing: SymbolState) -> tuple[str, str, str, str]:
        bid, bid_qty, ask, ask_qty = listing.market.touch()
        decimals = listing.instrument.qty_decimals
        return (
            listing.price_text(bid),
            decimal_text(bid_qty, decimals),
            listing.price_text(ask),
            decimal_text(ask_qty, decimals),
        )

    def depth(self, listing: SymbolState, limit: int, now_ms: int, *, stale: bool) -> bytes:
        """Answer `GET /depth`; a stale answer claims an id far behind every pushed event."""
        bids, asks = listing.market.top(limit)
        last = listing.last_update - (5_000_000 if stale else 0)
        if self._ledger.enabled:
            rows = book_rows(listing, now_ms, (last, 0), bids, asks)
            rows["snapshot"] = 1
            self._ledger.snapshot(rows)
        text = (
            f'{{"lastUpdateId":{last},"E":{now_ms},"T":{now_ms},'
            f'"bids":[{listing.levels_text(bids)}],"asks":[{listing.levels_text(asks)}]}}'
        )
        return text.encode()


def top_count(name: str) -> int:
    """Levels a side of a stream that always says the whole top; 0 for one that says changes."""
    match = DEPTH_NAME.fullmatch(name)
    return int(match[1] or 0) if match else 0


def _due(name: str, steps: int) -> bool:
    """Tell whether a stream of this speed has an event after so many steps of 100 ms."""
    if name.endswith(("@100ms", "@0ms")):
        return True
    if name.endswith("@500ms"):
        return steps % 5 == 0
    return steps * 2 % 5 < 2  # every 250 ms: after three steps, then after two


def book_rows(
    listing: SymbolState, now_ms: int, chain: tuple[int, int], bids: Levels, asks: Levels
) -> Rows:
    """Make ledger rows of an event; one marker row if it has no level."""
    levels: NDArray[np.int64] = np.array([*bids, *asks] or [(0, 0)], np.int64)
    instrument = listing.instrument
    rows = np.empty(len(levels), BOOK)
    rows["venue"] = BINANCE_LINEAR
    rows["symbol"] = listing.number
    rows["ts_event"] = now_ms * 1_000_000
    rows["seq"], rows["prev_seq"] = chain
    rows["side"] = ord("a") if bids or asks else ord("-")
    rows["side"][: len(bids)] = ord("b")
    rows["price_mantissa"] = levels[:, 0] * instrument.tick
    rows["price_decimals"] = instrument.price_decimals
    rows["qty_mantissa"] = levels[:, 1]
    rows["qty_decimals"] = instrument.qty_decimals
    rows["snapshot"] = 0
    return rows


def _quote_row(listing: SymbolState, now_ms: int, *, rest: int) -> tuple[int, ...]:
    bid, bid_qty, ask, ask_qty = listing.market.touch()
    grid = listing.instrument
    return (
        BINANCE_LINEAR, listing.number, now_ms * 1_000_000, listing.last_update,
        bid * grid.tick, bid_qty, ask * grid.tick, ask_qty,
        grid.price_decimals, grid.qty_decimals, _BOTH_SIDES, rest,
    )  # fmt: skip
