"""Retention: drops the days that are older than the configuration keeps them.

On partitions a day is marked, detached and dropped. Each of these may be the last thing that an
upkeep does: a marked day that is half detached is finished, and one that is no partition any more
is dropped, by whoever comes next. What a person detached has no mark and is left alone. Tables in
one piece lose whole days, too, by DELETE.

The mark says how many rows the archive was asked about. A day that has others once it is detached,
where nothing can be added any more, got late ones in between: they are archived before it goes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final

from psycopg import sql

from engine.base.clock import DAY_NS
from engine.data.kinds import KINDS
from engine.database.locks import PARTITIONS
from engine.database.partitions import (
    STATE_OF_DAY,
    Partition,
    date_of,
    day_of,
    partitions_of,
    schema_of_partitioned,
)
from engine.messages.upkeep import BARS
from engine.upkeep.archive import is_archived
from engine.upkeep.task import Place
from engine.upkeep.tasks.ages import first_kept_day_ns, is_over
from engine.upkeep.tasks.deletion import delete_rows, is_in_one_piece, moment, oldest_row_ns
from engine.upkeep.tasks.readers import who_reads

BeforeDrop = Callable[[Place, str, int, int], str]
"""Asked before rows of a table from one moment up to another (ns since 1970) are dropped: why they
must stay for now, empty when they may go. It may take its time to make it so, and is asked again
about rows that it has let go once, when there are late ones or something died."""

Steps = Iterator[tuple[str, str]]
"""What was to be dropped, each with why it was not; empty where it was."""

MARK: Final = "fintickstreams drops this: it is older than database.keep"
_LONG_S: Final = 10.0
_MARKED: Final = b"""
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
        AND pg_has_role(c.relowner, 'USAGE')
        AND starts_with(obj_description(c.oid, 'pg_class'), %s)
"""
_AGREED: Final = re.compile(r": (\d+) rows of (\w+) are archived$")
_FOUND: Final = """
    SELECT count(*), (extract(epoch FROM min(time)) * 1000000)::int8 * 1000,
        (extract(epoch FROM max(time)) * 1000000)::int8 * 1000 + 1000,
        obj_description(%s::text::regclass, 'pg_class')
    FROM {}
