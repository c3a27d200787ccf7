"""One life of a WebSocket: it opens, brings frames, is answered, and ends with some words.

What comes on it is decoded frame by frame: the hot path starts here. It knows no streams.

What the library lets through although RFC 6455 forbids it ends the socket here: reserved bits
without an extension that gives them a meaning (5.2), and frames of a message in wrong order (5.4).
A text that is no UTF-8 does not: it is one bad item among good ones.
"""

import asyncio
import logging
import socket as sockets
from collections.abc import Callable
from typing import Final, NamedTuple, NoReturn, Protocol

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from engine.base.clock import monotonic_s, wall_ns
from shards.feeds.feed import MalformedFrameError
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.kit import FrameDecoder, SocketGroup

_library_log = logging.getLogger("picows.venues")
_library_log.setLevel(logging.CRITICAL)  # why a socket ended is told, and folded, by its owner

CANNOT_CONNECT: Final = (WSError, OSError, TimeoutError)
"""What `connect` raises where no socket can be had."""

_CONNECT_TIMEOUT_S: Final = 10.0
"""Name, connection and TLS, until the handshake is sent; none of them has a limit of its own."""
_HANDSHAKE_TIMEOUT_S: Final = 5.0
_CLOSING_S_MAX: Final = 0.5
"""A venue that does not answer a close, or its end of TLS, is cut off."""
_READ_BUFFER_BYTES: Final = 256 << 10
_MAX_FRAME_BYTES: Final = 16 << 20
_UNSENT_BYTES_MAX: Final = 64 << 10
_TCP_CLOSE: Final = 7
"""State of a socket that was reset (`TCP_CLOSE` of Linux)."""
_LEFT_ROUNDS: Final = 256
"""Reads of what a reset socket has left: more than the kernel keeps."""

_TEXT = WSMsgType.TEXT


class LastWords(NamedTuple):
    """Why a socket ended: what the venue said (`is_said`), or we."""

    text: str
    is_said: bool = False
    is_breach: bool = False
    """Whether it broke the rules of the protocol."""


class Owner(Protocol):
    """Whose socket it is."""

    def opened(self, socket: "Socket") -> FrameDecoder:
        """It is open, and nothing has come. Returns what reads its frames."""

    def bad_frame(self, error: Exception, payload: bytes) -> None:
        """A message could not be used."""


