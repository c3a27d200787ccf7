"""A day may be dropped once the lake has it, and not before."""

import datetime as dt
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from engine.base.clock import DAY_NS
from engine.base.errors import ConfigError, EngineError
from engine.database.session import UPKEEP, session
from engine.messages.upkeep import DatabaseUpkeep
from engine.upkeep.archive import archive_day, is_archived
from engine.upkeep.lake import export as exporting
from engine.upkeep.lake.manifest import groups
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.task import Place
from engine.upkeep.tasks.retention import BeforeDrop, Retention
from engine.upkeep.tasks.venue_retention import VenueRetention
from tests.engine.upkeep.database_rig import partition_name, place_in
from tests.engine.upkeep.lake.lake_rig import (
    FIRST,
    LAST,
    add_rows,
    bring_back,
    contents,
    fill,
    problems,
)
from tests.stores import execute, select

DAY = partition_name("trade", (FIRST - dt.date(1970, 1, 1)).days)


@pytest.fixture
def filled(database_url: str) -> str:
    """Rows of every kind on two days."""
    fill(database_url, 300)
    return database_url


def settings(url: str, folder: Path) -> DatabaseUpkeep:
    return DatabaseUpkeep("main", url, archive="parquet", archive_to=str(folder))


def day_start_ns(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY_NS


def rows_of(url: str, table: str, day: dt.date) -> int:
    return len(select(url, f"SELECT FROM {table} WHERE time::date = %s", [day]))


def test_a_day_is_archived_dropped_and_brought_back(filled: str, tmp_path: Path) -> None:
    before, asked = contents(filled), settings(filled, tmp_path)
    with session(filled, UPKEEP) as connection:
        for table in exporting.TABLES:
            found = archive_day(connection, table, FIRST, asked)
            assert found.is_archived
            assert found.rows == rows_of(filled, table, FIRST)
            assert found.bytes > 0
            execute(filled, f"DELETE FROM {table} WHERE time::date = '{FIRST}'")
    assert problems(tmp_path) == []
    assert contents(filled) != before
    bring_back(filled, tmp_path)
    assert contents(filled) == before


def test_rows_that_come_after_the_drop_are_added(filled: str, tmp_path: Path) -> None:
    asked = settings(filled, tmp_path)
    everything = contents(filled)["trade"]
    with session(filled, UPKEEP) as connection:
        assert archive_day(connection, "trade", FIRST, asked).is_archived
        assert archive_day(connection, "trade", LAST, asked).is_archived
        execute(filled, "DELETE FROM trade")
        # Late ones, and one that is there: it was stored again by somebody.
        add_rows(filled, "trade", FIRST, 41, first=300)
        everything += contents(filled)["trade"]
        assert archive_day(connection, "trade", FIRST, asked).is_archived
        execute(filled, "DELETE FROM trade")
        # Many, more than the lake had: they do not take the place of what was there.
        add_rows(filled, "trade", FIRST, 900, first=100_000)
        everything += contents(filled)["trade"]
        assert archive_day(connection, "trade", FIRST, asked).is_archived
    assert problems(tmp_path) == []
    execute(filled, "DELETE FROM trade")
    bring_back(filled, tmp_path)
    back = contents(filled)["trade"]
    assert len(back) == 600 + 40 + 900
    assert set(map(repr, back)) == set(map(repr, everything))


def test_the_day_may_be_read_from_a_partition_that_was_detached(
    filled: str, tmp_path: Path
) -> None:
    execute(
        filled,
        f"CREATE TABLE aside AS SELECT * FROM trade WHERE time::date = '{FIRST}'",
        "DELETE FROM trade",
    )
    with session(filled, UPKEEP) as connection:
        asked = settings(filled, tmp_path)
        assert archive_day(connection, "trade", FIRST, asked, relation="aside").is_archived
    assert sum(group.rows for group in groups(LakePlace(str(tmp_path)))) >= 300


def test_whoever_drops_is_told_why_rows_must_stay(filled: str, tmp_path: Path) -> None:
    first_ns, last_ns = day_start_ns(FIRST), day_start_ns(LAST)
    noon_ns, to = last_ns + DAY_NS // 2, str(tmp_path)
    with place_in(filled, now_ns=noon_ns, archive="parquet", archive_to=to) as place:
        assert is_archived(place, "trade", first_ns, first_ns + DAY_NS) == ""
        assert is_archived(place, "bar_1s", first_ns, last_ns + DAY_NS) == "", "it is derived"
        not_yet = f"not archived: {LAST} is not over"
        assert is_archived(place, "trade", last_ns, last_ns + DAY_NS) == not_yet
    assert problems(tmp_path) == []
    assert {group.date for group in groups(LakePlace(to))} == {FIRST}


def test_a_day_that_is_not_over_is_not_archived(filled: str, tmp_path: Path) -> None:
    noon_ns = int(dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC).timestamp()) * 10**9
    with session(filled, UPKEEP) as connection:
        asked = settings(filled, tmp_path)
        found = archive_day(connection, "trade", LAST, asked, now_ns=lambda: noon_ns)
        assert (found.is_archived, found.why_not) == (False, "2026-11-22 is not over")
    assert list(tmp_path.iterdir()) == []


