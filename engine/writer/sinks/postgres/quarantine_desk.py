"""Rows that leave quarantine: stored after all, or given up. For a person at the command line.

It works beside a running engine and without one. What decides is table `quarantined_row`: a row
that is stored, or dropped, is marked so in the transaction that does it, under a lock, so that it
happens once however often it is asked for and whoever dies in between. The files are only read.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import psycopg

from engine.base.errors import EngineError, TableRefusesError
from engine.data.flags import GapState
from engine.data.kinds import KINDS
from engine.data.layout import Layout, SourceKey
from engine.data.names import DEFAULT_DATABASE
from engine.data.slots import Slots
from engine.database.session import QUARANTINE, AsyncSession, open_session
from engine.database.words import unavailable
from engine.writer.rows.quarantine import Quarantine, QuarantinedRow
from engine.writer.rows.screened import Screened
from engine.writer.rows.slice import Slice
from engine.writer.sinks.postgres import quarantine_table
from engine.writer.sinks.postgres.adoption import adopt
from engine.writer.sinks.postgres.refusals import is_for_later
from engine.writer.sinks.postgres.tables import MARK_BARS, Tables

_ROWS_AT_ONCE: Final = 1000
_QUARANTINE: Final = SourceKey("quarantine", 0)
"""Where the sequence of a row is its place among those that are tried."""

Connection = AsyncSession


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that is or was in quarantine, and what became of it."""

    row: QuarantinedRow
    state: GapState


@dataclass(slots=True)
class Retried:
    """What came of trying again."""

    stored: list[QuarantinedRow] = field(default_factory=list)
    refused: list[tuple[QuarantinedRow, str]] = field(default_factory=list)
    """Still in quarantine, and why."""


class QuarantineDesk:
    """The quarantine of one state directory in one database.

    Raises DatabaseUnavailableError; everything that was reported before then holds.
    """

    def __init__(
        self, connection: Connection, layout: Layout, database_url: str, sink: str
    ) -> None:
        self._connection = connection
        self._instance = layout.instance
        self._url = database_url
        self._files = Quarantine(layout.quarantine_of(sink))
        self._tables = Tables(Slots(layout.slots))

    @classmethod
    async def open(
        cls, layout: Layout, database_url: str, sink: str = DEFAULT_DATABASE
    ) -> "QuarantineDesk":
        """Connect; rows that an earlier version set aside are declared now, if they are not yet."""
        connection = await open_session(database_url, QUARANTINE, layout.instance)
        desk = cls(connection, layout, database_url, sink)
        try:
            await adopt(connection, desk._tables, desk._files.read(), layout.instance)
        except psycopg.Error as error:
            await desk.close()
            raise unavailable(error, database_url) from None
        except EngineError:
            await desk.close()
            raise
        return desk

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def rows(self) -> list[Kept]:
        """Every row of which the files tell and the database knows, in order of receipt."""
        try:
            states = await quarantine_table.states(self._connection, self._instance)
        except psycopg.Error as error:
            raise unavailable(error, self._url) from None
        found = {row.key: row for row in self._files.read()}
        return [Kept(row, states[key]) for key, row in sorted(found.items()) if key in states]

    async def retry(self, rows: Sequence[QuarantinedRow]) -> Retried:
        """Store what can be stored now; its gaps are repaired in the same transactions."""
        done = Retried(refused=[(r, "its line is damaged") for r in rows if not r.is_whole])
        try:
            for kind, part in _portions(row for row in rows if row.is_whole):
                await self._retry(kind, part, done)
        except psycopg.Error as error:
            raise unavailable(error, self._url) from None
        return done

    async def drop(self, rows: Sequence[QuarantinedRow]) -> int:
        """Give rows up: their gaps stay, unrecoverable. Returns how many were still there."""
        count = 0
        try:
            for _, part in _portions(rows):
                async with _durably(self._connection):
                    claimed = await quarantine_table.claim(self._connection, (r.key for r in part))
                    await quarantine_table.settle(self._connection, claimed, GapState.UNRECOVERABLE)
                    count += len(claimed)
        except psycopg.Error as error:
            raise unavailable(error, self._url) from None
        return count

    async def _retry(self, kind: str, rows: Sequence[QuarantinedRow], done: Retried) -> None:
        records = np.concatenate([row.record() for row in rows])
        origin = Slice.whole(_QUARANTINE, KINDS[kind], 0, records)
        try:
            screened = await self._tables.prepare(self._connection, [origin])
            stored = await self._store(kind, rows, screened)
        except TableRefusesError as error:
            done.refused += [(row, str(error)) for row in rows]
            return
        done.stored += stored
        done.refused += [(rows[blamed.seq], blamed.error) for blamed in screened.refused]

    async def _store(
        self, kind: str, rows: Sequence[QuarantinedRow], screened: Screened
    ) -> list[QuarantinedRow]:
        try:
            return await self._store_claimed(kind, rows, screened)
        except psycopg.Error as error:
            if is_for_later(error):
                raise
        await self._tables.find_blame(self._connection, screened)
        return await self._store_claimed(kind, rows, screened)

    async def _store_claimed(
        self, kind: str, rows: Sequence[QuarantinedRow], screened: Screened
    ) -> list[QuarantinedRow]:
        parts = screened.rows.get(kind, [])
        if not parts:
            return []
        (mine,) = parts
        async with _durably(self._connection):
            wanted = {rows[place].key: place for place in mine.numbers.tolist()}
            claimed = await quarantine_table.claim(self._connection, wanted)
            gone = [place for key, place in wanted.items() if key not in claimed]
            left = mine.without(np.array(gone, np.int64))
            if len(left.records):
                await self._tables.store(self._connection, kind, [left])
                if marks := await self._tables.marks(self._connection, screened):
                    await self._connection.execute(MARK_BARS, (marks,))
                await self._tables.note_spans(self._connection, {kind: [left]})
                await quarantine_table.settle(self._connection, claimed, GapState.REPAIRED)
        return [rows[place] for key, place in wanted.items() if key in claimed]


@asynccontextmanager
async def _durably(connection: Connection) -> AsyncIterator[None]:
    """A transaction that is on disk when it ends: no journal has these rows any more."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")
        yield


def _portions(
    rows: Iterable[QuarantinedRow],
) -> Iterator[tuple[str, Sequence[QuarantinedRow]]]:
    """By kind, and not too many at once: what was done before a crash is done."""
    of_kind: dict[str, list[QuarantinedRow]] = {}
    for row in rows:
        of_kind.setdefault(row.table, []).append(row)
    for kind, found in of_kind.items():
        for start in range(0, len(found), _ROWS_AT_ONCE):
            yield kind, found[start : start + _ROWS_AT_ONCE]
