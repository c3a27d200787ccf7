"""From a lake back into a database, through its ordinary tables, nothing twice.

What a database has already is found by comparing, not by remembering: a group whose rows and
checksum are those of the database is done, of one that is there in part only the rows that are
missing are added, value by value. So an import that died goes on where it was, one that is repeated
does nothing, and days that retention has dropped since can be brought back.

Each group is one transaction. Its files are checked before, and what the database then has after.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from engine.base.clock import DAY_NS
from engine.data.kind import Kind
from engine.data.kinds import BOOK, GAP, KINDS, TRADE
from engine.database.locks import IMPORTS
from engine.database.partitions import make_day, schema_of_partitioned
from engine.database.session import DatabaseSession
from engine.upkeep.lake import beside, manifest
from engine.upkeep.lake.export import of_day, stream_sums
from engine.upkeep.lake.manifest import Group
from engine.upkeep.lake.parts import PartReader
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.raw import LakeError, RawRows, write_rows
from engine.upkeep.lake.streams import STREAMS_KEY, LakeStream, decoded, register
from engine.upkeep.lake.verify import check_group

_INCOMING: Final = "lake_incoming"
_SPANS: Final = {
    kind.name: [kind.name] for kind in KINDS.values() if kind.columns and kind is not GAP
} | {BOOK.name: [BOOK.name, "book_snapshot"]}
"""Under which names the spans of a table's rows are noted."""
_NOTE_SPANS: Final = b"SELECT note_row_spans(%s, %s::timestamptz, %s::timestamptz)"
_MARK_BARS: Final = b"""
    INSERT INTO bar_todo (minute)
    SELECT DISTINCT date_trunc('minute', time) FROM trade
    WHERE time >= %s::timestamptz AND time < %s::timestamptz
        AND (SELECT s.is_marked FROM bar_state AS s)
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """One group, and how many of its rows the database did not have."""

    group: Group
    added: int


def import_lake(
    session: DatabaseSession,
    place: LakePlace,
    groups: Iterable[Group] | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[Imported]:
    """These groups of a lake, all by default, one after the other; `session` is in autocommit mode.
    Instruments come with the rows that need them, not as a group. Raises
    LakeError for a file that is not what its manifest says, and psycopg.Error. `pause` is called
    between batches; it may wait, and may raise to end it. Until the session ends no other imports.
    """
    if not session.execute("SELECT pg_try_advisory_lock(%s)", (IMPORTS,)).fetchall()[0][0]:
        raise LakeError("another import into this database is under way: wait for its end")
    for group in manifest.groups(place) if groups is None else groups:
        if group.kind != manifest.INSTRUMENT:
            yield Imported(group, import_group(session, place, group, pause))


def import_group(
    session: DatabaseSession,
    place: LakePlace,
    group: Group,
    pause: Callable[[], None] = lambda: None,
) -> int:
    """Add what the database does not have of it; how many rows. `import_lake` says the rest."""
    for problem in check_group(place, group):
        raise LakeError(f"{problem}; nothing of {group.name} was imported")
    if group.kind == manifest.COVERAGE:
        return _import_coverage(session, place, group)
    if group.kind not in KINDS:
        raise LakeError(f"nobody here knows a kind {group.kind!r}; a newer version may")
    return _Rows(session, place, group, KINDS[group.kind], pause).store()


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one group on their way into their table."""

    session: DatabaseSession
    place: LakePlace
    group: Group
    kind: Kind
    pause: Callable[[], None]

    def store(self) -> int:
        streams = self._streams()
        ids = register(self.session, streams)
        own = {ids[each.stream_id]: each.seed for each in streams}
        before = self._count(own)
        wanted = (self.group.rows, self.group.checksum)
        if before == wanted:
            return 0
        self._make_day()
        with self.session.transaction():
            if before[0]:
                added = self._add_missing(ids)
            else:
                table = sql.Identifier(self.kind.name)
                added = write_rows(self.session, self.kind, table, self._all(ids))
                if (after := self._count(own)) != wanted:
                    raise LakeError(
                        f"{self.group.name}: the database would have {after[0]} rows with checksum"
                        f" {after[1]}, and not {wanted[0]} with {wanted[1]}: nothing was kept"
                    )
            self._note()
        return added

    def _make_day(self) -> None:
        """Room for it, where the table is partitioned."""
        schema = schema_of_partitioned(self.session, self.kind.name)
        if schema is not None:
            make_day(self.session, schema, self.kind.name, self._day_ns // DAY_NS)

    @property
    def _day_ns(self) -> int:
        return (self.group.date - dt.date(1970, 1, 1)).days * DAY_NS

    def _note(self) -> None:
        """What the writer notes beside rows: where readers find them, whose bars are to be made."""
        until = self.group.date + dt.timedelta(days=1)
        if self.kind.name in _SPANS:
            for spans in _SPANS[self.kind.name]:
                self.session.execute(_NOTE_SPANS, (spans, self.group.date, until))
        if self.kind is TRADE:
            self.session.execute(_MARK_BARS, (self.group.date, until))

    def _streams(self) -> list[LakeStream]:
        found: dict[int, LakeStream] = {}
        for part in self.group.parts:
            with PartReader(self.place, part.file, self.kind) as reader:
                for each in reader.streams:
                    if found.setdefault(each.stream_id, each) != each:
                        raise LakeError(
                            f"{self.group.name}: its files are of two databases, which mean"
                            f" different streams by {each.stream_id}"
                        )
        return list(found.values())

    def _count(self, own: Mapping[int, int]) -> tuple[int, int]:
        """Rows and checksum of the group in the database; `own`: seeds of its streams there."""
        seeds = own if self.group.venue is not None else {0: 0}
        sums = stream_sums(self.session, self.kind, self.group.date, seeds, with_strangers=False)
        return sum(each.rows for each in sums), sum(each.checksum for each in sums)

    def _all(self, ids: Mapping[int, int]) -> Iterator[RawRows]:
        for part in self.group.parts:
            with PartReader(self.place, part.file, self.kind) as reader:
                for rows in reader.batches():
                    self.pause()
                    yield _translated(rows, ids)

    def _add_missing(self, ids: Mapping[int, int]) -> int:
        """Rows that the table does not have, by all they say."""
        table, incoming = sql.Identifier(self.kind.name), sql.Identifier(_INCOMING)
        copy_of = sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(incoming, table)
        self.session.execute(copy_of)
        write_rows(self.session, self.kind, incoming, self._all(ids))
        self.session.execute(sql.SQL("ANALYZE {}").format(incoming))
        names = [sql.Identifier(column.name) for column in self.kind.columns]
        same = [sql.SQL("t.{0} = i.{0}").format(name) for name in names]
        statement = sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {names} FROM {incoming} AS i"
            " WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {of_day} AND {same})"
        ).format(
            table=table, incoming=incoming, names=sql.SQL(", ").join(names),
            of_day=of_day(self.group.date), same=sql.SQL(" AND ").join(same),
        )  # fmt: skip
        return self.session.execute(statement).rowcount


def _translated(rows: RawRows, ids: Mapping[int, int]) -> RawRows:
    """With this database's stream ids. What was nobody's is nobody's here, too: 0."""
    distinct, places = np.unique(rows["stream_id"], return_inverse=True)
    rows["stream_id"] = np.array([ids.get(each, 0) for each in distinct.tolist()], np.int32)[places]
    return rows


def _import_coverage(session: DatabaseSession, place: LakePlace, group: Group) -> int:
    added = 0
    for part in group.parts:
        with place.open(part.file) as source:
            try:
                table = pq.read_table(source)
            except (pa.ArrowException, OSError) as error:
                raise LakeError(f"{part.file}: {error}") from None
        if not table.schema.remove_metadata().equals(beside.COVERAGE_SCHEMA):
            raise LakeError(f"{part.file}: its columns are not those of coverage")
        ids = register(session, decoded((table.schema.metadata or {}).get(STREAMS_KEY, b"[]")))
        with session.transaction():
            added += beside.add_coverage(session, table, ids)
    return added
