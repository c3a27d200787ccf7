"""Mantissas against `decimal`: what is called exact is exact, and nothing exact is missed."""

from decimal import Decimal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine.writer.rows.exact import (
    DECIMALS_MAX,
    mantissas,
    raised_decimals,
    storable,
)

decimals = st.integers(0, DECIMALS_MAX)
fifteen_digits = st.integers(-(10**15) + 1, 10**15 - 1)


@given(st.lists(st.tuples(fifteen_digits, decimals), min_size=1, max_size=50))
def test_decimals_of_fifteen_digits_are_proven_and_right(rows: list[tuple[int, int]]) -> None:
    texts = [Decimal(n).scaleb(-d) for n, d in rows]
    values = np.array([float(str(text)) for text in texts])
    found, exact = mantissas(values, np.array([d for _, d in rows]))
    assert exact.all()
    assert found.tolist() == [n for n, _ in rows]


@given(st.floats(width=64, allow_nan=False, allow_infinity=False), decimals)
def test_exact_means_that_the_decimal_reads_back_as_the_float(value: float, places: int) -> None:
    found, exact = mantissas(np.array([value]), places)
    reads_back = float(Decimal(int(found[0])).scaleb(-places)) == value
    if exact[0]:
        assert reads_back
    elif abs(int(found[0])) < 2**52 and abs(value) * 10.0**places < 2**52:
        assert not reads_back


@given(st.lists(st.floats(), min_size=1, max_size=20), decimals)
def test_any_float_is_survived(values: list[float], places: int) -> None:
    array = np.array(values)
    found, exact = mantissas(array, places)
    fits = storable(array, np.float64(10.0**places))
    assert not exact[~fits].any()
    assert (found[~fits] == 0).all() or not (np.abs(array[~fits]) < np.inf).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_what_does_not_fit_is_neither_exact_nor_storable(value: float) -> None:
    found, exact = mantissas(np.array([value]), 2)
    assert (found[0], exact[0]) == (0, False)
    assert not storable(np.array([value]), np.float64(100.0))[0]


def test_a_hopeless_value_does_not_keep_others_from_their_proof() -> None:
    assert raised_decimals(np.array([1.5, 0.1 + 0.2, 2.125, np.nan]), 1) == 3


def test_a_sum_gone_wrong_does_not_cost_the_head_room() -> None:
    assert raised_decimals(np.array([8.000000000000002]), 2) == 2
    assert raised_decimals(np.array([81234.56789]), 2) == 5
    assert raised_decimals(np.array([1e14, 0.001]), 0) == 0
