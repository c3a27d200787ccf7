"""From daily partitions to hypertables of TimescaleDB, in place: no row is copied.

A table is moved by one transaction: it is locked and gets another name, a hypertable like it takes
its name, each partition is detached and becomes a chunk (`attach_chunk` reads it once, to see that
its rows are of its day), views and functions follow, and the old table, empty by then, is dropped.
A crash leaves each table as it was or as it shall be; asked again, this goes on with the rest.

A writer waits for the lock meanwhile, and its rows in the journal. A COPY that waited has been
planned for the old table by then, and TimescaleDB would let it put its rows into the hypertable
itself, where nobody finds them (seen in 2.29). So a trigger refuses them there, and who is refused
begins again. It stays until every statement is over that had begun before: to wait for a lock is
not enough, for who has waited for the old table asks for the new one only then.

The table of trades comes last: whoever looks at it alone sees partitions until everything is done.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import sql

from engine.base.clock import monotonic_s
from engine.base.errors import MigrationError
from engine.data.kinds import KINDS, TRADE
from engine.database.locks import PARTITIONS
from engine.database.session import DatabaseSession
from engine.start.dependents import Dependent, definitions, dependents, lock_views
from engine.start.migrations import create_timescaledb, migration_session, patiently

_OLD: Final = "_of_partitions"
"""What is added to the names of a table and its indexes until they are dropped."""
_GUARD: Final = "_is_being_moved"
"""What is added to the name of a table for the trigger, and for its function."""
_VERSION_NEEDED: Final = (2, 21)
"""The first with attach_chunk."""
_LOCKS_A_PARTITION: Final = 8
"""Measured: 5 with one index, and 60 for the rest."""

_EXTENSION: Final = """
    SELECT (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'timescaledb'),
        (SELECT n.nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
         WHERE e.extname = 'timescaledb'),
        (SELECT a.default_version FROM pg_available_extensions AS a WHERE a.name = 'timescaledb'),
        current_setting('timescaledb.license', true),
        EXISTS (SELECT FROM pg_extension AS e JOIN pg_proc AS p ON p.pronamespace = e.extnamespace
                WHERE e.extname = 'timescaledb' AND p.proname = 'attach_chunk'),
        current_setting('max_locks_per_transaction')::int8
            * (current_setting('max_connections')::int8
               + current_setting('max_prepared_transactions')::int8)
"""
_TABLE: Final = """
    SELECT c.oid, n.nspname, c.relkind::text, quote_ident(pg_get_userbyid(c.relowner)),
        pg_has_role(c.relowner, 'USAGE'), c.relrowsecurity, obj_description(c.oid, 'pg_class'),
        CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(%s)
"""
_PARTITIONS: Final = """
    SELECT c.oid, n.nspname, c.relname, c.relkind::text, i.inhdetachpending,
        pg_get_expr(c.relpartbound, c.oid), greatest(c.reltuples, 0)::int8,
        pg_total_relation_size(c.oid)
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE i.inhparent = %s ORDER BY c.relname
"""
_INDEXES: Final = """
    SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = %s ORDER BY c.oid
