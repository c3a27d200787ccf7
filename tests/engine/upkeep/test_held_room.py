"""Room of loose rows that a long transaction holds: how often it is tried to give it back.

On any PostgreSQL: what TimescaleDB says of one chunk is played, the room and who holds it are real.
"""

from collections.abc import Iterator

import psycopg
import pytest

from engine.database.layout import DatabaseLayout
from engine.database.session import UPKEEP, session
from engine.messages.upkeep import DatabaseReport, DatabaseUpkeep
from engine.upkeep.hypertables import Found
from engine.upkeep.task import Place
from engine.upkeep.tasks import rewriting
from engine.upkeep.tasks.rewriting import Rewriting
from tests.stores import execute, select

RUN_S = 600
HOUR_S = 3600
SEEN = DatabaseLayout("hypertables", "2.28.1", "public", "2.28.1", "timescale")
PLAYED = (
    "CREATE TABLE chunk (n int PRIMARY KEY)",
    "INSERT INTO chunk SELECT generate_series(1, 10000)",
    "CREATE SCHEMA timescaledb_information",
    "CREATE VIEW timescaledb_information.chunks AS SELECT 'trade' AS hypertable_name,"
    " current_schema() AS hypertable_schema, 'public' AS chunk_schema, 'chunk' AS chunk_name,"
    " timestamptz 'epoch' AS range_start, timestamptz 'epoch' AS range_end, true AS is_compressed",
    "CREATE SCHEMA _timescaledb_functions",
    "CREATE FUNCTION _timescaledb_functions.chunk_status_text(oid) RETURNS text[] LANGUAGE sql"
    " RETURN '{COMPRESSED}'::text[]",
)


class Rig:
    """One chunk all of whose loose rows are gone, and one task that lives on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.now_s = 1_780_000_000
        self.task = Rewriting()

    def tries(self, place: Place, seconds: int) -> list[int]:
        """Seconds after which the chunk was written anew, in so many seconds of the task's runs."""
        begin_s, found = self.now_s, []
        while self.now_s - begin_s < seconds:
            before = file_of_chunk(place)
            self.task.run(place)
            if file_of_chunk(place) != before:
                found.append(self.now_s - begin_s)
            self.now_s += RUN_S
        return found


def file_of_chunk(place: Place) -> int:
    """A new number with every VACUUM (FULL)."""
    found = place.session.execute(b"SELECT pg_relation_filenode('chunk')").fetchone()
    assert found is not None
    return int(found[0])


@pytest.fixture
def rig(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Rig:
    trade = Found("trade", "public", HOUR_S, has_columns=True, segmentby="", orderby="")
    monkeypatch.setattr(rewriting, "find", lambda _: [trade])
    execute(empty_database_url, *PLAYED)
    return Rig(empty_database_url)


@pytest.fixture
def place(rig: Rig) -> Iterator[Place]:
    with session(rig.url, UPKEEP) as opened:
        asked, report = DatabaseUpkeep("database", rig.url), DatabaseReport("database")
        yield Place(opened, SEEN, asked, report, lambda: None, lambda: rig.now_s * 1_000_000_000)


def test_room_that_is_held_is_tried_for_ever_more_rarely_down_to_once_a_day(
    rig: Rig, place: Place
) -> None:
    with psycopg.connect(rig.url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")  # it sees what was there now, whatever becomes of it
        execute(rig.url, "DELETE FROM chunk")
        assert rig.tries(place, 4 * 24 * HOUR_S) == [
            0, 600, 1800, 4200, 9000, 18600, 37800, 76200, 153000, 239400, 325800,
        ]  # fmt: skip
        rig.now_s -= 5 * 24 * HOUR_S
        assert rig.tries(place, RUN_S) == [0], "the clock was set back"
    assert rig.tries(place, 3 * 24 * HOUR_S) == [86400 - RUN_S], "given back, and no more to do"
    assert select(rig.url, "SELECT pg_total_relation_size('chunk') < 100000") == [(True,)]


def test_room_that_nobody_holds_is_given_back_at_once(rig: Rig, place: Place) -> None:
    execute(rig.url, "DELETE FROM chunk")
    assert rig.tries(place, 24 * HOUR_S) == [0]
    execute(rig.url, "INSERT INTO chunk SELECT generate_series(1, 10000)", "DELETE FROM chunk")
    assert rig.tries(place, 2 * RUN_S) == [0], "new room, without the patience of before"
