"""Rows into their tables, on a connection and in a transaction of the caller's.

Registers streams, screens rows, makes partitions, copies, and finds out who is to blame when a COPY
is refused: a row is, only if its table takes others at the same moment. A table that takes none of
them is in a state of its own, and its rows wait.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final

import psycopg
from psycopg import sql

from engine.base.errors import DatabaseUnavailableError, TableRefusesError
from engine.data.kind import Kind
from engine.data.kinds import KINDS
from engine.data.slots import Slots
from engine.database.catch_up import CatchUp
from engine.database.session import AsyncSession
from engine.writer.rows.copy import COPY_HEADER, COPY_TRAILER, CopyEncoder
from engine.writer.rows.screened import (
    Screened,
    halves,
    is_spotless,
    nth,
    raised,
    screen,
    unscreened,
)
from engine.writer.rows.slice import Part, Rows
from engine.writer.sinks.postgres.coverage import named_slots
from engine.writer.sinks.postgres.notes import Notes
from engine.writer.sinks.postgres.partitions import Partitions
from engine.writer.sinks.postgres.refusals import in_full, in_words, is_for_later
from engine.writer.sinks.postgres.stream_ids import StreamIds, unresolved

_ENCODE_ROWS: Final = 8192
_PROBES: Final = 128
"""Rows of a refused flush, taken at random, that are tried one by one until one is accepted. Where
one in twenty would be, that fails once in 700 times, and the next try takes others."""
Connection = AsyncSession


class Tables:
    """What one connection knows of its database. Not for two tasks at a time."""

    def __init__(self, slots: Slots) -> None:
        self.streams = StreamIds(slots)
        self.partitions = Partitions()
        self.notes = Notes()
        self._catch_up = CatchUp()
        self._encoders: dict[str, CopyEncoder] = {}
        """Of the kinds that have come: their buffers are most of what a quiet writer needs."""

    def forget(self) -> None:
        """The connection is a new one, and may be to another database."""
        self.streams.forget()
        self.partitions.forget()
        self._catch_up.forget()
        self.notes.forget()

    async def prepare(
        self, connection: Connection, parts: Sequence[Part], more_slots: Iterable[int] = ()
    ) -> Screened:
        """Register streams, sort out bad rows, raise decimals, make partitions."""
        streams = self.streams
        streams.catch_up()
        unknown = {slot for slot in more_slots if not streams.is_resolved(slot)}
        for part in parts:
            unknown.update(unresolved(streams.lookup, named_slots(part)))
        if unknown:
            await streams.resolve(connection, sorted(unknown))
        if not _has_strangers(unknown, streams) and is_spotless(parts, streams.lookup):
            screened = unscreened(parts)
        else:
            screened = screen(parts, streams.lookup)
            for slot, decimals in raised(screened, streams.lookup).items():
                await streams.raise_decimals(connection, slot, *decimals)
        await self.make_partitions(connection, screened)
        return screened

    async def make_partitions(self, connection: Connection, screened: Screened) -> None:
        """Partitions for the days of the rows. Raises TableRefusesError where there can be none."""
        for kind in screened.rows:
            try:
                await self.partitions.ensure(connection, kind, screened.days(kind))
            except psycopg.Error as error:
                if is_for_later(error):
                    raise
                raise TableRefusesError(kind, in_words(error)) from None
            except DatabaseUnavailableError as error:
                raise TableRefusesError(kind, str(error)) from None

    async def store(
        self, connection: Connection, kind: str, parts: Sequence[Rows], into: str = ""
    ) -> int:
        """Copy rows into their table, or another one like it; return how many had to be rounded.
        Their `notes` go with them.
        """
        encoder = self._encoders.get(kind)
        if encoder is None:
            encoder = self._encoders[kind] = CopyEncoder(KINDS[kind], _ENCODE_ROWS)
        inexact_before = encoder.inexact_count
        row_count = sum(len(rows.records) for rows in parts)
        async with (
            self._catch_up.way(connection, into or kind, row_count),
            connection.cursor() as cursor,
            cursor.copy(_copy_statement(encoder.spec, into)) as copy,
        ):
            await copy.write(COPY_HEADER)
            for rows in parts:
                for start in range(0, len(rows.records), encoder.capacity):
                    chunk = rows.records[start : start + encoder.capacity]
                    await copy.write(encoder.encode(chunk, self.streams.lookup))
            await copy.write(COPY_TRAILER)
        return encoder.inexact_count - inexact_before

    async def find_blame(self, connection: Connection, screened: Screened) -> None:
        """Refuse the rows of a batch that their table does not take. Nothing is stored meanwhile.

        Raises TableRefusesError for a table that takes none, and psycopg.Error for a server that
        is in no state to say anything about rows.
        """
        async with connection.transaction(force_rollback=True):
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            blamed: list[tuple[Rows, str]] = []
            for kind, parts in screened.rows.items():
                error = await self._refusal(connection, kind, parts)
                if error is not None:
                    await self._see_one_taken(connection, kind, parts, error)
                    blamed += await self._blame(connection, kind, parts, error)
        screened.refuse(blamed)

    async def _see_one_taken(
        self, connection: Connection, kind: str, parts: Sequence[Rows], error: psycopg.Error
    ) -> None:
        """Raise TableRefusesError unless the table takes a row of these."""
        count = sum(len(rows.records) for rows in parts)
        for place in random.sample(range(count), min(count, _PROBES)):
            one = [nth(parts, place)]
            if await self._refusal(connection, kind, one, undo=True) is None:
                return
        raise TableRefusesError(kind, in_words(error))

    async def _blame(
        self, connection: Connection, kind: str, parts: Sequence[Rows], error: psycopg.Error
    ) -> list[tuple[Rows, str]]:
        """Halves, and halves of halves, down to single rows. What is taken stays in the
        transaction: the next row may be refused because of it."""
        if sum(len(rows.records) for rows in parts) == 1:
            return [(parts[0], in_full(error))]
        found: list[tuple[Rows, str]] = []
        for half in halves(parts):
            refusal = await self._refusal(connection, kind, half)
            if refusal is not None:
                found += await self._blame(connection, kind, half, refusal)
        return found

    async def _refusal(
        self, connection: Connection, kind: str, parts: Sequence[Rows], *, undo: bool = False
    ) -> psycopg.Error | None:
        """What the table says to these rows, in a savepoint; None when it takes them."""
        try:
            async with connection.transaction(force_rollback=undo):
                await self.store(connection, kind, parts)
        except psycopg.Error as error:
            if is_for_later(error):
                raise
            return error
        return None


def _has_strangers(slots: set[int], streams: StreamIds) -> bool:
    """Whether one of `slots` is still unknown after the look-up."""
    return any(not streams.is_resolved(slot) for slot in slots)


def _copy_statement(spec: Kind, into: str) -> sql.Composed:
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(into or spec.name),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in spec.columns),
    )
