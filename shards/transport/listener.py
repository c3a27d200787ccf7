"""What comes on a socket, frame by frame: the hot path starts here.

What the library lets through although RFC 6455 forbids it ends the socket here: reserved bits
without an extension that gives them a meaning (5.2), and frames of a message in wrong order (5.4).
A text that is no UTF-8 does not: it is one bad item among good ones.
"""

from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSProtocolError, WSTransport

from engine.base.clock import monotonic_s, wall_ns
from shards.feeds.feed import MalformedFrameError
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.kit import FrameDecoder

MAX_FRAME_BYTES: Final = 16 << 20

_UNSENT_BYTES_MAX: Final = 64 << 10

_TEXT = WSMsgType.TEXT


class Hearer(Protocol):
    """Whose socket it is."""

    last_frame_s: float

    def bad_frames(self, error: Exception, payload: bytes) -> None:
        """A message could not be used."""


class FrameListener(WSListener):
    """The frame callback of one socket."""

    def __init__(
        self, connection: Hearer, decode: FrameDecoder, publish: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._decode = self._decode_whole = decode
        self._publish = publish
        self._fragments = bytearray()
        self._fragmented: WSMsgType | None = None
        """What the message is whose end has not come."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Decode one frame into the ring; publish once per read of the socket."""
        if frame.fin and frame.msg_type is _TEXT and not (frame.rsv1 or frame.rsv2 or frame.rsv3):
            payload = frame.get_payload_as_bytes()
            try:
                self._decode(payload, wall_ns())
            except BAD_FRAME as error:
                self._connection.bad_frames(error, payload)
        else:
            self._on_rare_frame(transport, frame)
        if frame.last_in_buffer:
            connection = self._connection
            connection.last_frame_s = monotonic_s()
            self._publish()

    def is_user_specific_pong(self, frame: WSFrame) -> bool:
        """A pong is taken by the library: publish what came before it in the same read."""
        self._connection.last_frame_s = monotonic_s()
        self._publish()
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
        if len(self._fragments) > MAX_FRAME_BYTES:
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
            self._connection.bad_frames(error, payload)

    def _interrupt(self, _payload: bytes, _ts_recv: int) -> None:
        self._break_off("a message (TEXT) begins within another one")

    def _break_off(self, why: str, code: WSCloseCode = WSCloseCode.PROTOCOL_ERROR) -> NoReturn:
        """Fail the connection. What else comes on it is in doubt and ignored."""
        self._decode = self._decode_whole = _ignore
        self._fragmented = None
        self._fragments.clear()
        raise WSProtocolError(code, why)


def _ignore(_payload: bytes, _ts_recv: int) -> None:
    return
