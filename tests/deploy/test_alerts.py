"""A real Prometheus scrapes a real engine that is really broken: alerts fire and resolve, and every
query of the dashboards is answered.

The rules' durations, and the seconds they compare with, are a sixtieth of what they are, and hours
are ten seconds.
"""

import contextlib
import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from deploy.grafana.panels import PromQl
from engine.data.layout import open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.servers.valkey import PrivateValkey
from engine.start.migrations import migrate
from tests.deploy.boards import queries, sql_queries
from tests.deploy.small_disk import SmallDisk
from tests.engine.start.test_rights import as_role, name_of, run_roles
from tests.flow.processes import words_of
from tests.flow.prometheus import MISSING, PROGRAM, Prometheus
from tests.flow.rig import SHARD, UPKEEP, WRITER, Rig
from tests.stores import execute
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yml"
UNKNOWN_AT_FIRST = {"Disk full in"}
"""Panels without data in an engine's first hour."""
PATIENCE_S = 60.0


def sped_up(rules: str) -> str:
    """Durations and thresholds in seconds by a sixtieth: minutes become seconds."""
    rules = re.sub(r"(for: |\[|offset )(\d+)m\b", r"\1\2s", rules)
    rules = re.sub(r"(for: \d+)h\b", r"\g<1>0s", rules)
    return re.sub(r"(_seconds) > 60\b", r"\1 > 1", rules)


