"""The database goes away under load, politely or not: nothing is lost, nothing is doubled."""

from collections.abc import Callable

import psycopg
import pytest

from engine.servers.postgres import PrivatePostgres
from tests.conftest import crash
from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]


@pytest.mark.fault("P01")
def test_restarts_of_the_server_cost_nothing(make_rig: MakeRig, postgres: PrivatePostgres) -> None:
    rig = make_rig(rate="8000")
    engine = rig.start()
    for polite in (True, False, True, False):
        postgres.stop() if polite else crash(postgres)
        postgres.start()
        rig.until_more_rows(2000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0
    assert "nothing is lost" in engine.log


@pytest.mark.fault("P02")
def test_killed_backend_costs_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(rate="4000")
    rig.start()
    for _ in range(5):
        rig.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'fts-writer-%'"
        )
        rig.until_more_rows(500)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0


@pytest.mark.fault("P03")
def test_outage_longer_than_the_ring_is_bridged_by_the_journal(
    make_rig: MakeRig, postgres: PrivatePostgres
) -> None:
    """16,384 records of ring are less than three seconds here; the server is away for four."""
    settings = (
        "[shards]\nring_records = { trade = 16384, book = 16384 }\n[database]\nflush_rows = 1000\n"
    )
    rig = make_rig(rate="6000", settings=settings)
    engine = rig.start()
    sent_before = rig.simulator.status()["sent"]["trade"]
    postgres.stop()
    rig.until(
        lambda: rig.simulator.status()["sent"]["trade"] > sent_before + 24_000, "four seconds"
    )
    postgres.start()
    engine.wait_for_count("database: works again", 1)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0


@pytest.mark.fault("P03")
def test_where_little_may_wait_the_newest_rows_are_declared_and_the_others_come_in_time(
    make_rig: MakeRig, postgres: PrivatePostgres
) -> None:
    """A megabyte in the journal and 16,384 records in each ring: 50,000 trades are more."""
    settings = (
        "[shards]\nring_records = { trade = 16384, book = 16384 }\n[database]\nflush_rows = 1000\n"
        "[journal]\nmax_mb = 1\n"
    )
    rig = make_rig(rate="8000", settings=settings)
    engine = rig.start()
    rig.until_more_rows(1000)
    sent_before = rig.simulator.status()["sent"]["trade"]
    postgres.stop()
    engine.wait_for("as much waits for the database as may (journal.max_mb = 1)")
    rig.until(
        lambda: rig.simulator.status()["sent"]["trade"] > sent_before + 50_000, "they were sent"
    )
    kept_bytes = sum(each.stat().st_size for each in rig.directory.glob("state/**/*.seg"))
    assert 0 < kept_bytes < 3 << 20, "the megabyte, and what comes until that is noticed"
    postgres.start()
    engine.wait_for_count("database: works again", 1)
    rig.until_more_rows(2000)
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing > 0
    assert rig.query("SELECT DISTINCT reason FROM gaps WHERE missing <> 0") == [("ring_full",)]


@pytest.mark.fault("N02")
def test_a_table_that_refuses_everything_for_a_while_costs_nothing(make_rig: MakeRig) -> None:
    """As a frozen chunk does: real flushes are far smaller than any brake that counts rows."""
    rig = make_rig(rate="4000")
    engine = rig.start()
    rig.until_more_rows(1000)
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE trade ADD CONSTRAINT frozen CHECK (price < 0) NOT VALID")
        engine.wait_for("red (table trade refuses every row: 23514: ")
        rig.until_more_rows(1000)  # of books
        connection.execute("ALTER TABLE trade DROP CONSTRAINT frozen")
    verdict = rig.finish()
    assert_equation(verdict)
    assert verdict.declared_missing == 0
    assert not list((rig.directory / "state").glob("quarantine/*"))
    assert engine.log.count("WARNING writer database: table trade") == 1, "said once"
