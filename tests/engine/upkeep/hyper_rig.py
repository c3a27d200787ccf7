"""A database with hypertables, as the upkeep finds it. Needs FTS_TEST_TIMESCALE_DSN."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from engine.database.layout import read_layout
from engine.database.session import UPKEEP, session
from engine.messages.upkeep import DatabaseReport, DatabaseUpkeep
from engine.upkeep.task import Place
from tests.conftest import Databases
from tests.stores import execute, select

HOUR_NS = 3_600_000_000_000
NOW_NS = 1_780_012_800_000_000_000
"""2026-05-29 00:00 UTC."""
_STATES = """
    SELECT to_char(c.range_start AT TIME ZONE 'UTC', 'DD HH24'),
        array_to_string(_timescaledb_functions.chunk_status_text(
            format('%%I.%%I', c.chunk_schema, c.chunk_name)::regclass), ' ')
    FROM timescaledb_information.chunks AS c WHERE c.hypertable_name = %s ORDER BY c.range_start
"""
_FILL = """
    INSERT INTO {table}
    SELECT timestamptz '2026-05-29 00:00Z' - interval '{first_h} hours'
            + n * (interval '{hours} hours' / {count}), 0, 0, n % 4 + 1, 0, {rest}
    FROM generate_series(0, {count} - 1) AS n
"""
_REST = {
    "trade": "'B', 100 + n % 7, 5, 0, n",
    "book": "'B', 100, 5, n, n - 1",
    "funding": "1, 1, 1, 0, 0",
}


def needs_timescale(timescale: Databases | None) -> None:
    """Say what is not run."""
    if timescale is None:
        pytest.skip("FTS_TEST_TIMESCALE_DSN names no server with TimescaleDB")


class HyperRig:
    """One database of the test's own. TimescaleDB's workers do not come to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.now_ns = NOW_NS
        self.pauses = 0
        execute(url, "SELECT _timescaledb_functions.stop_background_workers()")

    @contextmanager
    def place(self, seen: dict[str, Any] | None = None, **settings: Any) -> Iterator[Place]:
        """As the upkeep makes it; `seen` is what the database is played to be."""
        with session(self.url, UPKEEP) as opened:
            yield Place(
                opened,
                msgspec.structs.replace(read_layout(opened), **(seen or {})),
                DatabaseUpkeep(name="database", url=self.url, **settings),
                DatabaseReport("database"),
                self._pause,
                lambda: self.now_ns,
            )

    def _pause(self) -> None:
        self.pauses += 1

    def run(self, task: Callable[[Place], str], **settings: Any) -> str:
        """One run of a task in a session of its own."""
        with self.place(**settings) as place:
            return task(place)

    def fill(self, first_h: int, hours: int, count: int, table: str = "trade") -> None:
        """Rows of streams 1 to 4, from so many hours before NOW_NS on."""
        execute(
            self.url,
            _FILL.format(table=table, first_h=first_h, hours=hours, count=count, rest=_REST[table]),
        )

    def states(self, table: str = "trade") -> dict[str, str]:
        """By day and hour at which a chunk begins."""
        return dict(select(self.url, _STATES, (table,)))

    def policies(self) -> list[tuple[Any, ...]]:
        """Table, procedure, what it goes by, and whose it is."""
        return select(
            self.url,
            "SELECT hypertable_name, proc_name, coalesce(config ->> 'compress_after',"
            " config ->> 'drop_after')::interval::text, config ->> 'by'"
            " FROM timescaledb_information.jobs WHERE hypertable_name IS NOT NULL ORDER BY 1, 2",
        )
