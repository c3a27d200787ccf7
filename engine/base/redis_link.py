"""A connection to Redis that speaks in batches: packed commands out, parsed replies in.

redis-py's own pipeline costs 6.5 us a command; `hiredis.pack_command` and one write cost a third.
The event loop's callbacks parse what comes; whoever asked is woken once, when he has all of it.
Whatever goes wrong, the link is closed: replies that arrive late cannot be taken for others.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from engine.base.alarm import Deadline
from engine.base.errors import ConfigError, StoreFullError, StoreUnavailableError
from engine.base.masking import mask_url, scrub

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


class _Wire(asyncio.Protocol):
    """What comes in. Replies nobody has asked for wait for the next who asks."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deadline = Deadline(lambda: self._fail(TimeoutError()))
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiter: asyncio.Future[list[Any]] | None = None
        self._replies: list[Any] = []
        self._wanted_count = 0

    def expect(self, count: int, waiter: "asyncio.Future[list[Any]]") -> None:
        """The next so many replies are for this waiter."""
        self._replies, self._wanted_count, self._waiter = [], count, waiter
        self._collect(waiter)

    def data_received(self, data: bytes) -> None:
        """Part of the replies, or all."""
        self._parser.feed(data)
        if self._waiter is not None and not self._waiter.done():
            self._collect(self._waiter)

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more comes."""
        self.lost.set_result(None)
        self._fail(error or EOFError(_HANGS_UP))

    def _fail(self, error: Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _collect(self, waiter: "asyncio.Future[list[Any]]") -> None:
        try:
            while len(self._replies) < self._wanted_count:
                reply = self._parser.gets()
                if reply is _NOTHING:
                    return
                self._replies.append(reply)
        except hiredis.ProtocolError as error:
            waiter.set_exception(error)
        else:
            waiter.set_result(self._replies)


class RedisLink:
    """One connection. Not for two tasks at a time."""

    def __init__(self, address: RedisAddress, transport: asyncio.Transport, wire: _Wire) -> None:
        self._address = address
        self._transport = transport
        self._wire = wire

    @classmethod
    async def open(cls, address: RedisAddress, name: str, deadline_s: float) -> "RedisLink":
        """Connect, log in, choose the database, say who we are. Raises StoreUnavailableError."""
        try:
            async with asyncio.timeout(deadline_s):
                transport, wire = await _connect(address)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no connection in time"
            raise StoreUnavailableError(f"{address}: {scrub(reason, address.url)}") from None
        link = cls(address, transport, wire)
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
        waiter: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._wire.deadline.begin(deadline_s)
        try:
            if self.is_closed:
                raise EOFError(_HANGS_UP)
            self._wire.expect(len(commands), waiter)
            self._transport.write(b"".join(map(_pack, commands)))
            return await waiter
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
        finally:
            self._wire.deadline.end()

    def refused(self, error_reply: hiredis.ReplyError) -> StoreUnavailableError:
        """Close the link; return the error to raise for what the server answered."""
        self.close()
        text = scrub(str(error_reply), self._address.url)
        kind = StoreFullError if text.startswith("OOM") else StoreUnavailableError
        return kind(f"{self._address}: {text}")

    @property
    def is_closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self._wire.lost.done() or self._transport.is_closing()

    def close(self) -> None:
        """Drop the connection at once, with what was not sent yet."""
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Close, and wait for the event loop to let go of the socket."""
        self.close()
        await asyncio.shield(self._wire.lost)


_NOTHING: Final = object()
_HANGS_UP: Final = "the server closed the connection"
# Its stub says that a command has one part.
_pack: Final = cast("Callable[[Command], bytes]", hiredis.pack_command)


async def _connect(address: RedisAddress) -> tuple[asyncio.Transport, _Wire]:
    loop = asyncio.get_running_loop()
    if address.path:
        return await loop.create_unix_connection(_Wire, address.path)
    context = ssl.create_default_context() if address.tls else None
    return await loop.create_connection(_Wire, address.host, address.port, ssl=context)


def first_error(replies: Sequence[Any]) -> hiredis.ReplyError | None:
    """The most telling error: EXECABORT only says that there was another."""
    errors = [
        each
        for reply in replies
        for each in (reply if isinstance(reply, list) else (reply,))
        if isinstance(each, hiredis.ReplyError)
    ]
    telling = [error for error in errors if not str(error).startswith("EXECABORT")]
    return next(iter(telling or errors), None)
