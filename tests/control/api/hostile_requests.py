"""Requests that drip, lie and smuggle, as bytes, and the socket they go through."""

import asyncio
import contextlib
import json

CLOSE = b"\r\nConnection: close\r\n\r\n"
GOOD = b"GET /streams/count HTTP/1.1\r\nHost: localhost\r\n\r\n"
BODY = json.dumps({"exchange": "BinanceLinear", "symbol": "BTCUSDT", "kind": "Trades"}).encode()


def post(body: bytes, *lines: bytes) -> bytes:
    head = b"POST /streams HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def exchange(
    port: int, *parts: bytes, pause_s: float = 0.0, patience_s: float = 5.0
) -> bytes:
    """Send parts, return everything until the server closes; fail when it does not."""
    reader, writer = await connect(port)
    try:
        async with asyncio.timeout(patience_s):
            for part in parts:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    writer.write(part)
                    await writer.drain()
                await asyncio.sleep(pause_s)
            with contextlib.suppress(ConnectionError, RuntimeError):
                return await reader.read()
            return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, RuntimeError):
            await writer.wait_closed()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


HOSTILE = [
    GOOD, post(BODY, b"Content-Length: %d" % len(BODY)), post(b"{", b"Content-Length: 1"),
    post(b"[" * 9000, b"Content-Length: 9000"), post(b'{"a":NaN}', b"Content-Length: 9"),
    post(b"\xff\xfe", b"Content-Length: 2"), post(b"", b"Content-Length: 99999999999999999999"),
    GOOD.replace(b"localhost", b"evil.example"), b"BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /streams?limit=%s HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /streams/BinanceLinear/%27;DROP%20TABLE/Trades/Ws HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DELETE /streams HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n",
    b"GET /%0d%0aSet-Cookie:x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x00" * 100,
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x1b[2J\r\n\r\n",
]  # fmt: skip
"""Each is answered below 500, whatever the engine does meanwhile."""

DISHONEST: list[tuple[bytes, set[int]]] = [
    (post(BODY, b"Content-Length: 3", b"Transfer-Encoding: chunked"), {400}),
    (post(BODY, b"Content-Length: 3", b"Content-Length: 4"), {400}),
    (post(BODY, b"Content-Length: -1"), {400}),
    (post(BODY, b"Content-Length: 1e9"), {400}),
    (post(BODY, b"Transfer-Encoding: gzip, chunked"), {400}),
    (post(BODY, b"Transfer-Encoding : chunked"), {400}),
    (b"GET /streams\r\n\r\n", {400}),
    (b"GET /streams HTTP/9.9\r\nHost: localhost" + CLOSE, {200, 400}),
    (b"GET / HTTP/1.1\r\n\r\n", {400}),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    (b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    (b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n", {400}),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n", {400}),
    (b"GET / HTTP/1.1\nHost: localhost\r\n folded: yes\r\n\r\n", {200, 400, 403}),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", {400, 431}),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 100_000, {400, 431}),
    (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", {400, 431}),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, {400}),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405}),
    (b"\r\n" * 5000, {400, 408}),
]
"""Requests no honest client sends, and the statuses they may have; 0 is a closed connection."""
