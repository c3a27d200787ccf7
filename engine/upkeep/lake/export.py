"""From the tables of a database into a lake: each kind, venue and day that it does not hold yet.

A day is read in one snapshot: rows, gaps and coverage are of the same moment. The database's own
checksum is taken first, in SQL; what the lake holds already with that checksum is left alone, so an
export that died goes on where it was.

What a lake has and the database has no more stays in the lake: rows that came late to a day that
was dropped are added to it.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, Literal, NamedTuple

import numpy as np
from psycopg import sql

from engine.base.clock import wall_ns
from engine.data.flags import Flag
from engine.data.kind import Kind
from engine.data.kinds import GAP, KINDS
from engine.database.session import DatabaseSession
from engine.upkeep.lake import beside, manifest
from engine.upkeep.lake.checksum import row_sum_sql
from engine.upkeep.lake.manifest import Group, Part
from engine.upkeep.lake.parts import PartReader, PartWriter, write_table
from engine.upkeep.lake.place import LakePlace, is_aside
from engine.upkeep.lake.raw import LakeError, RawRows, read_rows, without
from engine.upkeep.lake.streams import LakeStream, chosen, read_streams, seeds_of

DAY_NS: Final = 86_400_000_000_000
PART_ROWS: Final = 16_000_000
"""Rows of a file, about; a symbol is never divided."""
TABLES: Final = tuple(kind.name for kind in KINDS.values() if kind.columns)

Outcome = Literal["written", "there", "added"]
"""`there`: the lake had all of it; `added`: it got what it did not have, beside what it had."""


class StreamSum(NamedTuple):
    """What the database has of one stream on one day."""

    stream_id: int
    rows: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What to export. An empty choice is all there is."""

    kinds: Sequence[str] = TABLES
    venues: Sequence[str] = ()
    symbols: Sequence[str] = ()
    relation: str = ""
    """Read from this table in place of the kind's: a partition that was detached. One kind only."""
    is_archive: bool = False
    """The database may drop these rows afterwards."""
    pause: Callable[[], None] = lambda: None
    """Called between batches; may wait, and may raise to end it."""
    now_ns: Callable[[], int] = wall_ns


@dataclass(frozen=True, slots=True)
class Exported:
    """One group as it is now, and what was done for it."""

    group: Group
    outcome: Outcome
    sums: list[StreamSum] = field(default_factory=list)
    """Of the database, in the snapshot; empty for `coverage` and `instrument`."""


@contextmanager
def snapshot(session: DatabaseSession) -> Iterator[None]:
    """One moment of the database, for everything that is read meanwhile."""
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        session.execute("SET LOCAL work_mem = '128MB'")  # a day is sorted
        yield


def export_day(
    session: DatabaseSession, place: LakePlace, day: dt.date, wish: Wish
) -> Iterator[Exported]:
    """One day (UTC), group by group. The caller has the place to itself (`LakePlace.alone`), and
    `session` in autocommit mode. Raises LakeError and psycopg.Error.
    """
    with snapshot(session):
        all_streams = read_streams(session)
        streams = chosen(all_streams, wish.venues, wish.symbols)
        work = _Day(session, place, day, wish, streams, len(streams) == len(all_streams))
        venues: set[str] = set()
        for kind in wish.kinds:
            for done in work.export(KINDS[kind]):
                venues.update([done.group.venue] if done.group.venue else [])
                yield done
        for venue in sorted(venues):
            yield from work.export_beside(venue)


