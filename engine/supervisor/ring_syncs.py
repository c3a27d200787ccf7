"""Has the writer journal what a dead shard left in its rings, before the next one takes them over.

The writer may die meanwhile: its successor is asked again.
"""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Final

from engine.messages.writer import RingsSynced, SyncRings
from engine.process.child_keeper import ChildKeeper

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 15.0


class RingSyncs:
    """The requests that wait for the writer's answer."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bool]] = {}

    async def sync(self, writer: ChildKeeper, rings: Sequence[str], whose: str) -> None:
        """Return when everything in `rings` is in the journal."""
        synced = False
        while not synced:
            await writer.ready.wait()
            request_id = next(self._ids)
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting[request_id] = future
            writer.send(SyncRings(request_id, list(rings)))
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    synced = await future
            except TimeoutError:
                _log.warning(f"writer has not synced the rings of {whose} yet: asked again")
            finally:
                self._waiting.pop(request_id, None)

    def answered(self, message: RingsSynced) -> None:
        """The writer is done."""
        self._resolve(self._waiting.pop(message.request_id, None), synced=True)

    def writer_ended(self) -> None:
        """Nobody will answer what was asked."""
        for future in self._waiting.values():
            self._resolve(future, synced=False)
        self._waiting.clear()

    def _resolve(self, future: "asyncio.Future[bool] | None", *, synced: bool) -> None:
        if future is not None and not future.done():
            future.set_result(synced)
