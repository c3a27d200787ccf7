"""A real Prometheus scrapes a real engine that is really broken: alerts fire and resolve, and every
query of the dashboards is answered.

The rules' durations, and the seconds they compare with, are a sixtieth of what they are. Not fired
here, but tried by `deploy/prometheus/rules_test.yml`, are those in `TOO_SLOW`.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from deploy.grafana.panels import PromQl
from engine.data.layout import open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.servers.valkey import PrivateValkey
from tests.conftest import Databases
from tests.deploy.boards import queries, sql_queries
from tests.flow.prometheus import MISSING, PROGRAM, Prometheus
from tests.flow.rig import SHARD, WRITER, Rig
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
TOO_SLOW = {
    "FintickstreamsDiskFull": "how fast a disk fills is known after an hour",
    "FintickstreamsDiskFills": "the same",
    "FintickstreamsUpkeepFails": "the tasks that can fail wait for days that are over",
    "FintickstreamsRingsFill": "the smallest ring holds more than a test has time to send",
    "FintickstreamsNotJournalled": "a full disk needs a file system of its own, and root",
}
UNKNOWN_AT_FIRST = {"Disk full in"}
"""Panels without data in an engine's first hour."""
PATIENCE_S = 60.0


def sped_up(rules: str) -> str:
    """Durations and thresholds in seconds by a sixtieth: minutes become seconds."""
    rules = re.sub(r"(for: |\[|offset )(\d+)m\b", r"\1\2s", rules)
    rules = re.sub(r"(for: )(\d+)h\b", r"\1\2m", rules)
    return re.sub(r"(_seconds) > 60\b", r"\1 > 1", rules)


@pytest.fixture(scope="module")
def rig(
    postgres: PrivatePostgres, valkey: PrivateValkey, private_databases: list[Databases]
) -> Iterator[Rig]:
    """An engine that runs and has declared a gap."""
    if not private_databases:
        private_databases.append(Databases(postgres.start))
    databases = private_databases[0]
    name = databases.make(f"TEMPLATE {databases.template()} STRATEGY wal_log")
    directory = Path(tempfile.mkdtemp(prefix="fts-rig-"))
    rig = Rig(
        directory, databases.url(name), valkey.restart(), rate="1000",
        venues="binance_linear,hyperliquid_perp", venue_settings="stale_after_s = 2\n",
    )  # fmt: skip
    try:
        rig.start().wait_for("upkeep is ready")
        rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind="trade", count=17)
        usable = (
            "SELECT count(*) FROM usable_intervals WHERE (symbol, kind) = ('BTCUSDT', 'Trades')"
        )
        known = f"SELECT (SELECT count(*) FROM gaps) > 0 AND ({usable}) > 1"
        rig.until(lambda: rig.query(known) == [(True,)], "a gap with complete times around it")
        yield rig
    finally:
        rig.close()
        databases.drop(name)
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def prometheus(rig: Rig) -> Iterator[Prometheus]:
    """It scrapes that engine."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    rules = sped_up(RULES.read_text(encoding="utf-8"))
    with Prometheus(
        rig.directory / "prometheus", urlsplit(note.control_url).netloc, rules
    ) as prometheus:
        wait_for(lambda: prometheus.query("up == 1"), "the first scrape", PATIENCE_S)
        yield prometheus


class Alerts:
    """Which fired so far, for a fault may be over before the next one is looked for."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus
        self.fired: set[str] = set()

    def wait_for(self, *names: str, doing: Callable[[], object] = lambda: None) -> None:
        """Until these have fired, with `doing` at every look."""
        wanted = {f"Fintickstreams{name}" for name in names}

        def all_fired() -> bool:
            doing()
            self.fired |= self._prometheus.firing()
            return wanted <= self.fired

        wait_for(all_fired, f"{sorted(wanted)} to fire", PATIENCE_S)

    def wait_for_the_end(self) -> None:
        """Until none fires."""
        wait_for(lambda: not self._prometheus.firing(), "all to resolve", PATIENCE_S)


def kill(rig: Rig, target: str) -> None:
    """SIGKILL, where it lives."""
    assert rig.engine is not None
    for child in rig.engine.descendants():
        try:
            if target in child.cmdline():
                child.kill()
        except psutil.NoSuchProcess:
            pass


@pytest.mark.fault("P01")
@pytest.mark.fault("V09")
def test_alerts_fire_when_something_is_broken_and_resolve_once_it_is_not(
    rig: Rig, prometheus: Prometheus, postgres: PrivatePostgres, valkey: PrivateValkey
) -> None:
    alerts = Alerts(prometheus)
    alerts.wait_for_the_end()

    # A constraint that refuses some rows, a hole in the ids, a ban at the next snapshot, deaths.
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE trade ADD CONSTRAINT no CHECK (trade_id % 50 <> 0) NOT VALID"
        )
    ban = {"fault": "http_status", "status": 418, "count": 1, "retry_after_s": 15}
    rig.fault(venue="binance_linear", **ban)
    for kind in ("trade", "book"):
        rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind=kind, count=5)
    alerts.wait_for("RowsNotStored", "GapsDeclared", "VenueBlocks")
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE trade DROP CONSTRAINT no")
    kill(rig, WRITER)
    alerts.wait_for("Restarts", "Down", doing=lambda: kill(rig, SHARD))

    # Servers that are away, a venue that says nothing.
    rig.fault(fault="silence", venue="hyperliquid_perp", seconds=600)
    postgres.stop()
    valkey.stop()
    alerts.wait_for("DatabaseBehind", "Red", "RedisNotPublished", "StreamsSilent")

    postgres.start()
    valkey.start()
    rig.fault(fault="silence", venue="hyperliquid_perp", seconds=0.1)
    alerts.wait_for_the_end()
    assert alerts.fired | set(TOO_SLOW) == set(
        re.findall(r"alert: (\w+)", RULES.read_text("utf-8"))
    )


def test_every_sql_query_of_the_dashboards_has_rows(rig: Rig) -> None:
    found = {title: rig.query(text) for title, text in sql_queries()}
    assert [title for title, rows in found.items() if not rows] == []
    assert ("BTCUSDT",) in found["symbol"]
    assert {row[2] for row in found["Complete, missing, not collected"]} == {0, 1, 3}
    assert max(row[3] for row in found["Share of the time that is complete"]) > 0
    assert ("BTCUSDT", "Trades", "sequence") in {row[:3] for row in found["Where most is missing"]}


def test_every_promql_query_of_the_dashboards_has_samples(rig: Rig, prometheus: Prometheus) -> None:
    values = {"$instance": ".*", "$venue": ".*", "$kind": ".*", "$__rate_interval": "20s"}

    def empty() -> set[str]:
        return {title for title, text in texts if not prometheus.query(text)}

    texts = []
    for title, query in queries(PromQl):
        text = query.text
        for name, value in values.items():
            text = text.replace(name, value)
        texts.append((title, re.sub(r"label_values\((\w+), \w+\)", r"\1", text)))
    wait_for(lambda: empty() <= UNKNOWN_AT_FIRST, "samples for every query", PATIENCE_S)
