"""Rows into PostgreSQL, exactly once.

One transaction a commit: first every ring's cursor moves by compare-and-set, then one binary COPY a
record kind, then COMMIT. The row lock of the cursor orders two writers, and the comparison lets
only one of them go on: a successor that started while its predecessor's COMMIT was under way is
fenced and reads the cursor again. After any failure the connection is closed, and the caller reads
the cursor to learn what became of a COMMIT whose answer it never got. Where a cursor passes rows
that are lost, the same transaction says so (table ring_loss, and gaps among the rows).
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psycopg

from engine.base.clock import wall_ns
from engine.base.errors import (
    DatabaseUnavailableError,
    FencedError,
    TableRefusesError,
)
from engine.data.flags import GapReason, GapState
from engine.data.layout import SourceKey
from engine.data.slots import Slots
from engine.database.session import WRITER, AsyncSession, open_session
from engine.database.words import unavailable
from engine.messages.settings import WriterSettings
from engine.writer.rows.refused import Refusals, declare
from engine.writer.rows.screened import Screened
from engine.writer.rows.slice import Batch, Loss, Part
from engine.writer.sinks.postgres.adoption import Aside
from engine.writer.sinks.postgres.coverage import close_coverage, store_coverage
from engine.writer.sinks.postgres.overdue import Overdue
from engine.writer.sinks.postgres.refusals import Fault, fault_of, in_words
from engine.writer.sinks.postgres.tables import MARK_BARS, Tables
from engine.writer.sinks.postgres.waits import DatabaseWaits
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken

_MOVE_CURSORS = """
    UPDATE ingest_cursor AS c
    SET sequence = m.new_seq, last_recv = coalesce(m.last_recv, c.last_recv),
        backend_pid = pg_backend_pid(), updated_at = now()
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS m (ring, epoch, old_seq, new_seq, last_recv)
    WHERE c.ring = m.ring AND c.epoch = m.epoch AND c.sequence = m.old_seq
