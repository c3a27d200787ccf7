"""Keeps the table `stream_registry` like the local registry, in the background.

The database may be away for days: commands go on, and the table is made equal when it comes back.
Also without a change the two are compared now and then: a schema may be dropped and made anew, a
backup restored. The first time a registry meets its mirror it adopts the rows it does not know, so
that an engine whose state directory was lost collects what it collected before.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.errors import DatabaseUnavailableError
from engine.base.keep_trying import Trouble, keep_trying
from engine.base.tasks import cancel, in_thread
from engine.data.names import StreamKey
from engine.database import locks
from engine.database.session import REGISTRY, session
from engine.database.words import unavailable
from engine.messages.streams import Knobs
from engine.start.addresses import Secret
from engine.streams.wanted import Origin, Wanted, WantedStream

_log = logging.getLogger(__name__)

_ANSWER_WITHIN_S: Final = 20.0
"""A database that is logged into and then silent must hold up neither a start nor the mirror."""
_SETTLE_S: Final = 0.1
"""A burst of commands is mirrored once."""
_DELAYS_S: Final = (0.5, 30.0)
_COMPARE_EVERY_S: Final = 300.0

_FAILURES: Final = (psycopg.Error, OSError, DatabaseUnavailableError)

_SELECT = """
    SELECT venue, symbol, kind, transport, knobs, origin, added_ns, removed
    FROM stream_registry WHERE registry = %s ORDER BY added_ns, venue, symbol, kind, transport
"""
_UPSERT = """
    INSERT INTO stream_registry (
        registry, venue, symbol, kind, transport, knobs, origin, added_ns, removed, added_at
    ) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s))
    ON CONFLICT (registry, venue, symbol, kind, transport) DO UPDATE SET
        knobs = excluded.knobs, origin = excluded.origin, added_ns = excluded.added_ns,
        added_at = excluded.added_at, removed = excluded.removed
"""
_DELETE = """
    DELETE FROM stream_registry
    WHERE registry = %s AND venue = %s AND symbol = %s AND kind = %s AND transport = %s
"""


class WantedMirror:
    """The table of one registry. `on_adopted` gets what the table brought in after the start."""

    def __init__(
        self,
        registry: Wanted,
        name: str,
        database_url: Secret | None,
        on_adopted: Callable[[list[WantedStream]], None],
        compare_every_s: float = _COMPARE_EVERY_S,
        backoff: Backoff | None = None,
    ) -> None:
        self._registry = registry
        self._name = name
        self._database_url = database_url
        self._on_adopted = on_adopted
        self._compare_every_s = compare_every_s
        self._adopted: list[WantedStream] = []
        """What has not begun yet: a full disk can refuse that."""
        self._changed = Alarm()
        self._task: asyncio.Task[None] | None = None
        self.mirrored_revision = -1
        self._trouble = Trouble(
            "stream registry",
            "not mirrored yet, trying again",
            backoff or Backoff(*_DELAYS_S),
            _log,
        )

    async def first_attempt(self) -> None:
        """Adopt before anything starts, if this registry is new here and the database answers."""
        if self._database_url is None or self._is_joined:
            return
        try:
            self._registry.adopt(await self._fetch(), self._name)
        except _FAILURES as error:
            self._trouble.met(self._words(error))

    def start(self) -> "asyncio.Task[None] | None":
        """Begin to keep the table equal. Returns the task to watch, if there is one."""
        if self._database_url is not None:
            self._changed.ring()
            self._task = asyncio.create_task(self._keep(), name="registry-mirror")
        return self._task

    def changed(self) -> None:
        """The registry has changed."""
        self._changed.ring()

    async def close(self) -> None:
        """Stop. What is not mirrored yet is on disk, and the next start mirrors it."""
        await cancel(self._task)

    @property
    def _is_joined(self) -> bool:
        return self._registry.joined_with == self._name

    async def _keep(self) -> None:
        while True:
            if await self._changed.wait(self._compare_every_s):
                await asyncio.sleep(_SETTLE_S)
            await keep_trying(self._try_to_reconcile, self._trouble)

    async def _try_to_reconcile(self) -> None:
        try:
            await self._reconcile()
        except _FAILURES as error:
            raise unavailable(error, self._url()) from None

    async def _reconcile(self) -> None:
        if not self._is_joined:
            mirrored = await self._fetch()
            self._adopted = self._registry.adopt(mirrored, self._name)
        if self._adopted:
            self._on_adopted(self._adopted)
            self._adopted = []
        revision, entries = self._registry.revision, self._registry.entries()
        url = self._url()
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            await in_thread(lambda: _store(url, self._name, entries), "registry")
        self.mirrored_revision = revision

    async def _fetch(self) -> list[WantedStream]:
        url = self._url()
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            return await in_thread(lambda: _load(url, self._name), "registry")

    def _words(self, error: Exception) -> str:
        return str(unavailable(error, self._url()))

    def _url(self) -> str:
        assert self._database_url is not None
        return self._database_url.reveal()


def _load(database_url: str, name: str) -> list[WantedStream]:
    with session(database_url, REGISTRY) as connection:
        rows = connection.execute(_SELECT, (name,)).fetchall()
    entries = []
    for row in rows:
        try:
            entries.append(_entry(row))
        except msgspec.ValidationError as error:
            _log.error(f"stream_registry: row {row[:4]} is not usable: {error}: ignored")
    return entries


def _store(database_url: str, name: str, entries: Sequence[WantedStream]) -> None:
    """Make the table equal to `entries`, touching only what differs, in one transaction."""
    wanted = {entry.key: entry for entry in entries}
    with (
        session(database_url, REGISTRY) as connection,
        connection.transaction(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (locks.REGISTRY,))
        stored: dict[tuple[Any, ...], WantedStream | None] = {}
        for row in cursor.execute(_SELECT, (name,)).fetchall():
            try:
                stored[row[:4]] = _entry(row)
            except msgspec.ValidationError:
                stored[row[:4]] = None
        names = {_name(key): entry for key, entry in wanted.items()}
        gone = [(name, *key) for key in stored if key not in names]
        new = [(name, *key, *_values(e)) for key, e in names.items() if stored.get(key) != e]
        if gone:
            cursor.executemany(_DELETE, gone)
        if new:
            cursor.executemany(_UPSERT, new)


def _entry(row: Sequence[Any]) -> WantedStream:
    venue, symbol, kind, transport, knobs, origin, added_ns, removed = row
    key = {"venue": venue, "symbol": symbol, "kind": kind, "transport": transport}
    return WantedStream(
        key=msgspec.convert(key, StreamKey),
        knobs=msgspec.convert(knobs, Knobs),
        origin=msgspec.convert(origin, Origin),
        added_ns=added_ns,
        removed=removed,
    )


def _name(key: StreamKey) -> tuple[str, str, str, str]:
    return key.venue, key.symbol, key.kind.value, key.transport.value


def _values(entry: WantedStream) -> tuple[Any, ...]:
    knobs = Jsonb(msgspec.to_builtins(entry.knobs))
    return knobs, entry.origin.value, entry.added_ns, entry.removed, entry.added_ns / 1e9
