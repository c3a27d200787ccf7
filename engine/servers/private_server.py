"""What our own PostgreSQL and Valkey have in common: three steps to a server, and its end.

`prepare` and `wait_until_ready` may take minutes and run in any thread; `spawn` between them runs
in the main one. A kind of server says how it is launched and how one sees that it serves.
"""

import contextlib
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import msgspec

from engine.process.child import AdoptedProcess
from engine.servers.server_process import (
    Progress,
    ServerAccount,
    ServerProcess,
    end_processes_of,
)

_KILLED_AFTER_S: Final = 5.0
"""For a survivor that has not heeded the first signal."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What `prepare` has found out."""

    account: ServerAccount
    argv: Sequence[str]
    serves: Callable[[], bool]
    url: Callable[[], str]
    """What to do when it serves; returns where. Raises ServerStartError."""


class ServerEstate(msgspec.Struct):
    """What another program of this process must know to go on with a server."""

    name: str
    pid: int
    url: str
    restart_count: int = 0


class PrivateServer(ABC):
    """A server of our own. `start` blocks; it must run in the main thread."""

    name: ClassVar[str]
    """What status, metrics and its files call it."""
    title: ClassVar[str]
    """What messages call it."""
    program: ClassVar[str]
    """By which a survivor is found."""
    start_timeout_s: ClassVar[float]
    stop_timeout_s: ClassVar[float]
    stop_signals: ClassVar[Sequence[signal.Signals]]
    """The polite one, which it gets as well when its parent dies, and harder ones."""
    environment: ClassVar[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    """Nothing of the engine's: that may hold passwords, or a PGDATA of somebody else."""

    def __init__(self, state_dir: Path, instance: str) -> None:
        self._state_dir = state_dir
        self._instance = instance
        self._process: ServerProcess | None = None
        self._launch: Launch | None = None
        self._url = ""

    @abstractmethod
    def _prepare(self, progress: Progress) -> Launch:
        """End what an earlier engine left, make the files. Raises ServerStartError."""

    def start(self, progress: Progress = lambda _text: None) -> str:
        """Start the server, making its files at first use; return its URL.

        Raises ServerStartError, with the server's last words where it has any.
        """
        if not self.is_running():
            self.prepare(progress)
            self.spawn()
            self.wait_until_ready()
        return self._url

    @contextlib.contextmanager
    def running(
        self, progress: Progress = lambda _text: None, estate: ServerEstate | None = None
    ) -> Iterator[str]:
        """Start it, or go on with the one that another program of this process has started; give
        its URL, and stop it at the end, also of a start that fails.
        """
        try:
            yield self.adopt(estate) if estate is not None else self.start(progress)
        finally:
            self.stop()

    @property
    def estate(self) -> ServerEstate:
        """What `adopt` takes."""
        return ServerEstate(self.name, self.pid or 0, self._url)

    def adopt(self, estate: ServerEstate) -> str:
        """Go on with it, whether it still runs or not; return its URL."""
        process = AdoptedProcess(estate.pid)
        self._process = ServerProcess(process, self._log)
        self._url = estate.url
        return self._url

    @property
    def _log(self) -> Path:
        return self._state_dir / f"{self.name}.log"

    def prepare(self, progress: Progress = lambda _text: None) -> None:
        """Everything before the server itself, in any thread: old servers end, files are made."""
        self._launch = self._prepare(progress)

    def spawn(self) -> None:
        """Start the process, in the main thread; `prepare` was called."""
        assert self._launch is not None
        self._process = ServerProcess.spawn(
            self._launch.argv,
            account=self._launch.account,
            log=self._log,
            parent_death_signal=self.stop_signals[0],
            environment=self.environment,
        )

    def wait_until_ready(self, timeout_s: float | None = None) -> None:
        """Wait in any thread until it has recovered and serves. Raises ServerStartError."""
        assert self._process is not None
        assert self._launch is not None
        timeout_s = self.start_timeout_s if timeout_s is None else timeout_s
        self._process.wait_until(self._launch.serves, self.title, timeout_s)
        self._url = self._launch.url()

    def stop(self) -> None:
        """Orderly shutdown; what does not heed the first signal gets the harder ones."""
        if self._process is not None:
            first, *harder = self.stop_signals
            self._process.stop(first, self.stop_timeout_s, harder)
            self._process = None

    def restart(self) -> str:
        """Stop and start."""
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

    def _end_survivors(self, directory: Path) -> None:
        """End the servers of a killed engine: they have `directory` as working directory."""
        first, *harder = (*self.stop_signals, signal.SIGKILL)
        steps = [(first, self.stop_timeout_s), *((each, _KILLED_AFTER_S) for each in harder)]
        end_processes_of(self.program, directory, steps)
