"""What the database's user may do, and the GRANT for each right that an engine's writer needs.

`sql/roles.sql` gives them all. The owner of the tables has them by himself, and he alone can change
the schema, which migrations and the upkeep do.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.data.kinds import KINDS
from engine.database.home import schema_of
from engine.database.session import DatabaseSession

_KEPT: Final = "SELECT, INSERT, UPDATE, DELETE"
WRITER_RIGHTS: Final[Mapping[str, str]] = {
    "schema_version": "SELECT",
    "instrument": "SELECT, INSERT",
    "instrument_event": "SELECT, INSERT",
    "stream": "SELECT, INSERT",
    "stream_registry": _KEPT,
    **{kind.name: "SELECT, INSERT" for kind in KINDS.values() if kind.columns},
    "gap": "SELECT, INSERT, UPDATE",
    "ring_loss": "SELECT, INSERT, UPDATE",
    "ingest_cursor": _KEPT,
    "coverage": "SELECT, INSERT, UPDATE",
    "coverage_carrier": _KEPT,
    "quarantined_row": "SELECT, INSERT, UPDATE",
    "bar_state": "SELECT, UPDATE",
    "bar_todo": "SELECT, INSERT",
    "row_span": "SELECT, INSERT",
    "row_span_begin": "SELECT",
}
"""By table. What a table is not there for, nobody needs yet."""
_SEQUENCES: Final = ["instrument_instrument_id_seq", "stream_stream_id_seq"]
_FUNCTIONS: Final = ["make_day", "begin_row_spans", "fill_unknown_facts"]

_HOME: Final = """
    SELECT n.nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relname = 'schema_version' AND c.relkind = 'r' AND (%(named)s::text IS NULL
        OR n.nspname = %(named)s)
    ORDER BY has_schema_privilege(n.oid, 'USAGE') DESC, pg_table_is_visible(c.oid) DESC, n.nspname
    LIMIT 1
"""
_MISSING: Final = """
    SELECT 'use schema ' || n.nspname, format('USAGE ON SCHEMA %%I', n.nspname)
    FROM pg_namespace AS n
    WHERE n.nspname = %(home)s AND NOT has_schema_privilege(n.oid, 'USAGE')
    UNION ALL
    SELECT 'make temporary tables', format('TEMPORARY ON DATABASE %%I', current_database())
    WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
    UNION ALL (
        SELECT string_agg(w.privilege, ', ' ORDER BY w.place) || ' on ' || w.name,
            format('%%s ON %%I.%%I', string_agg(w.privilege, ', ' ORDER BY w.place), %(home)s::text,
                w.name)
        FROM unnest(%(tables)s::text[], %(privileges)s::text[])
            WITH ORDINALITY AS w (name, privilege, place)
        JOIN pg_class AS c ON c.relname = w.name
            AND c.relnamespace = (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = %(home)s)
        WHERE NOT has_table_privilege(c.oid, w.privilege)
        GROUP BY w.name ORDER BY min(w.place)
    )
    UNION ALL
    SELECT 'use sequence ' || c.relname, format('USAGE ON SEQUENCE %%I.%%I', n.nspname, c.relname)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(home)s AND c.relkind = 'S' AND c.relname = ANY (%(sequences)s)
        AND NOT has_sequence_privilege(c.oid, 'USAGE')
    UNION ALL
    SELECT 'call ' || p.proname, format('EXECUTE ON FUNCTION %%I.%%I(%%s)', n.nspname, p.proname,
            oidvectortypes(p.proargtypes))
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = %(home)s AND p.proname = ANY (%(functions)s)
        AND NOT has_function_privilege(p.oid, 'EXECUTE')
"""
_WHO: Final = """
    SELECT quote_ident(current_user), quote_ident(pg_get_userbyid(c.relowner)),
        pg_has_role(c.relowner, 'USAGE')
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relname = 'trade'
"""


class MissingRight(msgspec.Struct, frozen=True):
    """Something that this user may not do."""

    what: str
    grant: str
    """The statement that lets him."""


class Rights(msgspec.Struct, frozen=True):
    """Of a session's user, in the schema of our tables."""

    user: str
    """As SQL writes it, and so the owner."""
    owner: str
    is_owner: bool
    """Also a member of the owner: may migrate, and do what the upkeep does."""
    missing: list[MissingRight]
    """What the writer would need besides."""


def read_rights(session: DatabaseSession) -> Rights | None:
    """None while there are no tables of ours. Works also where this user may see none of them.
    Raises psycopg.Error.
    """
    named = schema_of(session.database_url)
    found = session.execute(_HOME, {"named": named}).fetchone()
    if found is None:
        return None
    (home,) = found
    who = session.execute(_WHO, (home,)).fetchone()
    if who is None:
        return None
    user, owner, is_owner = who
    pairs = [(t, right) for t, rights in WRITER_RIGHTS.items() for right in rights.split(", ")]
    wanted = {
        "home": home,
        "tables": [table for table, _ in pairs],
        "privileges": [privilege for _, privilege in pairs],
        "sequences": _SEQUENCES,
        "functions": _FUNCTIONS,
    }
    lacks = session.execute(_MISSING, wanted).fetchall()
    missing = [MissingRight(what, f"GRANT {right} TO {user}") for what, right in lacks]
    return Rights(user, owner, is_owner, missing)