"""
_GRANTS: Final = """
    SELECT format('GRANT %%s%%s ON %%I.%%I TO %%s%%s', a.privilege_type,
        CASE WHEN g.column_name IS NULL THEN '' ELSE format(' (%%I)', g.column_name) END,
        %(schema)s::text, %(table)s::text,
        CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM (
        SELECT c.relowner, c.relacl AS acl, NULL::name AS column_name
        FROM pg_class AS c WHERE c.oid = %(oid)s
        UNION ALL
        SELECT NULL, t.attacl, t.attname FROM pg_attribute AS t
        WHERE t.attrelid = %(oid)s AND t.attacl IS NOT NULL AND NOT t.attisdropped
    ) AS g CROSS JOIN LATERAL aclexplode(g.acl) AS a
    WHERE a.grantee IS DISTINCT FROM g.relowner
"""
_GUARDED: Final = """
    SELECT n.nspname, c.relname FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(%s) AND t.tgname = c.relname || %s
"""
_AT_WORK: Final = """
    SELECT l.virtualxid, l.pid, a.state IS NULL
    FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.virtualxid = l.virtualtransaction
        AND a.datname = current_database() AND l.pid <> pg_backend_pid()
        AND coalesce(a.backend_type, 'client backend') = 'client backend'
        AND coalesce(a.state, 'active') NOT LIKE 'idle in transaction%%'
        AND (%(among)s::text[] IS NULL OR l.virtualxid = ANY (%(among)s))
"""
"""Transactions of this database in the middle of a statement. Everybody may see who is in one; what
others do is hidden from who is not of `pg_read_all_stats`, and taken for a statement.
"""
_LOOK_S: Final = 0.1
_TELL_S: Final = 5.0
_REFUSE: Final = """
    BEGIN
        IF TG_RELID = TG_ARGV[0]::oid THEN
            RAISE object_in_use
                USING MESSAGE = 'the table has just become a hypertable: begin again';
        END IF;
        RETURN NEW;
    END
"""
_BOUNDS: Final = re.compile(r"FOR VALUES FROM \('([^']+)'\) TO \('([^']+)'\)")


class FutureChunk(NamedTuple):
    """A partition."""

    oid: int
    schema: str
    name: str
    kind: str
    is_being_detached: bool
    bounds: str
    row_count: int
    size_bytes: int

    @property
    def identifier(self) -> sql.Identifier:
        """For statements."""
        return sql.Identifier(self.schema, self.name)

    @property
    def slice(self) -> str | None:
        """Its times as `attach_chunk` wants them; None where they are no two times."""
        found = _BOUNDS.fullmatch(self.bounds)
        return json.dumps({"time": [found[1], found[2]]}) if found else None

    @property
    def problem(self) -> str:
        """Why it can be no chunk; empty when it can."""
        if self.bounds == "DEFAULT":
            return f"partition {self.name} is the default one: detach it, and move its rows"
        if self.is_being_detached:
            return f"partition {self.name} is half detached: ALTER TABLE … DETACH … FINALIZE"
        if self.kind != "r":
            return f"partition {self.name} is no plain table"
        return "" if self.slice else f"partition {self.name} has no two ends: {self.bounds}"


class Move(NamedTuple):
    """A table of partitions that is to become a hypertable."""

    table: str
    oid: int
    schema: str
    owner: str
    comment: str | None
    partitions: list[FutureChunk]
    indexes: list[tuple[str, str]]
    """Name and definition."""
    followers: list[Dependent]
    problems: list[str]

    def __str__(self) -> str:
        rows = sum(each.row_count for each in self.partitions)
        size_mb = sum(each.size_bytes for each in self.partitions) / 2**20
        followers = ", ".join(each.text for each in self.followers) or "nothing"
        return (
            f"{self.table}: {len(self.partitions)} partitions with about {rows:,} rows,"
            f" {size_mb:,.0f} MB, become chunks; {followers} follows"
        )


class Plan(NamedTuple):
    """What would be done, and why it cannot be."""

    moves: list[Move]
    problems: list[str]
    makes_extension: bool


def plan(database_url: str) -> Plan:
    """Look, and change nothing. Raises MigrationError and DatabaseUnavailableError."""
    with migration_session(database_url) as connection, connection.transaction():
        return _plan(connection)


def move(database_url: str, progress: Callable[[str], None] = lambda _text: None) -> list[str]:
    """Make every table of partitions a hypertable; return their names. Engines may run meanwhile.

    Raises MigrationError with every reason where something is in the way, before anything is
    changed, and DatabaseUnavailableError where a lock was not to be had, or the server.
    """
    found = plan(database_url)
    if found.problems:
        raise MigrationError("; ".join(found.problems))
    if found.moves and found.makes_extension:
        try:
            create_timescaledb(database_url)
        except psycopg.Error as error:
            raise MigrationError(f"TimescaleDB cannot be made here: {error}") from error
        progress("made the extension timescaledb")
        if problems := plan(database_url).problems:
            raise MigrationError("; ".join(problems))

    def within(step: Callable[[DatabaseSession, str], None], table: str) -> None:
        with migration_session(database_url) as connection, connection.transaction():
            step(connection, table)

    def open_up(table: str) -> None:
        with migration_session(database_url) as connection:
            if connection.execute(_GUARDED, (table, _GUARD)).fetchone() is None:
                return
            wait_for_statements(connection, lambda text: progress(f"{table}: {text}"))
        patiently(partial(within, _open, table), progress)

    for table in _tables():  # a move before this one may have ended in between
        open_up(table)
    for each in found.moves:
        started_s = monotonic_s()
        patiently(partial(within, _move, each.table), progress)
        open_up(each.table)
        took_s = monotonic_s() - started_s
        progress(f"{each.table} is a hypertable: {len(each.partitions)} chunks, {took_s:.1f} s")
    return [each.table for each in found.moves]


def _tables() -> list[str]:
    """Trades last."""
    others = [kind.name for kind in KINDS.values() if kind.columns and kind is not TRADE]
    return [*others, TRADE.name]


def _plan(connection: DatabaseSession) -> Plan:
    looked_at = [_look(connection, table) for table in _tables()]
    moves = [each for each in looked_at if each is not None]
    row = connection.execute(_EXTENSION).fetchone()
    assert row is not None
    version, schema, available, license_, has_attach, lock_count = row
    problems = [f"{each.table}: {text}" for each in moves for text in each.problems]
    if moves:
        problems += extension_problems(version, schema, available, license_, has_attach=has_attach)
    for each in moves:
        needed = len(each.partitions) * _LOCKS_A_PARTITION + 100
        if needed > lock_count:
            problems.append(
                f"{each.table}: {len(each.partitions)} partitions take about {needed:,} locks at"
                f" once, and the server has room for {lock_count:,}: raise"
                " max_locks_per_transaction"
            )
    return Plan(moves, problems, makes_extension=version is None)


def extension_problems(
    version: str | None,
    schema: str | None,
    available: str | None,
    license_: str | None,
    *,
    has_attach: bool,
) -> Iterator[str]:
    """What TimescaleDB lacks for this: its version here and the schema it is in, if it is, and the
    version that could be had.
    """
    there = version or available
    if there is None:
        yield "TimescaleDB is not installed on this server"
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", there)[:2])
    if license_ == "apache":
        yield (
            "timescaledb.license is apache, which leaves attach_chunk out: set it to timescale in"
            " postgresql.conf"
        )
    elif numbers < _VERSION_NEEDED or (schema is not None and not has_attach):
        yield (
            f"TimescaleDB {there} has no attach_chunk, which makes a chunk of a partition: 2.21 or"
            " newer is needed"
        )


def _look(connection: DatabaseSession, table: str) -> Move | None:
    """What a table of partitions consists of; None for any other."""
    row = connection.execute(_TABLE, (table,)).fetchone()
    if row is None or row[2] != "p":
        return None
    oid, schema, _, owner, is_ours, has_policies, comment, key = row
    partitions = [FutureChunk(*each) for each in connection.execute(_PARTITIONS, (oid,)).fetchall()]
    followers = list(dependents(connection, oid))
    told = [part.problem for part in partitions] + [each.problem for each in followers]
    problems = [text for text in told if text]
    if key != 'RANGE ("time")':
        problems.append(f"it is partitioned by {key}, not by RANGE (time)")
    if not is_ours:
        problems.append(f"it belongs to {owner}: run this as that role")
    if has_policies:
        problems.append("it has row security, which hypertables in the columnstore cannot have")
    indexes: list[Any] = connection.execute(_INDEXES, (oid,)).fetchall()
    return Move(table, oid, schema, owner, comment, partitions, indexes, followers, problems)


def _move(connection: DatabaseSession, table: str) -> None:
    """In the caller's transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (PARTITIONS,))
    before = _look(connection, table)
    if before is None:
        return  # somebody was faster
    lock_views(connection, before.followers)
    name = sql.Identifier(before.schema, table)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
    locked = _look(connection, table)
    if locked is None or locked.problems:
        raise MigrationError(f"{table}: {'; '.join(locked.problems if locked else ['it is gone'])}")
    connection.execute("SET LOCAL search_path = pg_catalog")
    follow = definitions(connection, locked.followers)
    grants = _grants(connection, locked)
    old = _put_aside(connection, locked)
    extension = _make_hypertable(connection, locked, old)
    attach = sql.SQL("CALL {}(%s::regclass, %s::regclass, %s::jsonb)").format(
        sql.Identifier(extension, "attach_chunk")
    )
    for part in locked.partitions:
        detach = sql.SQL("ALTER TABLE {} DETACH PARTITION {}").format(old, part.identifier)
        connection.execute(detach)
        texts = (name.as_string(), part.identifier.as_string(), part.slice)
        connection.execute(attach, texts)
    for statement in (*follow, *grants, sql.SQL("DROP TABLE {}").format(old)):
        connection.execute(statement)


def _put_aside(connection: DatabaseSession, move: Move) -> sql.Identifier:
    """Rename the table and its indexes; return its new name."""
    rename = sql.SQL("ALTER {} {} RENAME TO {}")
    for index, _ in move.indexes:
        name = sql.Identifier(move.schema, index)
        new = sql.Identifier(index + _OLD)
        connection.execute(rename.format(sql.SQL("INDEX"), name, new))
    table, new = sql.Identifier(move.schema, move.table), sql.Identifier(move.table + _OLD)
    connection.execute(rename.format(sql.SQL("TABLE"), table, new))
    return sql.Identifier(move.schema, move.table + _OLD)


def _make_hypertable(connection: DatabaseSession, move: Move, old: sql.Identifier) -> str:
    """One like the old table, with its indexes; return the schema of TimescaleDB's functions."""
    table = sql.Identifier(move.schema, move.table)
    like = sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES)")
    connection.execute(like.format(table, old))
    if move.comment is not None:
        text = sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(move.comment))
        connection.execute(text)
    for _, definition in move.indexes:
        connection.execute(sql.SQL(definition.replace(" ON ONLY ", " ON ", 1)))
    row = connection.execute(_EXTENSION).fetchone()
    assert row is not None
    extension: str = row[1]
    make = sql.SQL(
        "SELECT {}(%s::regclass, {}('time', interval '1 day'), create_default_indexes => false)"
    ).format(sql.Identifier(extension, "create_hypertable"), sql.Identifier(extension, "by_range"))
    connection.execute(make, (table.as_string(),))
    give = sql.SQL("ALTER TABLE {} OWNER TO {}").format(table, sql.SQL(move.owner))
    connection.execute(give)
    _guard(connection, move, table)
    return extension


