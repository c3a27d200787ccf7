"""What a perpetual has beside trades and a book: mark and index price, funding, open interest.

A contract takes new values once a second, and its numbers are those of one moment: `ts_ms` names
it, and whoever asks twice within the second gets the same. Values come from the instrument's own
random stream; only the middle of its book comes from outside. All numbers are integers.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from shards.simulator.core.ledger import NO_RATE, SETTLED
from shards.simulator.core.market import Draws, Grid

__all__ = ["HOUR_MS", "Contract", "ContractBoard", "Liquidation", "Rarity", "Settlement", "Terms"]

HOUR_MS = 3_600_000
_PHASES = 200
"""Slots of 5 ms in a second: contracts take their values one after the other, not in a burst."""

_SETTLEMENT_COUNT = 500
_FIRST_SETTLEMENTS = 30
_LIQUIDATION_SPACING_MS = 1000
_PARTIAL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Terms:
    """A venue's way with funding and mark prices, the same whether they are pushed or polled."""

    rate_decimals: int
    usual_rate: int
    """Mantissa the rate is drawn back to."""
    rate_limit: int
    interval_ms: int
    mark_decimals: int | None
    """Decimals of mark and index prices; None: those of the instrument's prices."""
    intervals_h: tuple[int, ...] = ()
    """Hours between payments, of the symbols in turn, where a call of the venue says them
    (`SimVenue.say_intervals`); none: `interval_ms` for all and for ever."""
    says_interval: bool = True
    """Whether a row of funding tells how often it is paid: by a call, or because that never
    changes."""
    says_next: bool = False
    """Whether the venue says when funding is paid next."""
    with_prices: bool = True
    """Whether a message about funding has mark and index price as well."""
    with_interest: bool = False
    """Whether a message about funding has the open interest as well."""
    with_quote: bool = False
    """Whether a message about funding has the best bid and offer as well."""
    with_fills: bool = True
    """Whether a forced order says how much of it was filled, and at what price on average; else all
    of it was, at a price that nobody is told.
    """


