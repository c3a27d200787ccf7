"""The first hour as its page has it, and on its engine the commands and queries of other pages.

`fts up` collects from a simulator here: its address is added to the configuration. All else is as
the pages have it.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from psycopg.conninfo import conninfo_to_dict

from control.cli.main import main
from control.proof.simulator import SimulatorProcess
from engine.data.layout import open_layout
from engine.process import instance
from engine.process.instance import EngineNote
from engine.servers.postgres import client_program
from tests.docs.inventory import ENDED, INVENTORY, RUN, UP, fate
from tests.flow.processes import ROOT, Fts
from tests.flow.rig import remove_shared_memory
from tests.pages import Block, blocks, python_examples
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

FIRST_HOUR = "docs/first-hour.md"
USUAL_ADDRESS = "http://127.0.0.1:8080"
_PLAIN = re.compile(r"fts (?!psql|redis)[^|<>$&;*`(]*$")
"""A command of ours that needs no shell, and does not become another program."""
_SCRIPTS = {
    "fts": f'exec {sys.executable} -P -m control.cli.main "$@"',
    "curl": f'exec {shutil.which("curl")} -sS --fail-with-body "$@"',
}
"""What the pages' commands are here."""


class Hour:
    """One engine, started and ended as the first hour's page says, and who asks it."""

    def __init__(self, parent: Path) -> None:
        self._simulator = SimulatorProcess(["--port", "0", "--rate", "300", "--symbols", "3"])
        self.parent = parent
        self._engine: Fts | None = None
        self.state_dir = parent / "state"
        self.environment = {"FTS_STATE_DIR": str(self.state_dir)}
        (parent / "bin").mkdir()
        for name, script in _SCRIPTS.items():
            program = parent / "bin" / name
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)

    def up(self, configuration: str) -> None:
        """`fts up` until every stream is live."""
        config = self.parent / "with_addresses.toml"
        addresses = "".join(
            f"[venues.{name}]\nrest_url = '{venue.rest_url}'\nws_url = '{venue.ws_url}'\n"
            for name, venue in self._simulator.venues().items()
        )
        config.write_text(configuration + addresses, encoding="utf-8")
        self._engine = Fts("up", "--config", str(config), "--port", "0", **self.environment)
        self._engine.wait_for("control is ready")
        self._engine.wait_for("green (")

    def shell_environment(self, *, is_ours: bool) -> dict[str, str]:
        """With our commands first on the path, then PostgreSQL's own, which know the database by
        its address or, as libpq has it, by parts of that.
        """
        psql = client_program()
        assert psql is not None
        folders = [str(self.parent / "bin"), str(psql.parent), os.environ["PATH"]]
        shared = {**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)}
        if is_ours:
            return shared | self.environment
        parts = conninfo_to_dict(self.note.database)
        here = {"PGHOST": str(parts["host"]), "PGUSER": str(parts["user"])}
        return shared | here | {"FTS_DATABASE_URL": self.note.database}

    def must_run(self) -> None:
        """Where the first hour was not gone through, begin at its end."""
        if self._engine is None:
            self.up("".join(block.text for block in blocks(FIRST_HOUR, "toml")))

    @property
    def note(self) -> EngineNote:
        """Where it answers, and its private servers do."""
        note = instance.read_note(open_layout(self.state_dir))
        assert note is not None
        return note

    def end(self) -> None:
        """Ctrl-C: all that was received is stored or declared."""
        assert self._engine is not None
        self._engine.signal(signal.SIGINT)
        code, output = self._engine.end()
        assert code == 0, output + self._engine.log
        self._engine = None

    def close(self) -> None:
        """End what still runs."""
        if self._engine is not None:
            below = self._engine.descendants()
            self._engine.kill()
            psutil.wait_procs(below, timeout=60)
        self._simulator.stop()
        remove_shared_memory(self.state_dir)
        shutil.rmtree(self.parent)


@pytest.fixture(scope="module")
def hour() -> Iterator[Hour]:
    parent = Path(tempfile.mkdtemp(prefix="fts-pages-"))
    parent.chmod(0o755)  # also the account of root's private PostgreSQL walks there
    found = Hour(parent)
    yield found
    found.close()


