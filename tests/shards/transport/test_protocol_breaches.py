"""Frames that RFC 6455 forbids: the socket ends with the reason, the stream declares, and comes
back. Bytes on a real socket, which no well-behaved library would send.
"""

from pathlib import Path

import pytest
import uvloop

from engine.data.flags import GapReason
from engine.messages.streams import StreamState
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    agg_trade,
    frame,
    running,
)

_TRADE = agg_trade("BTCUSDT", 2)

BREACHES = {
    "RSV1": frame(TEXT, _TRADE, rsv=4),
    "RSV2": frame(TEXT, _TRADE, rsv=2),
    "RSV3": frame(TEXT, _TRADE, rsv=1),
    "RSV1 of nonsense": frame(TEXT, b"\x78\x9c\x00", rsv=4),
    "RSV of a ping": frame(PING, b"x", rsv=1),
    "RSV of a close": frame(CLOSE, b"\x03\xe8", rsv=4),
    "RSV of a fragment": frame(TEXT, _TRADE[:9], fin=False) + frame(0, _TRADE[9:], rsv=4),
    "masked": frame(TEXT, _TRADE, masked=True),
    "unknown data opcode": frame(3, _TRADE),
    "unknown control opcode": frame(11, b""),
    "continuation of nothing": frame(0, _TRADE),
    "first fragment twice": frame(TEXT, _TRADE[:9], fin=False) + frame(TEXT, b"x", fin=False),
    "text within a message": frame(TEXT, b"{", fin=False) + frame(TEXT, _TRADE),
    "binary within a message": frame(TEXT, b"{", fin=False) + frame(BINARY, b"x"),
    "text within a binary message": frame(BINARY, b"{", fin=False) + frame(TEXT, _TRADE),
    "fragmented ping": frame(PING, b"x", fin=False),
    "fragmented close": frame(CLOSE, b"\x03\xe8", fin=False),
    "ping of 126 bytes": frame(PING, b"x" * 126),
    "close of one byte": frame(CLOSE, b"\x03"),
    "close without UTF-8": frame(CLOSE, b"\x03\xe8\xff\xfe"),
    "close with a code that must not be sent": frame(CLOSE, b"\x03\xe7"),
    "length that is too long for its value": b"\x81\x7e\x00\x05hello",
    "length with its highest bit": b"\x81\x7f" + b"\xff" * 8,
    "a frame larger than any": b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00",
}


@pytest.mark.fault("N12")
@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES.keys())
def test_a_breach_ends_the_socket_and_what_is_missing_is_declared(
    tmp_path: Path, breach: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            (stream,) = rig.session.streams
            first = await rig.fake.socket()
            first.raw(frame(TEXT, agg_trade("BTCUSDT", 1)) + breach)
            first.send(agg_trade("BTCUSDT", 3))
            await rig.until(lambda: stream.state is StreamState.BACKOFF)
            assert "the venue broke the WebSocket protocol (RFC 6455): " in stream.reason
            await rig.until(first.ended.is_set, within_s=2)
            assert CLOSE in {opcode for opcode, _ in list(first.received._queue)}  # type: ignore[attr-defined]
            second = await rig.fake.socket()
            second.send(agg_trade("BTCUSDT", 4))
            await rig.until(lambda: len(rig.double.rows("trade")) == 2)
            assert rig.double.rows("trade")["trade_id"].tolist() == [1, 4]
            (gap,) = rig.double.rows("gap")
            assert (gap["from_seq"], gap["to_seq"]) == (2, 3)
            assert gap["reason"] == GapReason.RECONNECT

    uvloop.run(body())
    assert caplog.text.count("broke the WebSocket protocol") == 1


@pytest.mark.fault("N12")
def test_what_the_protocol_allows_is_no_breach(tmp_path: Path) -> None:
    """Control frames between fragments, empty fragments, unasked pongs, binary in pieces."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            socket = await rig.fake.socket()
            text = agg_trade("BTCUSDT", 1)
            for piece in (
                frame(TEXT, text[:5], fin=False), frame(PING, b"a"), frame(0, b"", fin=False),
                frame(PONG, b"b"), frame(0, text[5:]),
                frame(BINARY, b"x", fin=False), frame(0, b"y"), frame(BINARY, b""),
                frame(TEXT, b"\xff\xfe"), frame(TEXT, agg_trade("BTCUSDT", 2)),
            ):  # fmt: skip
                socket.raw(piece)
            await rig.until(lambda: len(rig.double.rows("trade")) == 2)
            assert rig.session.malformed_by_reason == {"binary": 2, "json": 1}
            assert rig.fake.handshake_count == 1
            assert (PONG, b"a") in list(socket.received._queue)  # type: ignore[attr-defined]

    uvloop.run(body())


def test_what_one_read_brings_was_received_at_one_time(tmp_path: Path) -> None:
    """Whatever the last frame of a read is, the next one has a time of its own."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            socket = await rig.fake.socket()
            last: tuple[bytes, ...] = (frame(PONG, b"a"), frame(TEXT, b"{}"), b"")
            for read, end in enumerate(last):
                trades = (agg_trade("BTCUSDT", 2 * read + each) for each in (1, 2))
                socket.raw(b"".join(frame(TEXT, each) for each in trades) + end)
                await rig.until(lambda count=2 * read + 2: len(rig.double.rows("trade")) == count)
            first, second = rig.double.rows("trade")["ts_recv"].reshape(3, 2).T
            assert (first == second).all()
            assert (first[1:] > first[:-1]).all()

    uvloop.run(body())


@pytest.mark.fault("N12")
def test_a_venue_that_pings_and_does_not_read_fills_no_memory(tmp_path: Path) -> None:
    """What is not read of the answers stays here; the rows go on, and so do answers later."""

    async def body() -> None:
        async with running(tmp_path) as rig:
            rig.session.start([spec_of()])
            socket = await rig.fake.socket()
            (connection,) = rig.session.connections
            await rig.until(lambda: connection.is_connected)
            assert connection._socket is not None
            transport = connection._socket.transport
            assert transport is not None
            unsent = transport.underlying_transport.get_write_buffer_size
            socket.pause()
            for _ in range(100):
                socket.raw(frame(PING, b"x" * 125) * 1000)
                await socket.writer.drain()
            socket.send(agg_trade("BTCUSDT", 1))
            await rig.until(lambda: len(rig.double.rows("trade")) == 1)
            assert unsent() < 1 << 20
            socket.resume()
            await rig.until(lambda: unsent() == 0)
            socket.raw(frame(PING, b"once more"))
            await rig.until(lambda: (PONG, b"once more") in list(socket.received._queue))  # type: ignore[attr-defined]
            assert rig.fake.handshake_count == 1

    uvloop.run(body())
