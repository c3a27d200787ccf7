"""The seeded market: a price that wanders, a book around it, and a tape of trades at the touch.

Prices are integers of ticks everywhere in the simulator; a text is made only when a frame is.

One `Market` per instrument, with its own random streams: what instrument 7 does at its n-th step
or its n-th trade depends on the seed alone, never on how many clients listen or how fast.
Invariants: best bid < best ask after every step; every change a step reports is exactly what it
did to the levels, so a snapshot plus the following changes is the book.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from math import exp, floor

import numpy as np
from numpy.typing import NDArray

from shards.simulator.core.frames import decimal_text

__all__ = ["SIZE_COUNT", "Draws", "Grid", "Market", "Scene", "Step", "TapeSlice"]

SIZE_COUNT = 512
"""Distinct trade sizes of an instrument. A size is drawn once and its text rendered once."""

DEPTH_TICKS = 300
"""Ticks a side kept populated; about six in seven hold a level, so more than 200 levels."""

_MOVE_LIMIT = 40
_EDGE_LIMIT = 64
_FILL_PROBABILITY = 0.86
_VOLATILITY_100MS = 3.4e-5
_TAPE_CHUNK = 4096
_RETAINED_TICKS = int(DEPTH_TICKS * 1.6)
_MEDIAN_NOTIONAL = 400.0
"""Quote units of a typical trade; sizes are log-normal around it."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One listed contract. `tick` is in units of the last printed price decimal."""

    symbol: str
    start_ticks: int
    low_ticks: int
    high_ticks: int
    price_decimals: int
    tick: int
    qty_decimals: int
    median_qty: float
    weight: float
    """Share of the venue's trades, before normalisation."""

    @property
    def tick_text(self) -> str:
        """The tick size as the venue prints it."""
        return decimal_text(self.tick, self.price_decimals)

    @property
    def step_text(self) -> str:
        """The lot step as the venue prints it."""
        return decimal_text(1, self.qty_decimals)

    @classmethod
    def around(
        cls,
        symbol: str,
        price: float,
        steps: tuple[int, int, int],
        rank: int,
        band: tuple[int, int] | None = None,
    ) -> "Grid":
        """Make the grid of a contract that begins at `price` and is the `rank`-th to be traded.

        `steps` are the decimals of its prices, its tick in units of the last of them, and the
        decimals of its quantities; `band` is the lowest and highest price in ticks.
        """
        decimals, tick, qty_decimals = steps
        start = round(price * 10**decimals) // tick
        low, high = band or (max(start // 2, start - 500_000), start + start // 2)
        median = max(2.0, _MEDIAN_NOTIONAL / price * float(10**qty_decimals))
        weight = float((rank + 1) ** -0.9)
        return cls(symbol, start, low, high, decimals, tick, qty_decimals, median, weight)


@dataclass(frozen=True, slots=True)
class Scene:
    """What the venues of one simulator have in common."""

    symbols: int
    """How many each lists at the start."""
    seed: int
    liquidations_per_minute: float = 0.0
    """Over all symbols of a venue whose liquidations somebody listens to."""
    slow_book_s: float = 0.5
    """Cadence of whole books for which the venue's own would be too slow."""


@dataclass(slots=True)
class Step:
    """What one step did to each side: tick -> absolute quantity, 0 for a removed level."""

    bids: dict[int, int]
    asks: dict[int, int]


@dataclass(slots=True)
class TapeSlice:
    """The next trades of an instrument, prices relative to the touch of the moment."""

    buy: NDArray[np.bool_]
    depth: NDArray[np.int64]
    """Ticks beyond the touch at which the taker traded."""
    size: NDArray[np.int64]
    """Row of the instrument's size table."""
    fills: NDArray[np.int64]
    """Raw trades inside this one."""


class Draws:
    """Random numbers one at a time, drawn in bulk: a scalar draw from numpy costs 2 µs."""

    __slots__ = ("normal", "uniform")

    def __init__(self, rng: np.random.Generator) -> None:
        uniforms = iter(lambda: rng.random(512).tolist(), None)
        normals = iter(lambda: rng.standard_normal(256).tolist(), None)
        self.uniform: Callable[[], float] = chain.from_iterable(uniforms).__next__
        self.normal: Callable[[], float] = chain.from_iterable(normals).__next__


class Market:
    """Price process, book and trade tape of one instrument."""

    def __init__(self, instrument: Grid, seed: int, stream: int, activity: int) -> None:
        """Seed the four streams; `activity` is the book changes near the touch per step."""
        seeds = np.random.SeedSequence((seed, stream)).spawn(4)
        book_seed, tape_seed, size_seed, touch_seed = seeds
        self.instrument = instrument
        self._activity, self._median_qty = activity, instrument.median_qty
        self._draws = Draws(np.random.default_rng(book_seed))
        self._touch_draws = Draws(np.random.default_rng(touch_seed))
        self._tape_rng = np.random.default_rng(tape_seed)
        self._position = float(instrument.start_ticks) + 0.5
        self._sigma = instrument.start_ticks * _VOLATILITY_100MS
        self._log_volatility = 0.0
        self.sizes, self.plain_sizes = self._draw_sizes(np.random.default_rng(size_seed))
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.best_bid = instrument.start_ticks
        self.best_ask = instrument.start_ticks + 1
        self._bid_edge = self.best_bid - DEPTH_TICKS
        self._ask_edge = self.best_ask + DEPTH_TICKS
        self._last_side = False
        self._tape = self._draw_tape()
        self._tape_used = 0
        self._fill_initial_book()

    def _draw_sizes(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the size table: quantity, and quantity without retail price improvement fills."""
        drawn = rng.lognormal(np.log(self.instrument.median_qty), 1.2, SIZE_COUNT)
        sizes = np.maximum(1, np.rint(drawn)).astype(np.int64)
        plain = sizes - np.where(rng.random(SIZE_COUNT) < 0.1, sizes // 5, 0)
        return sizes, plain

    def _fill_initial_book(self) -> None:
        uniform, normal = self._draws.uniform, self._draws.normal
        for tick in range(self.best_bid, self._bid_edge - 1, -1):
            if tick == self.best_bid or uniform() < _FILL_PROBABILITY:
                self.bids[tick] = self._level_qty(self.best_bid - tick, normal())
        for tick in range(self.best_ask, self._ask_edge + 1):
            if tick == self.best_ask or uniform() < _FILL_PROBABILITY:
                self.asks[tick] = self._level_qty(tick - self.best_ask, normal())

    def _level_qty(self, distance: int, normal: float) -> int:
        return int(self._median_qty * (8.0 + 0.3 * distance) * exp(0.9 * normal)) or 1

    def step(self) -> Step:
        """Advance the book by one interval and report every level that changed."""
        change = Step({}, {})
        self._move(change)
        self._refresh(change)
        self._bid_edge = self._maintain_edge(
            self.bids, change.bids, self._bid_edge, self.best_bid, -1
        )
        self._ask_edge = self._maintain_edge(
            self.asks, change.asks, self._ask_edge, self.best_ask, 1
        )
        return change

    def nudge(self) -> Step:
        """Change the size at one side of the touch, as happens between two steps."""
        draws, change = self._touch_draws, Step({}, {})
        qty = self._level_qty(0, draws.normal())
        if draws.uniform() < 0.5:
            self.bids[self.best_bid] = change.bids[self.best_bid] = qty
        else:
            self.asks[self.best_ask] = change.asks[self.best_ask] = qty
        return change

    def touch(self) -> tuple[int, int, int, int]:
        """Give best bid, its size, best ask, its size."""
        bid, ask = self.best_bid, self.best_ask
        return bid, self.bids[bid], ask, self.asks[ask]

    def _next_touch(self) -> tuple[int, int]:
        draws = self._draws
        self._log_volatility = 0.97 * self._log_volatility + 0.2 * draws.normal()
        move = draws.normal() * self._sigma * exp(self._log_volatility - 0.3)
        position = self._position + max(-_MOVE_LIMIT, min(_MOVE_LIMIT, move))
        low, high = self.instrument.low_ticks, self.instrument.high_ticks
        if position < low:
            position = 2 * low - position
        elif position > high:
            position = 2 * high - position
        self._position = position
        roll = draws.uniform()
        spread = 1 if roll < 0.85 else 2 if roll < 0.97 else 3
        bid = floor(position)
        return bid, bid + spread

    def _move(self, change: Step) -> None:
        """Take out the levels the new touch crosses and quote the ones it leaves behind."""
        uniform, normal = self._draws.uniform, self._draws.normal
        bid, ask = self._next_touch()
        _remove(self.bids, range(bid + 1, self.best_bid + 1), change.bids)
        _remove(self.asks, range(self.best_ask, ask), change.asks)
        for tick in range(self.best_bid + 1, bid):
            if uniform() < _FILL_PROBABILITY:
                self.bids[tick] = change.bids[tick] = self._level_qty(bid - tick, normal())
        for tick in range(ask + 1, self.best_ask):
            if uniform() < _FILL_PROBABILITY:
                self.asks[tick] = change.asks[tick] = self._level_qty(tick - ask, normal())
        if bid not in self.bids:
            self.bids[bid] = change.bids[bid] = self._level_qty(0, normal())
        if ask not in self.asks:
            self.asks[ask] = change.asks[ask] = self._level_qty(0, normal())
        self.best_bid, self.best_ask = bid, ask

    def _refresh(self, change: Step) -> None:
        """Change some levels near the touch; the touch itself changes size but never empties."""
        uniform, normal = self._draws.uniform, self._draws.normal
        for _ in range(self._activity):
            roll = uniform()
            distance = int(roll * roll * roll * DEPTH_TICKS * 0.9)
            keep = distance == 0 or uniform() < _FILL_PROBABILITY
            if uniform() < 0.5:
                side, changes, tick = self.bids, change.bids, self.best_bid - distance
            else:
                side, changes, tick = self.asks, change.asks, self.best_ask + distance
            if keep:
                side[tick] = changes[tick] = self._level_qty(distance, normal())
            elif side.pop(tick, 0):
                changes[tick] = 0

    def _maintain_edge(
        self, side: dict[int, int], changes: dict[int, int], edge: int, best: int, away: int
    ) -> int:
        """Keep the far edge at a bounded distance, so the book neither thins out nor grows.

        `away` is -1 for bids and 1 for asks. Gives the new edge.
        """
        uniform, normal = self._draws.uniform, self._draws.normal
        for _ in range(_EDGE_LIMIT):
            distance = away * (edge - best)
            if distance < DEPTH_TICKS:
                edge += away
                if uniform() < _FILL_PROBABILITY:
                    side[edge] = changes[edge] = self._level_qty(DEPTH_TICKS, normal())
            elif distance > _RETAINED_TICKS:
                if side.pop(edge, 0):
                    changes[edge] = 0
                edge -= away
            else:
                break
        return edge

    def top(self, count: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Give the best `count` levels of each side, best first."""
        bids = sorted(self.bids.items(), reverse=True)[:count]
        return bids, sorted(self.asks.items())[:count]

    def take(self, count: int) -> TapeSlice:
        """Give the next `count` trades of the tape, however they were taken before."""
        start, stop = self._tape_used, self._tape_used + count
        if stop > len(self._tape.buy):
            parts = [_cut(self._tape, slice(start, None))]
            while sum(len(part.buy) for part in parts) < count:
                parts.append(self._draw_tape())
            self._tape = _joined(parts)
            start, stop = 0, count
        self._tape_used = stop
        return _cut(self._tape, slice(start, stop))

    def _draw_tape(self) -> TapeSlice:
        rng = self._tape_rng
        flips = rng.random(_TAPE_CHUNK) < 0.35
        flips[0] ^= self._last_side
        buy = np.logical_xor.accumulate(flips)
        self._last_side = bool(buy[-1])
        return TapeSlice(
            buy=buy,
            depth=np.minimum(rng.geometric(0.6, _TAPE_CHUNK) - 1, 5),
            size=rng.integers(0, SIZE_COUNT, _TAPE_CHUNK),
            fills=np.minimum(rng.geometric(0.5, _TAPE_CHUNK), 9),
        )

    def prices(self, tape: TapeSlice) -> NDArray[np.int64]:
        """Place trades at or just beyond the touch they hit."""
        return np.where(tape.buy, self.best_ask + tape.depth, self.best_bid - tape.depth)


def _remove(side: dict[int, int], ticks: range, changes: dict[int, int]) -> None:
    for tick in ticks:
        if side.pop(tick, 0):
            changes[tick] = 0


def _cut(tape: TapeSlice, part: slice) -> TapeSlice:
    return TapeSlice(tape.buy[part], tape.depth[part], tape.size[part], tape.fills[part])


def _joined(parts: list[TapeSlice]) -> TapeSlice:
    return TapeSlice(
        buy=np.concatenate([part.buy for part in parts]),
        depth=np.concatenate([part.depth for part in parts]),
        size=np.concatenate([part.size for part in parts]),
        fills=np.concatenate([part.fills for part in parts]),
    )
