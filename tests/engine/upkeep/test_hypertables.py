"""What is changed about a hypertable, by what is found; and that PostgreSQL can read it."""

from dataclasses import replace

import psycopg
import pytest

from engine.data.kinds import KINDS
from engine.servers.postgres import PrivatePostgres
from engine.upkeep.hypertables import (
    DAY_S,
    HOUR_S,
    Found,
    Policy,
    goal,
    plan,
    tables_of_rows,
)

MIGRATED = Found("trade", "public", DAY_S, False, "", "")
OURS = Found(
    "trade", "public", HOUR_S, True, "stream_id", '"time",trade_id', DAY_S,
    Policy(2 * HOUR_S, True),
)  # fmt: skip


def texts(found: Found, keep_s: int | None = None, *, merges: bool = True) -> list[str]:
    changes, others = plan(found, goal(found.table, keep_s, merges=merges), "public")
    return [change.text for change in changes] + [f"not: {other}" for other in others]


def test_what_a_migration_made_gets_everything_once() -> None:
    assert texts(MIGRATED, 14 * DAY_S) == [
        "trade in chunks of 1 hour",
        "columnstore of trade",
        "trade compressed after 2 hours",
        "trade kept for 14 days",
    ]
    assert texts(OURS) == []
    assert texts(replace(OURS, retention=Policy(14 * DAY_S, True)), 14 * DAY_S) == []


def test_rows_that_come_slowly_are_kept_in_days() -> None:
    for table in tables_of_rows():
        want = goal(table, None)
        fast = table in ("trade", "book", "quote")
        assert (want.chunk_s, want.columns_after_s) == (
            (HOUR_S, 2 * HOUR_S) if fast else (DAY_S, DAY_S)
        )
        assert want.merged_s == (DAY_S if fast else None)
        assert want.columns_after_s >= want.chunk_s, "never the chunk that is written"
    assert goal("trade", None).orderby == "time, trade_id"
    assert goal("book", None).orderby == goal("quote", None).orderby == "time, seq"
    assert goal("funding", None).orderby == "time"
    assert set(tables_of_rows()) <= set(KINDS)


def test_the_configuration_is_followed_when_it_changes() -> None:
    kept = replace(OURS, retention=Policy(14 * DAY_S, True))
    assert texts(kept, 36 * HOUR_S) == ["trade kept for 36 hours"]
    assert texts(kept) == ["trade kept for ever"]
    assert texts(OURS, 400 * DAY_S) == ["trade kept for 400 days"]
    assert texts(OURS, merges=False) == ["trade merged to 1 hour"]
    assert texts(replace(OURS, merged_s=HOUR_S)) == ["trade merged to 1 day"]


def test_what_somebody_chose_stays_and_is_told() -> None:
    theirs = Policy(7 * DAY_S, False)
    assert texts(replace(OURS, chunk_s=6 * HOUR_S)) == ["not: chunks of trade are of 6 hours"]
    assert texts(replace(OURS, columnstore=theirs)) == [
        "not: columnstore policy of trade is somebody else's (after 7 days)"
    ]
    assert texts(replace(OURS, retention=theirs), DAY_S) == [
        "not: retention policy of trade is somebody else's (after 7 days)"
    ]
    assert texts(replace(OURS, retention=theirs)) == [
        "not: retention policy of trade is somebody else's (after 7 days)"
    ]
    assert texts(replace(OURS, segmentby="", orderby="time DESC", columnstore=None)) == [
        "not: columnstore of trade is by nothing, ordered by time DESC"
    ]


def test_plain_postgresql_can_read_every_statement(
    postgres: PrivatePostgres, database_url: str
) -> None:
    """It lacks what they call. This runs without TimescaleDB, and what they do then, does not."""
    del postgres
    found = replace(MIGRATED, schema='odd "name')
    kept = replace(OURS, schema='odd "name', columnstore=Policy(1, True), retention=Policy(1, True))
    statements = [
        statement
        for each in (found, kept)
        for keep_s, merges in ((None, True), (DAY_S, False))
        for change in plan(each, goal("trade", keep_s, merges=merges), "ext en'sion")[0]
        for statement in change.statements
    ]
    assert len(statements) > 10
    lacking = (
        psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
    )  # fmt: skip
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(lacking):
                connection.execute(statement)
