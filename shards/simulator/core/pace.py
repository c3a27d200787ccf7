"""When things happen: books every 100 ms, trades at the asked rate or as fast as sockets take them.

Random choices here decide only how many trades each instrument gets in a tick; what those trades
are comes from the instrument's own tape.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from engine.base.clock import monotonic_ns, wall_ns
from shards.simulator.core.ledger import Ledger
from shards.simulator.core.sessions import Hub, Topic

__all__ = ["BOOK_SLOTS", "MAX_RATE", "PacedVenue", "Pacer"]

MAX_RATE = float("inf")
BOOK_SLOTS = 20
"""Books step every 100 ms, spread over this many slots so that a thousand do not burst."""

_TICK_S = 0.005
_SLOT_NS = 100_000_000 // BOOK_SLOTS
_LATE_SLOTS = 2 * BOOK_SLOTS
_BLOCK_ROWS = 1500
_BLOCKS_PER_TURN = 8
_CATCH_UP_S = 0.1
_FLUSH_NS = 1_000_000_000


class PacedVenue(Protocol):
    """What the pacer drives."""

    hub: Hub

    @property
    def weights(self) -> list[float]:
        """Each instrument's share of the venue's trades."""

    def trade_topic(self, index: int) -> Topic | None:
        """Give who listens to the trades of an instrument."""

    def emit_trades(self, index: int, count: int, now_ms: int) -> None:
        """Let trades happen and push them."""

    def step_books(self, slot: int, now_ms: int) -> None:
        """Advance the books of one slot."""


class _Lane:
    """One venue's share of the trades and the instruments somebody listens to."""

    def __init__(self, venue: PacedVenue, share: float, rng: np.random.Generator) -> None:
        self.venue = venue
        self.share = share
        self.credit = 0.0
        self._rng = rng
        self._version = -1
        self._listened: list[int] = []
        self._cumulative = np.zeros(0)

    def listened(self) -> list[int]:
        """List the instruments with a listener."""
        hub = self.venue.hub
        if hub.version != self._version:
            self._version = hub.version
            weights = self.venue.weights
            self._listened = [i for i in range(len(weights)) if self.venue.trade_topic(i)]
            chosen = np.array([weights[i] for i in self._listened])
            self._cumulative = chosen.cumsum() / max(chosen.sum(), 1e-12)
        return self._listened

    def split(self, count: int) -> list[tuple[int, int]]:
        """Spread `count` trades over the listened instruments: (instrument, trades)."""
        drawn = np.searchsorted(self._cumulative, self._rng.random(count))
        counts = np.bincount(drawn, minlength=len(self._listened))
        return [(self._listened[i], int(counts[i])) for i in counts.nonzero()[0]]

    def pick(self) -> int:
        """Choose one listened instrument by weight."""
        return self._listened[int(np.searchsorted(self._cumulative, self._rng.random()))]


class Pacer:
    """Drives the venues until its task is cancelled."""

    def __init__(
        self,
        venues: Sequence[tuple[PacedVenue, float]],
        ledger: Ledger,
        trades_per_s: float,
        seed: int,
    ) -> None:
        """Pace each venue with its share of `trades_per_s`."""
        rng = np.random.default_rng(np.random.SeedSequence((seed, 1 << 20)))
        self._lanes = [_Lane(venue, share, rng) for venue, share in venues]
        self._ledger = ledger
        self.trades_per_s = trades_per_s
        self.paused = False
        self._slot = 0

    async def run(self) -> None:
        """Tick for ever."""
        last_ns = slot_ns = flush_ns = monotonic_ns()
        while True:
            now_ns = monotonic_ns()
            wrote = False
            if self.paused:
                slot_ns = now_ns
            else:
                slot_ns = self._step_books(slot_ns, now_ns)
                wrote = self._emit((now_ns - last_ns) / 1e9)
            last_ns = now_ns
            if now_ns - flush_ns >= _FLUSH_NS:
                flush_ns = now_ns
                self._ledger.flush()
            full_speed = self.trades_per_s == MAX_RATE and not self.paused
            # At full speed a turn without room waits for the sockets, not for the next tick.
            await asyncio.sleep(0 if wrote and full_speed else 0.001 if full_speed else _TICK_S)

    def _step_books(self, slot_ns: int, now_ns: int) -> int:
        late = min(_LATE_SLOTS, (now_ns - slot_ns) // _SLOT_NS)
        now_ms = wall_ns() // 1_000_000
        for _ in range(late):
            self._slot = (self._slot + 1) % BOOK_SLOTS
            for lane in self._lanes:
                if not lane.venue.hub.silent():
                    lane.venue.step_books(self._slot, now_ms)
        return max(slot_ns + late * _SLOT_NS, now_ns - _SLOT_NS)

    def _emit(self, elapsed_s: float) -> bool:
        lanes = [lane for lane in self._lanes if lane.listened() and not lane.venue.hub.silent()]
        if not lanes:
            return False
        if self.trades_per_s == MAX_RATE:
            return self._emit_blocks(lanes)
        now_ms = wall_ns() // 1_000_000
        for lane in lanes:
            due = self.trades_per_s * lane.share * min(elapsed_s, _CATCH_UP_S)
            lane.credit += due
            count = int(lane.credit)
            lane.credit -= count
            for index, trades in lane.split(count) if count else ():
                for sent in range(0, trades, _BLOCK_ROWS):
                    lane.venue.emit_trades(index, min(_BLOCK_ROWS, trades - sent), now_ms)
        return True

    def _emit_blocks(self, lanes: list[_Lane]) -> bool:
        """Give blocks to the lane that lags most behind its share, while its sockets have room."""
        wrote = False
        open_lanes = list(lanes)
        for _ in range(_BLOCKS_PER_TURN):
            if not open_lanes:
                break
            lane = min(open_lanes, key=lambda lane: lane.credit)
            index = lane.pick()
            topic = lane.venue.trade_topic(index)
            if topic is None or not topic.writable():
                open_lanes.remove(lane)
                continue
            lane.venue.emit_trades(index, _BLOCK_ROWS, wall_ns() // 1_000_000)
            lane.credit += 1.0 / lane.share
            wrote = True
        lowest = min(lane.credit for lane in self._lanes)
        for lane in self._lanes:
            lane.credit = min(lane.credit - lowest, 50.0)
        return wrote

    def set_rate(self, trades_per_s: float) -> None:
        """Change the rate from the next tick on."""
        self.trades_per_s = trades_per_s
        for lane in self._lanes:
            lane.credit = 0.0

    @staticmethod
    async def drain(timeout_s: float, hubs: Sequence[Hub]) -> bool:
        """Wait until nothing is left in any write buffer; tell whether that came to be."""
        deadline_ns = monotonic_ns() + int(timeout_s * 1e9)
        while any(hub.buffered_bytes() for hub in hubs):
            if monotonic_ns() > deadline_ns:
                return False
            await asyncio.sleep(0.005)
        return True
