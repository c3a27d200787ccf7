"""The search for the highest rate against machines that are made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.flow.search import NothingHeldError, Plan, Probe, highest

PLAN = Plan(first=8_000.0, precision=1.05, hold_s=60.0, held_part=0.95)


class Machine:
    """Holds so many rows a second; for less than half a minute a queue hides that it does not."""

    def __init__(self, capacity: float, hidden: float = 0.0, says: bool = False) -> None:
        self.capacity, self.hidden, self.says = capacity, hidden, says
        self.taken_s = 0.0

    def probe(self, rows_per_s: float, seconds: float) -> Probe:
        self.taken_s += seconds
        most = self.capacity * (1 + (self.hidden if seconds < 30 else 0.0))
        stored = min(rows_per_s, 0.9 * most) if self.says else 0.0
        return Probe(rows_per_s, seconds, rows_per_s <= most, stored_per_s=stored)


@given(st.floats(200.0, 3_000_000.0), st.booleans())
def test_the_rate_is_held_and_close_to_the_most(capacity: float, says: bool) -> None:
    probes = highest(Machine(capacity, says=says).probe, PLAN)
    assert probes[-1].held
    assert probes[-1].seconds == PLAN.hold_s
    least = PLAN.held_part * capacity / PLAN.precision
    assert 0.999 * least <= probes[-1].rows_per_s <= PLAN.held_part * capacity


@given(st.floats(1_000.0, 1_000_000.0), st.floats(0.0, 0.5))
def test_what_a_queue_hides_for_a_while_is_found_out(capacity: float, hidden: float) -> None:
    probes = highest(Machine(capacity, hidden).probe, PLAN)
    assert probes[-1].held
    assert 0.8 * capacity <= probes[-1].rows_per_s <= capacity


def test_a_machine_that_holds_all_there_is_to_send() -> None:
    probes = highest(Machine(1e12).probe, Plan(most=64_000.0, held_part=1.0))
    assert probes[-1].rows_per_s == 64_000.0


def test_one_that_holds_nothing_is_no_result() -> None:
    with pytest.raises(NothingHeldError):
        highest(Machine(10.0).probe, PLAN)
    with pytest.raises(NothingHeldError):
        highest(Machine(50.0, hidden=0.5).probe, PLAN)


def test_the_search_takes_a_few_minutes() -> None:
    machine = Machine(150_000.0)
    highest(machine.probe, Plan())
    assert machine.taken_s < 150


def test_what_is_stored_of_too_much_shortens_the_search() -> None:
    long, short = Machine(300_000.0), Machine(300_000.0, says=True)
    highest(long.probe, Plan())
    highest(short.probe, Plan())
    assert short.taken_s < long.taken_s
