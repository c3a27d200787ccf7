"""Server-sent events with a bound: a viewer that does not read is dropped, not waited for.

The source runs at its own pace into an outbox; a second task moves the outbox to the socket. When
more than `limit_bytes` wait there the response ends unfinished and the server closes the socket.
The last bytes of such a socket would keep it open for ever, did the kernel not give up on a peer
that takes nothing (`control.cli.service.bind`).
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

_log = logging.getLogger(__name__)

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-accel-buffering", b"no"),
)
KEEP_ALIVE: Final = b": still here\n\n"

Frames = AsyncGenerator[bytes, None]

_encode = msgspec.json.Encoder().encode


def event_frame(name: str, body: object) -> bytes:
    """One event. JSON has no bare newlines, so it is always one `data` line."""
    return b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), _encode(body))


class EventStream:
    """An ASGI response that sends what `frames` yields until either side ends it."""

    def __init__(self, frames: Frames, limit_bytes: int) -> None:
        self._frames = frames
        self._limit_bytes = limit_bytes
        self._outbox: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._has_frames = asyncio.Event()
        self._is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one viewer."""
        tasks = [
            asyncio.create_task(self._fill(scope), name="sse-fill"),
            asyncio.create_task(self._deliver(send), name="sse-deliver"),
            asyncio.create_task(_gone(receive), name="sse-gone"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._is_over:
                await asyncio.wait(tasks[1:], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._frames.aclose()

    async def _fill(self, scope: Scope) -> None:
        async for frame in self._frames:
            self._outbox.append(frame)
            self._waiting_bytes += len(frame)
            self._has_frames.set()
            if self._waiting_bytes > self._limit_bytes:
                unread = self._waiting_bytes
                _log.warning(f"dropped a viewer of {scope['path']}: {unread} bytes were not read")
                return
        self._is_over = True
        self._has_frames.set()

    async def _deliver(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        while True:
            await self._has_frames.wait()
            self._has_frames.clear()
            while self._outbox:
                frame = self._outbox[0]
                # OSError: the peer went while we were writing; `_gone` hears of it as well.
                with contextlib.suppress(OSError):
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
                self._outbox.popleft()
                self._waiting_bytes -= len(frame)
            if self._is_over:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
