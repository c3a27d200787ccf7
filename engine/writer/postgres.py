"""Rows into PostgreSQL, exactly once.

One transaction a commit: first every ring's cursor moves by compare-and-set, then one binary COPY a
record kind, then COMMIT. The row lock of the cursor orders two writers, and the comparison lets
only one of them go on: a successor that started while its predecessor's COMMIT was under way is
fenced and reads the cursor again. After any failure the connection is closed, and the caller reads
the cursor to learn what became of a COMMIT whose answer it never got. Where a cursor passes rows
that are lost, the same transaction says so (table ring_loss, and gaps among the rows).
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import sql

from engine.catalog import Catalog
from engine.database_session import WRITER, AsyncSession, open_session
from engine.errors import DatabaseUnavailableError, FencedError
from engine.records import SPECS, GapReason, GapState, RecordKind, RecordSpec
from engine.settings import WriterSettings
from engine.writer.batch import (
    Batch,
    CommitResult,
    Pieces,
    Slice,
    halves,
    is_spotless,
    raised,
    refused_row,
    screen,
    unscreened,
)
from engine.writer.copy import COPY_HEADER, COPY_TRAILER, CopyEncoder
from engine.writer.held_back import HeldSpan
from engine.writer.overdue import Overdue
from engine.writer.partitions import Partitions
from engine.writer.quarantine import Quarantine, RefusedRow
from engine.writer.refusals import is_for_later, unavailable
from engine.writer.streams import StreamRegistry, unresolved

__all__ = ["CommitResult", "PostgresSink", "Slice"]

_ENCODE_ROWS: Final = 8192
_HOPELESS_ROWS: Final = 1000
"""So many rows refused one by one and none taken: the table is at fault, not the rows."""

_MOVE_CURSORS = """
    UPDATE ingest_cursor AS c
    SET sequence = m.new_seq, last_recv = coalesce(m.last_recv, c.last_recv),
        backend_pid = pg_backend_pid(), updated_at = now()
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS m (ring, epoch, old_seq, new_seq, last_recv)
    WHERE c.ring = m.ring AND c.epoch = m.epoch AND c.sequence = m.old_seq
"""
_CLAIM_CURSOR = """
    INSERT INTO ingest_cursor (ring, epoch, sequence, backend_pid)
    VALUES (%s, %s, %s, pg_backend_pid())
    ON CONFLICT (ring, epoch) DO UPDATE SET backend_pid = pg_backend_pid(), updated_at = now()
    RETURNING sequence, last_recv
"""
_INTRODUCE = """
    INSERT INTO ingest_cursor (ring, epoch, sequence, backend_pid)
    SELECT d.ring, d.epoch, d.end_seq, pg_backend_pid()
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS d (ring, epoch, end_seq)
    WHERE NOT EXISTS (SELECT FROM ingest_cursor AS c WHERE starts_with(c.ring, %s))
    ON CONFLICT DO NOTHING
"""
_LACKING = """
    SELECT d.ring, d.epoch
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS d (ring, epoch, end_seq)
    LEFT JOIN ingest_cursor AS c ON c.ring = d.ring AND c.epoch = d.epoch
    WHERE coalesce(c.sequence, 0) < d.end_seq
"""
_FORGET_CURSORS = """
    DELETE FROM ingest_cursor AS c USING unnest(%s::text[], %s::bigint[]) AS k (ring, epoch)
    WHERE c.ring = k.ring AND c.epoch < k.epoch AND c.updated_at < now() - interval '30 days'
"""
_DECLARE_LOSS = """
    INSERT INTO ring_loss AS l (ring, epoch, from_sequence, to_sequence) VALUES (%s, %s, %s, %s)
    ON CONFLICT (ring, epoch, from_sequence) DO UPDATE
    SET to_sequence = greatest(l.to_sequence, excluded.to_sequence), detected = now()