@dataclass(frozen=True, slots=True)
class Settlement:
    """Funding that was paid."""

    ts_ms: int
    rate: int
    mark: int


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A forced order. Prices in ticks, quantities in lots."""

    ts_ms: int
    sold: bool
    """A long was liquidated."""
    price: int
    average: int
    qty: int
    filled: int


class Contract:
    """Mark, index, funding and open interest of one instrument."""

    def __init__(
        self, place: tuple[int, int, int], instrument: Grid, seeds: tuple[int, int], terms: Terms,
        *, pays: bool = True,
    ) -> None:  # fmt: skip
        """`seeds` are the simulator's and the instrument's; `place` is the venue's number, the
        instrument's at the venue and the instrument's in the ledger. One that is delivered on a
        date `pays` no funding.
        """
        self.venue, self.index, self.number = place
        self.interval_ms = terms.interval_ms
        """How often funding is paid; it may be changed while the market runs."""
        self.instrument = instrument
        self.terms = terms
        self.pays = pays
        self._draws = Draws(np.random.default_rng(np.random.SeedSequence((*seeds, 2))))
        self.mark_decimals = instrument.price_decimals
        if terms.mark_decimals is not None:
            self.mark_decimals = terms.mark_decimals
        self._basis = 0.0
        self.ts_ms = 0
        self.ticks = 0
        self.mark = self.index_price = self.average = self.settle = 0
        self.rate = round(terms.usual_rate * (1 + 0.2 * self._draws.normal()))
        self.open_interest = round(instrument.median_qty * 150_000)
        self.settlements: deque[Settlement] = deque(maxlen=_SETTLEMENT_COUNT)
        self.served_settled_ms: set[int] = set()
        """Which of them REST has given out."""
        self.served_ms = {"funding": 0, "open_interest": 0, "pushed": 0}
        """Which moment's values REST gave out last, by kind, and which sockets got."""
        self._liquidated_ms = 0

    def change_grid(self, instrument: Grid) -> None:
        """Go on with prices and quantities on another grid."""
        old, self.instrument = self.instrument, instrument
        shift = instrument.qty_decimals - old.qty_decimals
        self.open_interest = max(1, round(self.open_interest * 10.0**shift))
        if self.terms.mark_decimals is None:
            self.mark_decimals = instrument.price_decimals

    def tick(self, now_ms: int, middle: float) -> bool:
        """Take new values, unless these are of this moment; `middle` of the book is in ticks."""
        if now_ms <= self.ts_ms:
            return False
        normal = self._draws.normal
        first, passed = self.ts_ms == 0, self.ts_ms // self.interval_ms
        self.ts_ms = now_ms
        self.ticks += 1
        shift = self.mark_decimals - self.instrument.price_decimals
        unit = self.instrument.tick * 10.0**shift
        index = middle * (1 + 1e-5 * normal())
        self._basis = 0.95 * self._basis + 2e-5 * normal()
        self.index_price = max(1, round(index * unit))
        self.mark = max(1, round(index * (1 + self._basis) * unit))
        self.average = self.mark if first else round(0.9 * self.average + 0.1 * self.mark)
        self.settle = max(1, round(index * (1 + 1e-6 * normal()) * unit))
        if first and self.pays:
            self._settle_the_past(now_ms)
        elif self.pays and now_ms // self.interval_ms > passed:
            paid_ms = now_ms // self.interval_ms * self.interval_ms
            self.settlements.append(Settlement(paid_ms, self.rate, self.mark))
        self.rate = self._drifted(self.rate, 0.02)
        move = 1 + int(abs(normal()) * self.instrument.median_qty)
        grows = self._draws.uniform() < 0.5 or self.open_interest < 4 * move
        self.open_interest += move if grows else -move
        return True

    def _drifted(self, rate: int, share: float) -> int:
        usual, limit = self.terms.usual_rate, self.terms.rate_limit
        moved = rate + round(0.01 * (usual - rate) + share * usual * self._draws.normal())
        return max(-limit, min(limit, moved))

    def _settle_the_past(self, now_ms: int) -> None:
        interval_ms = self.interval_ms
        last = now_ms // interval_ms
        rate = self.rate
        for number in range(last - _FIRST_SETTLEMENTS + 1, last + 1):
            rate = self._drifted(rate, 0.5)
            mark = max(1, round(self.mark * (1 + 0.01 * self._draws.normal())))
            self.settlements.append(Settlement(number * interval_ms, rate, mark))

    @property
    def next_funding_ms(self) -> int:
        """When funding is paid next; 0 where it never is."""
        return self.pays * (self.ts_ms // self.interval_ms + 1) * self.interval_ms

    def first_served(self, kind: str) -> bool:
        """Tell whether these values are given out for the first time that way; remember it."""
        if self.served_ms[kind] == self.ts_ms:
            return False
        self.served_ms[kind] = self.ts_ms
        return True

    def paid(self, start_ms: int, end_ms: int | None) -> list[Settlement]:
        """Give the funding that was paid between two moments, both included, oldest first."""
        return [
            paid
            for paid in self.settlements
            if start_ms <= paid.ts_ms and (end_ms is None or paid.ts_ms <= end_ms)
        ]

    def ledger_funding(self, *, rest: int) -> tuple[int, ...]:
        """Make the ledger row of funding, mark and index price, as far as the venue says them."""
        terms = self.terms
        rate = (self.rate, terms.rate_decimals) if self.pays else (0, NO_RATE)
        return (
            self.venue, self.number, self.ts_ms * 1_000_000, *rate,
            self.mark * terms.with_prices, self.index_price * terms.with_prices,
            self.mark_decimals, self.next_funding_ms * 1_000_000 * terms.says_next, rest,
        )  # fmt: skip

    def ledger_settlement(self, paid: Settlement) -> tuple[int, ...]:
        """Make the ledger row of funding that was paid."""
        return (
            self.venue, self.number, paid.ts_ms * 1_000_000, paid.rate, self.terms.rate_decimals,
            paid.mark, 0, self.mark_decimals, 0, SETTLED,
        )  # fmt: skip

    def ledger_open_interest(self, *, rest: int) -> tuple[int, ...]:
        """Make the ledger row of what is open."""
        decimals = self.instrument.qty_decimals
        ts_ns = self.ts_ms * 1_000_000
        return self.venue, self.number, ts_ns, self.open_interest, decimals, rest

    def ledger_liquidation(self, order: Liquidation) -> tuple[int, ...]:
        """Make the ledger row of a forced order."""
        grid, terms = self.instrument, self.terms
        return (
            self.venue, self.number, order.ts_ms * 1_000_000, ord("S") if order.sold else ord("B"),
            order.price * grid.tick, order.average * grid.tick * terms.with_fills,
            grid.price_decimals, order.qty, order.filled if terms.with_fills else order.qty,
            grid.qty_decimals,
        )  # fmt: skip

    def liquidate(self, probability: float, middle: float) -> Liquidation | None:
        """Force a position out, at random and at most once a second."""
        uniform, normal = self._draws.uniform, self._draws.normal
        if uniform() >= probability or self.ts_ms - self._liquidated_ms < _LIQUIDATION_SPACING_MS:
            return None
        self._liquidated_ms = self.ts_ms
        sold = uniform() < 0.5
        away = -1 if sold else 1
        average = max(1, round(middle * (1 + away * 2e-4 * abs(normal()))))
        price = max(1, round(average * (1 + away * 6e-4)))
        qty = max(1, round(self.instrument.median_qty * float(np.exp(0.8 * normal()))))
        filled = max(1, qty * 3 // 5) if uniform() < _PARTIAL_SHARE else qty
        return Liquidation(self.ts_ms, sold, price, average, qty, filled)


class Rarity:
    """How likely a symbol has a forced order in its second: the rarer, the more are listened to."""

    def __init__(self, per_minute: float) -> None:
        self._per_s = per_minute / 60.0
        self._count, self._version = 0, -1

    def chance(self, version: int, count: Callable[[], int]) -> float:
        """Give it; `count` says how many are listened to, asked anew with each `version`."""
        if self._version != version:
            self._version, self._count = version, count()
        return min(1.0, self._per_s / self._count) if self._count else 0.0


class ContractBoard:
    """The contracts of a venue somebody has asked for, and whose turn it is."""

    def __init__(
        self, make: Callable[[int], Contract], middle: Callable[[int], float], terms: Terms
    ) -> None:
        self._make = make
        self._usual_h = terms.intervals_h or (terms.interval_ms // HOUR_MS,)
        self._changed_h: dict[int, int] = {}
        self.middle = middle
        self._contracts: dict[int, Contract] = {}
        self._phases: list[list[Contract]] = [[] for _ in range(_PHASES)]
        self._phase = 0

    def at(self, index: int, now_ms: int) -> Contract:
        """Give a contract; it lives from the first time anyone asks."""
        contract = self._contracts.get(index)
        if contract is None:
            contract = self._contracts[index] = self._make(index)
            contract.tick(now_ms, self.middle(index))
            self._phases[index % _PHASES].append(contract)
        return contract

    def known(self, index: int) -> Contract | None:
        """Give a contract if anyone has asked for it."""
        return self._contracts.get(index)

    def next_turn(self) -> Iterable[Contract]:
        """Give those that take new values in this slot of 5 ms."""
        self._phase = (self._phase + 1) % _PHASES
        return self._phases[self._phase]

    def interval_h(self, index: int) -> int:
        """Give the hours between two payments of funding."""
        return self._changed_h.get(index, self._usual_h[index % len(self._usual_h)])

    def change_interval(self, index: int, hours: int) -> None:
        """Let funding be paid at another interval from now on."""
        self._changed_h[index] = hours
        contract = self.known(index)
        if contract is not None:
            contract.interval_ms = hours * HOUR_MS
