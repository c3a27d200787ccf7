"""All that a soak runs: simulator with ledger, relay, servers, `fts up`, a disk for the journal."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

import msgspec

from bench.soak.relay import Relay
from control.cli.commands.demo import demo_streams
from control.proof.simulator import SimulatorProcess
from engine.base import signals
from engine.base.clock import monotonic_s
from engine.data.layout import Layout, open_layout
from engine.process import instance
from engine.servers.postgres import PrivatePostgres
from engine.servers.valkey import PrivateValkey
from shards.venues import VENUES

_ROOT: Final = Path(__file__).parents[2]
_START_S_MAX: Final = 300.0
_DISK_BYTES: Final = 512 << 20
KEEP: Final = "2d"
"""What retention keeps; the market's own rows are of today."""
_CONFIG: Final = """\
[database]
keep = {{ trade = "{keep}", book = "{keep}" }}
bars = true
archive = "parquet"
archive_to = "{lake}"
flush_rows = {flush_rows}

[journal]
segment_mb = 16

[metrics]
streams = true

[log]
level = "{level}"
"""


class World:
    """One run in a directory of its own; `open` starts it, `close` ends what still runs."""

    def __init__(self, directory: Path, *, symbols: int, seed: int, in_sums: bool) -> None:
        self.directory = directory
        self.ledger_dir, self.lake = directory / "ledger", directory / "lake"
        self.layout: Layout = open_layout(directory / "state")
        self.postgres = PrivatePostgres(directory / "servers", "soak")
        self.valkey = PrivateValkey(directory / "servers", "soak")
        self.reloads = 0
        self._symbols, self._seed, self._in_sums = symbols, seed, in_sums
        self._is_mounted = False
        self._simulator: SimulatorProcess | None = None
        self._relay: Relay | None = None
        self._engine: subprocess.Popen[str] | None = None
        self._log: TextIO | None = None
        self.database_url = ""

    def open(self, trades_per_s: float) -> None:
        """Start all of it, and wait until every stream delivers. Raises RuntimeError."""
        servers = self.directory / "servers"
        servers.mkdir(mode=0o711, exist_ok=True)
        self._mount_journal()
        self.database_url = self.postgres.start()
        redis_url = self.valkey.start()
        options = ["--rate", str(trades_per_s), "--symbols", str(self._symbols)]
        options += ["--seed", str(self._seed), "--ledger", str(self.ledger_dir)]
        options += ["--ledger-in-sums"] if self._in_sums else []
        self._simulator = SimulatorProcess(options)
        at = next(iter(self._simulator.venues().values())).rest_url
        self._relay = Relay(urlsplit(at or "").port or 0)
        self.write_config()
        self._start_engine(redis_url)
        self._wait_until_live()

    def write_config(self) -> None:
        """The engine's configuration; each one differs from the last in what SIGHUP changes."""
        levels, flush_rows = ("INFO", "DEBUG"), (50_000, 20_000)
        turn = self.reloads % 2
        parts = [
            _CONFIG.format(
                keep=KEEP, lake=self.lake, level=levels[turn], flush_rows=flush_rows[turn]
            )
        ]
        for name in VENUES:  # those that are not simulated get a 404 here: no real one is asked
            here = f"127.0.0.1:{self.relay.port}/{name}"
            parts.append(f"[venues.{name}]\nrest_url = 'http://{here}'\nws_url = 'ws://{here}'")
            parts.append("stale_after_s = 10")
        for key in demo_streams(self._symbols):
            parts.append(f"[[streams]]\nvenue = '{key.venue}'\nsymbols = ['{key.symbol}']")
            parts.append(f"kinds = ['{key.kind}']\ntransport = '{key.transport}'")
        self._config.write_text("\n".join(parts) + "\n", encoding="utf-8")

    @property
    def simulator(self) -> SimulatorProcess:
        """It is running."""
        assert self._simulator is not None
        return self._simulator

    @property
    def relay(self) -> Relay:
        """It is running."""
        assert self._relay is not None
        return self._relay

    @property
    def supervisor_pid(self) -> int:
        """Of `fts up`."""
        assert self._engine is not None
        return self._engine.pid

    @property
    def engine_ended(self) -> bool:
        """Whether `fts up` has ended, by itself or because it was told to."""
        assert self._engine is not None
        return self._engine.poll() is not None

    @property
    def stream_count(self) -> int:
        """Streams of the configuration."""
        return len(demo_streams(self._symbols))

    def processes(self) -> Iterator[tuple[str, int]]:
        """Name and pid of each process of the engine, of the servers and of the simulator."""
        yield "supervisor", self.supervisor_pid
        for pid in children_of(self.supervisor_pid):
            if len(words := _command_line(pid)) > 4 and "engine.process.birth" in words:
                yield words[words.index("engine.process.birth") + 1], pid
        for server in (self.postgres, self.valkey):
            if server.pid is not None:
                yield server.name, server.pid
        yield "simulator", self.simulator.pid

    def pid_of(self, name: str) -> int | None:
        """Of the engine's process that is called so; None while there is none."""
        return next((pid for each, pid in self.processes() if each == name), None)

    def ask(self, path: str, timeout_s: float = 30.0) -> bytes:
        """An answer of the control port. Raises OSError while there is none."""
        note = instance.read_note(self.layout)
        if note is None:
            raise ConnectionError("no engine runs")
        connection = HTTPConnection(urlsplit(note.control_url).netloc, timeout=timeout_s)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        except HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """One scrape. Raises OSError."""
        lines = self.ask("/metrics").decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line[:1] != "#")
        return {name: float(value) for name, _, value in pairs}

    def tell_simulator(self, path: str, **body: Any) -> dict[str, Any]:
        """Have it do something. Raises RuntimeError when it refuses."""
        at = urlsplit(next(iter(self.simulator.venues().values())).rest_url or "")
        connection = HTTPConnection(at.netloc, timeout=30)
        try:
            connection.request("POST", path, msgspec.json.encode(body))
            reply = connection.getresponse()
            answer: dict[str, Any] = msgspec.json.decode(reply.read())
        finally:
            connection.close()
        if reply.status != 200:
            raise RuntimeError(f"{path} {body}: {answer}")
        return answer

    def reload(self) -> None:
        """SIGHUP, with a configuration that has changed."""
        self.reloads += 1
        self.write_config()
        os.kill(self.supervisor_pid, signal.SIGHUP)

    def end_engine(self, timeout_s: float = 300.0) -> tuple[int, dict[str, Any]]:
        """Stop `fts up` in order; its exit code and its summary."""
        assert self._engine is not None
        self._engine.send_signal(signal.SIGTERM)
        output, _ = self._engine.communicate(timeout=timeout_s)
        lines = output.splitlines() or ["{}"]
        return self._engine.returncode, msgspec.json.decode(lines[-1])

    def close(self) -> None:
        """End what still runs. What was collected stays in the directory."""
        if self._engine is not None and self._engine.poll() is None:
            self._engine.kill()
            self._engine.wait()
        shutil.rmtree(self.layout.shm_dir, ignore_errors=True)
        if self._simulator is not None:
            self._simulator.stop()
        if self._relay is not None:
            self._relay.close()
        self.valkey.stop()
        self.postgres.stop()
        if self._log is not None:
            self._log.close()
        if self._is_mounted:
            subprocess.run(["/bin/umount", "-l", str(self.layout.journal_dir)], check=False)

    @property
    def has_journal_disk(self) -> bool:
        """Whether the journal has a small disk of its own, that can be filled."""
        return self._is_mounted

    @property
    def _config(self) -> Path:
        return self.directory / "fts.toml"

    def _mount_journal(self) -> None:
        """A small file system for the journal alone, where we may make one."""
        if os.geteuid() != 0:
            return
        image, where = self.directory / "journal.img", self.layout.journal_dir
        where.mkdir(mode=0o700, exist_ok=True)
        with image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        for command in (["/sbin/mkfs.ext4", "-q", "-m", "0"], ["/bin/mount", "-o", "loop"]):
            words = [*command, str(image), *([str(where)] if "loop" in command else [])]
            if subprocess.run(words, check=False, capture_output=True).returncode:
                return
        self._is_mounted = True
        (where / "lost+found").rmdir()

    def _start_engine(self, redis_url: str) -> None:
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("FTS_")}
        own = {
            "PYTHONPATH": str(_ROOT), "FTS_DATABASE_URL": self.database_url,
            "FTS_REDIS_URL": redis_url,
        }  # fmt: skip
        self._log = (self.directory / "engine.stderr").open("w", encoding="utf-8")
        self._engine = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "control.cli.main", "up", "--config"),
                *(str(self._config), "--port", "0", "--json"),
                *("--state-dir", str(self.layout.state_dir)),
            ],
            env={**inherited, **own},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
            preexec_fn=signals.death_with_parent(signal.SIGTERM),  # noqa: PLW1509
        )

    def _wait_until_live(self) -> None:
        assert self._engine is not None
        ends_s = monotonic_s() + _START_S_MAX
        while monotonic_s() < ends_s:
            if self._engine.poll() is not None:
                raise RuntimeError(
                    f"fts up ended with {self._engine.returncode}; see engine.stderr"
                )
            if live_streams(self) == self.stream_count:
                return
            time.sleep(0.5)
        raise RuntimeError(f"not every stream delivers after {_START_S_MAX:.0f} s")


def live_streams(world: World) -> int:
    """Streams that deliver; 0 while nobody answers."""
    try:
        found = world.metrics()
    except OSError:
        return 0
    return int(
        sum(
            value
            for name, value in found.items()
            if name.startswith("fts_engine_streams{") and 'state="live"' in name
        )
    )


def children_of(pid: int) -> list[int]:
    """Those of its main thread, which starts them all; none of one that is dead."""
    try:
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    except OSError:
        return []


def _command_line(pid: int) -> list[str]:
    """Its words; the command line of a copy is one text."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").split()
    except OSError:
        return []
