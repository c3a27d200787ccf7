"""Wait for a wake-up or a time-out, cheaply.

`asyncio.wait_for(event.wait(), t)` makes a task per call (30 µs on CPython 3.11); a loop that wakes
a thousand times a second feels that. This is one future and one timer.
"""

import asyncio


class Alarm:
    """One waiter, any number of ringers on the same event loop. A ring before the wait counts."""

    def __init__(self) -> None:
        self._rung = False
        self._future: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the waiter, now or at its next wait."""
        self._rung = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Return True when rung, False after `timeout_s` seconds; either way start afresh."""
        if not self._rung and (timeout_s is None or timeout_s > 0):
            loop = asyncio.get_running_loop()
            self._future = loop.create_future()
            timer = loop.call_later(timeout_s, _expire, self._future) if timeout_s else None
            try:
                await self._future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        rung, self._rung = self._rung, False
        return rung


def _expire(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
