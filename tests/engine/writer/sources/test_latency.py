"""Latency histograms never flatter: a percentile is at least the true one."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from engine.data.flags import Flag
from engine.data.kinds import TRADE
from engine.messages.totals import summarize
from engine.writer.sources.latency import Latency


@given(ages_us=st.lists(st.integers(1, 10**8), min_size=1, max_size=200))
def test_percentiles_are_upper_bounds_within_a_bucket(ages_us: list[int]) -> None:
    latency = Latency()
    latency.add_ns(np.array(ages_us) * 1000)
    summary = summarize(latency.histogram())
    worst = max(ages_us)
    assert worst <= summary["max"] * 1.0001 <= worst * 10**0.1 * 1.01 + 0.1  # rounded to 0.1 us
    median = sorted(ages_us)[(len(ages_us) - 1) // 2]
    assert summary["p50"] * 1.0001 >= median


def test_large_batches_are_sampled_and_weighted() -> None:
    rows = np.zeros(100_000, TRADE.dtype)
    rows["ts_recv"] = 1_000_000
    latency = Latency()
    latency.add(rows, 3_000_000)
    counts = latency.histogram().counts
    assert sum(counts) > 90_000
    assert sum(count > 0 for count in counts) == 1


def test_clocks_that_disagree_count_as_no_time() -> None:
    rows = np.zeros(3, TRADE.dtype)
    rows["ts_event"], rows["ts_recv"] = 10_000_000, 5_000_000
    latency = Latency()
    latency.add_receipt(rows)
    assert latency.histogram().counts[0] == 3


@pytest.mark.fault("N28")
def test_only_live_rows_with_a_time_of_the_venue_have_a_latency() -> None:
    rows = np.zeros(6, TRADE.dtype)
    rows["ts_recv"] = 60_000_000_000
    rows["ts_event"] = rows["ts_recv"] - 2_000_000
    rows["ts_event"][:2] = 1
    rows["flags"][:2] = Flag.BACKFILLED, Flag.BACKFILLED | Flag.AFTER_GAP
    rows["ts_event"][2] = rows["ts_recv"][2]
    latency = Latency()
    latency.add_receipt(rows)
    assert sum(latency.histogram().counts) == 3
    assert summarize(latency.histogram())["max"] <= 2600
    assert latency.histogram().sum_us == pytest.approx(3 * 2000)
    nothing = Latency()
    nothing.add_receipt(rows[:3])
    assert summarize(nothing.histogram()) == {}


def test_many_small_batches_count_as_one_large_one() -> None:
    rows = np.zeros(700, TRADE.dtype)
    rows["ts_recv"] = np.arange(1, 701) * 1_000_000
    rows["ts_event"] = rows["ts_recv"] - np.arange(700) * 10_000
    together, apart = Latency(), Latency()
    for start in range(0, 700, 3):
        apart.add(rows[start : start + 3], 10**9)
        apart.add_receipt(rows[start : start + 3])
    together.add_ns(10**9 - rows["ts_recv"])
    together.add_ns(np.arange(1, 700) * 10_000)
    assert apart.histogram().counts == together.histogram().counts
    assert apart.histogram().sum_us == pytest.approx(together.histogram().sum_us)
