"""Signals that end a process by default, and by which nobody means to end an engine.

A terminal that is closed, a rotation of logs, a habit from other servers: each sends one of these,
and data would be lost for it. SIGHUP has the process that reads the configuration do so again, by a
handler of its own. SIGTERM and SIGINT drain and stop; SIGQUIT (Ctrl-\\ in a terminal) ends at once,
as SIGKILL does: the next start goes on from there; SIGPIPE is ignored by Python itself.
"""

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_IGNORED: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

UNSAID: Final = (*_IGNORED, signal.SIGTERM, signal.SIGINT)
"""What waits while a program takes over from another one, and is obeyed by it."""

_log = logging.getLogger(__name__)


def ignore_what_is_not_meant() -> None:
    """Go on, with a word. A signal that is ignored already (`nohup`) stays so, without one."""
    for number in _IGNORED:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _say)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)


def obey_what_waits() -> None:
    """All handlers are there: what came meanwhile is handled now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, UNSAID)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Have them wait. A child that is started meanwhile inherits that, until it ignores them by
    itself: so it does not die of one while it is being born.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_back() -> None:
    """The same, for good: in a process that is copied, and whose copies ignore them."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _IGNORED)


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Whoever among our descendants loses its parent meanwhile is our child from then on. Only
    meanwhile: what servers leave behind when they are killed is the first process's to reap.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)


def death_with_parent(number: signal.Signals) -> Callable[[], None]:
    """A function for us, or for a child between fork and exec, to call after any change of user: it
    asks the kernel for `number` when the *thread* that started us ends. Linux only; elsewhere it
    does nothing.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl, ours = ctypes.CDLL(None).prctl, os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))
        if ours not in (os.getpid(), os.getppid()):  # the parent died between fork and prctl
            os._exit(1)

    return ask_the_kernel


def _say(number: int, frame: FrameType | None) -> None:
    del frame
    _log.warning(f"{signal.Signals(number).name} ignored: SIGTERM drains and stops")