"""
_DECLARE_HELD_BACK = """
    WITH held AS (
        SELECT *, timestamptz 'epoch' + detected / 1000 * interval '1 microsecond' AS time
        FROM unnest(%(stream_id)s::int[], %(detected)s::bigint[], %(from_ts)s::bigint[],
                    %(to_ts)s::bigint[], %(missing)s::bigint[])
            AS h (stream_id, detected, from_ts, to_ts, missing)
    ), grown AS (
        UPDATE gap AS g
        SET from_ts = least(g.from_ts, held.from_ts), to_ts = greatest(g.to_ts, held.to_ts),
            missing = g.missing + held.missing
        FROM held
        WHERE g.time = held.time AND g.stream_id = held.stream_id
            AND g.reason = %(reason)s
        RETURNING g.stream_id
    )
    INSERT INTO gap (time, time_sub_us, ts_recv, stream_id, reason, state,
                     from_seq, to_seq, from_ts, to_ts, missing)
    SELECT time, detected %% 1000, detected, stream_id, %(reason)s, %(state)s, 0, 0,
           from_ts, to_ts, missing
    FROM held WHERE stream_id NOT IN (SELECT stream_id FROM grown)
"""
_TOUCH_CURSOR = "UPDATE ingest_cursor SET updated_at = now() WHERE ring = %s AND epoch = %s"
_END_HOLDER = """
    SELECT pg_terminate_backend(a.pid)
    FROM ingest_cursor c JOIN pg_stat_activity a ON a.pid = c.backend_pid
    WHERE c.ring = %s AND c.epoch = %s AND a.pid <> pg_backend_pid()
      AND a.application_name = current_setting('application_name')
