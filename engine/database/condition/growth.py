"""What tables grow by, and when the disk is full: from their pieces, by arithmetic alone.

The rate of a table is that of its newest whole day: of what is over and will not change any more,
so with the index that a day gets when it is over, and compressed where that is its fate. While
there is no such day it is the mean of all that is there, from an hour on; of a table whose rows are
compressed it is never that of rows that are not yet, for it would be several times too high.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from engine.base.clock import DAY_NS
from engine.database.condition.sizes import Piece, TablePieces
from engine.messages.upkeep import FAR_DAYS, TableSize, age_ns

_HOUR_NS: Final = DAY_NS // 24
_LEFT_NS: Final = 2 * DAY_NS
"""What was not compressed so long after its end stays as it is, as far as anybody knows."""


def size_of(table: TablePieces, oldest_ns: int | None, kept_for: str, now_ns: int) -> TableSize:
    """All that is said of one table. `oldest_ns`: time of its oldest row."""
    pieces = table.pieces
    size = TableSize(
        table.table,
        row_count=sum(each.row_count or 0 for each in pieces),
        size_bytes=sum(each.size_bytes for each in pieces),
        bytes_a_row=_bytes_a_row(pieces, now_ns),
        oldest_ns=oldest_ns,
        kept_for=kept_for,
    )
    if table.has_columns:
        in_columns = [each for each in pieces if each.before_compression_bytes]
        size.compressed_bytes = sum(each.compressed_bytes or 0 for each in in_columns)
        size.before_compression_bytes = sum(
            each.before_compression_bytes or 0 for each in in_columns
        )
    if oldest_ns is not None:
        measured, span_ns = _whole_day(table, oldest_ns, now_ns)
        if measured:
            days = span_ns / DAY_NS
            size.bytes_a_day = round(sum(each.size_bytes for each in measured) / days)
            rows = [each.row_count for each in measured if each.row_count is not None]
            if len(rows) == len(measured):
                size.rows_a_day = round(sum(rows) / days)
    return size


def days_until_full(
    tables: Sequence[TablePieces],
    sizes: Mapping[str, TableSize],
    free_bytes: int | None,
    now_ns: int,
) -> float | None:
    """Days from now until tables have taken `free_bytes` more than they do: each adds what it adds
    a day, and a piece goes when its end is older than its table is kept for. Where it errs it is
    early, by what two days bring at most: what goes within a day is room at the day's end only.
    What `keep_by_venue` deletes is no room. At most FAR_DAYS; None where nothing is known.
    """
    growing = [size for size in sizes.values() if size.bytes_a_day is not None]
    if free_bytes is None or not growing:
        return None
    added = sum(size.bytes_a_day or 0.0 for size in growing)
    going = _going(tables, sizes, now_ns)
    # What comes now is in a day that is over tomorrow, and goes when that is as old.
    ends = [
        (math.ceil(age_ns(size.kept_for) / DAY_NS) + 1, size.bytes_a_day or 0.0)
        for size in growing
        if size.kept_for
    ]
    free = float(free_bytes)
    for day in range(int(FAR_DAYS)):
        if free < added:
            return round(day + max(free, 0.0) / added, 2)
        free += going.get(day + 1, 0.0) - added
        free += sum(bytes_a_day for end, bytes_a_day in ends if day + 1 > end)
    return FAR_DAYS


def days_of(tables: Sequence[TablePieces], now_ns: int) -> int:
    """Days of UTC of which there are rows, as far as the bounds of pieces tell."""
    days: set[int] = set()
    for table in tables:
        for each in table.pieces:
            if not each.is_empty and each.start_ns is not None and each.end_ns is not None:
                last_ns = min(each.end_ns, now_ns) - 1
                days.update(range(each.start_ns // DAY_NS, last_ns // DAY_NS + 1))
    return len(days)


def sum_known(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [each for each in values if each is not None]
    return sum(known) if known else None


def _going(
    tables: Sequence[TablePieces], sizes: Mapping[str, TableSize], now_ns: int
) -> dict[int, float]:
    """Bytes that are there now, by the day from now at whose end they are gone."""
    going: dict[int, float] = {}
    for table in tables:
        size = sizes.get(table.table)
        if size is None or not size.kept_for:
            continue
        age = age_ns(size.kept_for)
        for piece in table.pieces:
            if piece.end_ns is not None:
                day = max(math.ceil((piece.end_ns + age - now_ns) / DAY_NS), 1)
                going[day] = going.get(day, 0.0) + piece.size_bytes
            elif piece.name == table.table and size.oldest_ns is not None:
                # Deleted day by day, oldest first; the room is taken again by the same table.
                days = max(math.ceil((now_ns - size.oldest_ns) / DAY_NS), 1)
                for back in range(days):
                    day = max(math.ceil(age / DAY_NS) - back + 1, 1)
                    going[day] = going.get(day, 0.0) + piece.size_bytes / days
    return going


def _bytes_a_row(pieces: Sequence[Piece], now_ns: int) -> float | None:
    """Of what is over, where there is any: of the newest piece the statistics know only a part."""
    known = [each for each in pieces if each.row_count]
    known = [each for each in known if each.is_over(now_ns)] or known
    if not known:
        return None
    size_bytes = sum(each.size_bytes for each in known)
    return round(size_bytes / sum(each.row_count or 0 for each in known), 1)


def _whole_day(table: TablePieces, oldest_ns: int, now_ns: int) -> tuple[list[Piece], int]:
    """Pieces that tell the rate, and the time in them, ns; none: it is too early to tell."""
    measured: list[Piece] = []
    span_ns = 0
    for each in reversed(table.pieces):
        if span_ns < DAY_NS and _is_settled(table, each, oldest_ns, now_ns):
            assert each.end_ns is not None
            measured.append(each)
            span_ns += each.end_ns - max(each.start_ns or 0, oldest_ns)
    if span_ns < DAY_NS and not table.has_columns:
        measured = [each for each in table.pieces if not each.is_empty]
        span_ns = now_ns - oldest_ns
    return (measured, span_ns) if span_ns >= _HOUR_NS else ([], 0)


def _is_settled(table: TablePieces, piece: Piece, oldest_ns: int, now_ns: int) -> bool:
    """Whether its size tells of its time, and stays."""
    if piece.end_ns is None or not oldest_ns < piece.end_ns <= now_ns:
        return False
    is_left = piece.end_ns <= now_ns - _LEFT_NS
    return not table.has_columns or piece.compressed_bytes is not None or is_left