def test_rows_that_come_meanwhile_are_archived_too(filled: str, tmp_path: Path) -> None:
    """Between snapshot and answer: the answer is for what is there when it is given."""
    late = iter(range(200_000, 900_000, 1000))
    coming = [1]

    def pause() -> None:
        if coming and coming.pop():
            add_rows(filled, "quote", FIRST, 7, first=next(late))

    with session(filled, UPKEEP) as connection:
        asked = settings(filled, tmp_path)
        found = archive_day(connection, "quote", FIRST, asked, pause=pause)
        assert found.is_archived
        assert found.rows == 307
        forever = archive_day(
            connection, "quote", FIRST, asked,
            pause=lambda: add_rows(filled, "quote", FIRST, 1, first=next(late)),
        )  # fmt: skip
    assert (forever.is_archived, forever.why_not) == (False, "rows of that day keep coming")


def test_a_lake_that_is_damaged_lets_nothing_be_dropped(filled: str, tmp_path: Path) -> None:
    with session(filled, UPKEEP) as connection:
        asked = settings(filled, tmp_path)
        assert archive_day(connection, "trade", FIRST, asked).is_archived
        file = next((tmp_path / "kind=trade").rglob("*.parquet"))
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        with pytest.raises(EngineError, match="SHA-256"):
            archive_day(connection, "trade", FIRST, asked)
        with pytest.raises(EngineError, match="/proc/nowhere"):
            archive_day(connection, "trade", FIRST, settings(filled, Path("/proc/nowhere")))


def test_without_an_archive_every_day_may_go(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", missing)
    with session(filled, UPKEEP) as connection:
        with place_in(filled) as place:
            assert is_archived(place, "trade", 0, 365 * DAY_NS) == ""
        wanted = DatabaseUpkeep("main", filled, archive="parquet", archive_to="/tmp/x")
        with pytest.raises(ConfigError, match=r"pip install 'fintickstreams\[lake\]'"):
            archive_day(connection, "trade", FIRST, wanted)


@pytest.mark.usefixtures("postgres")
class TestLateRows:
    """They come when the lake was proven, and before the day is out of its table."""

    def place(self, url: str, folder: Path, **more: Any) -> AbstractContextManager[Place]:
        now_ns = day_start_ns(LAST) + DAY_NS // 2
        return place_in(url, now_ns=now_ns, archive="parquet", archive_to=str(folder), **more)

    def late(self, url: str, before: BeforeDrop) -> BeforeDrop:
        def ask(place: Place, table: str, start_ns: int, end_ns: int) -> str:
            why_not = before(place, table, start_ns, end_ns)
            add_rows(url, table, FIRST, 7, first=300_000)
            return why_not

        return ask

    def trades(self, folder: Path) -> int:
        found = groups(LakePlace(str(folder)))
        return sum(group.rows for group in found if (group.kind, group.date) == ("trade", FIRST))

    def test_they_are_archived_before_their_day_goes(self, filled: str, tmp_path: Path) -> None:
        with self.place(filled, tmp_path, keep={"trade": "1h"}) as place:
            assert Retention([self.late(filled, is_archived)]).run(place) == f"dropped {DAY}"
        assert self.trades(tmp_path) == 300 + 7
        assert rows_of(filled, "trade", FIRST) == 0
        assert problems(tmp_path) == []

    def test_they_are_not_forgotten_when_it_could_not_be_done_at_once(
        self, filled: str, tmp_path: Path
    ) -> None:
        with (
            self.place(filled, tmp_path, keep={"trade": "1h"}) as place,
            LakePlace(str(tmp_path)).alone(),
            pytest.raises(EngineError, match="somebody else writes there"),
        ):
            Retention([self.late(filled, lambda *_: "")]).run(place)
        with self.place(filled, tmp_path) as place:
            assert Retention().run(place) == f"dropped {DAY}"
        assert self.trades(tmp_path) == 300 + 7

    def test_what_is_deleted_is_what_was_archived(self, filled: str, tmp_path: Path) -> None:
        late = self.late(filled, is_archived)
        before = rows_of(filled, "gap", FIRST)
        with self.place(filled, tmp_path, keep={"gap": "1h"}) as place:
            assert "late rows have come" in Retention([late]).run(place)
            assert rows_of(filled, "gap", FIRST) == before + 7
            assert Retention([is_archived]).run(place) == f"dropped gap of {FIRST}"
        kept = {"acme": {"trade": "1h"}}
        with self.place(filled, tmp_path, keep_by_venue=kept) as place:
            assert VenueRetention([late]).run(place) == ""
            assert rows_of(filled, "trade", FIRST) == 307
            assert "rows of acme from trade" in VenueRetention([is_archived]).run(place)
        assert self.trades(tmp_path) == 307
