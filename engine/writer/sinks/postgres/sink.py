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
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import psycopg

from engine.base.clock import wall_ns
from engine.base.errors import (
    DatabaseUnavailableError,
    TableRefusesError,
)
from engine.data.layout import SourceKey
from engine.data.slots import Slots
from engine.database.session import WRITER, AsyncSession, open_session
from engine.database.words import unavailable
from engine.messages.settings import WriterSettings
from engine.writer.rows.refused import Refusals, declare
from engine.writer.rows.screened import Screened
from engine.writer.rows.slice import Batch, Loss
from engine.writer.sinks.postgres.coverage import close_coverage, store_coverage
from engine.writer.sinks.postgres.cursors import Cursors, declare_withheld
from engine.writer.sinks.postgres.overdue import Overdue
from engine.writer.sinks.postgres.quarantine.adoption import Aside
from engine.writer.sinks.postgres.refusals import Fault, fault_of, in_words
from engine.writer.sinks.postgres.tables import Tables
from engine.writer.sinks.postgres.waits import DatabaseWaits
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken

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
        self._purpose = replace(WRITER, answer_within_s=settings.answer_within_s)
        self._instance = layout.instance
        self._tables = Tables(slots)
        self._aside = Aside(layout.quarantine_of(self.name), self._tables, layout.instance)
        self._connection: Connection | None = None
        self._overdue = Overdue(self._url, self.name)
        self._cursors = Cursors(layout.instance)
        self._waits = DatabaseWaits(self._tables.streams.venue, self.name)

    async def open(self, drained: Mapping[SourceKey, int]) -> Collection[SourceKey]:
        """A new connection in place of the old one. A database that has never had rows of the
        instance need not know of what was drained before it: it counts as stored, all at once, for
        with its first cursor it is not new. One that lacks rows of these was set back.
        """
        await self.close()
        self._tables.forget()
        self._connection = await open_session(self._url, self._purpose, self._instance)
        self._overdue.watch(self._connection)
        async with self._connected() as connection:
            return await self._cursors.introduce(connection, drained)

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
            found = await self._cursors.claim(connection, starts)
            await self._tables.notes.want_bars(connection, self._bars)
            await close_coverage(connection, self._instance, starts)
            await connection.execute("SELECT begin_row_spans()")
            await self._aside.adopt_once(connection)
            await self._aside.count(connection)
        return found

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
        stream_ids = self._tables.streams.lookup.stream_id
        notes = await self._tables.notes.of(connection, screened.rows, stream_ids)
        async with connection.transaction():
            if durable:
                await connection.execute("SET LOCAL synchronous_commit = on")
            await self._cursors.move(connection, batch, notes)
            await declare_withheld(connection, batch.withheld, self._tables.streams)
            await store_coverage(connection, batch.parts, stream_ids)
            for kind, parts in screened.rows.items():
                attempt.storing = kind
                attempt.inexact_rows += await self._tables.store(connection, kind, parts)
                attempt.stored_rows[kind] += sum(
                    len(rows.records) for rows in parts if not isinstance(rows.origin, Loss)
                )
            attempt.storing = None
            if attempt.refusals is not None:
                await self._aside.put(connection, attempt.refusals)
        self._tables.notes.committed()


def make(settings: WriterSettings, slots: Slots) -> PostgresSink | None:
    """The sink, if there is a database."""
    return PostgresSink(settings, slots) if settings.database_url else None