"""
_MARK_AND_MOVE = f"WITH marked AS ({MARK_BARS}) {_MOVE_CURSORS}"
"""In one statement: each takes its time to be sent and answered."""
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

_log = logging.getLogger(__name__)

Connection = AsyncSession


@dataclass(slots=True)
class _Attempt:
    """What one transaction has done so far; counts only if it commits."""

    storing: str | None = None
    """Whose table is being written to."""
    stored_rows: Counter[str] = field(default_factory=Counter)
    inexact_rows: int = 0
    refusals: Refusals | None = None

    def result(self) -> Taken:
        refused = self.refusals
        if refused is None:
            return Taken(self.stored_rows, inexact_rows=self.inexact_rows)
        quarantined = Counter(row.table for row in refused.rows)
        return Taken(
            self.stored_rows, quarantined, self.inexact_rows, refused.gaps, refused.interrupted
        )


class PostgresSink(Sink):
    """One connection to PostgreSQL.

    Every error that trying again may cure is a DatabaseUnavailableError or a FencedError; the
    connection is closed then. Not so after a TableRefusesError, which is about one table: the
    others' rows can be committed.
    """

    promise = Promise.EVERY_ROW

    def __init__(self, settings: WriterSettings, slots: Slots) -> None:
        assert settings.database_url, "without a URL there is no sink"
        layout = settings.paths.layout()
        self.name = settings.database
        self._url = settings.database_url
        self._bars = settings.bars
        self._instance = layout.instance
        self._tables = Tables(slots)
        self._aside = Aside(layout.quarantine_of(self.name), self._tables, layout.instance)
        self._connection: Connection | None = None
        self._overdue = Overdue(self._url, self.name)
        self._any_cursor: SourceKey | None = None
        self._drained: Mapping[SourceKey, int] = {}
        self._waits = DatabaseWaits(self._tables.streams.venue, self.name)

    async def open(self, drained: Mapping[SourceKey, int]) -> Collection[SourceKey]:
        """A new connection in place of the old one. A database that has never had rows of the
        instance need not know of what was drained before it: it counts as stored, all at once, for
        with its first cursor it is not new. One that lacks rows of these was set back.
        """
        await self.close()
        self._tables.forget()
        self._connection = await open_session(self._url, WRITER, self._instance)
        self._overdue.watch(self._connection)
        self._drained = drained
        async with self._connected() as connection:
            columns = _columns(drained)
            await connection.execute(_INTRODUCE, (*columns, f"{self._instance}/"))
            found = await connection.execute(_LACKING, columns)
            return [SourceKey(*each) for each in await found.fetchall()]

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

    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        """Claim each row, and what else is done once for a new session."""
        async with self._connected() as connection:
            found = {key: await self._claim(connection, key, at) for key, at in starts.items()}
            await self._tables.want_bars(connection, self._bars)
            oldest: dict[str, int] = {}
            for ring, epoch in [*self._drained, *starts]:
                oldest[ring] = min(epoch, oldest.get(ring, epoch))
            await connection.execute(_FORGET_CURSORS, (list(oldest), list(oldest.values())))
            await close_coverage(connection, self._instance, starts)
            await connection.execute("SELECT begin_row_spans()")
            await self._aside.adopt_once(connection)
            await self._aside.count(connection)
        return found

    async def _claim(self, connection: Connection, key: SourceKey, start_seq: int) -> Cursor:
        """The row's lock is taken, so it waits for a predecessor's COMMIT that is still under way.
        A predecessor that hangs on to the lock is ended after the lock timeout.
        """
        try:
            cursor = await _claim(connection, key, start_seq)
        except psycopg.errors.LockNotAvailable:
            await connection.execute(_END_HOLDER, key)
            cursor = await _claim(connection, key, start_seq)
        self._any_cursor = key
        return cursor

    async def tend(self) -> None:
        """Rows that somebody takes out of quarantine are seen."""
        if self._aside.is_to_be_counted:
            async with self._connected() as connection:
                await self._aside.count(connection)

    @property
    def waits(self) -> DatabaseWaits:
        """Our clock, or a table."""
        return self._waits

    @property
    def set_aside(self) -> Mapping[str, int]:
        """Rows in quarantine, by table."""
        return self._aside.rows

    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        """Store the rows, declare what is withheld and move the cursors, in one transaction.

        `durable`: everything committed so far survives a crash of the server, too.
        """
        async with self._connected() as connection:
            slots = [span.slot for span in batch.withheld]
            screened = await self._tables.prepare(connection, batch.parts, slots)
            attempt = _Attempt()
            try:
                await self._transact(connection, batch, screened, attempt, durable)
            except psycopg.Error as error:
                await self._find_blame(connection, screened, attempt.storing, error)
                attempt = _Attempt()
                await self._transact(connection, batch, screened, attempt, durable)
        self._waits.tables.taken({part.spec.name for part in batch.parts if len(part.records)})
        taken = attempt.result()
        self._aside.rows.update(taken.refused)
        return taken

    async def _find_blame(
        self,
        connection: Connection,
        screened: Screened,
        storing: str | None,
        error: psycopg.Error,
    ) -> None:
        """Take the rows that are to blame out of the batch, or say who else is. A table whose state
        has lasted for so long that nobody waits for its end is not to blame, but rows in it are.
        """
        fault = fault_of(error)
        if fault is Fault.LATER or (fault is Fault.TABLE and storing is None):
            raise error
        impatient = self._waits.tables.impatient
        if fault is Fault.TABLE and storing is not None and storing not in impatient:
            raise TableRefusesError(storing, in_words(error))
        self._tables.partitions.forget()  # its day's may have been dropped since we made it
        await self._tables.make_partitions(connection, screened)
        await self._tables.find_blame(connection, screened)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """The connection; whatever goes wrong with it, it is closed and not used again."""
        connection = self._connection
        if connection is None or connection.closed:
            raise DatabaseUnavailableError("not connected")
        try:
            yield connection
        except TableRefusesError as error:
            self._waits.tables.refused(error)
            raise  # the transaction is rolled back, and the session is as good as before
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

    async def _transact(
        self,
        connection: Connection,
        batch: Batch,
        screened: Screened,
        attempt: _Attempt,
        durable: bool,
    ) -> None:
        if screened.refused:
            attempt.refusals = declare(screened, wall_ns())
        marks = await self._tables.marks(connection, screened)
        async with connection.transaction():
            if durable:
                await connection.execute("SET LOCAL synchronous_commit = on")
            await self._move_cursors(connection, batch, marks)
            await self._declare_withheld(connection, batch)
            await store_coverage(connection, batch.parts, self._tables.streams.lookup.stream_id)
            for kind, parts in screened.rows.items():
                attempt.storing = kind
                attempt.inexact_rows += await self._tables.store(connection, kind, parts)
                attempt.stored_rows[kind] += sum(
                    len(rows.records) for rows in parts if not isinstance(rows.origin, Loss)
                )
            attempt.storing = None
            await self._tables.note_spans(connection, screened.rows)
            if attempt.refusals is not None:
                await self._aside.put(connection, attempt.refusals)
        self._tables.committed()

    async def _move_cursors(
        self, connection: Connection, batch: Batch, marks: Sequence[int]
    ) -> None:
        """Compare-and-set, before anything else: whoever is not at the cursor stops here. `marks`
        are those of the batch's trades.
        """
        moves: dict[SourceKey, tuple[int, int, int | None]] = {}
        for part in batch.parts:
            start_seq, end_seq, recv_ns = moves.get(
                part.source, (part.start_seq, part.start_seq, None)
            )
            assert part.start_seq == end_seq, "parts of a source are contiguous"
            moves[part.source] = (start_seq, part.end_seq, _last_recv_ns(part) or recv_ns)
        if not moves:
            if self._any_cursor is not None:  # a COMMIT without WAL of its own flushes nothing
                await connection.execute(_TOUCH_CURSOR, self._any_cursor)
            return
        values = (
            *map(list, zip(*moves, strict=True)),
            *map(list, zip(*moves.values(), strict=True)),
        )
        if marks:
            moved = await connection.execute(_MARK_AND_MOVE, (marks, *values))
        else:
            moved = await connection.execute(_MOVE_CURSORS, values)
        if moved.rowcount != len(moves):
            rings = ", ".join(f"{ring}/{epoch}" for ring, epoch in moves)
            raise FencedError(f"the cursor of one of {rings} is not where this writer left it")
        for loss in batch.losses:
            lost = (*loss.source, loss.start_seq, loss.end_seq)
            await connection.execute(_DECLARE_LOSS, lost)

    async def _declare_withheld(self, connection: Connection, batch: Batch) -> None:
        """Let the gap of each stream begin or grow."""
        if spans := batch.withheld:
            streams = self._tables.streams
            values = {
                "reason": int(GapReason.NOT_STORED),
                "state": int(GapState.UNRECOVERABLE),
                "stream_id": [streams.stream_id(span.slot) for span in spans],
                "detected": [span.detected_ns for span in spans],
                "from_ts": [span.from_ts for span in spans],
                "to_ts": [span.to_ts for span in spans],
                "missing": [span.count for span in spans],
            }
            await connection.execute(_DECLARE_HELD_BACK, values)


async def _claim(connection: Connection, key: SourceKey, start_seq: int) -> Cursor:
    found = await connection.execute(_CLAIM_CURSOR, (*key, start_seq))
    row = await found.fetchone()
    assert row is not None, "an upsert returns its row"
    return Cursor(row[0], row[1] or 0)


def _last_recv_ns(part: Part) -> int | None:
    return None if isinstance(part, Loss) else part.last_recv_ns


def _columns(drained: Mapping[SourceKey, int]) -> tuple[list[str], list[int], list[int]]:
    """Rings, epochs and their ends."""
    return [ring for ring, _ in drained], [epoch for _, epoch in drained], list(drained.values())


def make(settings: WriterSettings, slots: Slots) -> PostgresSink | None:
    """The sink, if there is a database."""
    return PostgresSink(settings, slots) if settings.database_url else None
