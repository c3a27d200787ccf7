"""Binance USD-M futures as the simulator serves it: its symbols, who subscribed to what, trades.

Served on /market: `<s>@aggTrade`, `@markPrice`, `@markPrice@1s`, `@forceOrder`; on /public:
`<s>@bookTicker`, `@depth` and `@depth<5|10|20>` at every speed. Any other name, or a name on the
wrong category, is acknowledged and stays silent, as the real venue does.
"""

from collections.abc import Iterable

import numpy as np

from engine.base.clock import wall_ns
from shards.simulator.core.contracts import Contract, ContractBoard
from shards.simulator.core.frames import compact, payload_of
from shards.simulator.core.instruments import (
    BINANCE_LINEAR,
    VENUE_NAMES,
    Grid,
    binance_instruments,
)
from shards.simulator.core.ledger import TRADE, Ledger, Rows
from shards.simulator.core.pace import BOOK_SLOTS
from shards.simulator.core.sessions import Hub, Session, Topic, write_all
from shards.simulator.core.trade_frames import AggTrades
from shards.simulator.venues.binance_books import DEPTH_NAME, BinanceBooks
from shards.simulator.venues.binance_contracts import BINANCE_TERMS, BinanceContracts
from shards.simulator.venues.binance_listing import SymbolState

_HISTORY_ROWS = 1 << 17
"""Trades of a symbol REST can still give: more than sockets at full speed hold in flight."""

_HISTORY_TOTAL_ROWS = 1 << 22
"""The same over all symbols, 100 MB."""

_CONTRACT_KINDS = frozenset({"markPrice", "markPrice@1s", "forceOrder"})
_MARKET_KINDS = _CONTRACT_KINDS | {"aggTrade"}


