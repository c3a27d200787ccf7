"""Whoever is in the middle of a statement may have a plan for a table that was swapped."""

import threading
from collections.abc import Iterator

import psycopg
import pytest

from engine.start.migrations import migration_session
from engine.start.to_hypertables import wait_for_statements
from tests.waiting import wait_for

LOCK = "SELECT pg_advisory_xact_lock(%s)"
BLOCKED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


class Statement:
    """One that takes as long as an advisory lock is held by the test."""

    def __init__(
        self, url: str, holder: "psycopg.Connection[tuple[object, ...]]", key: int
    ) -> None:
        self._holder, self._key, self._url = holder, key, url
        holder.execute("SELECT pg_advisory_lock(%s)", (key,))
        self._thread = threading.Thread(target=self._run)
        before = self._blocked()
        self._thread.start()
        wait_for(lambda: self._blocked() == before + 1, "the statement waits")

    def _run(self) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute(LOCK, (self._key,))

    def _blocked(self) -> int:
        row = self._holder.execute(BLOCKED).fetchone()
        assert row is not None
        return int(str(row[0]))

    def end(self) -> None:
        """Let it go on."""
        self._holder.execute("SELECT pg_advisory_unlock(%s)", (self._key,))
        self._thread.join()


@pytest.fixture
def holder(database_url: str) -> "Iterator[psycopg.Connection[tuple[object, ...]]]":
    """Holds the locks. It is in no transaction."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def test_statements_that_had_begun_are_waited_for_and_later_ones_are_not(
    database_url: str,
    holder: "psycopg.Connection[tuple[object, ...]]",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.start.to_hypertables._TELL_S", 0.0)
    before, said = Statement(database_url, holder, 1), list[str]()

    def wait() -> None:
        with migration_session(database_url) as connection:
            wait_for_statements(connection, said.append)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_for(lambda: bool(said), "it waits")
    after = Statement(database_url, holder, 2)
    count = len(said)
    wait_for(lambda: len(said) > count, "it still waits")
    before.end()
    waiter.join(30)
    assert not waiter.is_alive(), "one that came later does not matter"
    assert len(set(said)) == 1
    after.end()


def test_who_does_nothing_in_a_transaction_is_not_waited_for(database_url: str) -> None:
    """What it does next is planned then."""
    with psycopg.connect(database_url) as idle, migration_session(database_url) as connection:
        idle.execute("SELECT 1")
        wait_for_statements(connection, pytest.fail)


def test_who_cannot_see_what_others_do_waits_for_them_and_says_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.start.to_hypertables._TELL_S", 0.0)
    with psycopg.connect(database_url) as other, migration_session(database_url) as connection:
        other.execute("SELECT 1")
        connection.execute("SET ROLE pg_write_server_files")

        def told(text: str) -> None:
            assert text.startswith("statements that began before are waited for (pid ")
            assert text.endswith("is hidden from this user, who is not of pg_read_all_stats")
            other.rollback()

        wait_for_statements(connection, told)
