"""Notices that the database owes an answer, and asks what it is doing instead.

Between the moment an answer is late and the moment the connection is given up for it, nothing has
failed yet; but nothing is stored either, and whoever looks is to see that, and why.
"""

import asyncio
import logging
from typing import Final

from engine.base.clock import monotonic_s
from engine.database.session import AsyncSession, why_it_waits

_log = logging.getLogger(__name__)

_LATE_AFTER_S: Final = 10.0
_LOOK_EVERY_S: Final = 1.0


class Overdue:
    """Watches one session at a time. `text` says why its answer is late, and is empty else."""

    def __init__(self, database_url: str, sink: str = "database") -> None:
        self._url = database_url
        self._sink = sink
        self._task: asyncio.Task[None] | None = None
        self.text = ""

    def watch(self, connection: AsyncSession) -> None:
        """Look after this session from now on."""
        self.end()
        self._task = asyncio.create_task(self._watch(connection), name="overdue")

    def end(self) -> None:
        """The session is gone."""
        self.text = ""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self, connection: AsyncSession) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            since_s = connection.waits_since_s
            if since_s is None or monotonic_s() - since_s < _LATE_AFTER_S:
                self._answered()
                continue
            why = await why_it_waits(self._url, connection.seen.backend_pid)
            if connection.waits_since_s == since_s:
                self._late(monotonic_s() - since_s, why)

    def _late(self, seconds: float, why: str) -> None:
        if not self.text:
            _log.warning("%s: no answer for %.0f s; %s; rows wait", self._sink, seconds, why)
        self.text = f"no answer for {seconds:.0f} s; {why}"

    def _answered(self) -> None:
        if self.text:
            _log.info("%s: it answers again", self._sink)
        self.text = ""
