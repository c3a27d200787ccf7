"""Days on plain PostgreSQL: made ahead, indexed when over; what died on the way is mended."""

import threading

import psycopg
import pytest

from engine.base.clock import DAY_NS
from engine.database.partitions import partitions_of
from engine.upkeep.task import PostponedError, StoppingError
from engine.upkeep.tasks.day_index import OVER_NS, DayIndex
from engine.upkeep.tasks.days_ahead import DaysAhead
from tests.engine.upkeep.database_rig import (
    NOON_NS,
    TODAY,
    days_of,
    make_days,
    open_copy,
    open_writing,
    partition_name,
    place_in,
    put_trades,
)
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL

YESTERDAY = partition_name("trade", TODAY - 1)
INDEXES = """
    SELECT c.relname, x.indisvalid FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
    WHERE x.indrelid = to_regclass(%s) ORDER BY 1
"""
BOTH = [(f"{YESTERDAY}_stream_time", True), (f"{YESTERDAY}_time_idx", True)]

HALF_MADE = [(f"{YESTERDAY}_stream_time", False), (f"{YESTERDAY}_time_idx", True)]


def test_today_and_two_days_are_there_before_they_are_needed(database_url: str) -> None:
    with place_in(database_url) as place:
        assert DaysAhead().run(place) == "made 2024-10-04, 2024-10-05, 2024-10-06"
        for table in ("trade", "book", "quote", "funding", "open_interest", "liquidation"):
            assert days_of(place, table) == [TODAY, TODAY + 1, TODAY + 2]
        assert DaysAhead().run(place) == ""
        put_trades(place.session, TODAY + 2.9, 3)
    with place_in(database_url, now_ns=NOON_NS + DAY_NS) as place:
        assert DaysAhead().run(place) == "made 2024-10-07"


def test_somebody_elses_month_is_left_alone(database_url: str) -> None:
    with place_in(database_url) as place:
        place.session.execute(
            "CREATE TABLE october PARTITION OF trade FOR VALUES FROM ('2024-10-01') TO"
            " ('2024-11-01')"
        )
        DaysAhead().run(place)
        assert [each.name for each in partitions_of(place.session, "trade")] == ["october"]
        assert len(days_of(place, "book")) == 3


def test_a_day_that_is_over_gets_its_index_and_no_other_does(database_url: str) -> None:
    with place_in(database_url) as place:
        make_days(place, "trade", TODAY - 1, TODAY)
        put_trades(place.session, TODAY - 1, 100)
    midnight_ns = TODAY * DAY_NS
    for now_ns, did in (
        (midnight_ns + OVER_NS - 1, ""),
        (midnight_ns + OVER_NS, f"indexed {YESTERDAY}"),
        (NOON_NS, ""),
    ):
        with place_in(database_url, now_ns=now_ns) as place:
            assert DayIndex().run(place) == did
    with place_in(database_url) as place:
        assert place.session.execute(INDEXES, (YESTERDAY,)).fetchall() == BOTH
        newest = partition_name("trade", TODAY)
        assert place.session.execute(INDEXES, (newest,)).fetchall() == [
            (f"{newest}_time_idx", True)
        ]
        place.session.execute("SET enable_seqscan = off")
        plan = place.session.execute(
            "EXPLAIN SELECT * FROM trade WHERE stream_id = 1 ORDER BY time DESC LIMIT 1"
        ).fetchall()
        assert any(f"{YESTERDAY}_stream_time" in line for (line,) in plan)


def test_an_index_whose_making_was_killed_is_made_again(database_url: str) -> None:
    with place_in(database_url) as place:
        make_days(place, "trade", TODAY - 1)
        put_trades(place.session, TODAY - 1, 100)
    with (
        open_writing(database_url, YESTERDAY),
        place_in(database_url) as place,
        psycopg.connect(database_url, autocommit=True) as other,
    ):

        def kill() -> None:
            wait_for(lambda: other.execute(INDEXES, (YESTERDAY,)).fetchall() == HALF_MADE)
            other.execute("SELECT pg_terminate_backend(%s)", (place.session.seen.backend_pid,))

        killing = threading.Thread(target=kill)
        killing.start()
        with pytest.raises(psycopg.OperationalError):
            DayIndex().run(place)
        killing.join()
        assert other.execute(INDEXES, (YESTERDAY,)).fetchall() == HALF_MADE
    with place_in(database_url) as place:
        assert DayIndex().run(place) == f"indexed {YESTERDAY}"
        assert place.session.execute(INDEXES, (YESTERDAY,)).fetchall() == BOTH


def test_an_index_waits_for_who_would_make_it_wait(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.upkeep.tasks.day_index._LONG_S", -1.0)
    with place_in(database_url) as place:
        make_days(place, "trade", TODAY - 1)
        with psycopg.connect(database_url, application_name="notebook") as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM book").fetchall()
            with pytest.raises(PostponedError, match="of notebook is in a transaction since"):
                DayIndex().run(place)
        assert DayIndex().run(place) == f"indexed {YESTERDAY}"


def test_nothing_is_indexed_while_the_writer_is_behind(database_url: str) -> None:
    def still_behind() -> None:
        raise StoppingError("would wait")

    with place_in(database_url, pause=still_behind) as place:
        make_days(place, "trade", TODAY - 1)
        with pytest.raises(StoppingError):
            DayIndex().run(place)
        assert len(place.session.execute(INDEXES, (YESTERDAY,)).fetchall()) == 1


def test_an_open_copy_is_stopped_by_no_day_and_no_index(database_url: str) -> None:
    """A COPY into today goes on while days are made and one is indexed. The index waits for its
    end, and holds nothing meanwhile that this COPY or the next one wants.
    """
    with (
        place_in(database_url, lock_timeout="1s") as place,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        make_days(place, "trade", TODAY - 1, TODAY)
        put_trades(place.session, TODAY - 1, 100)
        indexing = threading.Thread(target=lambda: DayIndex().run(place))
        with open_copy(database_url) as write:
            write()
            assert DaysAhead().run(place) == "made 2024-10-04, 2024-10-05, 2024-10-06"
            write()
            indexing.start()
            wait_for(lambda: other.execute(INDEXES, (YESTERDAY,)).fetchall() == HALF_MADE)
            other.execute("SET lock_timeout = '1s'")
            for day in (TODAY, TODAY - 1):  # also late rows of the day that is indexed
                put_trades(other, day, 1)
            write()
        indexing.join()
        assert other.execute(INDEXES, (YESTERDAY,)).fetchall() == BOTH
        assert other.execute("SELECT count(*) FROM trade").fetchall() == [(106,)]
