"""Hypertables as TimescaleDB keeps them, as they are wanted, and what makes the one the other.

Only what nobody else decided is changed: a chunk interval that is still the one of our migration, a
columnstore that is not there yet, policies that carry our mark. Anything else is somebody's choice;
it stays, and is told.
"""

import re
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from engine.data.kinds import KINDS
from engine.database.session import DatabaseSession

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
MARK: Final = "fintickstreams"
"""Value of key `by` in the configuration of a policy of ours."""
_MIGRATED_CHUNK_S: Final = DAY_S
_NAMES: Final = b"""
    SELECT h.hypertable_name::text FROM timescaledb_information.hypertables AS h
    WHERE h.hypertable_schema = current_schema() AND h.hypertable_name = ANY (%s) ORDER BY 1
"""
_FOUND: Final = b"""
    SELECT h.hypertable_name::text, h.hypertable_schema::text,
        extract(epoch FROM d.time_interval)::int8, h.compression_enabled, s.segmentby, s.orderby,
        extract(epoch FROM s.compress_interval_length::interval)::int8
    FROM timescaledb_information.hypertables AS h
    JOIN timescaledb_information.dimensions AS d USING (hypertable_schema, hypertable_name)
    LEFT JOIN timescaledb_information.hypertable_columnstore_settings AS s
        ON s.hypertable = to_regclass(format('%%I.%%I', h.hypertable_schema, h.hypertable_name))
    WHERE h.hypertable_schema = current_schema() AND h.hypertable_name = ANY (%s)
        AND d.dimension_number = 1 AND d.time_interval IS NOT NULL
"""
_POLICIES: Final = b"""
    SELECT j.hypertable_name::text, j.proc_name::text,
        extract(epoch FROM coalesce(j.config ->> 'compress_after', j.config ->> 'drop_after')
            ::interval)::int8,
        coalesce(j.config ->> 'by', '') = %s
    FROM timescaledb_information.jobs AS j
    WHERE j.hypertable_schema = current_schema() AND j.hypertable_name = ANY (%s)
        AND j.proc_name IN ('policy_compression', 'policy_retention')
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """One that is there."""

    after_s: int | None
    """None: it goes by something else than the age of rows."""
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One hypertable as it is."""

    table: str
    schema: str
    chunk_s: int
    has_columns: bool
    segmentby: str
    orderby: str
    merged_s: int | None = None
    columnstore: Policy | None = None
    retention: Policy | None = None


@dataclass(frozen=True, slots=True)
class Goal:
    """One hypertable as it should be."""

    chunk_s: int
    orderby: str
    merged_s: int | None
    """Chunks are merged to one of this length when they are compressed; None: as it is."""
    columns_after_s: int
    """After a chunk's end; never before: compressing holds up whoever copies into it."""
    keep_s: int | None
    """Policy of retention; None: none."""


@dataclass(frozen=True, slots=True)
class Change:
    """Statements that belong together, and what they do in a few words."""

    text: str
    statements: tuple[sql.Composed, ...]


def goal(table: str, keep_s: int | None, *, merges: bool = True) -> Goal:
    """Hours where rows come by the thousand a second, so that they are compressed soon and what is
    hot fits the memory; days for the others.
    """
    spec = KINDS[table]
    if spec.is_fast:
        merged_s = DAY_S if merges else HOUR_S
        return Goal(HOUR_S, f"time, {spec.id_field}", merged_s, 2 * HOUR_S, keep_s)
    return Goal(DAY_S, "time", None, DAY_S, keep_s)


def tables_of_rows() -> list[str]:
    """Names of all tables that the writer copies into."""
    return [kind.name for kind in KINDS.values() if kind.columns]


def hypertables(session: DatabaseSession) -> list[str]:
    """Names of ours, in any version of TimescaleDB. Raises psycopg.Error."""
    return [row[0] for row in session.execute(_NAMES, (tables_of_rows(),)).fetchall()]


def find(session: DatabaseSession) -> list[Found]:
    """Our hypertables, as they are; in versions that have columns. Raises psycopg.Error."""
    policies: dict[tuple[str, str], Policy] = {}
    names = tables_of_rows()
    for table, procedure, after_s, is_ours in session.execute(_POLICIES, (MARK, names)).fetchall():
        policies[table, procedure] = Policy(after_s, is_ours)
    return [
        Found(
            table, schema, chunk_s, bool(has_columns), segmentby or "", orderby or "", merged_s,
            policies.get((table, "policy_compression")), policies.get((table, "policy_retention")),
        )
        for table, schema, chunk_s, has_columns, segmentby, orderby, merged_s in session.execute(
            _FOUND, (names,)
        ).fetchall()
    ]  # fmt: skip


def plan(found: Found, want: Goal, extension: str) -> tuple[list[Change], list[str]]:
    """What to change, and what somebody else decided otherwise. `extension` is the schema that
    TimescaleDB's functions are in.
    """
    words = _Words(found, extension)
    changes, others = list[Change](), list[str]()
    if found.chunk_s != want.chunk_s:
        if found.chunk_s == _MIGRATED_CHUNK_S:
            changes.append(words.chunks_of(want.chunk_s))
        else:
            others.append(f"chunks of {found.table} are of {_told(found.chunk_s)}")
    change, other = _columns(found, want, words)
    changes, others = changes + change, others + other
    change, other = _retention(found, want, words)
    return changes + change, others + other


