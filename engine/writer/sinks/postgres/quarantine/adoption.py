"""Rows in quarantine, as the writer keeps them; and those that an earlier version set aside without
telling, which get their gap and their note.

Its files do not say whether the commit followed that moved the cursor past a row. So a row counts
as quarantined only if its cursor is past it, and no row like it is in its table.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import psycopg
from psycopg import sql

from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import QuarantineError
from engine.data.kind import Kind
from engine.data.kinds import KINDS
from engine.data.layout import SourceKey
from engine.database.session import AsyncSession
from engine.writer.rows.quarantine import Quarantine, QuarantinedRow
from engine.writer.rows.refused import Refusals, declare
from engine.writer.rows.screen import unstorable
from engine.writer.rows.screened import Blamed, Screened
from engine.writer.rows.slice import Rows, Slice
from engine.writer.sinks.postgres.quarantine import table as quarantine_table
from engine.writer.sinks.postgres.refusals import in_words, is_for_later
from engine.writer.sinks.postgres.tables import Tables

_CURSORS = "SELECT ring, epoch, sequence FROM ingest_cursor WHERE starts_with(ring, %s)"
_TEMPORARY = "quarantine_adoption"
_NOWHERE = SourceKey("", 0)
"""Rows of files: their sequence is their place among those that are looked at."""

_LOOK_EVERY_S: Final = 10.0
"""Rows that somebody takes out of quarantine are seen after so long."""

_log = logging.getLogger(__name__)

Connection = AsyncSession


class Aside:
    """Rows that are set aside: their files, what the database says of them, and how many."""

    def __init__(self, directory: Path, tables: Tables, instance: str) -> None:
        self._files = Quarantine(directory)
        self._tables = tables
        self._instance = instance
        self._has_adopted = False
        self._look_at_s = 0.0
        self.rows: Counter[str] = Counter()
        """In quarantine now, by table, whoever put them there."""

    @property
    def is_to_be_counted(self) -> bool:
        """Whether somebody may have taken rows out since they were counted."""
        return bool(self.rows) and monotonic_s() >= self._look_at_s

    async def count(self, connection: Connection) -> None:
        """Ask how many there are."""
        self.rows = Counter(await quarantine_table.count(connection, self._instance))
        self._look_at_s = monotonic_s() + _LOOK_EVERY_S

    async def put(self, connection: Connection, refusals: Refusals) -> None:
        """In the transaction that passes the rows, and right before its COMMIT: what a crash makes
        of the file in between nobody counts.
        """
        streams = self._tables.streams
        stream_ids = [streams.stream_id(slot) for slot in refusals.gaps["stream"].tolist()]
        await quarantine_table.declare(connection, refusals.gaps, stream_ids, refusals.rows)
        self._files.write(refusals.rows, streams.name)

    async def adopt_once(self, connection: Connection) -> None:
        """Declare what a version before set aside without telling. Never in the way."""
        if self._has_adopted:
            return
        count = 0
        try:
            count = await adopt(connection, self._tables, self._files.read(), self._instance)
        except QuarantineError as error:
            _log.warning("%s; rows of an earlier version wait there to be declared", error)
        except psycopg.Error as error:
            if is_for_later(error):
                raise
            _log.warning("rows in quarantine cannot be declared: %s", in_words(error))
        self._has_adopted = True
        if count:
            _log.warning("%d rows that an earlier version set aside are declared now", count)


async def adopt(
    connection: Connection, tables: Tables, entries: Iterable[QuarantinedRow], instance: str
) -> int:
    """Declare those of `entries` that nobody declared; return how many. Own transaction."""
    mine = {
        entry.key: entry
        for entry in entries
        if not entry.detected and entry.ring.startswith(f"{instance}/") and entry.is_whole
    }
    if not mine:
        return 0
    slots = {int(entry.row.get("stream", -1)) for entry in mine.values()}
    await tables.streams.resolve(connection, sorted(slot for slot in slots if slot >= 0))
    async with connection.transaction():
        await quarantine_table.lock(connection)
        known = await quarantine_table.states(connection, instance)
        cursors = await _cursors(connection, instance)
        found = Screened([])
        for kind in KINDS:
            waiting = [
                entry
                for key, entry in sorted(mine.items())
                if entry.table == kind and key not in known and _is_passed(entry, cursors)
            ]
            if waiting:
                await _refuse_missing(connection, tables, kind, waiting, found)
        if found.refused:
            refusals = declare(found, wall_ns())
            stream_ids = [tables.streams.stream_id(s) for s in refusals.gaps["stream"].tolist()]
            await quarantine_table.declare(connection, refusals.gaps, stream_ids, refusals.rows)
    return len(found.refused)


async def _cursors(connection: Connection, instance: str) -> dict[tuple[str, int], int]:
    found = await connection.execute(_CURSORS, (f"{instance}/",))
    return {(ring, epoch): sequence for ring, epoch, sequence in await found.fetchall()}


def _is_passed(entry: QuarantinedRow, cursors: Mapping[tuple[str, int], int]) -> bool:
    """Whether the writer is done with the row. A cursor that is gone was at its end for a month."""
    return cursors.get((entry.ring, entry.epoch), entry.seq + 1) > entry.seq


async def _refuse_missing(
    connection: Connection,
    tables: Tables,
    kind: str,
    entries: Sequence[QuarantinedRow],
    found: Screened,
) -> None:
    """Add, as refused, those of the entries that are not in their table."""
    records = np.concatenate([entry.record() for entry in entries])
    stored = await _stored(connection, tables, Slice.whole(_NOWHERE, KINDS[kind], 0, records))
    by_source: dict[SourceKey, list[int]] = {}
    for place, entry in enumerate(entries):
        if place not in stored:
            by_source.setdefault(SourceKey(entry.ring, entry.epoch), []).append(place)
    slices = []
    for source, places in by_source.items():
        seqs = np.array([entries[place].seq for place in places])
        start_seq, end_seq = int(seqs[0]), int(seqs[-1]) + 1
        origin = Slice(source, KINDS[kind], start_seq, end_seq, records[places], seqs)
        slices.append(origin)
        found.refused += [
            Blamed(origin, entries[place].seq, entries[place].error) for place in places
        ]
    found.parts = [*found.parts, *slices]


async def _stored(connection: Connection, tables: Tables, origin: Slice) -> set[int]:
    """Places of the rows whose like is in the table."""
    rows = Rows.of(origin)
    for group in unstorable(origin.records, origin.spec, tables.streams.lookup):
        rows = rows.without(group.offsets)
    if not len(rows.records):
        return set()
    create, select = _comparison(origin.spec)
    await connection.execute(create)
    await tables.store(connection, origin.spec.name, [rows], into=_TEMPORARY)
    found = await connection.execute(select)
    places = {int(rows.numbers[number - 1]) for (number,) in await found.fetchall()}
    await connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(_TEMPORARY)))
    return places


def _comparison(spec: Kind) -> tuple[sql.Composed, sql.Composed]:
    """Makes a table like it, whose rows count themselves; selects those that are in both."""
    names = [sql.Identifier(column.name) for column in spec.columns if column.name != "flags"]
    same = sql.SQL(" AND ").join(sql.SQL("a.{0} = t.{0}").format(name) for name in names)
    table, temporary = sql.Identifier(spec.name), sql.Identifier(_TEMPORARY)
    return (
        sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {}, number serial)").format(temporary, table),
        sql.SQL(
            "SELECT a.number FROM {} AS a WHERE EXISTS (SELECT FROM {} AS t WHERE {})"
        ).format(temporary, table, same),
    )  # fmt: skip
