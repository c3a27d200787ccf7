"""Sends trades to one WebSocket client, on schedule whatever the client does with them:

    python -m bench.peers.sender --count 20000 --rate 10000

Its first line is the port. It is the same for everybody who is measured, and its CPU time is
nobody's. Frames are made beforehand, and what is due goes out together, every 2 ms.
"""

import argparse
import asyncio
import base64
import hashlib
import sys
import time
from typing import Final

from bench.peers.frames import trade

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""
_TICK_S: Final = 0.002
_TEXT: Final = b"\x81"


def as_frame(payload: bytes) -> bytes:
    """A text message of a server, of 126 to 65,535 bytes (RFC 6455, 5.2)."""
    assert 126 <= len(payload) < 1 << 16
    return _TEXT + b"\x7e" + len(payload).to_bytes(2, "big") + payload


async def serve(count: int, rate: float) -> None:
    """Send `count` trades to the first that comes, `rate` a second; end when it hangs up."""
    frames = [as_frame(trade(number)) for number in range(1, count + 1)]
    is_over = asyncio.Event()

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(_accepting(request))
        await _send(writer, frames, rate)
        await reader.read()
        writer.close()
        is_over.set()

    server = await asyncio.start_server(on_client, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await is_over.wait()


async def _send(writer: asyncio.StreamWriter, frames: list[bytes], rate: float) -> None:
    began_s, sent = time.perf_counter(), 0
    while sent < len(frames):
        due = min(int((time.perf_counter() - began_s) * rate) + 1, len(frames))
        writer.write(b"".join(frames[sent:due]))
        sent = due
        await asyncio.sleep(_TICK_S)
    await writer.drain()


def _accepting(request: bytes) -> bytes:
    lines = dict(line.partition(b":")[::2] for line in request.split(b"\r\n"))
    key = next(value.strip() for name, value in lines.items() if name.lower() == _KEY)
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


_KEY: Final = b"sec-websocket-key"


def main(arguments: list[str]) -> None:
    """Serve one client."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.count, options.rate))


if __name__ == "__main__":
    main(sys.argv[1:])
