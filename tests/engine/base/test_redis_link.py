"""Replies come to who asked for them, in order, and a link that fails says so."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from engine.base.errors import StoreUnavailableError
from engine.base.redis_link import RedisLink, parse_redis_url

Body = Callable[[RedisLink], Awaitable[None]]


def speak(path: Path, says: Sequence[bytes], body: Body) -> None:
    """Run `body` on a link to a server that greets, and then says a piece for each read of its
    client; an empty piece hangs up.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in (b"+OK\r\n", *says):
            if not await reader.read(1 << 16) or not piece:
                break
            writer.write(piece)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        served.set()

    served = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_unix_server(serve, path / "socket")
        async with server, asyncio.timeout(30):
            link = await RedisLink.open(parse_redis_url(f"unix://{path}/socket"), "test", 10.0)
            await body(link)
            await link.wait_closed()
            await served.wait()

    asyncio.run(main())


def test_what_comes_too_soon_waits_for_the_next_who_asks(tmp_path: Path) -> None:
    async def body(link: RedisLink) -> None:
        assert await link.call([("GET", "a"), ("GET", "b")], 10.0) == [b"one", 2]
        assert await link.call([("GET", "c")], 10.0) == [3]

    speak(tmp_path, [b"$3\r\none\r\n:2\r\n:3\r\n", b"+OK\r\n"], body)


@pytest.mark.parametrize("says", [b"", b"$3\r\no", b"?what\r\n"])
def test_a_link_that_fails_is_closed_and_says_so(tmp_path: Path, says: bytes) -> None:
    async def body(link: RedisLink) -> None:
        with pytest.raises(StoreUnavailableError):
            await link.call([("GET", "a")], 10.0)
        assert link.is_closed
        with pytest.raises(StoreUnavailableError):
            await link.call([("GET", "a")], 10.0)

    speak(tmp_path, [says], body)


def test_an_answer_that_does_not_come_ends_the_link(tmp_path: Path) -> None:
    async def body(link: RedisLink) -> None:
        with pytest.raises(StoreUnavailableError, match="no answer within"):
            await link.call([("GET", "a"), ("GET", "b")], 0.01)
        assert link.is_closed

    speak(tmp_path, [b"+OK\r\n", b"never read"], body)
