"""Two databases behind one engine: one goes away, the writer is killed, the routes change; each has
what is its own, once, and the other notices nothing.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import psycopg
import pytest

from control.cli.remote.client import Client, RefusedError
from control.proof.ledger_check import LedgerCheck
from control.proof.ledger_rows import rows_of
from control.proof.verdict import Verdict, covered_by_gaps
from engine.base.clock import monotonic_s
from engine.data.layout import open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from shards.simulator.core.ledger import read_ledger
from tests.flow.processes import Fts
from tests.flow.rig import WRITER, Rig, assert_equation
from tests.stores import execute, select
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
NAME = "databases.archive"
TRADES_THERE = "[[databases.archive.routes]]\nkinds = ['Trades']\n"
BOOKS_THERE = "[[databases.archive.routes]]\nkinds = ['L2Book']\n"
LAG_S = 3.0
"""Far above what a flush takes on a busy machine, far below what the other one is away."""
OUTAGE_S = float(os.environ.get("FTS_TEST_OUTAGE_S", "2"))
"""How long one is away at least."""
IDS = """
    SELECT i.venue, i.symbol, t.trade_id_hi, t.trade_id
    FROM trade t JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id)
"""
STREAMS = """
    SELECT s.stream_id FROM stream s JOIN instrument i USING (instrument_id)
    WHERE s.kind = 'Trades' AND i.venue = %s AND i.symbol = %s
