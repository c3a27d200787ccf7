"""One child process as its parent sees it: pid, pidfd, pipe, and how it ended.

The only place of the engine that starts processes. Liveness comes from the pidfd, never from
`kill(pid, 0)`, which calls a zombie alive and may ask about a stranger who got the same pid.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

import engine
from engine.base import signals
from engine.messages.pipes import FromChild
from engine.process.birth import ExitCode
from engine.process.pipe import Pipe, supervisor_pipe

_CODE_TEXT: dict[int, str] = {
    ExitCode.FAULT: "an unhandled exception (see the log)",
    ExitCode.REFUSED: "it refused to go on (see the log)",
    ExitCode.NOT_BORN: "it never got its settings",
}
_ROOT = str(Path(engine.__file__).parents[1])


class Child:
    """A running child. `wait` returns its exit code: negative means a signal."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", pidfd: int, pipe: Pipe[FromChild]
    ) -> None:
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
    ) -> "Child":
        """Start `target` (`module:function`) and hand it its settings."""
        assert threading.current_thread() is threading.main_thread(), "pdeathsig follows the thread"
        ours, theirs = socket.socketpair()
        with theirs, signals.held_back():
            process = subprocess.Popen(  # noqa: ASYNC220 - must be the main thread, see above
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "engine.process.birth",
                    name,
                    target,
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *pass_fds],
                process_group=0,
                env=child_environment(),
            )
        pidfd = os.pidfd_open(process.pid)
        with contextlib.suppress(OSError):
            # Shards go first when memory runs out: their loss is declared and repaired.
            tolerance = Path(f"/proc/{process.pid}/oom_score_adj")
            tolerance.write_text(str(oom_score_adj))  # noqa: ASYNC240 - procfs does not block
        pipe = await supervisor_pipe(ours)
        pipe.send(settings)
        return cls(name, process, pidfd, pipe)

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


def child_environment() -> dict[str, str]:
    """The parent's environment, with the parent's own code first: one version in all processes."""
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{_ROOT}{os.pathsep}{inherited}" if inherited else _ROOT}


def describe_exit(code: int) -> str:
    """An exit code in words: `killed by SIGKILL`, `exit code 40: an unhandled exception`."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    text = _CODE_TEXT.get(code)
    return f"exit code {code}: {text}" if text else f"exit code {code}"