"""

Connection = AsyncSession


@dataclass(slots=True)
class _Attempt:
    """What one transaction has done so far; counts only if it commits."""

    isolating: bool
    stored_rows: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedRow] = field(default_factory=list)
    inexact_rows: int = 0


class PostgresSink:
    """One connection to PostgreSQL. Not for two tasks at a time.

    Every error that trying again may cure is a DatabaseUnavailableError or a FencedError; the
    connection is closed then: `connect`, read the cursors, go on. Cancelling is safe anywhere.
    """

    def __init__(self, settings: WriterSettings, catalog: Catalog) -> None:
        assert settings.database_url, "without a URL there is no sink"
        layout = settings.paths.layout()
        self._url = settings.database_url
        self._instance = layout.instance
        self._streams = StreamRegistry(catalog)
        self._partitions = Partitions()
        self._quarantine = Quarantine(layout.quarantine_dir)
        self._encoders = {kind: CopyEncoder(spec, _ENCODE_ROWS) for kind, spec in SPECS.items()}
        self._connection: Connection | None = None
        self._overdue = Overdue(self._url)
        self._any_cursor: tuple[str, int] | None = None
        self._last_recv_ns: dict[tuple[str, int], int] = {}

    async def connect(self) -> None:
        """Open a new connection in place of the old one, and forget what the old one knew."""
        await self.close()
        self._streams.forget()
        self._partitions.forget()
        self._connection = await open_session(self._url, WRITER, self._instance)
        self._overdue.watch(self._connection)

    async def close(self) -> None:
        """Close the connection, if any."""
        self._overdue.end()
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    @property
    def overdue(self) -> str:
        """Why an answer is late; empty while none is."""
        return self._overdue.text

    async def cursor(self, ring: str, epoch: int, first_seq: int) -> int:
        """Sequence of the next row to store; a new ring starts at `first_seq`.

        Takes the row's lock, so it waits for a predecessor's COMMIT that is still under way. A
        predecessor that hangs on to the lock is ended after the lock timeout.
        """
        async with self._connected() as connection:
            try:
                sequence, recv_ns = await _claim(connection, ring, epoch, first_seq)
            except psycopg.errors.LockNotAvailable:
                await connection.execute(_END_HOLDER, (ring, epoch))
                sequence, recv_ns = await _claim(connection, ring, epoch, first_seq)
        self._last_recv_ns[ring, epoch] = recv_ns
        self._any_cursor = (ring, epoch)
        return sequence

    async def introduce(self, instance: str, drained: Mapping[tuple[str, int], int]) -> None:
        """A database that has never had rows of an instance need not know of what was drained
        before it: it counts as stored. All at once, for with its first cursor it is not new.
        """
        async with self._connected() as connection:
            await connection.execute(_INTRODUCE, (*_columns(drained), f"{instance}/"))

    async def lacking(self, drained: Mapping[tuple[str, int], int]) -> list[tuple[str, int]]:
        """Which of these the database has not all rows of: it was set back."""
        async with self._connected() as connection:
            found = await connection.execute(_LACKING, _columns(drained))
            return [(ring, epoch) for ring, epoch in await found.fetchall()]

    async def forget_cursors_before(self, epochs: Mapping[str, int]) -> None:
        """Remove the cursors of each ring's epochs older than these: nothing of them is left. Not
        at once: a state directory brought back from a backup may have their journals again.
        """
        async with self._connected() as connection:
            await connection.execute(_FORGET_CURSORS, (list(epochs), list(epochs.values())))

    def last_recv_ns(self, ring: str, epoch: int) -> int:
        """`ts_recv` of the last row below the cursor when it was read; 0 while there was none."""
        return self._last_recv_ns.get((ring, epoch), 0)

    async def commit(
        self, slices: Sequence[Slice], held_back: Sequence[HeldSpan] = (), *, durable: bool
    ) -> CommitResult:
        """Store the rows, declare what is held back and move the cursors, in one transaction.

        Slices of one ring are contiguous and in order. `durable`: when this returns, everything
        committed so far survives a crash of the server, too; it may come without slices.
        Raises FencedError when a cursor is elsewhere, and DatabaseUnavailableError.
        """
        async with self._connected() as connection:
            batch = await self._prepare(connection, slices, held_back)
            attempt = _Attempt(isolating=False)
            try:
                await self._transact(connection, batch, attempt, durable)
            except psycopg.Error as error:
                if is_for_later(error):
                    raise
                # A row is to blame; or its day's partition, dropped since we made it.
                self._partitions.forget()
                await self._make_partitions(connection, batch)
                attempt = _Attempt(isolating=True)
                await self._transact(connection, batch, attempt, durable)
        refused = Counter(row.table for row in (*batch.refused, *attempt.refused))
        return CommitResult(attempt.stored_rows, refused, attempt.inexact_rows)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """The connection; whatever goes wrong with it, it is closed and not used again."""
        connection = self._connection
        if connection is None or connection.closed:
            raise DatabaseUnavailableError("not connected")
        try:
            yield connection
        except psycopg.Error as error:
            why = self._overdue.text
            self._drop(connection)
            raise unavailable(error, self._url, why) from None
        except BaseException:
            self._drop(connection)
            raise

    def _drop(self, connection: Connection) -> None:
        """Close without a word: the server rolls back what was open. Never waits."""
        self._overdue.end()
        connection.pgconn.finish()
        self._connection = None

    async def _prepare(
        self, connection: Connection, slices: Sequence[Slice], held_back: Sequence[HeldSpan]
    ) -> Batch:
        """Register streams, sort out bad rows, raise decimals, make partitions."""
        self._streams.catch_up()
        unknown = {span.slot for span in held_back if not self._streams.is_resolved(span.slot)}
        for piece in slices:
            unknown.update(unresolved(self._streams.lookup, piece.records["stream"]))
        if unknown:
            await self._streams.resolve(connection, sorted(unknown))
        if not _has_strangers(unknown, self._streams) and is_spotless(slices, self._streams):
            batch = unscreened(slices)
        else:
            batch = screen(slices, self._streams)
            for slot, decimals in raised(batch, self._streams).items():
                await self._streams.raise_decimals(connection, slot, *decimals)
        batch.held_back = [span for span in held_back if self._streams.is_resolved(span.slot)]
        await self._make_partitions(connection, batch)
        return batch

    async def _make_partitions(self, connection: Connection, batch: Batch) -> None:
        for kind in batch.pieces:
            await self._partitions.ensure(connection, kind.value, batch.days(kind))

    async def _transact(
        self, connection: Connection, batch: Batch, attempt: _Attempt, durable: bool
    ) -> None:
        async with connection.transaction():
            if durable:
                await connection.execute("SET LOCAL synchronous_commit = on")
            await self._move_cursors(connection, batch.slices)
            await self._declare_held_back(connection, batch.held_back)
            for kind, pieces in batch.pieces.items():
                if attempt.isolating:
                    await self._store_isolating(connection, kind, pieces, attempt)
                else:
                    await self._store(connection, kind, pieces, attempt)
            self._quarantine.write((*batch.refused, *attempt.refused))

    async def _move_cursors(self, connection: Connection, slices: Sequence[Slice]) -> None:
        """Compare-and-set, before anything else: whoever is not at the cursor stops here."""
        moves: dict[tuple[str, int], tuple[int, int, int | None]] = {}
        for piece in slices:
            key = (piece.ring, piece.epoch)
            start_seq, end_seq, recv_ns = moves.get(key, (piece.start_seq, piece.start_seq, None))
            assert piece.start_seq == end_seq, "slices of a ring are contiguous"
            moves[key] = (start_seq, piece.end_seq, piece.last_recv_ns or recv_ns)
        if not moves:
            if self._any_cursor is not None:  # a COMMIT without WAL of its own flushes nothing
                await connection.execute(_TOUCH_CURSOR, self._any_cursor)
            return
        values = (
            [ring for ring, _ in moves],
            [epoch for _, epoch in moves],
            *map(list, zip(*moves.values(), strict=True)),
        )
        moved = await connection.execute(_MOVE_CURSORS, values)
        if moved.rowcount != len(moves):
            rings = ", ".join(f"{ring}/{epoch}" for ring, epoch in moves)
            raise FencedError(f"the cursor of one of {rings} is not where this writer left it")
        for piece in slices:
            if piece.lost_count:
                loss = (piece.ring, piece.epoch, piece.start_seq, piece.first_seq)
                await connection.execute(_DECLARE_LOSS, loss)

    async def _declare_held_back(self, connection: Connection, spans: Sequence[HeldSpan]) -> None:
        """Let the gap of each stream begin or grow."""
        if spans:
            stream_id = self._streams.lookup.stream_id
            values = {
                "reason": int(GapReason.NOT_STORED),
                "state": int(GapState.UNRECOVERABLE),
                "stream_id": [int(stream_id[span.slot]) for span in spans],
                "detected": [span.detected_ns for span in spans],
                "from_ts": [span.from_ts for span in spans],
                "to_ts": [span.to_ts for span in spans],
                "missing": [span.count for span in spans],
            }
            await connection.execute(_DECLARE_HELD_BACK, values)

    async def _store(
        self, connection: Connection, kind: RecordKind, pieces: Pieces, attempt: _Attempt
    ) -> None:
        encoder = self._encoders[kind]
        lookup = self._streams.lookup
        inexact_before = encoder.inexact_count
        async with (
            connection.cursor() as cursor,
            cursor.copy(_copy_statement(encoder.spec)) as copy,
        ):
            await copy.write(COPY_HEADER)
            for piece in pieces:
                for start in range(0, len(piece.records), encoder.capacity):
                    rows = piece.records[start : start + encoder.capacity]
                    await copy.write(encoder.encode(rows, lookup))
            await copy.write(COPY_TRAILER)
        attempt.stored_rows[kind.value] += sum(len(piece.records) for piece in pieces)
        attempt.inexact_rows += encoder.inexact_count - inexact_before

    async def _store_isolating(
        self, connection: Connection, kind: RecordKind, pieces: Pieces, attempt: _Attempt
    ) -> None:
        """Store what can be stored: halves, and halves of halves, down to the rows to blame."""
        try:
            async with connection.transaction():  # a savepoint
                await self._store(connection, kind, pieces, attempt)
        except psycopg.Error as error:
            if is_for_later(error):
                raise
            if sum(len(piece.records) for piece in pieces) > 1:
                for half in halves(pieces):
                    await self._store_isolating(connection, kind, half, attempt)
                return
            text = f"{error.sqlstate}: {str(error).strip()}"
            attempt.refused.append(refused_row(pieces[0], 0, text, self._streams))
            if len(attempt.refused) >= _HOPELESS_ROWS and not attempt.stored_rows[kind.value]:
                raise DatabaseUnavailableError(
                    f"table {kind.value} refuses every row: {text}"
                ) from None


async def _claim(connection: Connection, ring: str, epoch: int, first_seq: int) -> tuple[int, int]:
    """(sequence of the cursor, `ts_recv` of the last row below it)."""
    found = await connection.execute(_CLAIM_CURSOR, (ring, epoch, first_seq))
    row = await found.fetchone()
    assert row is not None, "an upsert returns its row"
    return row[0], row[1] or 0


def _columns(drained: Mapping[tuple[str, int], int]) -> tuple[list[str], list[int], list[int]]:
    """Rings, epochs and their ends."""
    return [ring for ring, _ in drained], [epoch for _, epoch in drained], list(drained.values())


def _has_strangers(slots: set[int], streams: StreamRegistry) -> bool:
    """Whether one of `slots` is still unknown after the look-up."""
    return any(not streams.is_resolved(slot) for slot in slots)


def _copy_statement(spec: RecordSpec) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(spec.table),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in spec.columns),
    )