class Socket(WSListener):
    """One socket; the frame callback is the hot path. It has a `transport` once it was opened."""

    transport: WSTransport
    _closed: "asyncio.Future[None]"

    def __init__(self, owner: Owner, publish: Callable[[], None]) -> None:
        self._owner = owner
        self._publish = publish
        self._decode: FrameDecoder = _ignore
        self._decode_whole: FrameDecoder = _ignore
        self._fragments = bytearray()
        self._fragmented: WSMsgType | None = None
        """What the message is whose end has not come."""
        self._read_ns = 0
        """When the read began whose frames are being decoded; 0 between two."""
        self.is_open = False
        self.opened_s = self.last_frame_s = 0.0
        """When it was opened, and when it brought something last (monotonic)."""
        self._listened_s = 0.0
        """From when on its silence counts, if that is later."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Before any frame, so that none comes for streams that are not told of the socket yet."""
        self.transport = transport
        self.is_open = True
        self.opened_s = self.last_frame_s = monotonic_s()
        self._closed = asyncio.ensure_future(transport.wait_disconnected())
        self._decode = self._decode_whole = self._owner.opened(self)

    def send(self, frame: bytes) -> None:
        """Send one text message."""
        self.transport.send(_TEXT, frame)

    @property
    def goes_on(self) -> bool:
        """Whether neither end has closed it."""
        return not self._closed.done() and self.transport.close_handshake is None

    @property
    def idle_s(self) -> float:
        """For how long it was listened to and brought nothing."""
        return monotonic_s() - max(self.last_frame_s, self._listened_s)

    async def wait(self, timeout_s: float, *work: "asyncio.Future[None]") -> None:
        """Return when it ends, any of `work` is done, or time is up. What the process overslept
        meanwhile was no silence: nobody listened.
        """
        awaited, began_s = [self._closed, *work], monotonic_s()
        await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        overslept_s = max(monotonic_s() - began_s - timeout_s, 0.0)
        self._listened_s = max(self._listened_s, self.last_frame_s) + overslept_s
        await self._end_if_reset()

    async def _end_if_reset(self) -> None:
        """Read what a reset socket has left, and find its end. An event loop of libuv calls a
        reader once for a reset, and never again (`uv__poll_io`): that call reads data where some is
        waiting. To begin to read anew is one more call.
        """
        stream = self.transport.underlying_transport
        for _ in range(_LEFT_ROUNDS):
            if stream.is_closing() or not _is_reset(stream.get_extra_info("socket")):
                return
            stream.pause_reading()
            stream.resume_reading()
            await asyncio.sleep(0)

    async def last_words(self) -> LastWords:
        """Why it ended."""
        await self.wait(_CLOSING_S_MAX)
        error = self._closed.exception() if self._closed.done() else None
        if isinstance(error, WSProtocolError):
            breach = f"the venue broke the WebSocket protocol (RFC 6455): {error}"
            return LastWords(breach, is_breach=True)
        if error is not None:
            return LastWords(f"disconnected: {error}")
        handshake = self.transport.close_handshake
        if handshake is None or handshake.recv is None:
            return LastWords("disconnected")
        said = f"closed by the venue: {handshake.recv.code} {handshake.recv.reason}"
        return LastWords(said, is_said=True)

    async def end(self) -> None:
        """Let go of it, whatever the venue thinks."""
        self.is_open = False
        self._closed.cancel()
        await asyncio.gather(self._closed, return_exceptions=True)
        self.transport.disconnect(graceful=False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Decode one frame into the ring; publish once per read of the socket. What one read has
        brought was received at one time.
        """
        if frame.fin and frame.msg_type is _TEXT and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            payload = frame.get_payload_as_bytes()
            ts_recv = self._read_ns
            if not ts_recv:
                ts_recv = self._read_ns = wall_ns()
            try:
                self._decode(payload, ts_recv)
            except BAD_FRAME as error:
                self._owner.bad_frame(error, payload)
        else:
            self._on_rare_frame(transport, frame)
        if frame.last_in_buffer:
            self._end_read()

    def _end_read(self) -> None:
        self._read_ns = 0
        self.last_frame_s = monotonic_s()
        self._publish()

    def is_user_specific_pong(self, frame: WSFrame) -> bool:
        """A pong is taken by the library: publish what came before it in the same read."""
        self._end_read()
        return frame.msg_type is WSMsgType.PONG

    def _on_rare_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._break_off(f"reserved bits are set in a frame of type {kind.name}")
        elif kind is WSMsgType.PING:
            self._answer(transport, frame)
        elif kind is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif kind is WSMsgType.CONTINUATION:
            self._on_fragment(frame)
        elif kind is not WSMsgType.PONG:
            self._on_first_fragment(frame)

    @staticmethod
    def _answer(transport: WSTransport, ping: WSFrame) -> None:
        """A venue that pings and does not read must not fill our memory with answers; of pings
        that have come meanwhile the last one is answered (RFC 6455, 5.5.3), or a later one.
        """
        unsent = transport.underlying_transport.get_write_buffer_size()
        if unsent <= _UNSENT_BYTES_MAX:
            transport.send_pong(ping.get_payload_as_bytes())

    def _on_first_fragment(self, frame: WSFrame) -> None:
        """The beginning of a message, or a whole one that is no text."""
        if self._fragmented is not None:
            self._break_off(f"a message ({frame.msg_type.name}) begins within another one")
        self._fragmented = frame.msg_type
        self._decode = self._interrupt
        self._on_fragment(frame)

    def _on_fragment(self, frame: WSFrame) -> None:
        if self._fragmented is None:
            self._break_off("a continuation without a message")
        self._fragments += frame.get_payload_as_bytes()
        if len(self._fragments) > _MAX_FRAME_BYTES:
            self._break_off("a message is too large", WSCloseCode.MESSAGE_TOO_BIG)
        if not frame.fin:
            return
        payload, kind = bytes(self._fragments), self._fragmented
        self._fragments.clear()
        self._fragmented, self._decode = None, self._decode_whole
        try:
            if kind is not WSMsgType.TEXT:
                raise MalformedFrameError("binary")
            self._decode(payload, wall_ns())
        except BAD_FRAME as error:
            self._owner.bad_frame(error, payload)

    def _interrupt(self, _payload: bytes, _ts_recv: int) -> None:
        self._break_off("a message (TEXT) begins within another one")

    def _break_off(self, why: str, code: WSCloseCode = WSCloseCode.PROTOCOL_ERROR) -> NoReturn:
        """Fail the connection. What else comes on it is in doubt and ignored."""
        self._decode = self._decode_whole = _ignore
        self._fragmented = None
        self._fragments.clear()
        raise WSProtocolError(code, why)


async def connect(
    url: str, group: SocketGroup, owner: Owner, publish: Callable[[], None]
) -> Socket:
    """Open a socket; raises `CANNOT_CONNECT`. Who gives up, or is not waited for any more, leaves
    none behind: one that opened later would be nobody's, and the venue would count it.
    """
    socket = Socket(owner, publish)
    is_over = False

    def listener() -> Socket:
        if is_over:
            raise WSError("nobody waits for this socket any more")
        return socket

    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            await ws_connect(
                listener,
                url,
                websocket_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
                logger_name=_library_log,
                disconnect_on_exception=True,
                enable_auto_ping=group.json_ping is None,
                auto_ping_idle_timeout=group.ping_interval_s,
                auto_ping_reply_timeout=min(5.0, group.ping_interval_s),
                enable_auto_pong=False,
                max_frame_size=_MAX_FRAME_BYTES,
                max_redirects=0,
                read_buffer_init_size=_READ_BUFFER_BYTES,
            )
    except BaseException:
        is_over = True
        if socket.is_open:
            await socket.end()
        raise
    return socket


def _is_reset(socket: sockets.socket) -> bool:
    return socket.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, 1)[0] == _TCP_CLOSE


def _ignore(_payload: bytes, _ts_recv: int) -> None:
    return
