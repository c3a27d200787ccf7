"""What goes with rows in the transaction that stores them, so that others need not read all of
them: the minutes whose bars change, and the spans of time in which streams have rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from engine.data.kinds import GAP, TRADE
from engine.database.session import AsyncSession
from engine.writer.rows.screen import minutes
from engine.writer.rows.slice import Rows
from engine.writer.sinks.postgres.spans import Claims, RowSpans

_MARK_BARS: Final = """
    INSERT INTO bar_todo (minute)
    SELECT timestamptz 'epoch' + m * interval '1 minute' FROM unnest(%s::bigint[]) AS m
"""
_NOTE_SPANS: Final = """
    INSERT INTO row_span (kind, stream_id, from_time, to_time)
    SELECT kind, stream_id, ns_time(from_ns), ns_time(to_ns)
    FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[])
        AS s (kind, stream_id, from_ns, to_ns)
"""


class Note(NamedTuple):
    """A statement that is to be executed with the rows, by itself or in front of another."""

    query: str
    values: tuple[Any, ...]


class Notes:
    """What one session has noted. Not for two tasks at a time."""

    def __init__(self) -> None:
        self._marks_bars: bool | None = None
        """Whether trades leave marks of their minutes; None: the database is still to be asked."""
        self._spans = RowSpans()
        self._claimed: list[tuple[str, Claims]] = []

    def forget(self) -> None:
        """The session is a new one, and may be with another database."""
        self._marks_bars = None
        self._spans.forget()

    async def want_bars(self, connection: AsyncSession, wanted: bool) -> None:
        """Say whether bars are kept of what is stored from now on, and be told whether that takes
        marks. For a writer that has its cursors: then nobody before it can still store rows.
        """
        self._marks_bars = await _first(connection, "SELECT mark_bars(%s)", wanted)

    async def of(
        self,
        connection: AsyncSession,
        rows_by_kind: Mapping[str, Sequence[Rows]],
        stream_ids: Any,
    ) -> list[Note]:
        """Notes for the transaction that stores these rows; few batches need any. `stream_ids` is
        the database's id of each slot.
        """
        if self._marks_bars is None:
            self._marks_bars = await _first(connection, "SELECT is_marked FROM bar_state")
        trades = rows_by_kind.get(TRADE.name, ()) if self._marks_bars else ()
        found = [self._claim_spans(rows_by_kind, stream_ids)]
        if marks := sorted(set().union(*(minutes(rows.records) for rows in trades))):
            found.append(Note(_MARK_BARS, (marks,)))
        return [note for note in found if note is not None]

    def committed(self) -> None:
        """The spans that were claimed last are stored, and need not be again."""
        self._spans.keep(self._claimed)
        self._claimed = []

    def _claim_spans(
        self, rows_by_kind: Mapping[str, Sequence[Rows]], stream_ids: Any
    ) -> Note | None:
        """None where all rows are in spans that are noted."""
        self._claimed = [
            claimed
            for kind, parts in rows_by_kind.items() if kind != GAP.name
            for rows in parts
            for claimed in self._spans.claims(kind, rows.records, stream_ids)
        ]  # fmt: skip
        if not self._claimed:
            return None
        columns = (
            [kind for kind, claims in self._claimed for _ in claims.stream_ids],
            [i for _, claims in self._claimed for i in claims.stream_ids.tolist()],
            [ns for _, claims in self._claimed for ns in claims.from_ns.tolist()],
            [ns for _, claims in self._claimed for ns in claims.to_ns.tolist()],
        )
        return Note(_NOTE_SPANS, columns)


async def _first(connection: AsyncSession, query: str, *values: Any) -> bool:
    row = await (await connection.execute(query.encode(), values)).fetchone()
    assert row is not None, "it always says something"
    return bool(row[0])
