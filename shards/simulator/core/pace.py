"""When things happen: books every 100 ms, trades at the asked rate or as fast as sockets take them.

As it goes, a moment in which this process is held up has fewer trades, and what happens late has
the time at which it did. On schedule nothing is left out, and what is late has the time at which it
was due: who measures how long a row takes sees each stall, also ours.

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

__all__ = ["BOOK_SLOTS", "MAX_RATE", "PacedVenue", "Pacer", "check_pace"]

MAX_RATE = float("inf")
BOOK_SPEED_MAX = 100
BOOK_SLOTS = 20
"""Books step every 100 ms, spread over this many slots so that a thousand do not burst."""

_TICK_NS = 5_000_000
_TICK_S = _TICK_NS / 1e9
_TICKS_PER_TURN = 8
_MS_NS = 1_000_000
_SLOT_NS = 100_000_000 // BOOK_SLOTS
_LATE_SLOTS = 2 * BOOK_SLOTS
_BLOCK_ROWS = 1500
_RUN_ROWS = 512
"""From so many trades a tick on they come in runs of an instrument, as when an order sweeps a book:
rendering few rows for each of many would take more CPU time than an engine does."""
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
        runs = count // _RUN_ROWS or count
        drawn = np.searchsorted(self._cumulative, self._rng.random(runs))
        each = np.full(runs, count // runs)
        each[: count % runs] += 1
        counts = np.bincount(drawn, each, minlength=len(self._listened))
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
        *,
        on_schedule: bool = False,
        book_speed: float = 1.0,
    ) -> None:
        """Pace each venue with its share of `trades_per_s`, and books with so many steps in the
        time of one.
        """
        rng = np.random.default_rng(np.random.SeedSequence((seed, 1 << 20)))
        self._lanes = [_Lane(venue, share, rng) for venue, share in venues]
        self._ledger = ledger
        self.trades_per_s = trades_per_s
        self.book_speed = book_speed
        self.paused = False
        self.late_ns = 0
        """On schedule: how late the newest tick was."""
        self._on_schedule = on_schedule
        self._slot = 0
        self._slots_due = 0.0

    async def run(self) -> None:
        """Tick for ever."""
        await (self._run_on_schedule() if self._on_schedule else self._run_as_it_goes())

    async def _run_on_schedule(self) -> None:
        due_ns = flush_ns = _next_whole_ms()
        while True:
            now_ns = monotonic_ns()
            if self.paused:
                due_ns = _next_whole_ms() + _TICK_NS
            for _ in range(_TICKS_PER_TURN):
                if due_ns > now_ns:
                    break
                self.late_ns = now_ns - due_ns
                # To the nearest: clocks drift apart, and times of venues are whole ms.
                due_ms = (wall_ns() - monotonic_ns() + due_ns + _MS_NS // 2) // _MS_NS
                self._slots_due += self.book_speed
                self._slots_due -= self._step_slots(int(self._slots_due), due_ms)
                self._emit(_TICK_S, due_ms)
                due_ns += _TICK_NS
            if now_ns - flush_ns >= _FLUSH_NS:
                flush_ns = now_ns
                self._ledger.flush()
            await asyncio.sleep(max(0, due_ns - monotonic_ns()) / 1e9)

    async def _run_as_it_goes(self) -> None:
        last_ns = slot_ns = flush_ns = monotonic_ns()
        while True:
            now_ns = monotonic_ns()
            wrote = False
            if self.paused:
                slot_ns = now_ns
            else:
                slot_ns = self._step_books(slot_ns, now_ns)
                wrote = self._emit(min((now_ns - last_ns) / 1e9, _CATCH_UP_S))
            last_ns = now_ns
            if now_ns - flush_ns >= _FLUSH_NS:
                flush_ns = now_ns
                self._ledger.flush()
            full_speed = self.trades_per_s == MAX_RATE and not self.paused
            # At full speed a turn without room waits for the sockets, not for the next tick.
            await asyncio.sleep(0 if wrote and full_speed else 0.001 if full_speed else _TICK_S)

    def _step_books(self, slot_ns: int, now_ns: int) -> int:
        width_ns = int(_SLOT_NS / self.book_speed)
        late = min(int(_LATE_SLOTS * max(1.0, self.book_speed)), (now_ns - slot_ns) // width_ns)
        self._step_slots(late, wall_ns() // _MS_NS)
        return max(slot_ns + late * width_ns, now_ns - width_ns)

    def _step_slots(self, count: int, now_ms: int) -> int:
        for _ in range(count):
            self._slot = (self._slot + 1) % BOOK_SLOTS
            for lane in self._lanes:
                if not lane.venue.hub.silent():
                    lane.venue.step_books(self._slot, now_ms)
        return count

    def _emit(self, elapsed_s: float, due_ms: int | None = None) -> bool:
        lanes = [lane for lane in self._lanes if lane.listened() and not lane.venue.hub.silent()]
        if not lanes:
            return False
        if self.trades_per_s == MAX_RATE:
            return self._emit_blocks(lanes)
        now_ms = wall_ns() // _MS_NS if due_ms is None else due_ms
        for lane in lanes:
            lane.credit += self.trades_per_s * lane.share * elapsed_s
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

    def set_rate(self, trades_per_s: float, book_speed: float | None = None) -> None:
        """Change the rates from the next tick on. Raises ValueError for a pace nobody can keep."""
        book_speed = self.book_speed if book_speed is None else book_speed
        check_pace(trades_per_s, book_speed, on_schedule=self._on_schedule)
        self.trades_per_s, self.book_speed = trades_per_s, book_speed
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


def check_pace(trades_per_s: float, book_speed: float, *, on_schedule: bool) -> None:
    """Raises ValueError for a pace that cannot be kept."""
    if not 0 < book_speed <= BOOK_SPEED_MAX:
        raise ValueError(f"a book's speed is above 0 and at most {BOOK_SPEED_MAX}")
    if on_schedule and trades_per_s == MAX_RATE:
        raise ValueError("a schedule needs a rate: as fast as possible is none")


def _next_whole_ms() -> int:
    """On the monotonic clock, the moment at which a ms of the wall clock begins."""
    return monotonic_ns() + _MS_NS - wall_ns() % _MS_NS
