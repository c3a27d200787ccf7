"""What hangs on a table by its OID and would stay with the old one when another takes its name.

Views and SQL functions whose bodies the server has parsed know a table by its OID. Replaced by
their own definitions once the name means another table, they follow it, and keep their own OIDs,
owners, grants and comments; so what depends on them in turn notices nothing. Whatever else depends
on a table (a foreign key, a trigger, a materialized view) cannot follow, and is named.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg import sql

from engine.database.session import DatabaseSession

_DEPENDENTS: Final = """
    WITH told AS (
        SELECT DISTINCT d.classid, d.objid,
            CASE WHEN d.refclassid = 'pg_class'::regclass THEN d.classid::regclass::text
                ELSE 'row type' END AS how
        FROM pg_depend AS d
        WHERE d.deptype <> 'i' AND (
            (d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s)
            OR (d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
                SELECT t.oid FROM pg_type AS t JOIN pg_class AS c
                    ON t.oid = c.reltype OR t.typelem = c.reltype
                WHERE c.oid = %(table)s AND c.reltype <> 0))
        )
    )
    SELECT t.how,
        CASE WHEN r.ev_class <> %(table)s
            THEN pg_describe_object('pg_class'::regclass, r.ev_class, 0)
            ELSE pg_describe_object(t.classid, t.objid, 0) END,
        n.nspname, v.relname,
        coalesce(v.oid, p.oid), pg_has_role(coalesce(v.relowner, p.proowner), 'USAGE'),
        coalesce(quote_ident(pg_get_userbyid(v.relowner)), '')
    FROM told AS t
    LEFT JOIN pg_rewrite AS r ON r.oid = t.objid AND t.classid = 'pg_rewrite'::regclass
    LEFT JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind = 'v'
    LEFT JOIN pg_namespace AS n ON n.oid = v.relnamespace
    LEFT JOIN pg_proc AS p ON p.oid = t.objid AND t.classid = 'pg_proc'::regclass
        AND p.prosqlbody IS NOT NULL
    LEFT JOIN pg_class AS c ON c.oid = t.objid AND t.classid = 'pg_class'::regclass
    LEFT JOIN pg_constraint AS k ON k.oid = t.objid AND t.classid = 'pg_constraint'::regclass
    WHERE NOT (
        -- Its own, which are made anew with it; its partitions; statistics.
        coalesce(c.relkind IN ('i', 'I'), false)
        OR coalesce(EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid
                            AND i.inhparent = %(table)s), false)
        OR coalesce(k.conrelid = %(table)s AND k.contype IN ('c', 'n'), false)
        OR t.classid IN ('pg_attrdef'::regclass, 'pg_statistic_ext'::regclass)
    )
    ORDER BY 2
"""
_VIEW: Final = """
    SELECT pg_get_viewdef(c.oid), coalesce((
        SELECT ' WITH (' || string_agg(format('%%I = %%L', o.option_name, o.option_value), ', ')
            || ')' FROM pg_options_to_table(c.reloptions) AS o), '')
    FROM pg_class AS c WHERE c.oid = %s
"""
_FUNCTION: Final = "SELECT pg_get_functiondef(%s::oid)"


class Dependent(NamedTuple):
    """Something that depends on a table."""

    text: str
    """As the server describes it."""
    oid: int | None
    """None for what cannot be replaced."""
    is_ours: bool
    """Whether this user may replace it."""
    view: sql.Identifier | None
    owner: str

    @property
    def problem(self) -> str:
        """Why it cannot follow; empty when it can."""
        if self.oid is None:
            return f"{self.text} depends on it"
        return "" if self.is_ours else f"{self.text} depends on it and belongs to somebody else"


def dependents(connection: DatabaseSession, table_oid: int) -> Iterator[Dependent]:
    """What depends on a table directly, or on the type of its rows."""
    for how, text, schema, name, oid, is_ours, owner in connection.execute(
        _DEPENDENTS, {"table": table_oid}
    ).fetchall():
        view = sql.Identifier(schema, name) if name is not None else None
        can_follow = oid is not None and how != "row type"
        yield Dependent(text, oid if can_follow else None, bool(is_ours), view, owner)


def lock_views(connection: DatabaseSession, found: list[Dependent]) -> None:
    """Before the table is locked: who reads through a view takes them in this order, too. To change
    a view's owner locks it, even if it stays the same.
    """
    for each in found:
        if each.view is not None:
            change = sql.SQL("ALTER VIEW {} OWNER TO {}")
            connection.execute(change.format(each.view, sql.SQL(each.owner)))


def definitions(connection: DatabaseSession, found: list[Dependent]) -> list[sql.Composed]:
    """Statements that make them mean what bears the table's name when they are executed. The
    session's search_path must be the same then and now.
    """
    statements: list[sql.Composed] = []
    for each in found:
        if each.view is not None:
            row = connection.execute(_VIEW, (each.oid,)).fetchone()
            assert row is not None, "locked"
            body, options = row
            head = sql.SQL("CREATE OR REPLACE VIEW {}").format(each.view)
            statements.append(head + sql.SQL(f"{options} AS {body}"))
        else:
            row = connection.execute(_FUNCTION, (each.oid,)).fetchone()
            assert row is not None
            statements.append(sql.Composed([sql.SQL(row[0])]))
    return statements