def _columns(found: Found, want: Goal, words: "_Words") -> tuple[list[Change], list[str]]:
    there, changes = found.columnstore, list[Change]()
    if not found.has_columns:
        changes.append(words.columns(want))
    elif (found.segmentby, _plain(found.orderby)) != ("stream_id", _plain(want.orderby)):
        how = f"by {found.segmentby or 'nothing'}, ordered by {found.orderby or 'nothing'}"
        return [], [f"columnstore of {found.table} is {how}"]
    elif want.merged_s not in (None, found.merged_s):
        changes.append(words.merged(want.merged_s))
    if there is None:
        changes.append(words.compress_after(want.columns_after_s, replacing=False))
    elif there.after_s != want.columns_after_s:
        if not there.is_ours:
            return changes, [f"columnstore policy of {found.table} {_is(there)}"]
        changes.append(words.compress_after(want.columns_after_s, replacing=True))
    return changes, []


def _retention(found: Found, want: Goal, words: "_Words") -> tuple[list[Change], list[str]]:
    there = found.retention
    if there is None:
        return ([] if want.keep_s is None else [words.keep(want.keep_s, replacing=False)]), []
    if there.after_s == want.keep_s:
        return [], []
    if not there.is_ours:
        return [], [f"retention policy of {found.table} {_is(there)}"]
    if want.keep_s is None:
        return [words.keep_all()], []
    return [words.keep(want.keep_s, replacing=True)], []


class _Words:
    """SQL about one hypertable."""

    def __init__(self, found: Found, extension: str) -> None:
        self._name = found.table
        self._table = sql.Identifier(found.schema, found.table)
        self._regclass = sql.Literal(self._table.as_string())
        self._extension = extension

    def chunks_of(self, seconds: int) -> Change:
        return Change(
            f"{self._name} in chunks of {_told(seconds)}",
            (self._say("SELECT {}({}, INTERVAL {})", "set_chunk_time_interval", seconds),),
        )

    def columns(self, want: Goal) -> Change:
        """No rewriting: chunks are compressed as the policy comes to them."""
        options = [
            sql.SQL("timescaledb.enable_columnstore"),
            sql.SQL("timescaledb.segmentby = 'stream_id'"),
            sql.SQL("timescaledb.orderby = {}").format(sql.Literal(want.orderby)),
        ]
        if want.merged_s is not None:
            options.append(_merged(want.merged_s))
        statement = sql.SQL("ALTER TABLE {} SET ({})").format(
            self._table, sql.SQL(", ").join(options)
        )
        return Change(f"columnstore of {self._name}", (statement,))

    def merged(self, seconds: int | None) -> Change:
        """Of chunks that are compressed from now on."""
        assert seconds is not None
        statement = sql.SQL("ALTER TABLE {} SET ({})").format(self._table, _merged(seconds))
        return Change(f"{self._name} merged to {_told(seconds)}", (statement,))

    def compress_after(self, seconds: int, *, replacing: bool) -> Change:
        gone = [self._gone("CALL {}({}, if_exists => true)", "remove_columnstore_policy")]
        added = self._say(
            "CALL {}({}, after => INTERVAL {})", "add_columnstore_policy", seconds
        )  # fmt: skip
        return Change(
            f"{self._name} compressed after {_told(seconds)}",
            (*(gone if replacing else []), added, self._mark("policy_compression")),
        )

    def keep(self, seconds: int, *, replacing: bool) -> Change:
        """Looked after every hour: what a chunk is too old for is as fine as the chunk."""
        added = self._say(
            "SELECT {}({}, drop_after => INTERVAL {}, schedule_interval => INTERVAL '1 hour')",
            "add_retention_policy",
            seconds,
        )
        gone = self.keep_all().statements if replacing else ()
        return Change(
            f"{self._name} kept for {_told(seconds)}",
            (*gone, added, self._mark("policy_retention")),
        )

    def keep_all(self) -> Change:
        return Change(
            f"{self._name} kept for ever",
            (self._gone("SELECT {}({}, if_exists => true)", "remove_retention_policy"),),
        )

    def _say(self, text: str, function: str, seconds: int) -> sql.Composed:
        name = sql.Identifier(self._extension, function)
        return sql.SQL(text).format(name, self._regclass, sql.Literal(_interval(seconds)))

    def _gone(self, text: str, function: str) -> sql.Composed:
        return sql.SQL(text).format(sql.Identifier(self._extension, function), self._regclass)

    def _mark(self, procedure: str) -> sql.Composed:
        return sql.SQL(
            "SELECT {}(j.job_id, config => j.config || jsonb_build_object('by', {}::text))"
            " FROM timescaledb_information.jobs AS j"
            " WHERE to_regclass(format('%I.%I', j.hypertable_schema, j.hypertable_name))"
            " = {}::regclass AND j.proc_name = {}"
        ).format(
            sql.Identifier(self._extension, "alter_job"),
            sql.Literal(MARK), self._regclass, sql.Literal(procedure),
        )  # fmt: skip


def _merged(seconds: int) -> sql.Composed:
    return sql.SQL("timescaledb.compress_chunk_time_interval = {}").format(
        sql.Literal(_interval(seconds))
    )


def _interval(seconds: int) -> str:
    return f"{seconds // HOUR_S} hours"


def _told(seconds: int) -> str:
    count, rest = divmod(seconds, DAY_S)
    if rest or not count:
        count, word = seconds // HOUR_S, "hour"
    else:
        word = "day"
    return f"{count} {word}" + ("" if count == 1 else "s")


def _is(policy: Policy) -> str:
    when = f" (after {_told(policy.after_s)})" if policy.after_s else ""
    return f"is somebody else's{when}"


def _plain(orderby: str) -> str:
    """Without quotes and blanks."""
    return re.sub(r'["\s]', "", orderby)
