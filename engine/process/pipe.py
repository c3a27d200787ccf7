"""Message pipes between the supervisor and its children: one socket pair each.

Frame: u32 little-endian length, JSON body. JSON, because a torn or foreign message must be
readable in a log. The first frame to a child is its settings. End of file means the other side is
gone, and a child then leaves.

The supervisor's end can be handed to another program (`exec`): what has come and was not taken yet
is known to the byte, and so is that nothing waits to be sent.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from engine.base.errors import EngineError
from engine.messages.pipes import FromChild, ToChild

_LENGTH = struct.Struct("<I")
_MAX_BODY_BYTES = 64 << 20
_READ_AHEAD_BYTES: Final = 1 << 20
"""Beyond so much the peer waits until a message has been taken."""

Incoming = TypeVar("Incoming")
_Settings = TypeVar("_Settings")


class _Link(asyncio.Protocol):
    """One end of a socket pair: bytes in, frames out."""

    def __init__(self, unread: bytes, *, listens: bool) -> None:
        self._listens = listens
        self.unread = bytearray(unread)
        self.is_over = False
        self._news = asyncio.Event()
        self._takes = asyncio.Event()
        self._takes.set()
        self.closed = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if not self._listens:
            self.transport.pause_reading()

    def listen(self) -> None:
        """Read from now on, if it has not begun with that."""
        self._listens = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.unread += data
        self._news.set()
        if len(self.unread) > _READ_AHEAD_BYTES and self._is_whole() and self.transport:
            self.transport.pause_reading()

    def eof_received(self) -> None:
        self.is_over = True
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.is_over = True
        for each in (self._news, self._takes, self.closed):
            each.set()

    def pause_writing(self) -> None:
        self._takes.clear()

    def resume_writing(self) -> None:
        self._takes.set()

    async def drained(self) -> None:
        """Return when the kernel has taken most of what was sent, or nobody is there."""
        await self._takes.wait()

    async def frame(self) -> bytes | None:
        """The next body; None at end of file. Raises EngineError for what is no frame."""
        while not self._is_whole():
            if self.is_over:
                return None
            self._news.clear()
            await self._news.wait()
        (size,) = _LENGTH.unpack_from(self.unread)
        if size > _MAX_BODY_BYTES:
            raise EngineError(f"a pipe message of {size} bytes: not this protocol")
        body = bytes(self.unread[_LENGTH.size : _LENGTH.size + size])
        del self.unread[: _LENGTH.size + size]
        if self._listens and len(self.unread) <= _READ_AHEAD_BYTES:
            self.listen()
        return body

    def _is_whole(self) -> bool:
        """Whether the next frame is there, or can be none."""
        if len(self.unread) < _LENGTH.size:
            return False
        (size,) = _LENGTH.unpack_from(self.unread)
        return bool(size > _MAX_BODY_BYTES) or len(self.unread) >= _LENGTH.size + size


class Pipe(Generic[Incoming]):
    """One end of a pipe. `receive` returns None at end of file."""

    def __init__(self, link: _Link, incoming: Any) -> None:
        """`incoming` is the type of what arrives."""
        assert link.transport is not None
        self._link = link
        self._transport = link.transport
        self._decode: Callable[[bytes], Incoming] = msgspec.json.Decoder(incoming).decode
        self._encoder = msgspec.json.Encoder()

    def send(self, message: msgspec.Struct) -> None:
        """Queue a message; never blocks. A dead peer shows itself as end of file in `receive`."""
        if self._transport.is_closing():
            return
        body = self._encoder.encode(message)
        self._transport.write(_LENGTH.pack(len(body)) + body)

    @property
    def unsent_bytes(self) -> int:
        """What was sent and the kernel has not taken: the peer does not read."""
        return self._transport.get_write_buffer_size()

    @property
    def unread(self) -> bytes:
        """What has come and `receive` has not returned yet."""
        return bytes(self._link.unread)

    def fileno(self) -> int:
        """Of its socket."""
        return int(self._transport.get_extra_info("socket").fileno())

    def listen(self) -> None:
        """Read from now on, where it was made not to."""
        self._link.listen()

    async def flush(self) -> None:
        """Wait until the kernel has taken what was sent, or nobody is there to read it."""
        await self._link.drained()

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
        if (body := await self._link.frame()) is None:
            return None
        try:
            return decode(body)
        except msgspec.MsgspecError as error:
            raise EngineError(f"unreadable pipe message: {error}") from error

    async def close(self) -> None:
        """Close this end; the peer then reads end of file."""
        self._transport.close()
        await self._link.closed.wait()


async def child_pipe(sock: socket.socket) -> "Pipe[ToChild]":
    """The child's end: receives commands."""
    return Pipe(await _link(sock), ToChild)


async def supervisor_pipe(
    sock: socket.socket, unread: bytes = b"", *, listens: bool = True
) -> "Pipe[FromChild]":
    """The supervisor's end: receives reports, after those that are `unread` already. One that does
    not listen yet leaves everything in the kernel.
    """
    return Pipe(await _link(sock, unread, listens=listens), FromChild)


async def _link(sock: socket.socket, unread: bytes = b"", *, listens: bool = True) -> _Link:
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: _Link(unread, listens=listens), sock=sock)
    return link
