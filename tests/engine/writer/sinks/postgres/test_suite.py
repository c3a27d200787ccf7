"""PostgreSQL keeps what is asked of every sink."""

import psycopg
import pytest

from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sinks.sink import Promise, Sink
from tests.engine.writer.conftest import MakeSettings
from tests.engine.writer.sinks.suite import KEY, SinkRig, SinkSuite


class DatabaseRig(SinkRig):
    """A database that can be closed to everybody, and set back."""

    def __init__(self, url: str, layout: Layout, make_settings: MakeSettings) -> None:
        self._url, self._layout, self._make_settings = url, layout, make_settings
        self._saved = -1
        self._name = url.partition("?")[0].rpartition("/")[2]

    def make(self) -> Sink:
        return PostgresSink(self._make_settings(database_url=self._url), Slots(self._layout.slots))

    def ids(self) -> list[int]:
        with psycopg.connect(self._url) as connection:
            found = connection.execute("SELECT trade_id FROM trade ORDER BY trade_id")
            return [each for (each,) in found]

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def go_away(self) -> None:
        self._execute(
            f"ALTER DATABASE {self._name} SET default_transaction_read_only = on",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )

    def come_back(self) -> None:
        self._execute(
            "SET default_transaction_read_only = off",
            f"ALTER DATABASE {self._name} RESET default_transaction_read_only",
        )

    def save(self) -> None:
        self._saved = len(self.ids())

    def restore(self) -> None:
        self._execute(
            f"DELETE FROM trade WHERE trade_id >= {self._saved}",
            f"UPDATE ingest_cursor SET sequence = {self._saved} WHERE ring = '{KEY.ring}'",
        )


@pytest.fixture
def rig(
    database_url: str, layout: Layout, slots: Slots, make_settings: MakeSettings
) -> DatabaseRig:
    """The place to bring rows to."""
    del slots
    return DatabaseRig(database_url, layout, make_settings)


class TestPostgres(SinkSuite):
    """All of it."""

    promise = Promise.EVERY_ROW
