"""Hyperliquid perpetuals as the simulator serves them: trades, whole books, best bid and offer.

Books come in two variants on two venue-wide clocks: 20 levels slow, 5 levels fast. Both carry the
same channel and coin; only `"fast":true` in the frame tells them apart. The ledger keeps both under
the coin, with the frame's time as `seq` and the previous time of that variant as `prev_seq`.
"""

from collections import deque
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.base.clock import monotonic_ns
from shards.simulator.core.contracts import Contract, ContractBoard
from shards.simulator.core.frames import text_frame
from shards.simulator.core.instruments import (
    HYPERLIQUID_PERP,
    VENUE_NAMES,
    Grid,
    hyperliquid_instruments,
    trimmed_text,
)
from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, BOOK, TRADE, Ledger, Rows
from shards.simulator.core.market import Market
from shards.simulator.core.pace import BOOK_SLOTS
from shards.simulator.core.sessions import Hub, Session, Topic, write_all
from shards.simulator.core.trade_frames import CoinTradeRenderer, CoinTrades, size_text
from shards.simulator.venues.hyperliquid_contexts import HYPERLIQUID_TERMS, AssetContexts

__all__ = ["Coin", "HyperliquidVenue"]

HISTORY_ROWS = 50
HISTORY_MS = 20_000
_FIRST_HISTORY_ROWS = 10
_FAST_LEVELS = 5
_SLOW_LEVELS = 20
_TID_LOW = 10**14
_TID_SPAN = 9 * 10**14
_TID_STRIDE = 123_456_789_012_347
"""Coprime to the span: ids look random, repeat only after all were used, and fit 50 bits."""

_LIVELY_COINS = 5


Quote: TypeAlias = tuple[tuple[int, int] | None, tuple[int, int] | None]
"""Best bid and best ask as (price, quantity); None where that side is empty."""


class Coin:
    """One coin: its market, its trade ids, its renderer and the rows a new subscriber gets."""

    def __init__(self, index: int, number: int, instrument: Grid, seed: int) -> None:
        """Open the book of coin `index`, which the ledger knows under `number`."""
        self.index = index
        self.number = number
        self._seed = seed
        rng = np.random.default_rng(np.random.SeedSequence((seed, self._stream, 1)))
        self.change_grid(instrument, rng)
        self.history: deque[tuple[int, bytes]] = deque(maxlen=HISTORY_ROWS)
        self.had_subscriber = False
        self.book_ms = {False: 0, True: 0}
        self.quote_ms = 0
        self.quoted: Quote | None = None
        """The best bid and offer said last."""
        self.delisted = False
        self.empty_until_ns = {"bid": 0, "ask": 0}
        """Until when a side shows no order (fault `empty_side`)."""
        self._rng = rng
        self._serial = int(rng.integers(0, 1 << 40))
        self._order_counts = rng.integers(1, 12, 1024).tolist()

    @property
    def _stream(self) -> int:
        return 2 * self.index + HYPERLIQUID_PERP

    def change_grid(self, instrument: Grid, rng: np.random.Generator | None = None) -> None:
        """Trade on this grid from now on: a book, sizes and texts of its own."""
        self.instrument = instrument
        activity = 8 if self.index < _LIVELY_COINS else 3
        self.market = Market(instrument, self._seed, self._stream, activity)
        self.renderer = CoinTradeRenderer(instrument, self.market.sizes, rng or self._rng)

    def step(self) -> None:
        """Advance the book; a quiet coin's book often stands still between two frames."""
        if self.index < _LIVELY_COINS or self._rng.random() < 0.25:
            self.market.step()

    def trade(self, count: int, now_ms: int) -> CoinTrades:
        """Let `count` trades happen now."""
        tape = self.market.take(count)
        steps = np.arange(count)
        first = self._serial * _TID_STRIDE % _TID_SPAN
        trades = CoinTrades(
            ts_ms=now_ms,
            ticks=self.market.prices(tape),
            size=tape.size,
            buy=tape.buy,
            tid=_TID_LOW + (first + steps * _TID_STRIDE) % _TID_SPAN,
            serial=self._serial + steps,
        )
        self._serial += count
        return trades

    def levels(self, count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], str]:
        """Give the top of the book, and the same as the venue prints it."""
        bids, asks = self.market.top(count)
        bids, asks = bids if self.shows("bid") else [], asks if self.shows("ask") else []
        text = ",".join(
            "[" + ",".join(self.level_text(tick, qty) for tick, qty in side) + "]"
            for side in (bids, asks)
        )
        return bids, asks, f"[{text}]"

    def shows(self, side: str) -> bool:
        """Tell whether a side of the book has orders."""
        return not self.delisted and monotonic_ns() >= self.empty_until_ns[side]

    def quote(self) -> Quote:
        """Give best bid and offer."""
        bid, bid_qty, ask, ask_qty = self.market.touch()
        return (
            (bid, bid_qty) if self.shows("bid") else None,
            (ask, ask_qty) if self.shows("ask") else None,
        )

    def level_text(self, tick: int, qty: int) -> str:
        price = trimmed_text(tick, self.instrument.price_decimals)
        size = size_text(qty, self.instrument.qty_decimals)
        return f'{{"px":"{price}","sz":"{size}","n":{self._order_counts[(tick ^ qty) & 1023]}}}'


