"""Birth of a child process: `python -m engine.process.birth <name> <module:function> <fd>`.

The child learns everything from its pipe: the first frame is its settings, of the type that the
target's `settings` parameter is annotated with. Then it starts logging, claims its metrics, pins
itself and runs `async def run(settings, pipe) -> int` on uvloop; what that returns is its exit
code.

Invariants
- A child never outlives its parent: end of file on the pipe tells it to leave, and the kernel
  kills it should it not listen (PR_SET_PDEATHSIG). That signal fires when the *thread* that
  started the child ends, so children are started by the main thread alone.
- Only the supervisor decides when a child leaves. A terminal's Ctrl-C reaches every process of the
  group, so children ignore it and wait for `Drain`.
"""

import asyncio
import enum
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import typing
from collections.abc import Awaitable, Callable

import uvloop

from engine.base import signals
from engine.base.errors import EngineError
from engine.messages.pipes import Ready, ToChild
from engine.messages.settings import Paths
from engine.process import logs, metric_files
from engine.process.pipe import Pipe, child_pipe
from engine.process.release import release

Target = Callable[[typing.Any, "Pipe[ToChild]"], Awaitable[int]]

_BIRTH_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class ExitCode(enum.IntEnum):
    """How a child ended. Other codes come from the interpreter itself."""

    OK = 0
    FAULT = 40
    """An exception nobody handled; the log has it."""
    REFUSED = 41
    """An EngineError: the child says what is wrong and trying again at once will not help."""
    NOT_BORN = 42
    """The settings never arrived or were not for this target."""


def load_target(name: str) -> Target:
    """Import `module:function`. What is imported lives for ever: the garbage collector, which would
    walk it again and again, waits until then.
    """
    module, _, function = name.partition(":")
    gc.disable()
    try:
        target = getattr(importlib.import_module(module), function)
    finally:
        gc.enable()
    assert callable(target), name
    return typing.cast("Target", target)


def settings_type(target: Target) -> type[typing.Any]:
    """The type its `settings` parameter is annotated with."""
    return typing.cast("type[typing.Any]", typing.get_type_hints(target)["settings"])


def main(arguments: list[str]) -> int:
    """Run the target named on the command line; return its exit code."""
    name, target_name, fd = arguments
    _leave_signals_to_the_supervisor()
    signals.death_with_parent(signal.SIGKILL)()
    sock = socket.socket(fileno=int(fd))
    sock.set_inheritable(False)
    target = load_target(target_name)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_live(name, target, sock))
    except EngineError as error:
        _log.error(f"stopped: {error}")
        return ExitCode.REFUSED
    except Exception:  # noqa: BLE001 - the last line of defence of the process
        _log.exception("stopped by a fault")
        return ExitCode.FAULT


def ready(port: int = 0) -> Ready:
    """What a child says when it has set up."""
    return Ready(port, release())


async def _live(name: str, target: Target, sock: socket.socket) -> int:
    pipe = await child_pipe(sock)
    try:
        try:
            async with asyncio.timeout(_BIRTH_TIMEOUT_S):
                settings = await pipe.receive_settings(settings_type(target))
        except (EngineError, TimeoutError) as error:
            sys.stderr.write(f"{name}: not started: {str(error) or 'no settings in time'}\n")
            return ExitCode.NOT_BORN
        logs.set_up(settings.log, name)
        paths: Paths | None = getattr(settings, "paths", None)
        if paths is not None:
            metric_files.claim(paths.layout(), name)
        _pin(getattr(settings, "cpu", None))
        return await target(settings, pipe)
    finally:
        await pipe.close()


def _leave_signals_to_the_supervisor() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signals.ignore_what_is_not_meant()


def _pin(cpu: int | None) -> None:
    if cpu is None:
        return
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        _log.warning(f"cannot pin to CPU {cpu}: {error.strerror}; running unpinned")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
