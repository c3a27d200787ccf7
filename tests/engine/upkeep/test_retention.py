"""Retention on plain PostgreSQL: exactly the days it says, whatever died, and in nobody's way."""

import threading
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.clock import DAY_NS
from engine.database.partitions import partitions_of
from engine.upkeep.task import Place
from engine.upkeep.tasks.ages import age_ns, first_kept_day_ns, is_over
from engine.upkeep.tasks.retention import MARK, Retention
from engine.upkeep.tasks.venue_retention import VenueRetention
from tests.engine.upkeep.database_rig import (
    TODAY,
    days_of,
    make_days,
    moment,
    names_like,
    open_copy,
    open_reading,
    partition_name,
    place_in,
    put_trades,
)
from tests.waiting import wait_for

HOUR_NS = 3_600_000_000_000
AGES = st.builds(lambda n, unit: f"{n}{unit}", st.integers(1, 99), st.sampled_from("hdw"))


@given(AGES, st.integers(0, 400 * 24), st.integers(0, 10**15))
def test_a_day_is_over_when_its_youngest_row_may_go(kept: str, age_h: int, moment_ns: int) -> None:
    now_ns = 19_000 * DAY_NS + moment_ns
    end_ns = (now_ns - age_h * HOUR_NS) // DAY_NS * DAY_NS
    youngest_ns = end_ns - 1
    assert is_over(end_ns, kept, now_ns) == (now_ns - youngest_ns > age_ns(kept))
    assert is_over(end_ns, kept, now_ns) == (end_ns <= first_kept_day_ns(kept, now_ns))
    assert not is_over(None, kept, now_ns)


