"""Which layout a database has, told from the catalog alone."""

from typing import TYPE_CHECKING

import psycopg
import pytest

from engine.database.layout import DatabaseLayout, read_layout
from engine.database.session import UPKEEP, session

if TYPE_CHECKING:
    from tests.conftest import Databases


def seen(url: str) -> DatabaseLayout:
    with session(url, UPKEEP) as opened:
        return read_layout(opened)


def test_before_there_are_tables_there_is_none(empty_database_url: str) -> None:
    assert seen(empty_database_url).layout is None


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
def test_plain_postgresql_has_partitions(database_url: str) -> None:
    found = seen(database_url)
    assert (found.layout, found.timescaledb, found.timescaledb_licence) == (
        "partitions",
        None,
        None,
    )


def test_tables_may_be_in_one_piece(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("CREATE TABLE schema_version (file_name text, checksum text)")
        connection.execute("CREATE TABLE trade (time timestamptz)")
    assert seen(empty_database_url).layout == "tables"


def test_timescaledb_has_hypertables(
    request: pytest.FixtureRequest, timescale: "Databases | None"
) -> None:
    if timescale is None:
        pytest.skip("not run: hypertables told from tables; FTS_TEST_TIMESCALE_DSN names no server")
    found = seen(request.getfixturevalue("database_url"))
    assert found.layout == "hypertables"
    assert found.timescaledb is not None
    assert found.timescaledb_schema == "public"
    assert found.timescaledb_licence in ("timescale", "apache")
