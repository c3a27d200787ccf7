"""Search for the highest rate that is held: up in steps of two, then between the last that was held
and the first that was not, then the whole time at what is left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Probe:
    """What became of one rate."""

    rows_per_s: float
    """Asked for."""
    seconds: float
    held: bool
    why: str = ""
    """Why it was not held."""
    stored_per_s: float = 0.0
    lag_s: float = 0.0
    """How much longer the oldest row waited at the end than at the beginning."""


Measure = Callable[[float, float], Probe]
"""Rate and seconds to what became of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to look, and how closely."""

    first: float = 64_000.0
    """Rows a second."""
    climb_s: float = 4.0
    bisection_s: float = 8.0
    precision: float = 1.1
    """How many times the rate that was held for a while one may be that was not."""
    stored_margin: float = 1.2
    """Times what was stored of a rate that was too high is too high as well."""
    hold_s: float = 60.0
    most: float = 4_000_000.0
    least: float = 50.0
    held_part: float = 0.92
    """Of a rate that was held for a while, what is tried the whole time: a minute has what a few
    seconds have not, a checkpoint above all."""
    step_down: float = 0.88
    """After a rate that was not held the whole time."""
    step_down_again: float = 0.8
    """After another one: each costs a minute, and what was held for a while says little by then."""


class NothingHeldError(Exception):
    """Not even the least rate."""


def highest(measure: Measure, plan: Plan) -> list[Probe]:
    """All probes; the last is of the rate that was held for `hold_s`. Raises NothingHeldError."""
    probes: list[Probe] = []

    def holds(rate: float, seconds: float) -> bool:
        probes.append(measure(rate, seconds))
        return probes[-1].held

    low, high = _bracket(holds, plan)
    if not probes[-1].held and probes[-1].stored_per_s > low:
        high = min(high, plan.stored_margin * probes[-1].stored_per_s)
    while high > plan.precision * low:
        middle = sqrt(low * high)
        if holds(middle, plan.bisection_s):
            low = middle
        else:
            high = middle
    low *= plan.held_part
    step = plan.step_down
    while not holds(low, plan.hold_s):
        low, step = low * step, plan.step_down_again
        if low < plan.least:
            raise NothingHeldError(f"not even {plan.least:,.0f} rows/s were held")
    return probes


def _bracket(holds: Callable[[float, float], bool], plan: Plan) -> tuple[float, float]:
    """A rate that is held for a while, and a higher one that is not."""
    rate = plan.first
    if holds(rate, plan.climb_s):
        while rate < plan.most:
            if not holds(2 * rate, plan.climb_s):
                return rate, 2 * rate
            rate *= 2
        return rate, rate
    while rate > plan.least:
        if holds(rate / 2, plan.climb_s):
            return rate / 2, rate
        rate /= 2
    raise NothingHeldError(f"not even {plan.least:,.0f} rows/s were held")
