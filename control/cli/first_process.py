"""`fts` as the first process of a container, which the kernel treats like no other.

A signal that it does not handle means nothing to it, and orphans become its children, to be reaped
when they have ended. So the first process hands signals on and reaps, and ends as the `fts` below
it ends. No other init is needed.
"""

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Final

_HANDED_ON: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2
)  # fmt: skip


def split() -> None:
    """In the first process of a container this returns in a child, and only there. Everywhere else
    it does nothing. Call it before threads, files and handlers of signals are made.
    """
    if os.getpid() != 1:
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDED_ON)
    child = os.fork()
    if child:
        os._exit(_look_after(child))
    _take_the_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look_after(child: int) -> int:
    """Hand signals on and reap until `child` has ended; its exit code, as a shell tells it."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        del frame
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _HANDED_ON:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDED_ON)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _take_the_terminal() -> None:
    """Ctrl-C is for the child alone: handed on as well, it would count as the second one."""
    os.setpgid(0, 0)
    if not sys.stdin.isatty():
        return
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
    signal.signal(signal.SIGTTOU, before)