"""


@pytest.fixture(scope="module")
def second(server_dir: Path) -> Iterator[PrivatePostgres]:
    """A server that may be stopped without the default one."""
    directory = server_dir / "second"
    directory.mkdir(mode=0o711)
    server = PrivatePostgres(directory, "second")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def archive_url(second: PrivatePostgres) -> str:
    """Its database, empty: the engine makes the schema."""
    url = second.start()
    execute(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return url


def databases(rig: Rig) -> dict[str, dict[str, Any]]:
    """What the API says of each."""
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    try:
        body = Client(note.control_url).light("runtime")
    except RefusedError as error:
        body = error.body
    return {each["name"]: each for each in body["writer"]["databases"]}


def verdict(rig: Rig, url: str, *classes: str) -> Verdict:
    """What the ledger says of some classes of row in one database."""
    total, found = Verdict(), LedgerCheck(rig.ledger_dir, url).verdicts
    for name in classes:
        total.add(found[name])
    return total


def settle(rig: Rig, owned: dict[str, tuple[str, ...]]) -> None:
    """Stop the market, and wait until each database has what is its own."""
    rig.simulator.pause(30.0)
    for url, classes in owned.items():
        rig.until(lambda u=url, c=classes: not verdict(rig, u, *c).missing, "the last rows")  # type: ignore[misc]


def end(engine: Fts) -> dict[str, Any]:
    """Stop in order; what is said of the rows."""
    engine.signal(signal.SIGTERM)
    code, output = engine.end()
    equation: dict[str, Any] = msgspec.json.decode(output.splitlines()[-1])["equation"]
    assert equation["holds"], equation
    assert code == 0, engine.log
    return equation


def kill_all(engine: Fts) -> None:
    """As a power cut does, but for what the kernel has."""
    children = engine.descendants()
    for process in children:
        process.kill()
    engine.kill()
    psutil.wait_procs(children, timeout=30)


def test_one_that_stops_changes_nothing_for_the_other(
    make_rig: MakeRig,
    second: PrivatePostgres,
    archive_url: str,
    record_property: Callable[[str, object], None],
) -> None:
    rig = make_rig(
        rate="3000", settings=TRADES_THERE, environment={"FTS_DATABASE_URL_ARCHIVE": archive_url}
    )
    engine = rig.start()
    rig.until(lambda: databases(rig)[NAME]["stored_rows"] > 500, "rows in both")
    lags_before = lags_over(rig, OUTAGE_S)
    second.stop()
    engine.wait_for(f"red ({NAME} is down: ")
    before = rig.stored()
    lags = lags_over(rig, OUTAGE_S)
    now = databases(rig)
    assert now["database"]["status"] == "green", now
    assert now[NAME]["status"] == "red", now
    assert max(lags) < LAG_S, (lags_before, lags)
    record_property("flush_delay", f"before {described(lags_before)}, then {described(lags)}")
    assert databases(rig)[NAME]["backlog_rows"] > rig.stored() - before
    engine.child(WRITER).kill()  # while one is away, the other at work
    engine.wait_for_count("writer is ready", 2)
    second.start()
    engine.wait_for_count(f"{NAME}: works again", 1)
    engine.child(WRITER).kill()  # and with both at work
    rig.until_more_rows(500)
    owned = {rig.database_url: ("delta", "whole"), archive_url: ("trade",)}
    settle(rig, owned)
    equation = end(engine)
    assert equation["databases"][NAME]["total"]["elsewhere"] > 0
    for url, classes in owned.items():
        found = verdict(rig, url, *classes)
        assert_equation(found)
        assert found.declared_missing == 0
    assert select(rig.database_url, "SELECT count(*) FROM trade") == [(0,)]
    assert select(archive_url, "SELECT count(*) FROM book") == [(0,)]
    assert select(archive_url, "SELECT DISTINCT kind FROM stream") == [("Trades",)]
    _see_both_from_the_command_line(rig, archive_url)


def lags_over(rig: Rig, at_least_s: float) -> list[float]:
    """Flush delays of the default database while rows go on coming, looked at again and again."""
    lags: list[float] = []
    ends_s = monotonic_s() + at_least_s
    while len(lags) < 4 or monotonic_s() < ends_s:
        now = databases(rig)["database"]
        assert now["status"] == "green", now
        lags.append(now["flush_delay_s"])
        rows = rig.stored()
        wait_for(lambda rows=rows: rig.stored() > rows, "rows in the default one")  # type: ignore[misc]
    return lags


def described(lags: list[float]) -> str:
    """Mean and maximum, for the report (`--junit-xml`)."""
    return f"mean {sum(lags) / len(lags):.3f} s, at most {max(lags):.3f} s of {len(lags)}"


def _see_both_from_the_command_line(rig: Rig, archive_url: str) -> None:
    """Doctor examines each, psql opens the one that is named."""
    urls = {"FTS_DATABASE_URL": rig.database_url, "FTS_DATABASE_URL_ARCHIVE": archive_url}
    where = (
        "--config",
        str(rig.directory / "fts.toml"),
        "--state-dir",
        str(rig.directory / "state"),
    )
    code, output = Fts("doctor", *where, "--json", **urls).end()
    findings = {each["topic"]: each for each in msgspec.json.decode(output)["findings"]}
    assert findings[NAME]["level"] == findings["database"]["level"] == "ok", findings
    assert findings[f"{NAME} quarantine"]["level"] == "ok"
    ask = ("-Atc", "SELECT DISTINCT kind FROM stream")
    code, output = Fts("psql", *where, "--database", "archive", *ask, **urls).end()
    assert (code, output) == (0, "Trades\n")
    code, _ = Fts("psql", *where, "--database", "archiv", *ask, **urls).end()
    assert code == 2


def test_routes_that_change_cut_cleanly_whatever_was_under_way(
    make_rig: MakeRig, archive_url: str
) -> None:
    """After a crash of everything, rows of both wait in the journal under the rules before."""
    rig = make_rig(
        rate="3000", settings=TRADES_THERE, environment={"FTS_DATABASE_URL_ARCHIVE": archive_url}
    )
    engine = rig.start()
    rig.until(lambda: databases(rig)[NAME]["stored_rows"] > 500, "rows in both")
    _give_away_while_it_runs(rig, archive_url)
    kill_all(engine)
    config = rig.directory / "fts.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(TRADES_THERE, BOOKS_THERE), encoding="utf-8")
    engine = rig.start()
    rig.until(lambda: databases(rig)[NAME]["stored_rows"] > 500, "rows in both")
    rig.simulator.pause(30.0)
    rig.until(lambda: _is_quiet(rig), "the last rows")
    end(engine)
    here, there = ({*select(url, IDS)} for url in (rig.database_url, archive_url))
    assert here
    assert there
    assert not here & there, "no row is in both"
    for url, rows in ((rig.database_url, here), (archive_url, there)):
        assert select(url, "SELECT count(*) FROM trade") == [(len(rows),)], "nor in one twice"
    assert undeclared(rig, [rig.database_url, archive_url]) == []
    for url, kind in ((rig.database_url, "L2Book"), (archive_url, "Trades")):
        open_ones = (
            "SELECT count(*) FROM coverage c JOIN stream s USING (stream_id)"
            f" WHERE s.kind = '{kind}' AND c.\"end\" IS NULL"
        )
        assert select(url, open_ones) == [(0,)], "nobody listens on for the one before"


def _give_away_while_it_runs(rig: Rig, archive_url: str) -> None:
    """By a knob: what is listened to ends in the one database, and begins in the other."""
    where = "venue = 'binance_linear' AND symbol = 'BTCUSDT' AND kind = 'Trades'"
    interval = (
        'SELECT c.started, coalesce(c.ended, k.heard), c."end" FROM coverage c'
        " LEFT JOIN coverage_carrier k USING (ring, epoch, carrier)"
        " JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id)"
        f" WHERE {where} ORDER BY c.started"
    )
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    knobs = "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs"
    client = Client(note.control_url)
    with pytest.raises(RefusedError, match=r"there is no database 'databases\.archiv'"):
        client.ask("PATCH", knobs, {"database": "databases.archiv"})
    rig.until(lambda: len(select(archive_url, interval)) == 1, "what is listened to")
    client.ask("PATCH", knobs, {"database": "database"})
    rig.until(lambda: len(select(rig.database_url, interval)) == 1, "the same in the other")
    ((_, until_ns, end),) = select(archive_url, interval)
    ((since_ns, _, open_end),) = select(rig.database_url, interval)
    assert end is not None
    assert open_end is None
    assert until_ns <= since_ns


def undeclared(rig: Rig, urls: list[str]) -> list[tuple[str, str, int]]:
    """Trades that were sent and are in no database, and none of them says that they are missing."""
    ledger = read_ledger(rig.ledger_dir)
    stored = {row for url in urls for row in select(url, IDS)}
    found = []
    for venue, symbol in ledger.symbols:
        rows = rows_of(ledger, "trade", (venue, symbol))
        is_left = np.array([(venue, symbol, 0, i) not in stored for i in rows["trade_id"].tolist()])
        for url in urls:
            with psycopg.connect(url) as connection:
                ids = [number for (number,) in connection.execute(STREAMS, (venue, symbol))]
                seqs = rows["trade_id"].astype(np.int64)
                is_left &= ~covered_by_gaps(connection, ids, seqs, rows["ts_event"])
        found += [(venue, symbol, int(i)) for i in rows["trade_id"][is_left]]
    return found


def _is_quiet(rig: Rig) -> bool:
    """Whether both have all that was received so far, and nothing more comes."""
    return all(each["backlog_rows"] == 0 for each in databases(rig).values())
