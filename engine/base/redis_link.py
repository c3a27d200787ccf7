"""A connection to Redis that speaks in batches: packed commands out, parsed replies in.

redis-py's own pipeline costs 6.5 us a command; `hiredis.pack_command` and one write cost a third.
Whatever goes wrong, the link is closed: replies that arrive late cannot be taken for others.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from engine.base.errors import ConfigError, StoreFullError, StoreUnavailableError
from engine.base.masking import mask_url, scrub

_READ_BYTES: Final = 1 << 16
_DEFAULT_PORT: Final = 6379

Command = tuple[str | int | float | bytes, ...]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed Redis URL. `path` is set for a Unix socket."""

    url: str = field(repr=False)
    host: str
    port: int
    path: str
    tls: bool
    database: int
    username: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        return mask_url(self.url)


def parse_redis_url(url: str) -> RedisAddress:
    """Parse `redis://`, `rediss://` and `unix://`. Raises ConfigError, without the password."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("it must start with redis://, rediss:// or unix://")
        in_path = parts.path.strip("/") if parts.scheme != "unix" else ""
        database = query.get("db", [in_path or "0"])[0]
        if not database.isascii() or not database.isdigit():
            raise ValueError("the database is a number (redis://host/0)")
        return RedisAddress(
            url=url,
            host=parts.hostname or "localhost",
            port=parts.port or _DEFAULT_PORT,
            path=unquote(parts.path) if parts.scheme == "unix" else "",
            tls=parts.scheme == "rediss",
            database=int(database),
            username=unquote(parts.username or query.get("username", [""])[0]),
            password=unquote(parts.password or query.get("password", [""])[0]),
        )
    except ValueError as error:
        raise ConfigError(f"{mask_url(url)}: {scrub(str(error), url)}") from None


class RedisLink:
    """One connection. Not for two tasks at a time."""

    def __init__(
        self, address: RedisAddress, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._address = address
        self._reader = reader
        self._writer = writer
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)

    @classmethod
    async def open(cls, address: RedisAddress, name: str, deadline_s: float) -> "RedisLink":
        """Connect, log in, choose the database, say who we are. Raises StoreUnavailableError."""
        try:
            async with asyncio.timeout(deadline_s):
                reader, writer = await _open_streams(address)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no connection in time"
            raise StoreUnavailableError(f"{address}: {scrub(reason, address.url)}") from None
        link = cls(address, reader, writer)
        commands: list[Command] = []
        if address.password:
            user = (address.username,) if address.username else ()
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        commands.append(("CLIENT", "SETNAME", name))
        await link.call(commands, deadline_s)
        return link

    async def call(self, commands: Sequence[Command], deadline_s: float) -> list[Any]:
        """As `ask`, and an error reply (also one inside EXEC) is raised, and closes the link."""
        replies = await self.ask(commands, deadline_s)
        error_reply = first_error(replies)
        if error_reply is not None:
            raise self.refused(error_reply)
        return replies

    async def ask(self, commands: Sequence[Command], deadline_s: float) -> list[Any]:
        """Send all commands at once, return their replies in order, error replies among them.

        Raises StoreUnavailableError for a lost connection, or when not all replies are there after
        `deadline_s`. The link is closed then.
        """
        try:
            async with asyncio.timeout(deadline_s):
                self._writer.write(b"".join(map(_pack, commands)))
                await self._writer.drain()
                return [await self._reply() for _ in commands]
        except TimeoutError:
            self.close()
            raise StoreUnavailableError(
                f"{self._address}: no answer within {deadline_s:g} s"
            ) from None
        except (OSError, EOFError, hiredis.ProtocolError) as error:
            self.close()
            text = scrub(str(error) or "connection lost", self._address.url)
            raise StoreUnavailableError(f"{self._address}: {text}") from None
        except BaseException:
            self.close()
            raise

    def refused(self, error_reply: hiredis.ReplyError) -> StoreUnavailableError:
        """Close the link; return the error to raise for what the server answered."""
        self.close()
        text = scrub(str(error_reply), self._address.url)
        kind = StoreFullError if text.startswith("OOM") else StoreUnavailableError
        return kind(f"{self._address}: {text}")

    @property
    def is_closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self._writer.is_closing()

    def close(self) -> None:
        """Drop the connection at once, with what was not sent yet."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Close, and wait for the event loop to let go of the socket."""
        self.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _reply(self) -> Any:
        while True:
            reply = self._parser.gets()
            if reply is not _NOTHING:
                return reply
            received = await self._reader.read(_READ_BYTES)
            if not received:
                raise EOFError("the server closed the connection")
            self._parser.feed(received)


_NOTHING: Final = object()
# Its stub says that a command has one part.
_pack: Final = cast("Callable[[Command], bytes]", hiredis.pack_command)


async def _open_streams(
    address: RedisAddress,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.path:
        return await asyncio.open_unix_connection(address.path)
    context = ssl.create_default_context() if address.tls else None
    return await asyncio.open_connection(address.host, address.port, ssl=context)


def first_error(replies: Sequence[Any]) -> hiredis.ReplyError | None:
    """The most telling error: EXECABORT only says that there was another."""
    errors = []
    for reply in replies:
        inner = reply if isinstance(reply, list) else [reply]
        errors += [each for each in inner if isinstance(each, hiredis.ReplyError)]
    telling = [error for error in errors if not str(error).startswith("EXECABORT")]
    return next(iter(telling or errors), None)
