"""What an operator can see of a database, and that looking changes and needs nothing."""

import os

import msgspec
import psycopg
import pytest

from engine.database.condition.facts import read_facts
from engine.database.session import DOCTOR, session
from tests.conftest import Databases
from tests.flow.processes import Fts
from tests.stores import execute


def fill(url: str, timescale: Databases | None) -> None:
    """Two days of a thousand trades."""
    if timescale is None:
        for day in (22, 23):
            execute(
                url,
                f"CREATE TABLE trade_p202611{day} PARTITION OF trade FOR VALUES"
                f" FROM ('2026-11-{day}') TO ('2026-11-{day + 1}')",
            )
    for day in (22, 23):
        execute(
            url,
            f"INSERT INTO trade SELECT '2026-11-{day} 12:00+00', 0, 1, 1, 0, 'B', 1, 1, 0, n"
            " FROM generate_series(1, 1000) AS n",
        )
    execute(url, "ANALYZE")


@pytest.mark.fault("N22")
def test_layout_size_and_growth_are_seen(database_url: str, timescale: Databases | None) -> None:
    fill(database_url, timescale)
    execute(database_url, f"ALTER DATABASE {_name(database_url)} SET statement_timeout = '7s'")
    with session(database_url, DOCTOR) as connection:
        facts = read_facts(connection)
    assert facts.layout == ("partitions" if timescale is None else "hypertables")
    assert (facts.encoding, facts.schema, facts.holds_any_name) == ("UTF8", "public", True)
    assert (facts.rows_by_table["trade"], facts.days_kept) == (2000, 2)
    assert facts.rows_a_day == 1000
    assert facts.bytes_a_day is not None
    assert facts.size_bytes is not None
    assert 10_000 < facts.bytes_a_day < facts.size_bytes
    assert (facts.disk_free_bytes is None) == (facts.days_until_full is None)
    assert facts.connections_free is not None
    assert 0 < facts.connections_free < 1000
    assert facts.inherited == {"statement_timeout": "7s"}
    assert facts.is_pooled is False
    assert (facts.timescaledb is None) == (timescale is None)


@pytest.mark.fault("N22")
def test_an_empty_database_and_a_user_without_rights_are_no_failure(
    empty_database_url: str,
) -> None:
    with session(empty_database_url, DOCTOR) as connection:
        assert read_facts(connection).layout == "none yet"
    role = f"looker_{os.getpid()}"
    execute(empty_database_url, f"CREATE ROLE {role}")
    try:
        with session(f"{empty_database_url}&options=-crole%3D{role}", DOCTOR) as connection:
            assert read_facts(connection).encoding == "UTF8"
    finally:
        execute(empty_database_url, f"DROP ROLE {role}")


@pytest.mark.fault("N22")
def test_doctor_tells_people_and_programs(
    synced_database_url: str, timescale: Databases | None, tmp_path: "os.PathLike[str]"
) -> None:
    fill(synced_database_url, timescale)
    state = ("--state-dir", f"{tmp_path}/s")
    said = Fts("doctor", *state, FTS_DATABASE_URL=synced_database_url, FTS_CONTROL_PORT="0")
    code, text = said.end()
    assert code == 0, text
    for words in (
        "UTF8, schema public is up to date", "2 days kept", "rows and", "a day", "table trade",
        "oldest row 2026-11-22 12:00:00, kept for ever", "room",
    ):  # fmt: skip
        assert words in text
    assert ("daily partitions" if timescale is None else "hypertables, TimescaleDB") in text
    asked = Fts(
        "doctor", "--json", *state, FTS_DATABASE_URL=synced_database_url, FTS_CONTROL_PORT="0"
    )
    _, answer = asked.end()
    found = msgspec.json.decode(answer)["findings"]
    (facts,) = [each["facts"] for each in found if each["topic"] == "database"]
    assert facts["rows_by_table"]["trade"] == 2000


def test_looking_is_all_that_doctor_may_do(database_url: str) -> None:
    with (
        session(database_url, DOCTOR) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute("DELETE FROM trade")


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
