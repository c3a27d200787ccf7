"""Message pipes between the supervisor and its children: one socket pair each.

Frame: u32 little-endian length, JSON body. JSON, because a torn or foreign message must be
readable in a log. The first frame to a child is its settings. End of file means the other side is
gone, and a child then leaves.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from engine.base.errors import EngineError
from engine.messages.pipes import FromChild, ToChild

_LENGTH = struct.Struct("<I")
_MAX_BODY_BYTES = 64 << 20

Incoming = TypeVar("Incoming")
_Settings = TypeVar("_Settings")


class Pipe(Generic[Incoming]):
    """One end of a pipe. `receive` returns None at end of file."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        incoming: Any,
    ) -> None:
        """`incoming` is the type of what arrives."""
        self._reader = reader
        self._writer = writer
        self._decode: Callable[[bytes], Incoming] = msgspec.json.Decoder(incoming).decode
        self._encoder = msgspec.json.Encoder()

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message; never blocks. A dead peer shows itself as end of file in `receive`."""
        if self._writer.is_closing():
            return
        body = self._encoder.encode(message)
        self._writer.write(_LENGTH.pack(len(body)) + body)

    @property
    def unsent_bytes(self) -> int:
        """What was sent and the kernel has not taken: the peer does not read."""
        return self._writer.transport.get_write_buffer_size()

    async def flush(self) -> None:
        """Wait until the kernel has taken what was sent, or nobody is there to read it."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def receive(self) -> Incoming | None:
        """Return the next message, or None when the peer is gone.

        Raises EngineError for a frame no version of the protocol would send.
        """
        return await self._receive(self._decode)

    async def receive_settings(self, kind: type[_Settings]) -> _Settings:
        """Return the first frame to a child. Raises EngineError where it is none of this kind."""
        settings = await self._receive(msgspec.json.Decoder(kind).decode)
        if settings is None:
            raise EngineError("the supervisor is gone")
        return settings

    async def _receive(self, decode: Callable[[bytes], _Settings]) -> _Settings | None:
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if size > _MAX_BODY_BYTES:
                raise EngineError(f"a pipe message of {size} bytes: not this protocol")
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            return decode(body)
        except msgspec.MsgspecError as error:
            raise EngineError(f"unreadable pipe message: {error}") from error

    async def close(self) -> None:
        """Close this end; the peer then reads end of file."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


async def child_pipe(sock: socket.socket) -> "Pipe[ToChild]":
    """The child's end: receives commands."""
    reader, writer = await asyncio.open_connection(sock=sock)
    return Pipe(reader, writer, ToChild)


async def supervisor_pipe(sock: socket.socket) -> "Pipe[FromChild]":
    """The supervisor's end: receives reports."""
    reader, writer = await asyncio.open_connection(sock=sock)
    return Pipe(reader, writer, FromChild)
