"""Signals that end a process by default, and by which nobody means to end an engine.

A terminal that is closed, a rotation of logs, a habit from servers that read their configuration
again: each sends one of these, and data would be lost for it. SIGTERM and SIGINT drain and stop;
SIGQUIT (Ctrl-\\ in a terminal) ends at once, as SIGKILL does: the next start goes on from there;
SIGPIPE is ignored by Python itself.
"""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

_IGNORED: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_log = logging.getLogger(__name__)


def ignore_what_is_not_meant() -> None:
    """Go on, with a word. A signal that is ignored already (`nohup`) stays so, without one."""
    for number in _IGNORED:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _say)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)


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


def _say(number: int, frame: FrameType | None) -> None:
    del frame
    advice = "the configuration is read at the start; " if number == signal.SIGHUP else ""
    _log.warning(f"{signal.Signals(number).name} ignored: {advice}SIGTERM drains and stops")
