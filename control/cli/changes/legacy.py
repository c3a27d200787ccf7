"""What an engine leaves to the program on disk that its first process becomes (`exec`): a message
in memory that is nobody else's, for it holds passwords.

The next program decodes it with its own types: what it does not know is left out, and what it is
not told has a default. `fts upgrade` has it try that before anything happens. Until the next
program has taken everything over, nothing has changed, and it goes back (`Back`) to the one before
where something is in its way.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from engine.base.errors import EngineError
from engine.base.signals import UNSAID
from engine.messages.settings import RingSettings
from engine.process.instance import Locks
from engine.process.release import OURS, Code, release
from engine.start.addresses import Secret
from engine.start.config import Config, LoadedConfig
from engine.supervisor.estate import Estate
from engine.supervisor.spawning import SupervisorSettings

_log = logging.getLogger(__name__)

SUCCESSOR: Final = "control.cli.changes.successor"
"""The module that the next program begins with: its argument is the descriptor of the message."""
_PATH: Final = "PYTHONPATH"


class Legacy(msgspec.Struct):
    """The message. Descriptors are numbers that are the same in the next program."""

    arguments: list[str]
    """The engine's command line, with the program before it."""
    module_path: str | None
    """`PYTHONPATH` as the engine was started with it."""
    code: Code
    """What leaves this, and is gone back to."""
    config: msgspec.Raw
    """What is in force; the next program reads it as if it were in a file."""
    source: str
    state_dir: str
    given_urls: dict[str, str]
    owner_urls: dict[str, str]
    rings: list[RingSettings]
    cpus: list[int | None]
    memory: dict[str, Any]
    """The plan for the live sink's."""
    listen_fd: int
    metrics_fd: int
    locks: Locks
    estate: Estate
    ends_s: float | None = None
    """On the monotonic clock: when the time is up for which it was to run."""
    why_back: str = ""
    """Why another program could not go on, and this one is back."""

    @classmethod
    def of(
        cls,
        settings: SupervisorSettings,
        loaded: LoadedConfig,
        estate: Estate,
        locks: Locks,
        ends_s: float | None,
    ) -> "Legacy":
        """Of an engine with these settings, that were read as `loaded` when it started."""
        return cls(
            arguments=sys.argv,
            module_path=os.environ.get(_PATH),
            code=OURS,
            config=msgspec.Raw(msgspec.json.encode(settings.config)),
            source=loaded.source,
            state_dir=str(loaded.state_dir),
            given_urls={name: url.reveal() for name, url in loaded.urls.items()},
            owner_urls={name: url.reveal() for name, url in settings.owner_urls.items()},
            rings=settings.rings,
            cpus=settings.cpus,
            memory=msgspec.to_builtins(settings.memory),
            listen_fd=settings.listen_fd,
            metrics_fd=settings.metrics_fd,
            locks=locks,
            estate=estate,
            ends_s=ends_s,
        )

    def loaded(self) -> LoadedConfig:
        """The configuration in force. Raises EngineError where this code cannot read it."""
        try:
            config = msgspec.json.decode(self.config, type=Config)
        except msgspec.MsgspecError as error:
            raise EngineError(f"the configuration in force: {error}") from error
        return LoadedConfig(
            config,
            self.source,
            Path(self.state_dir),
            {name: Secret(url) for name, url in self.given_urls.items()},
            {name: Secret(url) for name, url in self.owner_urls.items()},
        )

    @property
    def fds(self) -> list[int]:
        """What the next program gets open."""
        found = [*self.estate.fds, *self.locks, self.listen_fd, self.metrics_fd]
        return [fd for fd in found if fd >= 0]

    def become(self, code: Code) -> NoReturn:
        """Execute this code in place of the present program. Raises EngineError where that cannot
        be; nothing has changed then.
        """
        paper = os.memfd_create("fts-legacy", 0)
        with open(paper, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(self))
        os.lseek(paper, 0, os.SEEK_SET)
        command = [code.python, "-P", "-m", SUCCESSOR, str(paper), *self.arguments[1:]]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, UNSAID)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        try:
            for fd in self.fds:
                os.set_inheritable(fd, True)
            os.execve(code.python, command, code.environment())  # noqa: S606 - ourselves
        except OSError as error:
            for fd in self.fds:
                os.set_inheritable(fd, False)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(paper)
            raise EngineError(f"{code.python} cannot be executed: {error.strerror}") from error

    @classmethod
    def read(cls, fd: int) -> "Legacy":
        """What `become` has written. Descriptors are ours alone again, and the environment is as
        the engine was started with it. Raises msgspec.MsgspecError.
        """
        with open(fd, "rb") as file:
            legacy = msgspec.json.decode(file.read(), type=cls)
        for each in legacy.fds:
            os.set_inheritable(each, False)
        sys.argv = legacy.arguments
        os.environ.pop(_PATH, None)
        if legacy.module_path is not None:
            os.environ[_PATH] = legacy.module_path
        return legacy


class Back:
    """The way back to the program before this one, until it is closed."""

    def __init__(self, legacy: Legacy) -> None:
        self.legacy = legacy
        self._is_open = not legacy.why_back and legacy.code != OURS
        self.before: Callable[[], None] = lambda: None
        """What this program has started and the one before it knows nothing of, is ended by it."""

    def close(self) -> None:
        """All is taken over."""
        self._is_open = False

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Whatever fails in here leads back, before anything is taken down for it."""
        try:
            yield
        except BaseException as error:
            if self._is_open:
                why = f"{release()} cannot take over: {str(error) or repr(error)}"
                _log.exception(why)
                self.before()
                msgspec.structs.replace(self.legacy, why_back=why).become(self.legacy.code)
            raise