@pytest.fixture(scope="module")
def disk() -> Iterator[SmallDisk]:
    """Where the database is."""
    folder = Path(tempfile.mkdtemp(prefix="fts-disk-"))
    folder.chmod(0o711)
    with SmallDisk(folder) as disk:
        yield disk
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(disk: SmallDisk) -> Iterator[PrivatePostgres]:
    """A server of this module's own, with roles; it takes its roles with it."""
    server = PrivatePostgres(disk.directory, "alerts")
    url = server.start()
    migrate(url)
    run_roles(url)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def rig(server: PrivatePostgres, valkey: PrivateValkey) -> Iterator[Rig]:
    """An engine that runs and has declared a gap. Its upkeep is the owner's, and may ask where the
    database lies.
    """
    url = server.start()
    execute(url, f'GRANT pg_read_all_settings TO "{name_of("owner")}"')
    directory = Path(tempfile.mkdtemp(prefix="fts-rig-"))
    rig = Rig(
        directory, url, valkey.restart(), rate="1000", venues="binance_linear,hyperliquid_perp",
        settings="[shards]\nring_records = { trade = 8192 }\n[database]\nflush_rows = 1000\n",
        venue_settings="stale_after_s = 2\n",
        environment={"FTS_DATABASE_OWNER_URL": as_role(url, "owner")},
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


def processes(rig: Rig, target: str) -> Iterator[psutil.Process]:
    """Those that run it and are not dead."""
    assert rig.engine is not None
    for child in rig.engine.descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            if target in words_of(child):
                yield child


def kill(rig: Rig, target: str) -> None:
    """SIGKILL, where it lives."""
    for process in processes(rig, target):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def bound_files(rig: Rig, size_bytes: int) -> None:
    """From now on no file that the writer writes may grow beyond so many bytes."""
    for process in processes(rig, WRITER):
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


@contextlib.contextmanager
def refused(rig: Rig) -> Iterator[None]:
    """The database refuses some rows, and its owner may not make the day that is missing."""
    url, owner = rig.database_url, name_of("owner")
    ((last_day,),) = rig.query(
        "SELECT max(c.relname::text) FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid"
        " WHERE inhparent = 'trade'::regclass"
    )
    execute(
        url,
        "ALTER TABLE trade ADD CONSTRAINT no CHECK (trade_id % 50 <> 0) NOT VALID",
        f"DROP TABLE {last_day}",
        f'REVOKE CREATE ON SCHEMA public FROM "{owner}"',
    )
    yield
    execute(
        url,
        "ALTER TABLE trade DROP CONSTRAINT no",
        f'GRANT CREATE ON SCHEMA public TO "{owner}"',
    )


def yesterday(rig: Rig) -> int:
    """Give trades a whole day, of pages that are nearly empty, so that few rows do; its bytes."""
    first = datetime.now(UTC).date() - timedelta(days=1)
    name = f"trade_p{first:%Y%m%d}"
    execute(
        rig.database_url,
        f"CREATE TABLE {name} PARTITION OF trade"
        f" FOR VALUES FROM ('{first}Z') TO ('{first + timedelta(days=1)}Z') WITH (fillfactor = 10)",
        f"""INSERT INTO trade SELECT '{first}Z'::timestamptz + n * interval '0.8 s', 0, 0,
            (SELECT min(stream_id) FROM stream WHERE kind = 'Trades'), 3, 'B', 100, 1, 0, n
            FROM generate_series(0, 99999) AS n""",
        f'ALTER TABLE {name} OWNER TO "{name_of("owner")}"',
    )
    ((size_bytes,),) = rig.query(f"SELECT pg_total_relation_size('{name}')")
    return int(size_bytes)


@pytest.mark.fault("P01")
@pytest.mark.fault("V09")
def test_alerts_fire_when_something_is_broken_and_resolve_once_it_is_not(
    rig: Rig,
    prometheus: Prometheus,
    server: PrivatePostgres,
    valkey: PrivateValkey,
    disk: SmallDisk,
) -> None:
    alerts, a_day = Alerts(prometheus), yesterday(rig)
    alerts.wait_for_the_end()

    # Rows and days are refused, the disk has less than a day, ids a hole, the next snapshot a ban.
    with refused(rig):
        disk.leave(int(0.9 * a_day))
        kill(rig, UPKEEP)  # the next one looks at days and disk at once
        ban = {"fault": "http_status", "status": 418, "count": 1, "retry_after_s": 15}
        rig.fault(venue="binance_linear", **ban)
        for kind in ("trade", "book"):
            rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind=kind, count=5)
        alerts.wait_for("RowsNotStored", "GapsDeclared", "VenueBlocks", "UpkeepFails")
        alerts.wait_for(*of_disk("DiskFull", disk))

    # A few days, deaths.
    disk.leave(3 * a_day)
    kill(rig, UPKEEP)
    kill(rig, WRITER)
    alerts.wait_for("Restarts", "Down", doing=lambda: kill(rig, SHARD))
    alerts.wait_for(*of_disk("DiskFills", disk))

    # Servers are away, the journal's disk takes nothing more, a venue says nothing.
    wait_for(lambda: prometheus.query('fts_engine_process_up{process="writer"} == 1'), "a writer")
    rig.fault(fault="silence", venue="hyperliquid_perp", seconds=600)
    bound_files(rig, 0)
    server.stop()
    valkey.stop()
    alerts.wait_for("DatabaseBehind", "Red", "RedisNotPublished", "StreamsSilent")
    alerts.wait_for("NotJournalled", "RingsFill")

    bound_files(rig, resource.RLIM_INFINITY)
    disk.leave(100 * a_day)
    server.start()
    valkey.start()
    kill(rig, UPKEEP)
    rig.fault(fault="silence", venue="hyperliquid_perp", seconds=0.1)
    alerts.wait_for_the_end()
    all_alerts = set(re.findall(r"alert: Fintickstreams(\w+)", RULES.read_text("utf-8")))
    left_out = {"DiskFull", "DiskFills"} - {*of_disk("DiskFull", disk), *of_disk("DiskFills", disk)}
    assert alerts.fired == {f"Fintickstreams{name}" for name in all_alerts - left_out}
    if left_out:
        pytest.skip(f"all but {sorted(left_out)}: only root may mount a small disk")


def of_disk(alert: str, disk: SmallDisk) -> list[str]:
    """Nothing where no disk is the test's to make small: there it cannot fire."""
    return [alert] if disk.is_there else []


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