"""
_INSERTED: Final = b"SELECT s.n_tup_ins FROM pg_stat_all_tables AS s WHERE s.relid = %s::int8::oid"


class Retention:
    """On partitions and on tables in one piece. Hypertables have policies of their own."""

    name: ClassVar[str] = "retention"
    every_s: ClassVar[float] = 600.0

    def __init__(self, before_drop: Sequence[BeforeDrop] = ()) -> None:
        self._before_drop = tuple(before_drop)
        self._inserted: dict[int, int] = {}
        """Rows that ever came into a partition, when it was looked at last, by its oid."""

    def run(self, place: Place) -> str:
        """Finish what was begun, then drop what is over."""
        dropped, kept_back = finish_drops(place), []
        for table, kept_for in place.settings.keep.items():
            for name, why_not in self._steps(place, table, kept_for):
                if why_not:
                    kept_back.append(f"{name} ({why_not})")
                else:
                    dropped.append(name)
        said = [f"dropped {', '.join(dropped)}"] if dropped else []
        said += [f"kept for now: {', '.join(kept_back)}"] if kept_back else []
        return "; ".join(said)

    def _steps(self, place: Place, table: str, kept_for: str) -> Steps:
        if schema_of_partitioned(place.session, table) is not None:
            return self._drop_partitions(place, table, kept_for)
        if is_in_one_piece(place, table):
            return self._delete_days(place, table, kept_for)
        return iter(())

    def _drop_partitions(self, place: Place, table: str, kept_for: str) -> Steps:
        found = partitions_of(place.session, table)
        for each in found:
            if not is_over(each.end_ns, kept_for, place.now_ns()):
                if each.comment.startswith(MARK):  # it is kept for longer since then
                    _mark(place, each, None)
                continue
            assert each.end_ns is not None
            mark = _mark_of(place, table, each)
            why_not = self._is_filling(place, each) or _in_the_way(place, table, found)
            why_not = why_not or self._why_not(place, table, each.start_ns or 0, each.end_ns)
            if not why_not:
                _mark(place, each, mark)
                _detach(place, table, each, any(other.is_default for other in found))
                why_not = _drop(place, each.schema, each.name)
            yield each.name, why_not

    def _delete_days(self, place: Place, table: str, kept_for: str) -> Steps:
        end_ns = first_kept_day_ns(kept_for, place.now_ns())
        while (oldest_ns := oldest_row_ns(place, table)) is not None and oldest_ns < end_ns:
            day_ns = oldest_ns // DAY_NS * DAY_NS
            said = f"{table} of {date_of(day_of(day_ns))}"
            if why_not := self._why_not(place, table, day_ns, day_ns + DAY_NS):
                yield said, why_not
                return
            over = sql.SQL("time < {}").format(moment(day_ns + DAY_NS))
            delete_rows(place, sql.Identifier(table), over)
            yield said, ""

    def _is_filling(self, place: Place, partition: Partition) -> str:
        """Whether a writer that is behind still delivers that day, after a long outage: it would
        make it again and again. A day that takes no row goes: a full disk may be what is wrong.
        """
        found = place.session.execute(_INSERTED, (partition.oid,)).fetchone()
        count = int(found[0]) if found else 0
        before, self._inserted[partition.oid] = self._inserted.get(partition.oid), count
        return "the writer is behind" if place.report.is_paused and before != count else ""

    def _why_not(self, place: Place, table: str, start_ns: int, end_ns: int) -> str:
        reasons = (ask(place, table, start_ns, end_ns) for ask in self._before_drop)
        return next((reason for reason in reasons if reason), "")


def finish_drops(place: Place) -> list[str]:
    """End what somebody died over, whatever is configured now: these rows are in no table any more,
    or about to be in none. Returns what was dropped.
    """
    for table in (*KINDS, *BARS):
        for each in partitions_of(place.session, table):
            if each.is_pending and each.comment.startswith(MARK):
                place.session.execute(
                    sql.SQL("ALTER TABLE {} DETACH PARTITION {} FINALIZE").format(
                        sql.Identifier(table), each.identifier
                    )
                )
    marked = place.session.execute(_MARKED, (MARK,)).fetchall()
    return [name for schema, name in marked if not _drop(place, schema, name)]


def _in_the_way(place: Place, table: str, partitions: Sequence[Partition]) -> str:
    """Who would have us wait. A day is not detached by half for a query that runs for hours, for
    half detached it takes no late rows.
    """
    for each in partitions:
        if each.is_pending:
            return f"{each.name} is half detached: ALTER TABLE {table} DETACH PARTITION … FINALIZE"
    return who_reads(place, table, _LONG_S)


def _mark_of(place: Place, table: str, partition: Partition) -> str:
    """What to mark a day with that is about to be asked about."""
    if place.settings.archive == "none" or table not in KINDS:
        return MARK
    place.pause()
    count = sql.SQL("SELECT count(*) FROM {}").format(partition.identifier)
    (rows,) = place.session.execute(count).fetchone() or (0,)
    return f"{MARK}: {rows} rows of {table} are archived"


def _late_rows(place: Place, schema: str, name: str) -> str:
    """Archive what came between the answer and the detaching; why the day must stay."""
    identifier = sql.Identifier(schema, name)
    found = place.session.execute(
        sql.SQL(_FOUND).format(identifier), (identifier.as_string(place.session),)
    ).fetchone()
    assert found is not None
    rows, first_ns, end_ns, said = found
    agreed = _AGREED.search(said or "")
    if agreed is None or int(agreed[1]) == rows or not rows:
        return ""
    return is_archived(place, agreed[2], first_ns, end_ns, relation=name)


def _mark(place: Place, partition: Partition, text: str | None) -> None:
    place.session.execute(
        sql.SQL("COMMENT ON TABLE {} IS {}").format(partition.identifier, sql.Literal(text))
    )


def _detach(place: Place, table: str, partition: Partition, has_default: bool) -> None:
    """Readers and writers go on meanwhile. Beside a default partition it cannot be so: then they
    wait for the moment that it takes, and we for them no longer than a lock's timeout.
    """
    how = sql.SQL("" if has_default else "CONCURRENTLY")
    place.session.execute(
        sql.SQL("ALTER TABLE {} DETACH PARTITION {} {}").format(
            sql.Identifier(table), partition.identifier, how
        )
    )


def _drop(place: Place, schema: str, name: str) -> str:
    """Drop a day that is detached; why not, where a writer has attached it again for late rows."""
    if why_not := _late_rows(place, schema, name):
        return why_not
    identifier = sql.Identifier(schema, name)
    with place.session.transaction():
        place.session.execute("SELECT pg_advisory_xact_lock(%s)", (PARTITIONS,))
        attached = place.session.execute(
            STATE_OF_DAY.encode(), (identifier.as_string(place.session),)
        )
        if attached.fetchone() is not None:
            return "late rows have come"
        place.session.execute(sql.SQL("DROP TABLE {}").format(identifier))
    return ""
