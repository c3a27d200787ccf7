"""Message pipes between the supervisor and its children: one socket pair each.

Frame: u32 little-endian length, JSON body. JSON, because a torn or foreign message must be
readable in a log. End of file means the other side is gone, and a child then leaves.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Generic, TypeVar

import msgspec

from engine.base.errors import EngineError
from engine.messages.pipes import FromChild, ToChild

_LENGTH = struct.Struct("<I")
_MAX_BODY_BYTES = 64 << 20

Incoming = TypeVar("Incoming")


class Pipe(Generic[Incoming]):
    """One end of a pipe. `receive` returns None at end of file."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        decoder: "msgspec.json.Decoder[Incoming]",
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = decoder
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
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if size > _MAX_BODY_BYTES:
                raise EngineError(f"a pipe message of {size} bytes: not this protocol")
            body = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        try:
            return self._decoder.decode(body)
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
    return Pipe(reader, writer, msgspec.json.Decoder(ToChild))


async def supervisor_pipe(sock: socket.socket) -> "Pipe[FromChild]":
    """The supervisor's end: receives reports."""
    reader, writer = await asyncio.open_connection(sock=sock)
    return Pipe(reader, writer, msgspec.json.Decoder(FromChild))