def test_ages_are_in_hours_days_and_weeks() -> None:
    assert [age_ns(each) // HOUR_NS for each in ("36h", "14d", "8w")] == [36, 14 * 24, 8 * 7 * 24]


@pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL
class TestPartitions:
    """A partition a day."""

    @pytest.mark.parametrize(
        ("kept", "oldest"),
        [("1h", TODAY), ("12h", TODAY), ("13h", TODAY - 1), ("1d", TODAY - 1), ("36h", TODAY - 1),
         ("37h", TODAY - 2), ("1w", TODAY - 7)],
    )  # fmt: skip
    def test_it_drops_exactly_what_it_says(self, database_url: str, kept: str, oldest: int) -> None:
        days = range(TODAY - 9, TODAY + 3)
        with place_in(database_url, keep={"trade": kept}) as place:
            make_days(place, "trade", *days)
            make_days(place, "book", TODAY - 9)
            for day in range(TODAY - 9, TODAY + 1):
                put_trades(place.session, day, 10)
            did = Retention().run(place)
            gone = [partition_name("trade", day) for day in days if day < oldest]
            assert did == f"dropped {', '.join(gone)}"
            assert days_of(place, "trade") == [day for day in days if day >= oldest]
            assert names_like(place, "trade_p%") == [
                partition_name("trade", day) for day in days if day >= oldest
            ]
            (count,) = place.session.execute("SELECT count(*) FROM trade").fetchall()[0]
            assert count == 10 * len([d for d in days if oldest <= d <= TODAY])
            assert days_of(place, "book") == [TODAY - 9]
            assert Retention().run(place) == ""

    def test_who_is_asked_before_may_refuse_a_day(self, database_url: str) -> None:
        asked: list[tuple[str, int, int]] = []

        def ask(place: Place, table: str, start_ns: int, end_ns: int) -> str:
            asked.append((table, start_ns // DAY_NS, end_ns // DAY_NS))
            return "not archived" if start_ns // DAY_NS == TODAY - 5 else ""

        with place_in(database_url, keep={"trade": "2d"}) as place:
            make_days(place, "trade", TODAY - 6, TODAY - 5, TODAY - 4, TODAY)
            kept, gone = partition_name("trade", TODAY - 5), [TODAY - 6, TODAY - 4]
            names = ", ".join(partition_name("trade", day) for day in gone)
            assert (
                Retention([ask]).run(place)
                == f"dropped {names}; kept for now: {kept} (not archived)"
            )
            assert days_of(place, "trade") == [TODAY - 5, TODAY]
        assert asked == [("trade", day, day + 1) for day in (TODAY - 6, TODAY - 5, TODAY - 4)]

    def test_a_day_that_a_late_writer_still_fills_is_not_dropped_under_it(
        self, database_url: str
    ) -> None:
        task, name = Retention(), partition_name("trade", TODAY - 6)
        with place_in(database_url, keep={"trade": "2d"}) as place:
            place.report.is_paused = True
            make_days(place, "trade", TODAY - 6)
            for _ in range(2):
                put_trades(place.session, TODAY - 6, 10)
                place.session.execute("SELECT pg_stat_force_next_flush(), pg_sleep(0)")
                assert task.run(place) == f"kept for now: {name} (the writer is behind)"
            assert task.run(place) == f"dropped {name}"  # a full disk would never be less full

    def test_a_detach_that_was_killed_is_finished(self, database_url: str) -> None:
        with place_in(database_url, keep={"trade": "2d"}) as place:
            make_days(place, "trade", TODAY - 6, TODAY - 5, TODAY)
            put_trades(place.session, TODAY - 6, 10)
        with (
            place_in(database_url, keep={"trade": "2d"}) as place,
            psycopg.connect(database_url, autocommit=True) as other,
            open_reading(database_url, "trade"),
        ):
            killing = threading.Thread(target=lambda: kill_when_pending(other, place))
            killing.start()
            with pytest.raises(psycopg.OperationalError):
                Retention().run(place)
            killing.join()
        with place_in(database_url, keep={}) as place:  # though nothing is to be dropped any more
            assert [each.is_pending for each in partitions_of(place.session, "trade")] == [
                True, False, False,
            ]  # fmt: skip
            assert Retention().run(place) == f"dropped {partition_name('trade', TODAY - 6)}"
            assert days_of(place, "trade") == [TODAY - 5, TODAY]
        with place_in(database_url, keep={"trade": "2d"}) as place:
            assert Retention().run(place) == f"dropped {partition_name('trade', TODAY - 5)}"
            assert names_like(place, "trade_p%") == [partition_name("trade", TODAY)]

    def test_a_day_that_was_detached_and_not_dropped_is_dropped(self, database_url: str) -> None:
        mine, theirs = partition_name("trade", TODAY - 6), partition_name("trade", TODAY - 7)
        with place_in(database_url, keep={"trade": "2d"}) as place:
            make_days(place, "trade", TODAY - 7, TODAY - 6)
            place.session.execute(f"COMMENT ON TABLE {mine} IS '{MARK}'".encode())
            for each in (mine, theirs):
                place.session.execute(f"ALTER TABLE trade DETACH PARTITION {each}".encode())
            assert Retention().run(place) == f"dropped {mine}"
            assert names_like(place, "trade_p%") == [theirs]  # a person has put it aside

    def test_a_day_that_is_to_be_kept_after_all_is_no_longer_marked(
        self, database_url: str
    ) -> None:
        name = partition_name("trade", TODAY - 6)
        with place_in(database_url, keep={"trade": "30d"}) as place:
            make_days(place, "trade", TODAY - 6)
            place.session.execute(f"COMMENT ON TABLE {name} IS '{MARK}'".encode())
            assert Retention().run(place) == ""
            place.session.execute(f"ALTER TABLE trade DETACH PARTITION {name}".encode())
            assert Retention().run(place) == ""
            assert names_like(place, "trade_p%") == [name]

    def test_beside_a_default_partition_it_works_too(self, database_url: str) -> None:
        with place_in(database_url, keep={"trade": "2d"}) as place:
            make_days(place, "trade", TODAY - 6)
            place.session.execute("CREATE TABLE rest PARTITION OF trade DEFAULT")
            put_trades(place.session, TODAY - 30, 10)
            assert Retention().run(place) == f"dropped {partition_name('trade', TODAY - 6)}"
            assert place.session.execute("SELECT count(*) FROM trade").fetchall() == [(10,)]

    def test_a_long_query_is_waited_for_with_the_day_in_one_piece(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("engine.upkeep.tasks.retention._LONG_S", -1.0)
        with place_in(database_url, keep={"trade": "2d"}) as place:
            make_days(place, "trade", TODAY - 6)
            with open_reading(database_url, "trade"):
                assert "of notebook is in a transaction since" in Retention().run(place)
                assert [p.is_pending for p in partitions_of(place.session, "trade")] == [False]
                put_trades(place.session, TODAY - 6, 1)
            assert Retention().run(place).startswith("dropped")

    def test_an_open_copy_is_not_stopped_and_stops_nothing_for_long(
        self, database_url: str
    ) -> None:
        """The day goes, at the latest, when the COPY of that moment has ended; others go on."""
        with place_in(database_url, keep={"trade": "2d"}, lock_timeout="300ms") as place:
            make_days(place, "trade", TODAY - 6, TODAY - 5, TODAY)
            with open_copy(database_url) as write:
                write()
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    Retention().run(place)
                write()
                with psycopg.connect(database_url, autocommit=True) as other:
                    other.execute("SET lock_timeout = '1s'")
                    put_trades(other, TODAY, 5)
                write()
        with place_in(database_url, keep={"trade": "2d"}) as place:
            names = [partition_name("trade", day) for day in (TODAY - 6, TODAY - 5)]
            assert Retention().run(place) == f"dropped {', '.join(names)}"
            assert place.session.execute("SELECT count(*) FROM trade").fetchall() == [(9,)]


@pytest.mark.usefixtures("postgres")
class TestOnePiece:
    """Tables without partitions: those of gaps, and all of them where somebody made them so."""

    def test_whole_days_are_deleted(self, database_url: str) -> None:
        with place_in(database_url, keep={"gap": "36h"}) as place:
            for day in (TODAY - 40, TODAY - 2, TODAY - 1.001, TODAY - 1, TODAY):
                put_gap(place, day)
            assert Retention().run(place) == "dropped gap of 2024-08-25, gap of 2024-10-02"
            left = place.session.execute("SELECT time FROM gap ORDER BY 1").fetchall()
            assert left == [(moment(TODAY - 1),), (moment(TODAY),)]

    def test_a_refused_day_keeps_those_behind_it(self, database_url: str) -> None:
        with place_in(database_url, keep={"gap": "1d"}) as place:
            for day in (TODAY - 5, TODAY - 4):
                put_gap(place, day)
            refuse = Retention([lambda *_: "no room in the archive"])
            assert refuse.run(place) == "kept for now: gap of 2024-09-29 (no room in the archive)"
            assert place.session.execute("SELECT count(*) FROM gap").fetchall() == [(2,)]


@pytest.mark.usefixtures("postgres")
class TestVenues:
    """Rows of one venue that go sooner."""

    def test_only_its_rows_go_and_only_those_of_days_that_are_over(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("engine.upkeep.tasks.deletion._ROWS_AT_ONCE", 7)
        keep = {"binance_linear": {"trade": "1d"}}
        with place_in(database_url, keep_by_venue=keep) as place:
            streams = [put_stream(place, venue) for venue in ("binance_linear", "kraken")]
            make_days(place, "trade", TODAY - 3, TODAY - 2, TODAY - 1, TODAY)
            for day in range(TODAY - 3, TODAY + 1):
                for stream_id in streams:
                    put_trades(place.session, day, 20, stream_id)
            task = VenueRetention()
            assert task.run(place) == "deleted 40 rows of binance_linear from trade"
            assert counts(place) == {
                (TODAY - 3, streams[1]): 20, (TODAY - 2, streams[1]): 20,
                (TODAY - 1, streams[0]): 20, (TODAY - 1, streams[1]): 20,
                (TODAY, streams[0]): 20, (TODAY, streams[1]): 20,
            }  # fmt: skip
            assert task.run(place) == ""

    def test_of_a_table_in_one_piece_it_asks_for_each_day(self, database_url: str) -> None:
        asked: list[int] = []

        def ask(_: Place, table: str, start_ns: int, end_ns: int) -> str:
            asked.append(start_ns // DAY_NS)
            assert (table, end_ns - start_ns) == ("gap", DAY_NS)
            return "not archived" if start_ns // DAY_NS == TODAY - 4 else ""

        with place_in(database_url, keep_by_venue={"kraken": {"gap": "1d"}}) as place:
            stream_id = put_stream(place, "kraken")
            for day in (TODAY - 6.5, TODAY - 4, TODAY - 2.1, TODAY - 1):
                put_gap(place, day, stream_id)
                put_gap(place, day, stream_id + 1)
            assert VenueRetention([ask]).run(place) == "deleted 2 rows of kraken from gap"
            left = place.session.execute(
                "SELECT time FROM gap WHERE stream_id = %s ORDER BY 1", (stream_id,)
            )
            assert left.fetchall() == [(moment(TODAY - 4),), (moment(TODAY - 1),)]
            assert place.session.execute("SELECT count(*) FROM gap").fetchall() == [(6,)]
        assert asked == [TODAY - 7, TODAY - 4, TODAY - 3]

    def test_it_asks_as_a_drop_does(self, database_url: str) -> None:
        keep = {"kraken": {"trade": "1d"}}
        with place_in(database_url, keep_by_venue=keep) as place:
            make_days(place, "trade", TODAY - 3)
            put_trades(place.session, TODAY - 3, 20, put_stream(place, "kraken"))
            assert VenueRetention([lambda *_: "not archived"]).run(place) == ""
            assert sum(counts(place).values()) == 20
            assert VenueRetention().run(place) == "deleted 20 rows of kraken from trade"

    def test_a_venue_that_nobody_knows_is_told(self, database_url: str) -> None:
        with place_in(database_url, keep_by_venue={"krakn": {"trade": "1d"}}) as place:
            assert VenueRetention().run(place) == "no stream of krakn is known here"


def kill_when_pending(other: "psycopg.Connection[Any]", place: Place) -> None:
    """Kill the backend of `place` in the middle of a DETACH."""
    wait_for(
        lambda: other.execute("SELECT FROM pg_inherits WHERE inhdetachpending").fetchall(),
        "a partition that is half detached",
    )
    other.execute("SELECT pg_terminate_backend(%s)", (place.session.seen.backend_pid,))


def put_gap(place: Place, day: float, stream_id: int = 1) -> None:
    """A gap of one stream."""
    values = (moment(day), stream_id)
    place.session.execute("INSERT INTO gap VALUES (%s, 0, 0, %s, 1, 1, 0, 0, 0, 0, 0)", values)


def put_stream(place: Place, venue: str) -> int:
    """A stream of a venue; its number."""
    found = place.session.execute(
        "WITH i AS (INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals,"
        " qty_decimals, price_unit, qty_unit, status)"
        " VALUES (%s, 'BTC', 1, 'BTC', 'USD', 2, 3, 0.01, 0.001, 'trading')"
        " RETURNING instrument_id)"
        " INSERT INTO stream (instrument_id, kind, transport)"
        " SELECT instrument_id, 'Trades', 'Ws' FROM i RETURNING stream_id",
        (venue,),
    ).fetchone()
    assert found is not None
    return int(found[0])


def counts(place: Place) -> dict[tuple[int, int], int]:
    """Rows by day and stream."""
    found = place.session.execute(
        "SELECT extract(epoch FROM date_trunc('day', time))::int8 / 86400, stream_id, count(*)"
        " FROM trade GROUP BY 1, 2"
    )
    return {(day, stream): count for day, stream, count in found.fetchall()}
