"""The journal's fdatasync: every interval, off the loop.

A disk that fails is not asked again for the same pages: after a failure they may be gone, so what
follows goes into a new segment.
"""

import asyncio
import logging

from engine.base.backoff import Backoff
from engine.base.keep_trying import Trouble
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)


async def keep_synced(sources: Sources, interval_s: float) -> None:
    """Sync what was appended, for ever."""
    trouble = Trouble(
        "journal",
        "what it holds may not survive a power cut",
        Backoff(interval_s, interval_s),
        _log,
    )
    while True:
        await asyncio.sleep(interval_s)
        for source in sources:
            unsynced = source.journal.take_unsynced()
            if unsynced is None:
                continue
            try:
                await asyncio.to_thread(unsynced.sync)
            except OSError as error:
                trouble.met(f"{source.name}: fdatasync: {error.strerror}")
                source.journal.retire_segment()
            else:
                trouble.over()
