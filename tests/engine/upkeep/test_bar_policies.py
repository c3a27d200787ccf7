"""What TimescaleDB is told to do with bars; and what decides who makes them."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from engine.base.clock import DAY_NS
from engine.start.migrations import migrate
from engine.upkeep.tasks.bars.task import Bars, bars_are_made
from engine.upkeep.tasks.chunk_retention import ChunkRetention
from tests.engine.upkeep.bars_rig import (
    MINUTE_NS,
    Trade,
    are_aggregates,
    bars,
    begin,
    catch_up,
    model,
    store,
)
from tests.engine.upkeep.database_rig import NOON_NS, place_in

DAY = dt.timedelta(days=1)
POLICIES = """
    SELECT c.view_name::text, j.proc_name::text,
        (coalesce(j.config ->> 'start_offset', j.config ->> 'drop_after',
                  j.config ->> 'compress_after'))::interval
    FROM timescaledb_information.jobs AS j
    JOIN timescaledb_information.continuous_aggregates AS c
        ON j.hypertable_name IN (c.view_name, c.materialization_hypertable_name)
    ORDER BY 1, 2
"""


@pytest.fixture
def on_hypertables(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        if not are_aggregates(connection):
            pytest.skip("not run: TimescaleDB's policies (FTS_TEST_TIMESCALE_DSN is not set)")


def policies(url: str) -> dict[str, dict[str, Any]]:
    with psycopg.connect(url) as connection:
        found: dict[str, dict[str, Any]] = {}
        for name, procedure, age in connection.execute(POLICIES.encode()).fetchall():
            found.setdefault(name, {})[procedure.removeprefix("policy_")] = age
        return found


@pytest.mark.usefixtures("on_hypertables")
def test_policies_follow_the_configuration_and_never_look_back_as_far_as_trades_are_kept(
    database_url: str,
) -> None:
    refresh, after = "refresh_continuous_aggregate", "compression"
    with place_in(database_url, bars=True) as place:
        assert Bars().run(place) == "set the policies of bar_1s, bar_1m"
        assert Bars().run(place) == ""
    assert policies(database_url) == {
        "bar_1s": {refresh: None, after: DAY}, "bar_1m": {refresh: None, after: 7 * DAY},
    }  # fmt: skip
    with place_in(database_url, bars=True, keep={"trade": "8d", "bar_1s": "4d"}) as place:
        assert Bars().run(place) == "set the policies of bar_1s, bar_1m"
        assert Bars().run(place) == ""
    assert policies(database_url) == {
        "bar_1s": {refresh: 7 * DAY, after: DAY, "retention": 4 * DAY},
        "bar_1m": {refresh: 3.5 * DAY, after: 7 * DAY},
    }
    with place_in(database_url, bars=True) as place:
        place.session.execute("SELECT add_retention_policy('trade', interval '2 days')")
        Bars().run(place)
    assert {name: each[refresh] for name, each in policies(database_url).items()} == {
        "bar_1s": 1.75 * DAY, "bar_1m": 1.75 * DAY,
    }  # fmt: skip
    with place_in(database_url, bars=False) as place:
        assert Bars().run(place) == "stopped bar_1s, bar_1m"
        assert Bars().run(place) == ""
    assert all(refresh not in each for each in policies(database_url).values())


@pytest.mark.usefixtures("on_hypertables")
def test_a_refresh_after_a_drop_leaves_the_bars_of_what_is_dropped(database_url: str) -> None:
    """By TimescaleDB's own jobs, run by hand: refresh, retention, refresh."""
    now_ns = int(dt.datetime.now(dt.UTC).timestamp()) * 1_000_000_000
    trades = [Trade(now_ns - n * DAY_NS // 2, 1, n) for n in range(1, 20)]
    with place_in(database_url, bars=True, now_ns=now_ns, keep={"trade": "4d"}) as place:
        begin(place)
        with place.session.transaction():
            store(place.session, trades)
        catch_up(place)
        (job,) = place.session.execute(
            "SELECT add_retention_policy('trade', interval '4 days')"
        ).fetchone() or (0,)
        place.session.execute("CALL run_job(%s)", (job,))
        store(place.session, [trades[1]._replace(trade_id=99)])
        catch_up(place)
        (left,) = place.session.execute("SELECT count(*) FROM trade").fetchone() or (0,)
        assert left < len(trades)
        found = bars(place.session, "bar_1m")
    assert found == model([*trades, trades[1]._replace(trade_id=99)], MINUTE_NS)


@pytest.mark.usefixtures("on_hypertables")
def test_bars_survive_a_longer_age_and_late_rows_of_what_is_dropped(database_url: str) -> None:
    """Dropped by the upkeep after two days; then kept for long, and then for ever."""
    now_ns = int(dt.datetime.now(dt.UTC).timestamp()) * 1_000_000_000
    trades = [Trade(now_ns - n * DAY_NS // 3, 1, n) for n in range(1, 20)]
    late = [trades[-1]._replace(trade_id=99), trades[-5]._replace(trade_id=98)]

    def settle(keep: dict[str, str]) -> None:
        with place_in(database_url, bars=True, now_ns=now_ns, keep=keep) as place:
            catch_up(place)
            for _ in range(2):
                ChunkRetention((bars_are_made,)).run(place)
            catch_up(place)

    with place_in(database_url, bars=True) as place:
        begin(place)
        with place.session.transaction():
            store(place.session, trades)
    settle({"trade": "2d"})
    with place_in(database_url) as place:
        (left,) = place.session.execute("SELECT count(*) FROM trade").fetchone() or (0,)
        assert left < len(trades)
        store(place.session, late)
    for keep in ({"trade": "2d"}, {"trade": "14d"}, {}):
        settle(keep)
    with place_in(database_url) as place:
        assert bars(place.session, "bar_1m") == model(trades, MINUTE_NS)


@pytest.mark.usefixtures("on_hypertables")
def test_the_extension_may_be_in_any_schema(make_database: Callable[[str], str]) -> None:
    url = make_database("")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "odd name"')
        connection.execute('CREATE EXTENSION timescaledb SCHEMA "odd name"')
    migrate(url)
    trades = [Trade(NOON_NS - n * MINUTE_NS, 1, n) for n in range(1, 5)]
    with place_in(url, bars=True) as place:
        store(place.session, trades)
        catch_up(place)
        assert bars(place.session, "bar_1m_now") == model(trades, MINUTE_NS)


def test_without_timescaledb_marks_make_the_bars(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        has_extension = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"
        ).fetchone() == (True,)
        if not has_extension:
            connection.execute("SET timescaledb.license = 'timescale'")  # says nothing by itself
        licence = connection.execute("SHOW timescaledb.license").fetchone()
        expected = "aggregates" if has_extension and licence == ("timescale",) else "marks"
        assert connection.execute("SELECT bars_by()").fetchone() == (expected,)


def test_bars_that_were_begun_with_marks_go_on_so(database_url: str) -> None:
    """A database whose trades became a hypertable afterwards."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE bar_1s_p20240101 PARTITION OF bar_1s"
            " FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2024-01-02 00:00+00')"
        )
        assert connection.execute("SELECT bars_by()").fetchone() == ("marks",)
        assert connection.execute("SELECT mark_bars(true)").fetchone() == (True,)
    trades = [Trade(NOON_NS - n * MINUTE_NS, 1, n) for n in range(1, 5)]
    with place_in(database_url, bars=True) as place:
        if place.layout != "hypertables":
            pytest.skip("not run: bars by marks on a hypertable")
        store(place.session, trades)
        catch_up(place)
        assert bars(place.session, "bar_1m") == model(trades, MINUTE_NS)