class HyperliquidVenue:
    """The streams of all coins."""

    def __init__(self, count: int, seed: int, ledger: Ledger, slow_book_s: float) -> None:
        """List `count` coins."""
        self.instruments = list(hyperliquid_instruments(count))
        self.delisted = [False] * count
        self.hub = Hub(VENUE_NAMES[HYPERLIQUID_PERP], [i.symbol for i in self.instruments])
        self._by_symbol = {i.symbol: index for index, i in enumerate(self.instruments)}
        self._seed = seed
        self._ledger = ledger
        self._coins: dict[int, Coin] = {}
        self._slots: list[list[Coin]] = [[] for _ in range(BOOK_SLOTS)]
        self._periods_ns = {False: int(slow_book_s * 1e9), True: 540_000_000}
        self._next_frame_ns = {False: 0, True: 0}
        self.contexts = AssetContexts(
            self.hub, ledger, ContractBoard(self._open_contract, self.middle), self.quote
        )

    @property
    def weights(self) -> list[float]:
        """Each coin's share of trades, before normalisation."""
        return [instrument.weight for instrument in self.instruments]

    def coin(self, symbol: str) -> Coin | None:
        """Give the coin's state; its book lives from the first time anyone asks."""
        index = self._by_symbol.get(symbol)
        return None if index is None else self.coin_at(index)

    def coin_at(self, index: int) -> Coin:
        """Give the state of the coin with this number."""
        coin = self._coins.get(index)
        if coin is None:
            instrument = self.instruments[index]
            number = self._ledger.number(self.hub.name, instrument.symbol)
            coin = self._coins[index] = Coin(index, number, instrument, self._seed)
            coin.delisted = self.delisted[index]
            self._slots[index % BOOK_SLOTS].append(coin)
        return coin

    def _open_contract(self, index: int) -> Contract:
        instrument = self.instruments[index]
        number = self._ledger.number(self.hub.name, instrument.symbol)
        seeds = (self._seed, 2 * index + HYPERLIQUID_PERP)
        self._ledger.interval((HYPERLIQUID_PERP, number, 0, HYPERLIQUID_TERMS.interval_ms // 1000))
        return Contract(index, number, instrument, seeds, HYPERLIQUID_TERMS)

    def middle(self, index: int) -> float:
        """Give the middle of a book in ticks; a book nobody asked for stands where it began."""
        coin = self._coins.get(index)
        if coin is None:
            return self.instruments[index].start_ticks + 0.5
        return (coin.market.best_bid + coin.market.best_ask) / 2

    def quote(self, index: int) -> Quote:
        """Give best bid and offer; a book nobody asked for stands where it began."""
        coin = self._coins.get(index)
        if coin is not None:
            return coin.quote()
        start = self.instruments[index].start_ticks
        return (None, None) if self.delisted[index] else ((start, 1), (start + 1, 1))

    def coin_number(self, symbol: str) -> int | None:
        """Give the coin's place in the universe."""
        return self._by_symbol.get(symbol)

    def trade_topic(self, index: int) -> Topic | None:
        """Give who listens to the trades of a coin, if anyone does and it trades."""
        if self.delisted[index]:
            return None
        return self.hub.topic(f"trades:{self.instruments[index].symbol}")

    def send_history(self, session: Session, coin: Coin, now_ms: int) -> None:
        """Send a new subscriber its first frame: what traded in the last seconds.

        The first subscriber ever finds a market that has been trading before it came, so those
        trades happen here, dated back. Later ones get rows that the ledger has already.
        """
        rows = [row for ts_ms, row in coin.history if ts_ms >= now_ms - HISTORY_MS]
        past: list[CoinTrades] = []
        if not coin.had_subscriber:
            coin.had_subscriber = True
            ages = range(HISTORY_MS - 1500, 0, -(HISTORY_MS - 1500) // _FIRST_HISTORY_ROWS)
            past = [coin.trade(1, now_ms - age) for age in ages]
            coin.history.extend((one.ts_ms, coin.renderer.rows(one)[0]) for one in past)
            rows = [row for _, row in coin.history]
        if session.write(coin.renderer.frame(rows)):
            self._record(coin, past)

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to whoever listens."""
        topic = self.trade_topic(index)
        if topic is None:
            return
        coin = self.coin_at(index)
        if self.hub.spoiler.is_due("trade", coin.instrument.symbol):
            self._spoil_trade(topic, coin, now_ms)
        trades = coin.trade(count, now_ms)
        frames, rows = coin.renderer.render(trades, HISTORY_ROWS)
        if write_all(topic.raw, frames):
            coin.history.extend((now_ms, row) for row in rows)
            self._record(coin, [trades])

    def _spoil_trade(self, topic: Topic, coin: Coin, now_ms: int) -> None:
        """Push three trades in one frame, the second of which nobody can read."""
        first, second, third = (coin.trade(1, now_ms) for _ in range(3))
        rows = [coin.renderer.rows(each)[0] for each in (first, second, third)]
        spoiled = self.hub.spoiler.frame("trade", coin.instrument.symbol, rows[1])
        assert spoiled is not None
        frame = coin.renderer.FRAME_HEAD + b",".join([rows[0], spoiled, rows[2]]) + b"]}"
        if write_all(topic.raw, text_frame(frame)):
            coin.history.extend((now_ms, row) for row in (rows[0], rows[2]))
            self._record(coin, [first, third])
            times = now_ms, int(second.tid[0])
            self._ledger.unreadable(HYPERLIQUID_PERP, coin.number, "trade", times, 1)

    def _record(self, coin: Coin, parts: list[CoinTrades]) -> None:
        self.hub.trade_counts[coin.index] += sum(len(part.ticks) for part in parts)
        if self._ledger.enabled:
            for part in parts:
                self._ledger.trades(self._trade_rows(coin, part))

    def withhold_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them to nobody."""
        coin = self.coin_at(index)
        trades = coin.trade(count, now_ms)
        self.hub.withheld_count += count
        if self._ledger.enabled:
            self._ledger.withheld(self._trade_rows(coin, trades))

    def repeat_last_trade(self, index: int) -> bool:
        """Push the latest trade once more. It is in the ledger already."""
        topic, coin = self.trade_topic(index), self.coin_at(index)
        if topic is None or not coin.history:
            return False
        return write_all(topic.raw, coin.renderer.frame([coin.history[-1][1]]))

    def _trade_rows(self, coin: Coin, trades: CoinTrades) -> Rows:
        instrument = coin.instrument
        rows = np.empty(len(trades.ticks), TRADE)
        rows["venue"] = HYPERLIQUID_PERP
        rows["symbol"] = coin.number
        rows["ts_event"] = trades.ts_ms * 1_000_000
        rows["trade_id"] = trades.tid
        rows["side"] = np.where(trades.buy, ord("B"), ord("S"))
        rows["price_mantissa"] = trades.ticks
        rows["price_decimals"] = instrument.price_decimals
        rows["qty_mantissa"] = coin.market.sizes[trades.size]
        rows["qty_decimals"] = instrument.qty_decimals
        return rows

    def step_books(self, slot: int, now_ms: int) -> None:
        """Let 5 ms pass: some books advance, some contracts tick; whole books have a clock."""
        for coin in self._slots[slot]:
            if not coin.delisted:
                coin.step()
            self._push_quote(coin, now_ms)
        self.contexts.step(now_ms, self.delisted)
        now_ns = monotonic_ns()
        for fast, due_ns in self._next_frame_ns.items():
            if now_ns >= due_ns:
                period = self._periods_ns[fast]
                self._next_frame_ns[fast] = max(due_ns + period, now_ns)
                for coin in chain.from_iterable(self._slots):
                    self._push_book(coin, now_ms, fast=fast)

    def _push_book(self, coin: Coin, now_ms: int, *, fast: bool) -> None:
        symbol = coin.instrument.symbol
        topic = self.hub.topic(f"l2Book:{symbol}:{'fast' if fast else 'slow'}")
        previous = coin.book_ms[fast]
        if topic is None or now_ms <= previous:
            return
        bids, asks, text = coin.levels(_FAST_LEVELS if fast else _SLOW_LEVELS)
        suffix = ',"fast":true' if fast else ""
        payload = (
            f'{{"channel":"l2Book","data":{{"coin":"{symbol}","time":{now_ms},'
            f'"levels":{text}{suffix}}}}}'
        )
        spoiled = self.hub.spoiler.frame("book", symbol, payload.encode())
        if not write_all(topic.raw, text_frame(spoiled or payload.encode())):
            return
        if spoiled is not None:
            times, rows = (now_ms, now_ms), max(1, len(bids) + len(asks))
            self._ledger.unreadable(HYPERLIQUID_PERP, coin.number, "book", times, rows)
            return
        coin.book_ms[fast] = now_ms
        self.hub.book_event_count += 1
        self.hub.book_counts[coin.index] += max(1, len(bids) + len(asks))
        if self._ledger.enabled:
            self._ledger.book(self._book_rows(coin, (now_ms, previous), bids, asks))

    def _push_quote(self, coin: Coin, now_ms: int) -> None:
        """Push the best bid and offer if it changed: at most one in a millisecond."""
        quote = coin.quote()
        if quote == coin.quoted or now_ms <= coin.quote_ms:
            return
        coin.quoted = quote
        symbol = coin.instrument.symbol
        topic = self.hub.topic(f"bbo:{symbol}")
        if topic is None:
            return
        coin.quote_ms = now_ms
        sides = ",".join("null" if side is None else coin.level_text(*side) for side in quote)
        payload = (
            f'{{"channel":"bbo","data":{{"coin":"{symbol}","time":{now_ms},"bbo":[{sides}]}}}}'
        )
        spoiled = self.hub.spoiler.frame("quote", symbol, payload.encode())
        if spoiled is not None:
            if write_all(topic.raw, text_frame(spoiled)):
                times = now_ms, now_ms
                self._ledger.unreadable(HYPERLIQUID_PERP, coin.number, "quote", times, 1)
        elif write_all(topic.raw, text_frame(payload.encode())):
            self.hub.counts["quote"][coin.index] += 1
            self._ledger.quote(_quote_row(coin, now_ms, quote))

    def list_coin(self, instrument: Grid) -> None:
        """List one more coin, or let a delisted one trade again."""
        index = self._by_symbol.get(instrument.symbol)
        if index is None:
            index = self._by_symbol[instrument.symbol] = len(self.instruments)
            self.instruments.append(instrument)
            self.delisted.append(False)
            self.hub.list_symbol(instrument.symbol)
        self.set_delisted(index, delisted=False)

    def set_delisted(self, index: int, *, delisted: bool) -> None:
        """Change whether a coin trades. A delisted one stays in the universe, with empty books."""
        self.delisted[index] = delisted
        if index in self._coins:
            self._coins[index].delisted = delisted
        self.hub.version += 1

    def change_grid(self, index: int, instrument: Grid) -> None:
        """Let a coin trade on another grid."""
        self.instruments[index] = instrument
        contract = self.contexts.board.known(index)
        if contract is not None:
            contract.change_grid(instrument)
        if index in self._coins:
            self._coins[index].change_grid(instrument)

    def book(self, coin: Coin, now_ms: int) -> bytes:
        """Answer `{"type":"l2Book"}`."""
        bids, asks, text = coin.levels(_SLOW_LEVELS)
        if self._ledger.enabled:
            self._ledger.snapshot(self._book_rows(coin, (now_ms, 0), bids, asks))
        return f'{{"coin":"{coin.instrument.symbol}","time":{now_ms},"levels":{text}}}'.encode()

    def _book_rows(
        self,
        coin: Coin,
        times_ms: tuple[int, int],
        bids: list[tuple[int, int]],
        asks: list[tuple[int, int]],
    ) -> Rows:
        levels: NDArray[np.int64] = np.array([*bids, *asks] or [(0, 0)], np.int64)
        rows = np.empty(len(levels), BOOK)
        rows["venue"] = HYPERLIQUID_PERP
        rows["symbol"] = coin.number
        rows["ts_event"] = times_ms[0] * 1_000_000
        rows["seq"], rows["prev_seq"] = times_ms
        rows["side"] = ord("a") if bids or asks else ord("-")
        rows["side"][: len(bids)] = ord("b")
        rows["price_mantissa"] = levels[:, 0]
        rows["price_decimals"] = coin.instrument.price_decimals
        rows["qty_mantissa"] = levels[:, 1]
        rows["qty_decimals"] = coin.instrument.qty_decimals
        rows["snapshot"] = 1
        return rows


def _quote_row(coin: Coin, now_ms: int, quote: Quote) -> tuple[int, ...]:
    bid, ask = quote
    grid = coin.instrument
    return (
        HYPERLIQUID_PERP, coin.number, now_ms * 1_000_000, now_ms,
        *(bid or (0, 0)), *(ask or (0, 0)),
        grid.price_decimals, grid.qty_decimals,
        BID_PRESENT * (bid is not None) + ASK_PRESENT * (ask is not None), 0,
    )  # fmt: skip
