"""A listener beside the engine: while it listens, the simulator's ledger holds what nobody else
heard, too.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping

import aiohttp

from engine.data.names import StreamKey, Transport
from engine.messages.settings import VenueSettings
from shards.venues import VENUES
from shards.venues.kit import Channel

_Topics = dict[tuple[str, str], list[str]]
"""By venue and path of the socket."""


class Observer:
    """Subscribes every pushed stream, and forgets what it hears."""

    def __init__(self, venues: Mapping[str, VenueSettings], streams: Iterable[StreamKey]) -> None:
        self._venues = venues
        self._topics: _Topics = {}
        for key in streams:
            channel = VENUES[key.venue].channels[key.kind, key.transport]
            if key.transport is Transport.WS and isinstance(channel, Channel):
                path = VENUES[key.venue].groups[channel.group].path
                topic = channel.topic(key.symbol, VenueSettings())
                self._topics.setdefault((key.venue, path), []).append(topic)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._listen())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _listen(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for (venue, path), topics in self._topics.items():
                tasks.create_task(self._follow(session, venue, path, topics))

    async def _follow(
        self, session: aiohttp.ClientSession, venue: str, path: str, topics: list[str]
    ) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                url = f"{self._venues[venue].ws_url}{path}"
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    for frame in VENUES[venue].subscribe(topics, 1):
                        await socket.send_str(frame.decode())
                    async for _ in socket:
                        pass
            await asyncio.sleep(0.05)
