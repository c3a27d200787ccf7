"""Prices by the minute: what is in them, and which may lack trades."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from control.ui.candles import CANDLES_MAX, MINUTE_NS, Candle, Candles
from engine.data.flags import Side
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE

SIDES = st.sampled_from(list(Side))
START = 29_000_000  # a minute since 1970


def trades(*rows: tuple[float, float, float, Side]) -> RecordArray:
    """Seconds after the start, price, size, who took."""
    found = np.zeros(len(rows), TRADE.dtype)
    for row, (at_s, price, qty, side) in zip(found, rows, strict=True):
        row["ts_event"] = START * MINUTE_NS + int(at_s * 1e9)
        row["price"], row["qty"], row["side"] = price, qty, side
    return found


def shape(candle: Candle) -> tuple[Any, ...]:
    return (
        candle.minute - START, candle.open, candle.high, candle.low, candle.close, candle.volume,
        candle.buy_volume, candle.is_part,
    )  # fmt: skip


def told(candles: Candles) -> list[tuple[Any, ...]]:
    return [shape(each) for each in candles.changed()]


def test_a_minute_is_of_its_trades_by_their_times() -> None:
    candles = Candles()
    candles.apply(trades((1, 10.0, 1.0, Side.BUY), (59, 12.0, 2.0, Side.SELL)))
    candles.apply(trades((61, 11.0, 4.0, Side.BUY), (30, 9.0, 8.0, Side.BUY)))  # one is late
    assert told(candles) == [
        (0, 10.0, 12.0, 9.0, 12.0, 11.0, 9.0, True),  # whose beginning nobody has seen
        (1, 11.0, 11.0, 11.0, 11.0, 4.0, 4.0, False),
    ]
    candles.apply(trades((60.5, 13.0, 1.0, Side.SELL)))
    assert told(candles) == [(1, 13.0, 13.0, 11.0, 11.0, 5.0, 4.0, False)]
    assert told(candles) == []


def test_minutes_around_missed_rows_say_so() -> None:
    candles = Candles()
    for minute in (0, 1):
        candles.apply(trades((60 * minute, 1.0, 1.0, Side.BUY)))
    candles.miss()
    for minute in (2, 3):
        candles.apply(trades((60 * minute, 1.0, 1.0, Side.BUY)))
    assert [each[-1] for each in told(candles)] == [True, True, True, False]


def test_the_oldest_are_forgotten() -> None:
    candles = Candles()
    minutes = range(CANDLES_MAX + 5)
    candles.apply(trades(*((60 * minute, 1.0, 1.0, Side.BUY) for minute in minutes)))
    assert [each[0] for each in told(candles)] == list(minutes[5:])


@given(
    st.lists(
        st.tuples(st.integers(0, 299), st.integers(1, 50), st.integers(1, 9), SIDES),
        min_size=1, max_size=40, unique_by=lambda each: each[0],
    ),
    st.integers(1, 7),
)  # fmt: skip
def test_portions_make_no_difference(rows: list[tuple[int, int, int, Side]], size: int) -> None:
    whole, parted = Candles(), Candles()
    found = trades(*rows)
    whole.apply(found)
    for begin in range(0, len(found), size):
        parted.apply(found[begin : begin + size])
    without_part = [each[:-1] for each in told(whole)]
    assert [each[:-1] for each in told(parted)] == without_part