def days_of(
    session: DatabaseSession, wish: Wish, first: dt.date | None, last: dt.date | None
) -> list[dt.date]:
    """Days (UTC) to export: from `first` or the oldest row, through `last` or the newest row of a
    day that is over. Raises psycopg.Error.
    """
    query = "SELECT min(t.time), max(t.time) FROM {} AS t"
    times = [
        time.astimezone(dt.UTC).date()
        for kind in wish.kinds
        for time in session.execute(sql.SQL(query).format(sql.Identifier(kind))).fetchall()[0]
        if time is not None
    ]
    if not times:
        return []
    yesterday = dt.date(1970, 1, 1) + dt.timedelta(days=wish.now_ns() // DAY_NS - 1)
    start = max(min(times), first) if first else min(times)
    end = min(max(times), last or yesterday)
    return [start + dt.timedelta(days=n) for n in range((end - start).days + 1)]


def stream_sums(
    session: DatabaseSession,
    kind: Kind,
    day: dt.date,
    seeds: Mapping[int, int],
    *,
    relation: str = "",
    with_strangers: bool = True,
) -> list[StreamSum]:
    """Rows and checksum of each stream on a day, counted by the database. `seeds`: of each stream
    by its id (`LakeStream.seed`); `with_strangers`: also of others, whose seed is 0.
    """
    query = sql.SQL(
        "SELECT t.stream_id, count(*), coalesce(sum({number}), 0)::int8 FROM {table} AS t"
        " {join} JOIN unnest({ids}::int[], {seeds}::int8[]) AS s (stream_id, seed)"
        " ON s.stream_id = t.stream_id WHERE {of_day} GROUP BY t.stream_id"
    ).format(
        number=row_sum_sql(kind, sql.Identifier("t"), sql.SQL("coalesce(s.seed, 0)")),
        table=sql.Identifier(relation or kind.name),
        join=sql.SQL("LEFT" if with_strangers else "INNER"),
        ids=sql.Literal(list(seeds)),
        seeds=sql.Literal(list(seeds.values())),
        of_day=of_day(day),
    )
    return [StreamSum(*row) for row in session.execute(query).fetchall()]


def of_day(day: dt.date) -> sql.Composable:
    """That `t.time` is within a day of UTC, so that the planner sees which partitions are not."""
    start, end = f"{day} 00:00:00+00", f"{day + dt.timedelta(days=1)} 00:00:00+00"
    return sql.SQL("t.time >= {} AND t.time < {}").format(sql.Literal(start), sql.Literal(end))


def bounds_ns(day: dt.date) -> tuple[int, int]:
    """Start and end of a day (UTC), ns since 1970."""
    start = (day - dt.date(1970, 1, 1)).days * DAY_NS
    return start, start + DAY_NS


@dataclass(frozen=True, slots=True)
class _Day:
    """One day of one database on its way into a lake."""

    session: DatabaseSession
    place: LakePlace
    day: dt.date
    wish: Wish
    streams: Mapping[int, LakeStream]
    is_all: bool

    def export(self, kind: Kind) -> Iterator[Exported]:
        """Every venue's rows of a kind."""
        sums = stream_sums(
            self.session, kind, self.day, seeds_of(self.streams),
            relation=self.wish.relation, with_strangers=self.is_all,
        )  # fmt: skip
        by_venue: dict[str | None, list[StreamSum]] = {}
        for each in sums:
            stream = self.streams.get(each.stream_id)
            by_venue.setdefault(stream.venue if stream else None, []).append(each)
        for venue in sorted(by_venue, key=lambda name: name or ""):
            yield self._export_group(kind, venue, by_venue[venue])

    def export_beside(self, venue: str) -> Iterator[Exported]:
        """Coverage and instruments of a venue."""
        known = [each for each in self.streams.values() if each.venue == venue]
        tables = {
            manifest.COVERAGE: beside.coverage(self.session, venue, known, bounds_ns(self.day)),
            manifest.INSTRUMENT: beside.instruments(
                self.session, venue, (each.symbol for each in known)
            ),
        }
        for name, table in tables.items():
            existing = self._existing(name, venue)
            if existing is not None and existing.rows > table.num_rows:
                yield Exported(self._leave(existing), "there")
                continue
            file = _file(name, venue, self.day, 0)
            with self.place.aside(file) as half:
                part = write_table(half, table, file)
                if existing and existing.parts == [part] and self._is_whole(existing):
                    yield Exported(self._leave(existing), "there")
                    continue
                self.place.keep(half, file)
            yield Exported(self._note(name, venue, [part], existing), "written")

    def _export_group(self, kind: Kind, venue: str | None, sums: list[StreamSum]) -> Exported:
        rows, checksum = sum(each.rows for each in sums), sum(each.checksum for each in sums)
        existing = self._existing(kind.name, venue)
        if existing is None:
            return Exported(self._write(kind, venue, sums, None), "written", sums)
        is_same = (existing.rows, existing.checksum) == (rows, checksum)
        if is_same and self._is_whole(existing):
            return Exported(self._leave(existing), "there", sums)
        if not is_same and self._may_hold_more(kind, existing, sums):
            return self._add(kind, existing, sums)
        return Exported(self._write(kind, venue, sums, existing), "written", sums)

    def _may_hold_more(self, kind: Kind, existing: Group, sums: list[StreamSum]) -> bool:
        """Whether the lake may have rows that are nowhere else. What came in hours can be more than
        what went, so only all rows tell.
        """
        more = sum(each.rows for each in sums) - existing.rows
        if existing.is_archived or more < 0:
            return True
        if kind is GAP:  # rows that change: of an hour ago they say what was known an hour ago
            return False
        return self._is_whole(existing) and more != sum(map(len, self._late(kind, existing, sums)))

    def _leave(self, group: Group) -> Group:
        """Its files as they are; the day may be over now, or on its way out of the database."""
        is_archived = group.is_archived or self._archives(group.kind)
        if (group.day_is_over, group.is_archived) == (self._is_over(), is_archived):
            return group
        return self._note(group.kind, group.venue, group.parts, group)

    def _archives(self, kind: str) -> bool:
        return self.wish.is_archive and kind in TABLES

    def _existing(self, kind: str, venue: str | None) -> Group | None:
        found = manifest.load(self.place, kind, venue, self.day)
        if found is not None and found.symbols != self._symbols():
            raise LakeError(
                f"{self.place.address} holds {_named(found.symbols)} of {found.name}, and this is"
                f" for {_named(self._symbols())}: choose another directory"
            )
        return found

    def _symbols(self) -> list[str] | None:
        return sorted(set(self.wish.symbols)) or None

    def _is_over(self) -> bool:
        return self.wish.now_ns() >= bounds_ns(self.day)[1]

    def _is_whole(self, group: Group) -> bool:
        """Whether the files are there; what is in them only a verification says."""
        folder = manifest.folder(group.kind, group.venue, group.date)
        return {part.file for part in group.parts} <= set(self.place.names(folder))

    def _write(
        self, kind: Kind, venue: str | None, sums: list[StreamSum], existing: Group | None
    ) -> Group:
        """All the rows of a group into new files; the old ones are replaced once all are there."""
        parts: list[Part] = []
        with ExitStack() as stack:
            halves = []
            for chosen_sums in _portions(sums, self._rank):
                file = _file(kind.name, venue, self.day, len(parts))
                half = stack.enter_context(self.place.aside(file))
                writer = PartWriter(half, kind, self._of(chosen_sums))
                for rows in self._rows(kind, chosen_sums):
                    writer.write(rows)
                writer.close()
                part = writer.part(file)
                _expect(part, chosen_sums)
                parts.append(part)
                halves.append(half)
            for half, part in zip(halves, parts, strict=True):
                self.place.keep(half, part.file)
        self._clear(kind.name, venue, parts)
        return self._note(kind.name, venue, parts, existing)

    def _add(self, kind: Kind, existing: Group, sums: list[StreamSum]) -> Exported:
        """What the database has and the lake has not, as one more file."""
        file = _file(kind.name, existing.venue, self.day, len(existing.parts))
        with self.place.aside(file) as half:
            writer = PartWriter(half, kind, self._of(sums))
            for late in self._late(kind, existing, sums):
                writer.write(late)
            writer.close()
            part = writer.part(file)
            if not part.rows:
                return Exported(self._leave(existing), "there", sums)
            self.place.keep(half, file)
        parts = [*existing.parts, part]
        return Exported(self._note(kind.name, existing.venue, parts, existing), "added", sums)

    def _late(self, kind: Kind, existing: Group, sums: list[StreamSum]) -> Iterator[RawRows]:
        """What the database has and the lake has not."""
        for rows in self._rows(kind, sums):
            held = self._held(kind, existing, self._symbol(rows[0]), self._symbol(rows[-1]))
            late = rows[without(self._seeded(rows, self.streams), held)]
            if len(late):
                yield late

    def _held(self, kind: Kind, group: Group, first: str, last: str) -> Iterator[RawRows]:
        """What the lake has of the symbols from `first` to `last`, and maybe more."""
        for part in group.parts:
            with PartReader(self.place, part.file, kind) as reader:
                known = {each.stream_id: each for each in reader.streams}
                for rows in reader.batches(first, last):
                    yield self._seeded(rows, known)

    @staticmethod
    def _seeded(rows: RawRows, streams: Mapping[int, LakeStream]) -> RawRows:
        """Rows that say what their stream is, and not what one database calls it."""
        found = rows.copy()
        for stream_id in np.unique(rows["stream_id"]).tolist():
            stream = streams.get(stream_id)
            found["stream_id"][rows["stream_id"] == stream_id] = stream.seed if stream else 0
        return found

    def _rows(self, kind: Kind, sums: Sequence[StreamSum]) -> Iterator[RawRows]:
        ids, ranks = [each.stream_id for each in sums], self._ranks(sums)
        query = sql.SQL(
            "SELECT {columns} FROM {table} AS t JOIN unnest({ids}::int[], {ranks}::int[])"
            " AS r (stream_id, rank) ON r.stream_id = t.stream_id"
            " WHERE t.stream_id = ANY ({ids}::int[]) AND {of_day} ORDER BY r.rank, {order}"
        ).format(
            columns=_columns(kind, (column.name for column in kind.columns)),
            table=sql.Identifier(self.wish.relation or kind.name),
            ids=sql.Literal(ids),
            ranks=sql.Literal(ranks),
            of_day=of_day(self.day),
            order=_order(kind),
        )
        for rows in read_rows(self.session, kind, query):
            self.wish.pause()
            yield rows

    def _symbol(self, row: np.void) -> str:
        stream = self.streams.get(int(row["stream_id"]))
        return stream.symbol if stream else ""

    def _rank(self, each: StreamSum) -> tuple[str, int]:
        stream = self.streams.get(each.stream_id)
        return (stream.symbol if stream else "", each.stream_id)

    def _ranks(self, sums: Sequence[StreamSum]) -> list[int]:
        """The same for all streams of a symbol."""
        symbols = [self._rank(each)[0] for each in sums]
        place = {symbol: rank for rank, symbol in enumerate(sorted(set(symbols)))}
        return [place[symbol] for symbol in symbols]

    def _of(self, sums: Iterable[StreamSum]) -> list[LakeStream]:
        known = (self.streams.get(each.stream_id) for each in sums)
        return [stream for stream in known if stream is not None]

    def _clear(self, kind: str, venue: str | None, parts: list[Part]) -> None:
        """Drop what an earlier export left: files that are no part any more, or never were."""
        kept = {part.file for part in parts}
        for name in self.place.names(manifest.folder(kind, venue, self.day)):
            if name not in kept and (is_aside(name) or name.endswith(".parquet")):
                self.place.drop(name)

    def _note(
        self, kind: str, venue: str | None, parts: list[Part], existing: Group | None
    ) -> Group:
        """Say in the manifest what is there now."""
        at = dt.datetime.fromtimestamp(self.wish.now_ns() // 10**9, dt.UTC)
        group = Group(
            kind=kind, venue=venue, date=self.day, parts=parts, symbols=self._symbols(),
            day_is_over=self._is_over(), exported=at,
            is_archived=self._archives(kind) or bool(existing and existing.is_archived),
        )  # fmt: skip
        manifest.store(self.place, group)
        return group


def _portions(
    sums: list[StreamSum], rank: Callable[[StreamSum], tuple[str, int]]
) -> Iterator[list[StreamSum]]:
    """Streams by symbol, as many symbols together as make a file."""
    found: list[StreamSum] = []
    for _, streams in groupby(sorted(sums, key=rank), key=lambda each: rank(each)[0]):
        of_symbol = list(streams)
        if found and sum(each.rows for each in (*found, *of_symbol)) > PART_ROWS:
            yield found
            found = []
        found += of_symbol
    yield found


def _expect(part: Part, sums: Iterable[StreamSum]) -> None:
    rows, checksum = map(sum, zip(*((each.rows, each.checksum) for each in sums), strict=True))
    if (part.rows, part.checksum) != (rows, checksum):
        raise LakeError(
            f"{part.file}: {part.rows} rows with checksum {part.checksum} were written, and the"
            f" database counts {rows} with {checksum}: nothing was kept"
        )


def _order(kind: Kind) -> sql.Composable:
    """By time and id. Rows of one event of a book: its first one first, its last one last."""
    names = {column.name for column in kind.columns}
    wanted = ("time", "time_sub_us", kind.wide_id_field, kind.id_field)
    order = [_columns(kind, (name for name in wanted if name in names))]
    if "prev_seq" in names:
        text = "t.flags & {} = 0, t.flags & {}"
        edges = (sql.Literal(int(Flag.FIRST_IN_EVENT)), sql.Literal(int(Flag.LAST_IN_EVENT)))
        order.append(sql.SQL(text).format(*edges))
    return sql.SQL(", ").join([*order, sql.SQL("t.ts_recv")])


def _columns(kind: Kind, names: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in names)


def _file(kind: str, venue: str | None, day: dt.date, number: int) -> str:
    return f"{manifest.folder(kind, venue, day)}/part-{number:05}.parquet"


def _named(symbols: list[str] | None) -> str:
    return "all symbols" if symbols is None else f"the symbols {', '.join(symbols)}"
