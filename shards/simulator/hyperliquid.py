"""Hyperliquid perpetuals as the simulator serves them: trades and whole books.

Books come in two variants on two venue-wide clocks: 20 levels slow, 5 levels fast. Both carry the
same channel and coin; only `"fast":true` in the frame tells them apart. The ledger keeps both under
the coin, with the frame's time as `seq` and the previous time of that variant as `prev_seq`.
"""

from collections import deque
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from engine.clock import monotonic_ns
from shards.simulator.binance import BOOK_SLOTS
from shards.simulator.frames import text_frame
from shards.simulator.instruments import (
    HYPERLIQUID_PERP,
    VENUE_NAMES,
    Instrument,
    hyperliquid_instruments,
    trimmed_text,
)
from shards.simulator.ledger import BOOK, TRADE, Ledger, Rows
from shards.simulator.market import Market
from shards.simulator.sessions import Hub, Session, Topic, write_all
from shards.simulator.trade_frames import CoinTradeRenderer, CoinTrades, size_text

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


class Coin:
    """One coin: its market, its trade ids, its renderer and the rows a new subscriber gets."""

    def __init__(self, index: int, instrument: Instrument, seed: int) -> None:
        self.index = index
        self.instrument = instrument
        stream = 2 * index + HYPERLIQUID_PERP
        rng = np.random.default_rng(np.random.SeedSequence((seed, stream, 1)))
        self.market = Market(instrument, seed, stream, 8 if index < _LIVELY_COINS else 3)
        self.renderer = CoinTradeRenderer(instrument, self.market.sizes, rng)
        self.history: deque[tuple[int, bytes]] = deque(maxlen=HISTORY_ROWS)
        self.had_subscriber = False
        self.book_ms = {False: 0, True: 0}
        self._rng = rng
        self._serial = int(rng.integers(0, 1 << 40))
        self._order_counts = rng.integers(1, 12, 1024).tolist()

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
        text = ",".join(
            "[" + ",".join(self._level_text(tick, qty) for tick, qty in side) + "]"
            for side in (bids, asks)
        )
        return bids, asks, f"[{text}]"

    def _level_text(self, tick: int, qty: int) -> str:
        price = trimmed_text(tick, self.instrument.price_decimals)
        size = size_text(qty, self.instrument.qty_decimals)
        return f'{{"px":"{price}","sz":"{size}","n":{self._order_counts[(tick ^ qty) & 1023]}}}'


class HyperliquidVenue:
    """The streams of all coins."""

    def __init__(
        self, count: int, seed: int, ledger: Ledger, symbol_offset: int, slow_book_s: float
    ) -> None:
        """List `count` coins; the ledger knows them from number `symbol_offset` on."""
        self.instruments = hyperliquid_instruments(count)
        self.hub = Hub(VENUE_NAMES[HYPERLIQUID_PERP], [i.symbol for i in self.instruments])
        self._by_symbol = {i.symbol: index for index, i in enumerate(self.instruments)}
        self._seed = seed
        self._ledger = ledger
        self._symbol_offset = symbol_offset
        self._coins: dict[int, Coin] = {}
        self._slots: list[list[Coin]] = [[] for _ in range(BOOK_SLOTS)]
        self._periods_ns = {False: int(slow_book_s * 1e9), True: 540_000_000}
        self._next_frame_ns = {False: 0, True: 0}

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
            coin = self._coins[index] = Coin(index, self.instruments[index], self._seed)
            self._slots[index % BOOK_SLOTS].append(coin)
        return coin

    def trade_topic(self, index: int) -> Topic | None:
        """Give who listens to the trades of a coin, if anyone does."""
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
        trades = coin.trade(count, now_ms)
        frames, rows = coin.renderer.render(trades, HISTORY_ROWS)
        if write_all(topic.raw, frames):
            coin.history.extend((now_ms, row) for row in rows)
            self._record(coin, [trades])

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
        rows["symbol"] = self._symbol_offset + coin.index
        rows["ts_event"] = trades.ts_ms * 1_000_000
        rows["trade_id"] = trades.tid
        rows["side"] = np.where(trades.buy, ord("B"), ord("S"))
        rows["price_mantissa"] = trades.ticks
        rows["price_decimals"] = instrument.price_decimals
        rows["qty_mantissa"] = coin.market.sizes[trades.size]
        rows["qty_decimals"] = instrument.qty_decimals
        return rows

    def step_books(self, slot: int, now_ms: int) -> None:
        """Advance the books of one slot; push all books when a variant's clock strikes."""
        for coin in self._slots[slot]:
            coin.step()
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
        if not write_all(topic.raw, text_frame(payload.encode())):
            return
        coin.book_ms[fast] = now_ms
        self.hub.book_event_count += 1
        self.hub.book_counts[coin.index] += len(bids) + len(asks)
        if self._ledger.enabled:
            self._ledger.book(self._book_rows(coin, (now_ms, previous), bids, asks))

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
        levels: NDArray[np.int64] = np.array([*bids, *asks], np.int64)
        rows = np.empty(len(levels), BOOK)
        rows["venue"] = HYPERLIQUID_PERP
        rows["symbol"] = self._symbol_offset + coin.index
        rows["ts_event"] = times_ms[0] * 1_000_000
        rows["seq"], rows["prev_seq"] = times_ms
        rows["side"] = ord("a")
        rows["side"][: len(bids)] = ord("b")
        rows["price_mantissa"] = levels[:, 0]
        rows["price_decimals"] = coin.instrument.price_decimals
        rows["qty_mantissa"] = levels[:, 1]
        rows["qty_decimals"] = coin.instrument.qty_decimals
        rows["snapshot"] = 1
        return rows
