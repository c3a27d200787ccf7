"""The restart budget, with time in the tests' hands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.process.restart_budget import RestartBudget

WAITS = st.lists(st.floats(min_value=0, max_value=300), max_size=60)


def test_first_death_costs_nothing_and_the_next_ones_double() -> None:
    budget = RestartBudget(free_restarts=1, first_delay_s=0.5, delay_s_max=30, window_s=120)
    assert [budget.died(0.0) for _ in range(9)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_quiet_time_forgives() -> None:
    for later_s, delay_s in ((119.9, 8), (120.0, 0)):
        budget = RestartBudget(window_s=120)
        for _ in range(5):
            budget.died(0.0)
        assert budget.died(later_s) == delay_s


@given(WAITS)
def test_delays_stay_within_bounds_and_grow_with_deaths_in_the_window(waits: list[float]) -> None:
    budget = RestartBudget(free_restarts=2, first_delay_s=0.1, delay_s_max=10, window_s=60)
    now, deaths = 0.0, list[float]()
    for wait in waits:
        now += wait
        delay = budget.died(now)
        deaths = [at for at in [*deaths, now] if at > now - 60]
        excess = len(deaths) - 2
        expected = 0.0 if excess <= 0 else min(10.0, 0.1 * 2.0 ** (excess - 1))
        assert delay == pytest.approx(expected)


@given(WAITS, st.integers(1, 200))
def test_a_child_that_always_dies_at_once_cannot_spin(waits: list[float], lives: int) -> None:
    """However it has died before: over many lives the starts are bounded by the largest delay."""
    budget = RestartBudget(free_restarts=1, first_delay_s=0.5, delay_s_max=30, window_s=120)
    now = 0.0
    for wait in waits:
        now += wait
        budget.died(now)
    began = now
    for _ in range(lives):
        now += budget.died(now)
    assert lives <= 12 + (now - began) / 1.0


def test_nonsense_budgets_are_programmer_errors() -> None:
    with pytest.raises(AssertionError):
        RestartBudget(delay_s_max=200, window_s=100)
