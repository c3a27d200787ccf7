"""One child process as its parent sees it: pid, pidfd, pipe, and how it ended.

The only place of the engine that starts processes. After an `exec` they are still ours: another
program of this process adopts them. Liveness comes from the pidfd, never from
`kill(pid, 0)`, which calls a zombie alive and may ask about a stranger who got the same pid.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from engine.base import signals
from engine.base.clock import monotonic_s
from engine.messages.pipes import FromChild
from engine.process.birth import ExitCode
from engine.process.forks.server import ForkServer
from engine.process.pipe import Pipe, supervisor_pipe
from engine.process.release import OURS, Code

_LOOK_S: Final = 0.01
_UNKNOWN: Final = 0
"""How somebody ended whom another has reaped: nobody can say any more."""
_CODE_TEXT: dict[int, str] = {
    ExitCode.FAULT: "an unhandled exception (see the log)",
    ExitCode.REFUSED: "it refused to go on (see the log)",
    ExitCode.NOT_BORN: "it never got its settings",
}


class Process(Protocol):
    """What is done with a child, whoever started it: `subprocess.Popen` is one."""

    pid: int

    def poll(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The same, at its end. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Signal it, unless it has been reaped."""


class AdoptedProcess:
    """A `Process` of which only the id is known. It is ours alone to reap, so that id is nobody
    else's until then.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """As in `Process`."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """As in `Process`."""
        ends_s = monotonic_s() + timeout if timeout is not None else None
        while (code := self._reap(0 if ends_s is None else os.WNOHANG)) is None:
            if ends_s is not None and monotonic_s() > ends_s:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_LOOK_S)
        return code

    def send_signal(self, sig: int) -> None:
        """As in `Process`."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def _reap(self, flags: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, flags)
            except ChildProcessError:
                self._code = _UNKNOWN
            else:
                self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


class ChildEstate(msgspec.Struct):
    """What another program of this process must know to go on as the parent of a child."""

    name: str
    pid: int
    pipe_fd: int
    unread: bytes
    """What has come on the pipe and nobody has taken."""


class Child:
    """A running child. `wait` returns its exit code: negative means a signal."""

    def __init__(self, name: str, process: Process, pidfd: int, pipe: Pipe[FromChild]) -> None:
        self.name = name
        self.pid = process.pid
        self.pipe = pipe
        self._process = process
        self._pidfd = pidfd
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(pidfd, self._reap)

    @classmethod
    async def spawn(
        cls,
        name: str,
        target: str,
        settings: msgspec.Struct,
        *,
        pass_fds: Sequence[int] = (),
        oom_score_adj: int = 0,
        code: Code = OURS,
        forks: ForkServer | None = None,
    ) -> "Child":
        """Start `target` (`module:function`) of this code, and hand it its settings. With a fork
        server it is a copy, of the code that has.
        """
        assert threading.current_thread() is threading.main_thread(), "pdeathsig follows the thread"
        ours, theirs = socket.socketpair()
        with theirs:
            fds = [theirs.fileno(), *pass_fds]
            pid = forks.fork(name, target, fds) if forks else None
            process = AdoptedProcess(pid) if pid else _start(name, target, fds, code)
        pidfd = os.pidfd_open(process.pid)
        with contextlib.suppress(OSError):
            # Shards go first when memory runs out: their loss is declared and repaired.
            tolerance = Path(f"/proc/{process.pid}/oom_score_adj")
            tolerance.write_text(str(oom_score_adj))  # noqa: ASYNC240 - procfs does not block
        pipe = await supervisor_pipe(ours)
        pipe.send(settings)
        return cls(name, process, pidfd, pipe)

    @classmethod
    async def adopt(cls, estate: ChildEstate) -> "Child":
        """Go on as the parent of what another program of this process has started. It is not
        listened to until its pipe is told to.
        """
        sock = socket.socket(fileno=estate.pipe_fd)
        pipe = await supervisor_pipe(sock, estate.unread, listens=False)
        pidfd = os.pidfd_open(estate.pid)
        return cls(estate.name, AdoptedProcess(estate.pid), pidfd, pipe)

    def estate(self) -> ChildEstate:
        """What `adopt` takes, as of now."""
        return ChildEstate(self.name, self.pid, self.pipe.fileno(), self.pipe.unread)

    @property
    def is_running(self) -> bool:
        """Whether it has not been reaped yet."""
        return not self._ended.done()

    async def wait(self, timeout_s: float | None = None) -> int:
        """Return its exit code. Raises TimeoutError when it still runs after `timeout_s`."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self._ended)

    def kill(self) -> None:
        """SIGKILL, through the pidfd: it cannot hit a stranger."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self, timeout_s: float) -> int:
        """Wait for its end, and make it one after `timeout_s`; close the pipe."""
        try:
            code = await self.wait(timeout_s)
        except TimeoutError:
            self.kill()
            code = await self.wait()
        await self.pipe.close()
        return code

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        if not self._ended.done():
            self._ended.set_result(code)


def _start(name: str, target: str, fds: Sequence[int], code: Code) -> Process:
    """A process of its own, with an interpreter of its own. The first descriptor is its pipe."""
    command = [code.python, "-P", "-m", "engine.process.birth", name, target, str(fds[0])]
    with signals.held_back():
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            process_group=0,
            env=code.environment(),
        )


def describe_exit(code: int) -> str:
    """An exit code in words: `killed by SIGKILL`, `exit code 40: an unhandled exception`."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    text = _CODE_TEXT.get(code)
    return f"exit code {code}: {text}" if text else f"exit code {code}"
