"""Screening and halving keep every row, once, with its sequence number."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from engine.base.clock import DAY_NS
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey
from engine.writer.rows.copy import StreamLookup
from engine.writer.rows.screen import days, is_clean, unstorable
from engine.writer.rows.screened import halves
from engine.writer.rows.slice import Rows, Slice

sizes = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def _parts(counts: list[int]) -> list[Rows]:
    parts, seq = [], 100
    for count in counts:
        rows = np.zeros(count, TRADE.dtype)
        rows["trade_id"] = np.arange(seq, seq + count)
        parts.append(Rows.of(Slice.whole(SourceKey("r", 1), TRADE, seq, rows)))
        seq += count
    return parts


def _ids(parts: list[Rows]) -> list[int]:
    found = []
    for rows in parts:
        ids = rows.records["trade_id"].tolist()
        assert ids == rows.numbers.tolist()
        found += ids
    return found


@given(sizes.filter(lambda counts: sum(counts) > 1), st.lists(st.booleans(), max_size=8))
def test_halves_of_halves_hold_every_row_under_its_sequence(
    counts: list[int], path: list[bool]
) -> None:
    parts = _parts(counts)
    for go_right in path:
        expected = _ids(parts)
        if len(expected) < 2:
            break
        left, right = halves(parts)
        assert _ids(left) + _ids(right) == expected
        assert abs(len(_ids(left)) - len(_ids(right))) <= 1
        parts = right if go_right else left


@given(st.lists(st.integers(15_000, 15_200), min_size=1, max_size=30))
def test_days_are_those_of_the_rows(numbers: list[int]) -> None:
    rows = np.zeros(len(numbers), TRADE.dtype)
    rows["ts_event"] = np.array(numbers) * DAY_NS + 1
    assert set(numbers) <= days(rows)
    if max(numbers) - min(numbers) > 1:
        assert days(rows) == set(numbers)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(),
            st.floats(),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_what_the_quick_look_calls_clean_is_refused_by_nobody(
    values: list[tuple[int, int, float, float]],
) -> None:
    lookup = StreamLookup()
    for slot in range(10):
        lookup.set(slot, slot + 1, slot % 3, 2)
    rows = np.zeros(len(values), TRADE.dtype)
    for name, column in zip(
        ("stream", "ts_event", "price", "qty"), zip(*values, strict=True), strict=True
    ):
        rows[name] = column
    if is_clean(rows, TRADE, lookup):
        assert not unstorable(rows, TRADE, lookup)
    refused = [offset for group in unstorable(rows, TRADE, lookup) for offset in group.offsets]
    assert len(refused) == len(set(refused))