def _guard(connection: DatabaseSession, move: Move, table: sql.Identifier) -> None:
    """Let nobody put rows into the hypertable itself. Its chunks get the trigger, too, and let them
    through.
    """
    function = sql.Identifier(move.schema, move.table + _GUARD)
    make = sql.SQL(
        "CREATE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS {}"
    )
    connection.execute(make.format(function, sql.Literal(_REFUSE)))
    put = sql.SQL("CREATE TRIGGER {} BEFORE INSERT ON {} FOR EACH ROW EXECUTE FUNCTION {}({})")
    row = connection.execute("SELECT %s::regclass::oid::text", (table.as_string(),)).fetchone()
    assert row is not None
    name, oid = sql.Identifier(move.table + _GUARD), sql.Literal(row[0])
    connection.execute(put.format(name, table, function, oid))


def wait_for_statements(connection: DatabaseSession, progress: Callable[[str], None]) -> None:
    """Return when every statement is over that others are in the middle of, in this database. What
    they begin afterwards is planned for the tables of now. Outside of a transaction.
    """
    among, told_s = None, monotonic_s()
    while left := connection.execute(_AT_WORK, {"among": among}).fetchall():
        among = [transaction for transaction, _, _ in left]
        if monotonic_s() - told_s > _TELL_S:
            told_s = monotonic_s()
            pids = ", ".join(str(pid) for _, pid, _ in left)
            hidden = "; what some do is hidden from this user, who is not of pg_read_all_stats"
            text = f"statements that began before are waited for (pid {pids})"
            progress(text + (hidden if any(is_hidden for _, _, is_hidden in left) else ""))
        time.sleep(_LOOK_S)


def _open(connection: DatabaseSession, table: str) -> None:
    """Take the guard away, when nobody has a plan for the old table any more."""
    row = connection.execute(_GUARDED, (table, _GUARD)).fetchone()
    if row is None:
        return
    schema, name = row
    guard = sql.Identifier(name + _GUARD)
    drop = sql.SQL("DROP TRIGGER {} ON {}").format(guard, sql.Identifier(schema, name))
    connection.execute(drop)
    connection.execute(sql.SQL("DROP FUNCTION {}").format(sql.Identifier(schema, name + _GUARD)))


def _grants(connection: DatabaseSession, move: Move) -> list[sql.Composed]:
    values = {"oid": move.oid, "schema": move.schema, "table": move.table}
    found = connection.execute(_GRANTS, values).fetchall()
    return [sql.Composed([sql.SQL(text)]) for (text,) in found]