def said(block: Block, hour: Hour, capfd: pytest.CaptureFixture[str]) -> str:
    """What the commands of a block print. Each must end well."""
    capfd.readouterr()
    if all(map(_PLAIN.match, block.lines)):  # in this process: Python takes a while to start
        for line in block.lines:
            words = shlex.split(line, comments=True)[1:]
            if words == ["health"]:  # green in the end, on a machine that is busy, too
                wait_for(lambda: main(["health"]) == 0, "a healthy engine")
            else:
                assert main(words) == 0, line
        return capfd.readouterr().out
    text = block.text
    if USUAL_ADDRESS in text:
        text = text.replace(USUAL_ADDRESS, hour.note.control_url)
    done = subprocess.run(
        ["sh", "-eu", "-c", text],
        capture_output=True, text=True, timeout=60, check=False, cwd=hour.parent,
        env=hour.shell_environment(is_ours="fts " in text),
    )  # fmt: skip
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def here(hour: Hour, monkeypatch: pytest.MonkeyPatch) -> Hour:
    """Commands in this process find the engine as well."""
    for name in [name for name in os.environ if name.startswith("FTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FTS_STATE_DIR", str(hour.state_dir))
    monkeypatch.chdir(hour.parent)
    return hour


SHOWS = {
    "fts health": ("green",),
    'fts psql -c "SELECT time': ("BTCUSDT", "hyperliquid_perp", "bid", "events"),
    "fts instruments list SOL --exchange binance_linear": ("SOLUSDT", "2 of 2", "1 of 1"),
    'fts psql -c "SELECT venue, symbol, kind, started': ("stopped", "SOLUSDT", "complete"),
    "fts config check fts.toml": ("no fault",),
    'fts psql -c "SELECT venue, symbol, kind, reason': ("BTCUSDT", "stopped"),
}
"""What a newcomer is to see of each block of the first hour."""


def test_the_first_hour(here: Hour, capfd: pytest.CaptureFixture[str]) -> None:
    (configuration,) = (block.text for block in blocks(FIRST_HOUR, "toml"))
    (here.parent / "fts.toml").write_text(configuration, encoding="utf-8")
    shown = set()
    for block in blocks(FIRST_HOUR, "sh"):
        if fate(block) == ENDED:
            here.end()
        if fate(block) == UP:
            has_file = "--config" in block.text
            here.up(configuration if has_file else "")
        elif fate(block) in (RUN, ENDED):
            text = said(block, here, capfd)
            ((name, words),) = [each for each in SHOWS.items() if block.name.startswith(each[0])]
            assert [word for word in words if word not in text] == [], f"{block.name}\n{text}"
            shown.add(name)
    assert shown == SHOWS.keys()


NOT_COLLECTED = {"-- funding that was paid (streams of kind SettledFunding)"}
"""Queries that find no rows here."""
OTHERS = [page for page, fates in INVENTORY.items() if RUN in fates.values() and page != FIRST_HOUR]


@pytest.mark.parametrize("page", OTHERS)
def test_what_a_page_shows_works(page: str, here: Hour, capfd: pytest.CaptureFixture[str]) -> None:
    here.must_run()
    for block in blocks(page, "sh", "sql"):
        if fate(block) != RUN:
            continue
        if block.language == "sql":
            found = answers(block, here.note.database)
            assert {each for each, rows in found.items() if not rows} <= NOT_COLLECTED, page
        elif block.language == "sh":
            said(block, here, capfd)


def test_the_reader_reads_every_trade_once_and_notices_what_was_trimmed(here: Hour) -> None:
    """The one of docs/redis.md, against Redis' own list."""
    here.must_run()
    found: dict[str, Any] = {}
    (source,) = python_examples("docs/redis.md")
    exec(compile(source, "reader", "exec"), found)  # noqa: S102 - our own page
    trades = found["TRADES"]
    with redis.Redis.from_url(here.note.redis, decode_responses=True) as client:
        wait_for(lambda: client.xlen(trades) > 10, "trades in Redis")
        stored = client.xrange(trades, count=10)
        ids = [each["id"] for _, fields in stored for each in json.loads(fields["events"])]
        events = found["follow"](client, {trades: "0"})
        read = [next(events) for _ in ids]
        assert [event["id"] for _, _, event in read] == ids == sorted(set(ids))
        assert {type(event["price"]) for _, _, event in read} <= {int, Decimal}
        events = found["follow"](client, {trades: stored[0][0]})
        assert next(events)[2]["id"] > read[0][2]["id"], "it goes on behind that entry"
        client.xtrim(trades, minid=stored[2][0], approximate=False)
        events = found["follow"](client, {trades: stored[0][0]})
        assert next(events)[2]["reason"] == "trimmed"
        assert next(events)[1] == stored[2][0]


def answers(block: Block, url: str) -> dict[str, list[Any]]:
    """The rows of each query, by the line that it begins with."""
    with psycopg.connect(url) as connection:
        return {
            query.strip().splitlines()[0]: connection.execute(query.encode()).fetchall()
            for query in filter(str.strip, block.text.split(";\n"))
        }
