"""`fts quarantine`: what a person sees of refused rows, and does with them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control.cli.main import main
from engine.data.instrument import Instrument
from engine.data.kinds import GAP, TRADE
from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.start.migrations import migrate
from tests.engine.writer.bench import Bench, all_delivered, run
from tests.stores import execute, select

pytestmark = pytest.mark.fault("N05")


@pytest.fixture
def state(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """A state directory whose engine has ended: five of its rows are in quarantine."""
    for name in [name for name in os.environ if name.startswith("FTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FTS_DATABASE_URL", database_url)
    execute(database_url, "ALTER TABLE trade ADD CONSTRAINT no CHECK (trade_id > 4)")
    layout = open_layout(tmp_path / "state")
    slots = Slots(layout.slots)
    for symbol in ("A", "B"):
        entry = slots.assign(StreamKey("acme", symbol, StreamKind.TRADES))
        slots.describe(entry.slot, Instrument("acme", symbol, 2, 3))
    rows = np.zeros(10, TRADE.dtype)
    rows["stream"], rows["trade_id"] = np.arange(10) % 2, np.arange(10)
    rows["ts_event"] = rows["ts_recv"] = 1_780_000_000_000_000_000
    rows["side"], rows["price"], rows["qty"] = ord("B"), 2.5, 0.125
    bench = Bench(layout, TRADE, GAP)
    bench.put(rows)
    settings = WriterSettings(
        Paths.of(layout), [], -1, LogSettings(""), database_url=database_url, flush_interval_s=0.01
    )
    delivery = bench.delivery(settings)
    run(delivery, all_delivered(delivery))
    bench.close()
    yield layout


def fts(layout: Layout, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["quarantine", *arguments, "--state-dir", str(layout.state_dir)])
    return code, capsys.readouterr().out


def fts_json(layout: Layout, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(fts(layout, capsys, *arguments, "--json")[1])


def test_list_says_what_and_why(state: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    groups = fts_json(state, capsys, "list")
    assert [(each["table"], each["stream"], each["rows"]) for each in groups] == [
        ("trade", "acme/A/Trades/Ws", 3),
        ("trade", "acme/B/Trades/Ws", 2),
    ]
    assert all(each["error"].startswith("23514: new row for relation") for each in groups)
    code, text = fts(state, capsys, "list", "--stream", "acme/A")
    assert code == 0
    assert "acme/A/Trades/Ws" in text
    assert "acme/B" not in text
    assert "nothing" in fts(state, capsys, "list", "--table", "book")[1]


def test_show_has_the_rows_and_their_names(
    state: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = fts_json(state, capsys, "show", "--limit", "2")
    assert [row["row"]["trade_id"] for row in shown] == [0, 1]
    assert shown[0]["row"]["price"] == 2.5
    (one,) = fts_json(state, capsys, "show", shown[1]["id"])
    assert one == shown[1]
    assert "2 of 5 rows" in fts(state, capsys, "show", "--limit", "2")[1]
    assert fts(state, capsys, "show", "shard-9/1/2/trade") == (1, "")


def test_retry_and_drop_do_it_once_and_say_so(
    state: Layout, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fts(state, capsys, "retry") == (2, ""), "everything is asked for by name"
    code, text = fts(state, capsys, "retry", "--all")
    assert code == 1
    assert text.startswith("0 rows stored, 5 still refused")
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    assert fts_json(state, capsys, "drop", "--stream", "acme/B/Trades") == {"dropped": 2}
    assert fts_json(state, capsys, "retry", "--all") == {"stored": 3, "refused": []}
    assert fts_json(state, capsys, "retry", "--all") == {"stored": 0, "refused": []}
    assert fts_json(state, capsys, "list") == []
    past = {
        (row["row"]["trade_id"], row["state"]) for row in fts_json(state, capsys, "show", "--all")
    }
    assert past == {(0, "stored"), (1, "dropped"), (2, "stored"), (3, "dropped"), (4, "stored")}
    ids = select(database_url, "SELECT trade_id FROM trade ORDER BY 1")
    assert [number for (number,) in ids] == [0, 2, 4, 5, 6, 7, 8, 9]
    found = select(database_url, "SELECT symbol, sum(missing), state FROM gaps GROUP BY 1, 3")
    assert sorted(found) == [("A", 3, "repaired"), ("B", 2, "unrecoverable")]


def test_doctor_counts_what_waits(
    state: Layout, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def finding() -> str:
        main(["doctor", "--json", "--state-dir", str(state.state_dir)])
        findings = json.loads(capsys.readouterr().out)["findings"]
        return str(next(each["text"] for each in findings if each["topic"] == "quarantine"))

    assert finding().startswith("5 rows wait in ")
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    fts(state, capsys, "retry", "--all")
    assert finding().startswith("empty")


def test_an_older_schema_is_told_what_to_do(
    state: Layout, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(database_url, "DELETE FROM schema_version WHERE file_name LIKE '%quarantine.sql'")
    assert main(["quarantine", "list", "--state-dir", str(state.state_dir)]) == 1
    assert "run `fts migrate`" in capsys.readouterr().err


@pytest.mark.whole
def test_the_private_database_is_opened_for_it(
    server_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `fts psql` does, and closed when nobody uses it any more."""
    for name in [name for name in os.environ if name.startswith("FTS_")]:
        monkeypatch.delenv(name)
    layout = open_layout(server_dir / "quarantine")

    def listed() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "control.cli.main", "quarantine", "list", "--json"]
        return subprocess.run(
            [*command, "--state-dir", str(layout.state_dir)],
            cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    nothing = listed()
    assert nothing.returncode == 3
    assert "nothing has been stored" in nothing.stderr
    server = PrivatePostgres(layout.state_dir, layout.instance)
    migrate(server.start())
    server.stop()
    done = listed()
    while instance.is_held(layout):  # else the directory is removed from under its feet
        time.sleep(0.05)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
