"""The ladder against the rules of a book, one row at a time."""

from decimal import Decimal
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from control.ui.digits import between, exact_text
from control.ui.ladder import LEVELS_MAX, BookState, Ladder
from engine.data.flags import Flag, Side
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK

FIRST, LAST = int(Flag.FIRST_IN_EVENT), int(Flag.LAST_IN_EVENT)
SNAPSHOT, AFTER_GAP = int(Flag.SNAPSHOT), int(Flag.AFTER_GAP)
Row = tuple[int, Side, float, float]


def rows_of(rows: list[Row]) -> RecordArray:
    array = np.zeros(len(rows), BOOK.dtype)
    for index, (flags, side, price, qty) in enumerate(rows):
        array[index] = (0, flags, side, 0, index, index, index, index - 1, price, qty)
    return array


class PlainLadder:
    """The rules, word by word."""

    def __init__(self) -> None:
        self.state = BookState.PARTIAL
        self.sides: dict[Side, dict[float, float]] = {Side.BID: {}, Side.ASK: {}}

    def apply(self, flags: int, side: Side, price: float, qty: float) -> None:
        if flags & AFTER_GAP:
            self._clear(BookState.UNKNOWN)
        if flags & SNAPSHOT and flags & FIRST:
            self._clear(BookState.KNOWN)
        if self.state is BookState.UNKNOWN or side is Side.NONE:
            return
        if qty:
            self.sides[side][price] = qty
        else:
            self.sides[side].pop(price, None)

    def _clear(self, state: BookState) -> None:
        self.state = state
        for levels in self.sides.values():
            levels.clear()


@st.composite
def events(draw: st.DrawFn) -> list[Row]:
    """Whole events: first and last row flagged, snapshots flagged on each row."""
    rows: list[Row] = []
    for _ in range(draw(st.integers(0, 12))):
        mark = draw(st.sampled_from([0, 0, 0, SNAPSHOT, AFTER_GAP, SNAPSHOT | AFTER_GAP]))
        levels = draw(
            st.lists(
                st.tuples(
                    st.sampled_from([Side.BID, Side.ASK]),
                    st.integers(1, 9).map(float),
                    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
                ),
                max_size=6,
            )
        ) or [(Side.NONE, 0.0, 0.0)]
        for index, (side, price, qty) in enumerate(levels):
            flags = mark & SNAPSHOT
            flags |= (FIRST | mark & AFTER_GAP) if index == 0 else 0
            flags |= LAST if index == len(levels) - 1 else 0
            rows.append((flags, side, price, qty))
    return rows


@given(events(), st.lists(st.integers(0, 40), max_size=6))
def test_it_equals_the_plain_rules_however_the_rows_are_cut(
    rows: list[Row], cuts: list[int]
) -> None:
    ladder, plain = Ladder(), PlainLadder()
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    array = rows_of(rows)
    for start, stop in pairwise(edges):
        ladder.apply(array[start:stop])
        for row in rows[start:stop]:
            plain.apply(*row)
        bids, asks = ladder.top(99)
        assert bids == sorted(plain.sides[Side.BID].items(), reverse=True)
        assert asks == sorted(plain.sides[Side.ASK].items())
        assert ladder.state is plain.state
        assert ladder.is_settled == (stop == 0 or bool(rows[stop - 1][0] & LAST))


def test_a_gap_hides_the_book_until_the_next_snapshot() -> None:
    ladder = Ladder()
    ladder.apply(rows_of([(SNAPSHOT | FIRST | LAST, Side.BID, 5.0, 1.0)]))
    ladder.apply(rows_of([(AFTER_GAP | FIRST | LAST, Side.BID, 6.0, 1.0)]))
    assert (ladder.state, ladder.top(5)) == (BookState.UNKNOWN, ([], []))
    ladder.apply(rows_of([(FIRST | LAST, Side.BID, 7.0, 1.0)]))
    assert ladder.top(5) == ([], [])
    ladder.apply(rows_of([(SNAPSHOT | FIRST | LAST, Side.BID, 8.0, 1.0)]))
    assert (ladder.state, ladder.top(5)) == (BookState.KNOWN, ([(8.0, 1.0)], []))


def test_an_empty_snapshot_empties_the_book() -> None:
    ladder = Ladder()
    ladder.apply(rows_of([(FIRST | LAST, Side.ASK, 5.0, 1.0)]))
    ladder.apply(rows_of([(SNAPSHOT | FIRST | LAST, Side.NONE, 0.0, 0.0)]))
    assert (ladder.state, ladder.top(5)) == (BookState.KNOWN, ([], []))


def test_a_book_of_absurd_depth_keeps_its_best_levels() -> None:
    ladder = Ladder()
    rows = np.zeros(2 * LEVELS_MAX, BOOK.dtype)
    rows["side"], rows["qty"], rows["flags"] = Side.BID, 1.0, 0
    rows["price"] = np.arange(1, 2 * LEVELS_MAX + 1)
    ladder.apply(rows)
    bids, _ = ladder.top(3 * LEVELS_MAX)
    assert bids[0][0] == 2 * LEVELS_MAX
    assert len(bids) <= LEVELS_MAX
    assert ladder.state is BookState.PARTIAL


@given(st.integers(1, 10**14), st.integers(0, 12))
def test_a_price_is_shown_as_the_venue_wrote_it(mantissa: int, decimals: int) -> None:
    written = format(Decimal(mantissa).scaleb(-decimals), "f")
    assert exact_text(float(written), decimals) == written


def test_a_price_with_more_decimals_than_known_is_not_rounded() -> None:
    assert exact_text(0.00012345, 2) == "0.00012345"
    assert exact_text(1e-7, 0) == "0.0000001"
    assert exact_text(1e22, 0) == "10000000000000000000000"


def test_middle_and_spread_are_exact() -> None:
    assert between("67412.30", "67412.40") == ("67412.35", "0.10", 0.015)
    assert between("0.1", "0.3")[:2] == ("0.2", "0.2")
