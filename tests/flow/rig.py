"""Simulator, engine and database of one test, and the question whether the equation holds."""

import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
import psycopg

from control.cli.commands.demo import demo_streams
from control.proof.ledger_check import LedgerCheck
from control.proof.simulator import SimulatorProcess
from control.proof.verdict import Verdict
from engine.data.layout import open_layout
from engine.data.names import StreamKey, StreamKind
from tests.flow.processes import THIS, Fts
from tests.waiting import wait_for

_REASON_OF_TERM = {
    "skipped": "not_stored", "dropped": "ring_full", "refused": "unreadable",
    "quarantined": "quarantined",
}  # fmt: skip
SHARD, WRITER, UPKEEP = "shards.main:run", "engine.writer.main:run", "engine.upkeep.main:run"


_SILENT = {StreamKind.LIQUIDATIONS, StreamKind.SETTLED_FUNDING}
"""Kinds of which there may be no row for hours."""


class Rig:
    """`fts up` against a simulator with a ledger, into a database of the test's own."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        redis_url: str | None = None,
        *,
        rate: str = "2000",
        venues: str = "",
        symbols: int = 2,
        settings: str = "",
        simulator: tuple[str, ...] = (),
        streams: list[tuple[str, str]] | None = None,
        keys: Sequence[StreamKey] | None = None,
        all_kinds: bool = False,
        venue_settings: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.database_url = database_url
        self.ledger_dir = directory / "ledger"
        self._environment = {**(environment or {}), "FTS_DATABASE_URL": database_url}
        if redis_url is not None:
            self._environment["FTS_REDIS_URL"] = redis_url
        self._redis_options = () if redis_url is not None else ("--no-redis",)
        self.simulator = SimulatorProcess(
            ["--port", "0", "--rate", rate, "--symbols", str(symbols),
             "--venues", venues, "--ledger", str(self.ledger_dir), *simulator]
        )  # fmt: skip
        keys = keys or demo_streams(symbols, venues, all_kinds=all_kinds)
        if streams is not None:
            keys = [msgspec.structs.replace(key, venue=venue, symbol=symbol)
                    for venue, symbol in streams for key in demo_streams(1)[:2]]  # fmt: skip
        self.stream_count = len(keys)
        self._silent_count = sum(key.kind in _SILENT for key in keys)
        self._config = directory / "fts.toml"
        toml = self._toml(keys, settings, venue_settings)
        self._config.write_text(toml, encoding="utf-8")
        self.engine: Fts | None = None
        self._session: psycopg.Connection | None = None
        self.program: Sequence[str] = THIS
        """What is started as `fts`."""

    def _toml(self, keys: Sequence[StreamKey], settings: str, venue_settings: str) -> str:
        parts = [settings]
        for name, venue in self.simulator.venues().items():
            parts.append(f"[venues.{name}]\nrest_url = '{venue.rest_url}'")
            parts.append(f"ws_url = '{venue.ws_url}'\n{venue_settings}")
        for key in keys:
            parts.append(f"[[streams]]\nvenue = '{key.venue}'\nsymbols = ['{key.symbol}']")
            parts.append(f"kinds = ['{key.kind}']\ntransport = '{key.transport}'")
        return "\n".join(parts) + "\n"

    def start(self) -> Fts:
        """Start the engine and wait until every stream delivers."""
        engine = self.begin()
        engine.wait_for(f"streams {self.stream_count}/{self.stream_count} live")
        return engine

    def begin(self) -> Fts:
        """Start the engine."""
        self.engine = Fts(
            "up", "--config", str(self._config), "--port", "0", "--json",
            "--state-dir", str(self.directory / "state"), *self._redis_options,
            program=self.program, **self._environment,
        )  # fmt: skip
        return self.engine

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Ask the database, in a session that is kept: to open one costs more than most questions.
        One that the server has ended is opened anew.
        """
        if self._session is not None:
            try:
                return self._session.execute(text.encode()).fetchall()
            except psycopg.OperationalError:
                self._session.close()
        self._session = psycopg.connect(self.database_url, autocommit=True)
        return self._session.execute(text.encode()).fetchall()

    def until(
        self, condition: Callable[[], bool], what: str | Callable[[], str], timeout_s: float = 60.0
    ) -> None:
        """Wait for something to become true."""
        wait_for(condition, what, timeout_s)

    def stored(self) -> int:
        """Rows in the database."""
        rows = "SELECT (SELECT count(*) FROM trade) + (SELECT count(*) FROM book)"
        return int(self.query(rows)[0][0])

    def until_more_rows(self, rows: int = 500) -> None:
        """Wait until so many more rows are stored: data flows again."""
        before = self.stored()
        self.until(lambda: self.stored() >= before + rows, f"{rows} more rows")

    def fault(self, **body: Any) -> dict[str, Any]:
        """Ask the simulator for a fault."""
        return self.tell("/simulator/faults", **body)

    def tell(self, path: str, **body: Any) -> dict[str, Any]:
        """Have the simulator do something."""
        at = self._at()
        connection = HTTPConnection(at.netloc, timeout=30)
        connection.request("POST", path, msgspec.json.encode(body))
        reply = connection.getresponse()
        answer: dict[str, Any] = msgspec.json.decode(reply.read())
        connection.close()
        assert reply.status == 200, answer
        return answer

    def _at(self) -> SplitResult:
        """Where the simulator is: what it does is asked of it beside any of its venues."""
        return urlsplit(next(iter(self.simulator.venues().values())).rest_url or "")

    def hubs(self) -> list[dict[str, Any]]:
        """What the simulator says of each venue."""
        at = self._at()
        connection = HTTPConnection(at.netloc, timeout=30)
        connection.request("GET", "/simulator/status")
        answer: dict[str, Any] = msgspec.json.decode(connection.getresponse().read())
        connection.close()
        return list(answer["venues"].values())

    def quiet(self) -> None:
        """Stop the market and wait until what it sent has been stored."""
        self.simulator.pause(30.0)
        seen = [-1] * 12  # the same count twelve looks long: 0.6 s and more
        ends_s = time.monotonic() + 60  # noqa: TID251
        while len(set(seen)) > 1 or seen[0] < 0:
            assert time.monotonic() < ends_s, "the count of rows never settled"  # noqa: TID251
            time.sleep(0.05)
            seen = [*seen[1:], self.stored()]

    def until_every_stream_delivers(self) -> None:
        """Wait until each stream has a row received from now on: only then has it had the chance
        to declare what it missed.
        """
        (now_ns,) = self.query("SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint")[0]
        tables = ("trade", "book", "quote", "funding", "open_interest")
        rows = " UNION ALL ".join(
            f"SELECT stream_id FROM {table} WHERE ts_recv > {now_ns}" for table in tables
        )
        silent = ", ".join(f"'{kind}'" for kind in _SILENT)  # funding may be paid just now
        fresh = f"""
            SELECT venue, symbol, kind, transport FROM (SELECT DISTINCT stream_id FROM ({rows}) r) f
            JOIN stream USING (stream_id) JOIN instrument USING (instrument_id)
            WHERE kind NOT IN ({silent})"""
        steady = self.stream_count - self._silent_count
        self.until(
            lambda: len(self.query(fresh)) == steady,
            lambda: f"rows of {steady} streams, there are of {self.query(fresh)}",
        )

    def finish(self) -> Verdict:
        """Stop everything in order; return what the ledger says of the database."""
        self.until_every_stream_delivers()
        return self.stop()

    def stop(self) -> Verdict:
        """The same for a market that has come to its own end."""
        self.quiet()
        assert self.engine is not None
        self.engine.signal(signal.SIGTERM)
        code, output = self.engine.end()
        equation = msgspec.json.decode(output.splitlines()[-1])["equation"]
        assert equation["holds"], equation
        assert code == 0 or "streams failed" in str(equation["unfinished"]), self.engine.log
        self._assert_declared(equation["total"])
        return self.verdict()

    def _assert_declared(self, account: dict[str, int]) -> None:
        """What reached the engine and is not stored is in gaps of the reason that it has. (There
        may be more in them: of an earlier engine of the same rig.)
        """
        declared = dict(self.query("SELECT reason, sum(greatest(missing, 0)) FROM gaps GROUP BY 1"))
        for term, reason in _REASON_OF_TERM.items():
            assert declared.get(reason, 0) >= account[term], (term, account, declared)
        assert "journal_loss" in declared or not account["lost"], (account, declared)

    def verdict(self) -> Verdict:
        """The equation, over all streams."""
        self.simulator.pause(30.0)  # polls were answered, and noted, until the engine's end
        check = LedgerCheck(self.ledger_dir, self.database_url)
        gaps = self.query("SELECT * FROM gaps")
        sys.stderr.write(f"{check.verdicts}\n{check.unequal}\n{gaps}\n")  # if the test fails
        return check.total

    def close(self) -> None:
        """End what still runs."""
        if self.engine is not None:
            self.engine.kill()
        if self._session is not None:
            self._session.close()
        self.simulator.stop()
        remove_shared_memory(self.directory / "state")


def remove_shared_memory(state_dir: Path) -> None:
    """What a killed engine leaves there, as it should."""
    if state_dir.exists():
        shutil.rmtree(open_layout(state_dir).shm_dir, ignore_errors=True)


GAPS_OF_SOCKETS = "SELECT venue, symbol, kind, reason FROM gaps WHERE reason <> 'poll_missed'"
"""A poll that comes too late, on a machine that stands still for a while, is none of theirs."""


def assert_equation(verdict: Verdict) -> None:
    """sent = stored exactly once + declared as gap."""
    assert verdict.sent == verdict.stored + verdict.declared_missing > 0, verdict
    assert verdict.duplicates == 0, verdict
    assert verdict.missing == 0, verdict
    assert verdict.altered == 0, verdict
