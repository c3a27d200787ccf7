"""Daily partitions of a role of its own where TimescaleDB can be had, and what a move must keep.

Needs FTS_TEST_TIMESCALE_DSN, but for a server that the test brings itself.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from engine.database.home import in_schema
from engine.start.migrations import migrate
from tests.conftest import Databases
from tests.stores import execute

THEIRS: Final = (
    "CREATE VIEW dear AS SELECT stream_id, price FROM trade WHERE price > 5",
    "ALTER VIEW dear SET (security_barrier = true)",
    "COMMENT ON VIEW dear IS 'not cheap'",
    "CREATE VIEW dearest AS SELECT max(price) AS price FROM dear",
    "CREATE FUNCTION count_of(stream int) RETURNS bigint LANGUAGE sql STABLE"
    " BEGIN ATOMIC SELECT count(*) FROM trade t WHERE t.stream_id = stream; END",
    "GRANT SELECT ON dear TO PUBLIC",
    "GRANT SELECT ON trade TO PUBLIC",
    "GRANT UPDATE (qty) ON trade TO PUBLIC",
    "COMMENT ON TABLE trade IS 'all of them'",
)
"""What somebody made of the tables."""
SEEN: Final = """
    SELECT c.relname, CASE c.relkind WHEN 'v' THEN c.oid END, c.relacl::text, c.reloptions,
        obj_description(c.oid), pg_get_userbyid(c.relowner)
    FROM pg_class AS c
    WHERE c.relname IN ('dear', 'dearest', 'trades', 'trade') ORDER BY 1
"""
"""What everybody sees of that, and of the tables."""


def make_partitions(url: str, role: str) -> str:
    """Partitions in schema `ticks` of a new role, which may not make the extension. Its address.
    Its sessions are another's who has become it; whose they were would see what each does.
    """
    execute(
        url,
        f"CREATE ROLE {role}",
        f"GRANT pg_read_all_stats TO {role}",
        f"CREATE SCHEMA ticks AUTHORIZATION {role}",
    )
    own_url = in_schema(url, "ticks").replace("options=", f"options=-crole%3D{role}%20", 1)
    migrate(own_url)
    return own_url


def as_superuser(own_url: str) -> str:
    """The same database for who made the role."""
    return own_url.replace("-crole", "-cnothing.role")


@pytest.fixture
def partitions_url(
    make_database: Callable[[str], str], timescale: Databases | None
) -> Iterator[str]:
    """Partitions in a database without the extension."""
    if timescale is None:
        pytest.skip("FTS_TEST_TIMESCALE_DSN names no server with TimescaleDB: nothing was moved")
    url, role = make_database(""), f"mover_{os.getpid()}"
    try:
        yield make_partitions(url, role)
    finally:
        execute(url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


@pytest.fixture
def partitioned_url(partitions_url: str) -> str:
    """Partitions of a role that may not make the extension, which the database got later."""
    execute(
        as_superuser(partitions_url),
        "CREATE SCHEMA elsewhere",
        "CREATE EXTENSION timescaledb SCHEMA elsewhere",
        f"GRANT USAGE ON SCHEMA elsewhere TO mover_{os.getpid()}",
    )
    return partitions_url
