"""Instrument listings into the database: versions of instruments, and the log of changes.

It has a connection and a task of its own. A transaction is short and touches few rows, because it
shares the lock of the stream table with the tick path; a database that is away only delays it.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import psycopg

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.keep_trying import Trouble, keep_trying
from engine.data.instrument import Instrument
from engine.data.names import DEFAULT_DATABASE
from engine.database import versions
from engine.database.session import LISTINGS, AsyncSession, open_session
from engine.database.versions import Facts, Version, facts_of, lacks, says
from engine.database.words import unavailable
from engine.messages.listings import InstrumentEvent, StoreListing
from engine.messages.settings import WriterSettings
from engine.writer.sinks.postgres.stream_ids import fill_in, insert_version, lock_durably

Connection = AsyncSession

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 50
"""Instruments in one transaction: a few milliseconds."""
_DELAYS_S: Final = (0.5, 30.0)

_DELIST = """
    INSERT INTO instrument (
        venue, symbol, version, base, quote, price_decimals, qty_decimals, price_unit, qty_unit,
        tick_size, lot_size, contract_size, status, instrument_kind, venue_kind,
        instrument_state, settle, contract_unit, listed_at, delivery_at)
    SELECT venue, symbol, version + 1, base, quote, price_decimals, qty_decimals, price_unit,
           qty_unit, tick_size, lot_size, contract_size, 'DELISTED', instrument_kind,
           venue_kind,
           CASE WHEN instrument_state = 'expired' OR delivery_at <= to_timestamp(%(loaded_s)s)
                THEN 'expired' ELSE 'delisted' END,
           settle, contract_unit, listed_at, delivery_at
    FROM (SELECT DISTINCT ON (symbol) * FROM instrument
          WHERE venue = %(venue)s AND symbol = ANY(%(symbols)s)
          ORDER BY symbol, version DESC) AS newest
    WHERE status <> 'DELISTED'
"""
_IS_LOGGED = "SELECT EXISTS (SELECT FROM instrument_event WHERE venue = %s AND loaded = %s)"
_LOG = """
    INSERT INTO instrument_event (time, venue, symbol, event, detail, loaded)
    VALUES (to_timestamp(%s), %s, %s, %s, %s, %s)
"""


class ListingStore:
    """Stores listings one after the other; `saved` is told of each."""

    def __init__(
        self,
        settings: WriterSettings,
        saved: Callable[[StoreListing], None],
        backoff: Backoff | None = None,
    ) -> None:
        assert settings.database_url, "without a URL there is no store"
        self._url = settings.database_url
        self._instance = settings.paths.instance
        self._saved = saved
        self._waiting: deque[StoreListing] = deque()
        self._arrived = Alarm()
        of = "" if settings.database == DEFAULT_DATABASE else f" of {settings.database}"
        self.trouble = Trouble(
            f"instruments{of}", "not stored yet, trying again", backoff or Backoff(*_DELAYS_S), _log
        )

    def take(self, message: StoreListing) -> None:
        """Store this when its turn comes. The listing before it need not repeat what this one says:
        a database that is away for days must not fill the memory.
        """
        for place in reversed(range(len(self._waiting))):
            older = self._waiting[place]
            if older.venue == message.venue:
                now = {each.symbol: each for each in message.instruments}
                differs = [each for each in older.instruments if now.get(each.symbol) != each]
                self._waiting[place] = msgspec.structs.replace(older, instruments=differs)
                break
        self._waiting.append(message)
        self._arrived.ring()

    async def run(self) -> None:
        """Store until cancelled."""
        while True:
            if not self._waiting:
                await self._arrived.wait()
            await keep_trying(self._store_all, self.trouble)

    async def _store_all(self) -> None:
        if not self._waiting:
            return
        connection = await open_session(self._url, LISTINGS, self._instance)
        try:
            while self._waiting:
                await store_listing(connection, self._waiting[0])
                self._saved(self._waiting.popleft())
                self.trouble.over()
        except psycopg.Error as error:
            raise unavailable(error, self._url) from None
        finally:
            connection.pgconn.finish()


async def store_listing(connection: Connection, message: StoreListing) -> int:
    """Add a version of every instrument that changed, and the events; return how many versions.

    Storing the same listing again adds nothing.
    """
    added = 0
    for start in range(0, len(message.instruments), _AT_ONCE):
        part = message.instruments[start : start + _AT_ONCE]
        added += await _store_versions(connection, message.venue, part)
    if message.events:
        async with connection.transaction():
            await lock_durably(connection)
            await _store_events(connection, message)
    return added


async def _store_versions(
    connection: Connection, venue: str, instruments: Sequence[Instrument]
) -> int:
    symbols = [instrument.symbol for instrument in instruments]
    newest = await _newest(connection, venue, symbols)
    if all(_is_known(each, newest.get(each.symbol)) for each in instruments):
        return 0  # nearly always, and then without the lock
    async with connection.transaction():
        await lock_durably(connection)
        newest = await _newest(connection, venue, symbols)
        added = [await _store(connection, each, newest.get(each.symbol)) for each in instruments]
    return sum(added)


async def _newest(connection: Connection, venue: str, symbols: Sequence[str]) -> dict[str, Version]:
    """The newest version of each symbol."""
    cursor = await connection.execute(versions.NEWEST.encode(), (venue, list(symbols)))
    return {symbol: Version.of(row) for symbol, *row in await cursor.fetchall()}


def _is_known(instrument: Instrument, newest: Version | None) -> bool:
    """Whether the newest version says all that the venue says."""
    facts = facts_of(instrument)
    return (
        newest is not None and _is_of(instrument, facts, newest) and not lacks(newest.facts, facts)
    )


def _is_of(instrument: Instrument, facts: Facts, newest: Version) -> bool:
    """Whether it needs no version of its own. More decimals than the venue names are kept: rows
    proved that they are needed.
    """
    decimals = (instrument.price_decimals, instrument.qty_decimals)
    return newest.has_decimals(decimals) and says(newest.facts, facts, may_fill=True)


async def _store(connection: Connection, instrument: Instrument, newest: Version | None) -> bool:
    """Return whether it took a new version."""
    facts = facts_of(instrument)
    if newest is not None and _is_of(instrument, facts, newest):
        await fill_in(connection, newest, facts)
        return False
    decimals = (instrument.price_decimals, instrument.qty_decimals)
    await insert_version(connection, instrument, facts, decimals, newest)
    return True


async def _store_events(connection: Connection, message: StoreListing) -> None:
    cursor = await connection.execute(_IS_LOGGED, (message.venue, message.loaded_ns))
    row = await cursor.fetchone()
    assert row is not None
    if row[0]:
        return
    listed = {instrument.symbol for instrument in message.instruments}
    gone = [e.symbol for e in message.events if e.event == "delisted" and e.symbol not in listed]
    if gone:
        ended = {"venue": message.venue, "symbols": gone, "loaded_s": message.loaded_ns / 1e9}
        await connection.execute(_DELIST, ended)
    async with connection.cursor() as cursor:
        await cursor.executemany(_LOG, [_event_row(message, event) for event in message.events])


def _event_row(message: StoreListing, event: InstrumentEvent) -> tuple[Any, ...]:
    return (
        message.loaded_ns / 1e9, event.venue, event.symbol, event.event, event.detail,
        message.loaded_ns,
    )  # fmt: skip
