"""What tables grow by, and when the disk is full: arithmetic against a disk that is filled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.clock import DAY_NS
from engine.database.condition.growth import days_of, days_until_full, size_of
from engine.database.condition.sizes import Piece, TablePieces
from engine.messages.upkeep import FAR_DAYS, TableSize, age_ns

TODAY = 20_000
NOON_NS = TODAY * DAY_NS + DAY_NS // 2
HOUR_NS = DAY_NS // 24


def day(day: float, size: int, rows: int | None = None, days: float = 1, **columns: int) -> Piece:
    """A partition or chunk, in days since 1970."""
    start_ns, end_ns = round(day * DAY_NS), round((day + days) * DAY_NS)
    return Piece("public", f"p{day}", start_ns, end_ns, rows, size == 0, size, **columns)


def sized(
    *pieces: Piece, oldest: float, kept: str = "", has_columns: bool = False, now_ns: int = NOON_NS
) -> tuple[TablePieces, TableSize]:
    table = TablePieces("trade", list(pieces), has_columns)
    return table, size_of(table, round(oldest * DAY_NS), kept, now_ns)


def full(free: int, *tables: tuple[TablePieces, TableSize], now_ns: int = NOON_NS) -> float | None:
    sizes = {table.table: size for table, size in tables}
    return days_until_full([table for table, _ in tables], sizes, free, now_ns)


def test_the_rate_is_that_of_the_newest_whole_day() -> None:
    """Not of the first one, which began late, nor of today, which is not over."""
    _, size = sized(
        day(TODAY - 3, 500, 10), day(TODAY - 2, 2400, 48), day(TODAY - 1, 4800, 60),
        day(TODAY, 100), day(TODAY + 1, 0, 0), oldest=TODAY - 2.2,
    )  # fmt: skip
    assert (size.bytes_a_day, size.rows_a_day) == (4800, 60)
    assert (size.size_bytes, size.row_count) == (7800, 118)
    assert size.bytes_a_row == round(7700 / 118, 1), "of today's rows the statistics know a part"


def test_a_first_day_is_measured_from_its_first_row_and_not_before_an_hour() -> None:
    _, size = sized(day(TODAY, 600, 12), oldest=TODAY + 0.25)
    assert (size.bytes_a_day, size.rows_a_day) == (2400, 48)
    _, size = sized(day(TODAY, 600), oldest=TODAY + 0.5 - 0.9 / 24)
    assert (size.bytes_a_day, size.rows_a_day) == (None, None)
    _, size = sized(day(TODAY - 1, 100, 2), day(TODAY, 600), oldest=TODAY - 0.25)
    assert size.bytes_a_day == round(700 / 0.75), "until there is a whole day, all that there is"


def test_what_is_not_compressed_yet_tells_no_rate() -> None:
    """It takes eight times what it will."""
    columns = {"compressed_bytes": 100, "before_compression_bytes": 800}
    hot = [day(TODAY + hour / 24, 800, 10, 1 / 24) for hour in (10, 11)]
    _, size = sized(*hot, oldest=TODAY + 10 / 24, has_columns=True)
    assert size.bytes_a_day is None
    assert size.compression_ratio is None
    cold = [day(TODAY + hour / 24, 100, 10, 1 / 24, **columns) for hour in (8, 9)]
    _, size = sized(*cold, *hot, oldest=TODAY + 8 / 24, has_columns=True)
    assert (size.bytes_a_day, size.rows_a_day) == (2400, 240)
    assert (size.compressed_bytes, size.before_compression_bytes) == (200, 1600)
    assert size.compression_ratio == 8
    left = [day(TODAY - 4, 800, 10), day(TODAY - 3, 800, 10)]
    _, size = sized(*left, *hot, oldest=TODAY - 4, has_columns=True)
    assert size.bytes_a_day == 800, "nobody has compressed it for days"


def test_hours_merged_to_days_count_by_their_time() -> None:
    columns = {"compressed_bytes": 100, "before_compression_bytes": 800}
    merged = day(TODAY - 1, 1200, 24, 1, **columns)
    hours = [day(TODAY + hour / 24, 100, 2, 1 / 24, **columns) for hour in range(6)]
    _, size = sized(day(TODAY - 2, 1), merged, *hours, oldest=TODAY - 2, has_columns=True)
    assert size.bytes_a_day == round(1800 / 1.25)


def test_days_kept_are_days_that_have_rows() -> None:
    hours = [day(TODAY - 2 + hour / 24, 9, 1, 1 / 24) for hour in (1, 2, 30)]
    tables = [TablePieces("trade", hours), TablePieces("book", [day(TODAY, 7), day(TODAY + 1, 0)])]
    assert days_of(tables, NOON_NS) == 3


def test_without_retention_what_is_free_is_divided_by_what_comes() -> None:
    trade = sized(day(TODAY - 1, 10), oldest=TODAY - 1)
    assert full(95, trade) == 9.5
    assert full(0, trade) == 0.0
    assert full(10**9, trade) == FAR_DAYS
    book = TablePieces("book", [day(TODAY - 1, 30)])
    assert full(100, trade, (book, size_of(book, (TODAY - 1) * DAY_NS, "", NOON_NS))) == 2.5


def test_what_nobody_knows_is_not_guessed() -> None:
    trade = sized(day(TODAY - 1, 10), oldest=TODAY - 1)
    assert days_until_full([trade[0]], {"trade": trade[1]}, None, NOON_NS) is None
    assert full(100, sized(day(TODAY, 10), oldest=TODAY + 0.49)) is None
    assert full(100) is None


def test_retention_makes_room_day_by_day() -> None:
    days = [day(TODAY - back, 10) for back in range(14, 0, -1)]
    steady = sized(*days, day(TODAY, 5), oldest=TODAY - 14, kept="14d")
    assert full(25, steady) == FAR_DAYS
    assert full(9, steady) == 0.9, "a day comes before the oldest goes"
    young = sized(day(TODAY - 1, 10), day(TODAY, 5), oldest=TODAY - 1, kept="14d")
    assert full(200, young) == FAR_DAYS
    assert full(100, young) == 10, "it is full before anything goes"


def test_a_table_in_one_piece_takes_its_room_again() -> None:
    piece = Piece("public", "trade", None, None, 100, False, 1000)
    table = TablePieces("trade", [piece])
    size = size_of(table, (TODAY - 10) * DAY_NS, "1w", NOON_NS)
    assert size.bytes_a_day == round(1000 / 10.5)
    assert full(250, (table, size)) == FAR_DAYS
    assert full(250, (table, size_of(table, (TODAY - 10) * DAY_NS, "", NOON_NS))) == 2.63


@given(
    st.integers(1, 50), st.integers(0, 20), st.integers(0, 2000),
    st.one_of(st.none(), st.integers(1, 21 * 24)), st.integers(0, 23),
)  # fmt: skip
def test_a_disk_that_is_filled_is_full_when_it_was_said(
    rate: int, history: int, free: int, kept_h: int | None, hour: int
) -> None:
    """A disk to which every hour is added, and from which days go when they are over age."""
    rate *= 24
    now_ns = TODAY * DAY_NS + hour * HOUR_NS
    days = {TODAY - back: rate for back in range(history + 1, 0, -1)} | {TODAY: rate // 24 * hour}
    table, size = sized(
        *(day(each, taken) for each, taken in days.items()), oldest=min(days), now_ns=now_ns,
        kept=f"{kept_h}h" if kept_h else "",
    )  # fmt: skip
    assert size.bytes_a_day == rate
    said = full(free, (table, size), now_ns=now_ns)
    assert said is not None
    left, at_ns = free, now_ns
    while left >= 0 and at_ns < now_ns + 60 * DAY_NS:
        if kept_h:
            over = [
                each
                for each in days
                if (each + 1) * DAY_NS + age_ns(f"{kept_h}h") <= at_ns and each * DAY_NS < at_ns
            ]
            left += sum(days.pop(each) for each in over)
        days[at_ns // DAY_NS] = days.get(at_ns // DAY_NS, 0) + rate // 24
        left -= rate // 24
        at_ns += HOUR_NS
    lasted = (at_ns - now_ns) / DAY_NS
    if left < 0:
        assert said <= lasted + 0.005, "too late"
    roomier = full(free + 2 * rate, (table, size), now_ns=now_ns)
    assert roomier is not None
    assert roomier >= lasted - 0.005, "early by more than two days' rows"


@pytest.mark.parametrize("kept", ["", "14d"])
def test_an_empty_table_is_no_trouble(kept: str) -> None:
    table = TablePieces("trade", [day(TODAY, 0, 0)])
    size = size_of(table, None, kept, NOON_NS)
    assert (size.bytes_a_row, size.bytes_a_day, size.oldest_ns) == (None, None, None)
