"""Wait for a wake-up or a time-out, cheaply.

`asyncio.wait_for(event.wait(), t)` makes a task per call (30 µs on CPython 3.11); a loop that wakes
a thousand times a second feels that. This is one future, and a timer that is left alone.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Final

_CLOCK_STEP_S: Final = 0.001
"""Of an event loop: uvloop counts in milliseconds."""


class Deadline:
    """The end of waits that nearly always end sooner. To make a timer and cancel it costs as much
    as to send a command: so one stays from wait to wait, and looks when it is due what is waited
    for by then.
    """

    def __init__(self, expire: Callable[[], object]) -> None:
        self._expire = expire
        self._ends_s = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at_s = math.inf

    def begin(self, seconds: float) -> None:
        """Call `expire` that late, unless this ends before."""
        loop = asyncio.get_running_loop()
        self._ends_s = loop.time() + seconds
        if self._ends_s < self._looks_at_s or loop is not self._loop:
            self._arm(loop)

    def end(self) -> None:
        """Nothing is waited for any more."""
        self._ends_s = math.inf

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop, self._looks_at_s = loop, self._ends_s
        self._timer = loop.call_at(self._ends_s, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._looks_at_s = None, math.inf
        if self._ends_s < loop.time() + _CLOCK_STEP_S:
            self._ends_s = math.inf
            self._expire()
        elif self._ends_s < math.inf:
            self._arm(loop)


class Alarm:
    """One waiter, any number of ringers on the same event loop. A ring before the wait counts."""

    def __init__(self) -> None:
        self._rung = False
        self._future: asyncio.Future[None] | None = None
        self._deadline = Deadline(self._wake)

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait."""
        self._rung = True
        self._wake()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Return True when rung, False after `timeout_s` seconds; either way start afresh."""
        if not self._rung and (timeout_s is None or timeout_s > 0):
            self._future = asyncio.get_running_loop().create_future()
            if timeout_s is not None:
                self._deadline.begin(timeout_s)
            try:
                await self._future
            finally:
                self._future = None
                self._deadline.end()
        rung, self._rung = self._rung, False
        return rung

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