class BinanceVenue:
    """The streams of all symbols."""

    def __init__(
        self, count: int, seed: int, ledger: Ledger, liquidations_per_minute: float = 0.0
    ) -> None:
        """List `count` symbols."""
        self.instruments = list(binance_instruments(count))
        self.statuses = ["TRADING"] * count
        self.hub = Hub(VENUE_NAMES[BINANCE_LINEAR], [i.symbol for i in self.instruments])
        self._by_symbol = {i.symbol: index for index, i in enumerate(self.instruments)}
        self._seed = seed
        even_share = 1 << (_HISTORY_TOTAL_ROWS // count).bit_length() - 1
        self._history_rows = min(_HISTORY_ROWS, even_share)
        self._ledger = ledger
        self._listings: dict[int, SymbolState] = {}
        self._slots: list[list[SymbolState]] = [[] for _ in range(BOOK_SLOTS)]
        self.books = BinanceBooks(self.hub, ledger)
        self.contracts = BinanceContracts(
            self.hub,
            ledger,
            ContractBoard(self._open_contract, self.middle),
            liquidations_per_minute,
        )

    @property
    def weights(self) -> list[float]:
        """Each symbol's share of trades, before normalisation."""
        return [instrument.weight for instrument in self.instruments]

    def listing(self, symbol: str) -> SymbolState | None:
        """Give the symbol's state; its book lives from the first time anyone asks."""
        index = self._by_symbol.get(symbol)
        return None if index is None else self.listing_at(index)

    def listing_at(self, index: int) -> SymbolState:
        """Give the state of the symbol with this number."""
        listing = self._listings.get(index)
        if listing is None:
            instrument = self.instruments[index]
            number = self._ledger.number(self.hub.name, instrument.symbol)
            listing = SymbolState(index, number, instrument, self._seed, self._history_rows)
            listing.halted = self.halted(index)
            self._listings[index] = listing
            self._slots[index % BOOK_SLOTS].append(listing)
        return listing

    def contract(self, symbol: str, now_ms: int) -> Contract | None:
        """Give the symbol's funding and open interest."""
        index = self._by_symbol.get(symbol)
        return None if index is None else self.contracts.board.at(index, now_ms)

    def _open_contract(self, index: int) -> Contract:
        instrument = self.instruments[index]
        number = self._ledger.number(self.hub.name, instrument.symbol)
        seeds = (self._seed, 2 * index + BINANCE_LINEAR)
        contract = Contract(index, number, instrument, seeds, BINANCE_TERMS)
        contract.interval_ms = self.contracts.interval_h(index) * 3_600_000
        return contract

    def middle(self, index: int) -> float:
        """Give the middle of a book in ticks; a book nobody asked for stands where it began."""
        listing = self._listings.get(index)
        if listing is None:
            return self.instruments[index].start_ticks + 0.5
        return (listing.market.best_bid + listing.market.best_ask) / 2

    def halted(self, index: int) -> bool:
        """Tell whether the symbol does not trade."""
        return self.statuses[index] != "TRADING"

    def served(self, group: str, name: str) -> bool:
        """Tell whether data flows for this stream name on this category."""
        symbol, _, kind = name.partition("@")
        known = symbol == symbol.lower() and symbol.upper() in self._by_symbol
        if group == "market":
            return known and kind in _MARKET_KINDS
        return known and (kind == "bookTicker" or DEPTH_NAME.fullmatch(kind) is not None)

    def subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Subscribe; names that lead nowhere are kept but stay silent."""
        for name in names:
            if name not in session.names:
                session.names[name] = None
                if self.served(session.group, name):
                    self._open(name)
                    self.hub.subscribe(session, name)

    def _open(self, name: str) -> None:
        """Let what a stream is about live, if it does not yet."""
        symbol, _, kind = name.partition("@")
        index = self._by_symbol[symbol.upper()]
        if kind in _CONTRACT_KINDS:
            self.contracts.board.at(index, wall_ns() // 1_000_000)
        elif DEPTH_NAME.fullmatch(kind):
            self.listing_at(index).chain(kind)
        else:
            self.listing_at(index)

    def unsubscribe(self, session: Session, names: Iterable[str]) -> None:
        """Forget subscriptions."""
        for name in names:
            session.names.pop(name, None)
            self.hub.unsubscribe(session, name)

    def trade_topic(self, index: int) -> Topic | None:
        """Give who listens to the trades of a symbol, if anyone does and it trades."""
        if self.halted(index):
            return None
        return self.hub.topic(f"{self.instruments[index].symbol.lower()}@aggTrade")

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to whoever listens."""
        topic = self.trade_topic(index)
        if topic is None:
            return
        listing = self.listing_at(index)
        if self.hub.spoiler.is_due("trade", listing.instrument.symbol):
            self._spoil_trade(topic, listing, now_ms)
        trades = listing.trade(count, now_ms)
        sent = False
        for combined, sessions in ((False, topic.raw), (True, topic.combined)):
            if sessions:
                frames = listing.renderer(combined=combined).render(trades)
                sent |= write_all(sessions, frames)
        if sent:
            self.hub.trade_counts[index] += count
            if self._ledger.enabled:
                self._ledger.trades(self._trade_rows(listing, trades))

    def _spoil_trade(self, topic: Topic, listing: SymbolState, now_ms: int) -> None:
        symbol = listing.instrument.symbol
        trades = listing.trade(1, now_ms)
        payload = payload_of(bytes(listing.renderer(combined=False).render(trades)))
        spoiled = self.hub.spoiler.frame("trade", symbol, payload)
        if spoiled is not None and topic.push(f"{symbol.lower()}@aggTrade", spoiled):
            times = now_ms, trades.first_id
            self._ledger.unreadable(BINANCE_LINEAR, listing.number, "trade", times, 1)

    def withhold_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to nobody."""
        listing = self.listing_at(index)
        trades = listing.trade(count, now_ms)
        self.hub.withheld_count += count
        if self._ledger.enabled:
            self._ledger.withheld(self._trade_rows(listing, trades))

    def repeat_last_trade(self, index: int) -> bool:
        """Push the latest trade once more. It is in the ledger already."""
        topic, listing = self.trade_topic(index), self.listing_at(index)
        rows = listing.recent_trades(None, 1)
        if topic is None or not rows:
            return False
        row = rows[0]
        stamp = row["T"]
        payload = {"e": "aggTrade", "E": stamp, "s": listing.instrument.symbol, **row, "st": 1}
        topic.push(f"{listing.instrument.symbol.lower()}@aggTrade", compact(payload))
        return True

    def _trade_rows(self, listing: SymbolState, trades: AggTrades) -> Rows:
        instrument = listing.instrument
        rows = np.empty(len(trades.ticks), TRADE)
        rows["venue"] = BINANCE_LINEAR
        rows["symbol"] = listing.number
        rows["ts_event"] = trades.ts_ms * 1_000_000
        rows["trade_id"] = np.arange(trades.first_id, trades.first_id + len(rows))
        rows["side"] = np.where(trades.buy, ord("B"), ord("S"))
        rows["price_mantissa"] = trades.ticks * instrument.tick
        rows["price_decimals"] = instrument.price_decimals
        rows["qty_mantissa"] = listing.market.sizes[trades.size]
        rows["qty_decimals"] = instrument.qty_decimals
        return rows

    def list_symbol(self, instrument: Grid) -> None:
        """List one more symbol, or let a halted one trade again."""
        index = self._by_symbol.get(instrument.symbol)
        if index is None:
            index = self._by_symbol[instrument.symbol] = len(self.instruments)
            self.instruments.append(instrument)
            self.statuses.append("TRADING")
            self.hub.list_symbol(instrument.symbol)
        self.set_status(index, "TRADING")

    def set_status(self, index: int, status: str) -> None:
        """Change whether a symbol trades, and under which word `exchangeInfo` says so."""
        self.statuses[index] = status
        if index in self._listings:
            self._listings[index].halted = self.halted(index)
        self.hub.version += 1

    def change_grid(self, index: int, instrument: Grid, now_ms: int) -> None:
        """Let a symbol trade on another grid; its depth streams say what becomes of the levels."""
        self.instruments[index] = instrument
        contract = self.contracts.board.known(index)
        if contract is not None:
            contract.change_grid(instrument)
        listing = self._listings.get(index)
        if listing is not None:
            self.books.change_grid(listing, instrument, now_ms)

    def step_books(self, slot: int, now_ms: int) -> None:
        """Let 5 ms pass: some books advance, others change at the touch, some contracts tick."""
        for listing in self._slots[slot]:
            if not listing.halted:
                self.books.step(listing, now_ms)
        for listing in self._slots[slot - BOOK_SLOTS // 2]:
            if not listing.halted:
                self.books.nudge(listing, now_ms)
        self.contracts.step(now_ms, self.halted)

    def step_book(self, listing: SymbolState, now_ms: int, *, withheld: bool = False) -> None:
        """Advance one book."""
        self.books.step(listing, now_ms, withheld=withheld)
