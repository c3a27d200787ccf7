"""The network between engine and venues: a relay that passes bytes on, slows them, or refuses.

It is a thread of this process, so it dies with it. Each connection of the engine has one of its own
to the simulator, and what is cut here is lost on the way, as it is on a real one: the simulator has
sent it.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable
from typing import Any, Final

_CHUNK_BYTES: Final = 64 << 10
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class Relay:
    """Listens on a free port of 127.0.0.1 (`port`), and passes on to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self.refuses = False
        """New connections get a 503."""
        self.bytes_per_s = 0
        """What a connection passes on from a venue; 0: all there is."""
        self._server = self._wait(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> int:
        """Reset all connections; how many."""

        async def abort() -> int:
            for writer in (writers := list(self._writers)):
                writer.transport.abort()
            return len(writers) // 2

        return int(self._wait(abort()))

    def close(self) -> None:
        """End it."""
        self._server.close()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _wait(self, doing: Awaitable[Any]) -> Any:
        async def do() -> Any:
            return await doing

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(30)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self.refuses:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_REFUSAL)
                await writer.drain()
            else:
                there = await asyncio.open_connection("127.0.0.1", self._target_port)
                self._writers |= {writer, there[1]}
                try:
                    await asyncio.gather(
                        self._pass(reader, there[1]), self._pass(there[0], writer, slowly=True)
                    )
                finally:
                    self._writers -= {writer, there[1]}
                    there[1].close()
        writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
                if slowly and self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
        writer.close()
