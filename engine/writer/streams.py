"""Slots of the rings to streams of the database: registers them, and raises their decimals.

An instrument's row in the database is a version: facts and decimals that never change. The newest
version that has the catalog's facts and at least its decimals is used, so decimals that were raised
stay raised after a restart; otherwise a new version is added, with streams of its own.
"""

import decimal
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import psycopg

from engine.catalog import Catalog, CatalogEntry, Instrument, StreamKey
from engine.writer.copy import StreamLookup

_LOCK_KEY: Final = 0x66747303

_INSERT_INSTRUMENT = """
    INSERT INTO instrument (
        venue, symbol, version, base, quote, price_decimals, qty_decimals, price_unit, qty_unit,
        tick_size, lot_size, contract_size, status
    ) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    RETURNING instrument_id
"""
_SELECT_INSTRUMENTS = """
    SELECT instrument_id, version, price_decimals, qty_decimals,
           base, quote, tick_size, lot_size, contract_size, status
    FROM instrument WHERE venue = %s AND symbol = %s ORDER BY version DESC
"""
_SELECT_STREAM = """
    SELECT stream_id FROM stream WHERE instrument_id = %s AND kind = %s AND transport = %s
"""
_INSERT_STREAM = """
    INSERT INTO stream (instrument_id, kind, transport) VALUES (%s, %s, %s) RETURNING stream_id
"""

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class StreamRegistry:
    """Fills a `StreamLookup` from the catalog and the database."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.lookup = StreamLookup()

    def forget(self) -> None:
        """Look everything up again: a database that crashed may have lost the newest rows."""
        self.lookup = StreamLookup()

    def name(self, slot: int) -> str:
        """The stream of a slot, for people."""
        entry = self._catalog.get(slot)
        return str(entry.key) if entry else f"slot {slot}"

    async def resolve(self, connection: Connection, slots: Iterable[int]) -> None:
        """Resolve `slots` that the catalog knows; the others stay unresolved.

        Own transaction, durable at once: rows that name a stream must not outlive it.
        """
        missing = [slot for slot in slots if not self.is_resolved(slot)]
        if not missing:
            return
        if any(self._entry_is_bare(slot) for slot in missing):
            self._catalog.refresh()
        entries = [entry for slot in missing if (entry := self._catalog.get(slot))]
        if not entries:
            return
        async with connection.transaction():
            await lock_durably(connection)
            found = [(e, await _register(connection, e.key, _facts(e), (0, 0))) for e in entries]
        for entry, stream in found:
            self.lookup.set(entry.slot, *stream)

    async def raise_decimals(
        self, connection: Connection, slot: int, price_decimals: int, qty_decimals: int
    ) -> None:
        """Give the stream of `slot` at least these decimals. Own transaction."""
        entry = self._catalog.get(slot)
        assert entry is not None, "resolved slots are in the catalog"
        async with connection.transaction():
            await lock_durably(connection)
            wanted = (price_decimals, qty_decimals)
            stream = await _register(connection, entry.key, _facts(entry), wanted)
        self.lookup.set(slot, *stream)

    def is_resolved(self, slot: int) -> bool:
        """Whether the lookup knows this slot."""
        return slot < len(self.lookup.stream_id) and bool(self.lookup.stream_id[slot] >= 0)

    def _entry_is_bare(self, slot: int) -> bool:
        entry = self._catalog.get(slot)
        return entry is None or entry.instrument is None


def unresolved(lookup: StreamLookup, slots: np.ndarray[Any, np.dtype[np.uint32]]) -> list[int]:
    """Distinct slots the lookup does not know. Nearly always none, and then without a sort."""
    known = len(lookup.stream_id)
    if len(slots) and int(slots.max()) < known and (lookup.stream_id[slots] >= 0).all():
        return []
    distinct = np.unique(slots)
    return [int(slot) for slot in distinct[~lookup.resolved(distinct)]]


def _facts(entry: CatalogEntry) -> Instrument:
    """A stream whose venue has not described it yet starts with no decimals, and they are raised
    as its rows need them."""
    key = entry.key
    return entry.instrument or Instrument(key.venue, key.symbol, 0, 0, contract_size="")


async def lock_durably(connection: Connection) -> None:
    """Own the instrument and stream tables until the transaction ends, which is then on disk."""
    await connection.execute("SET LOCAL synchronous_commit = on")
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))


async def _register(
    connection: Connection, key: StreamKey, facts: Instrument, at_least: tuple[int, int]
) -> tuple[int, int, int]:
    """Return (stream_id, price_decimals, qty_decimals), adding rows where needed."""
    least_price = max(facts.price_decimals, at_least[0])
    least_qty = max(facts.qty_decimals, at_least[1])
    versions = await _fetch(connection, _SELECT_INSTRUMENTS, (key.venue, key.symbol))
    for instrument_id, _, price_decimals, qty_decimals, *stored, _status in versions:  # noqa: B007
        # The status is the listing's to keep (`engine.writer.listing`): what the catalog was told
        # at a subscription may be months old.
        enough = price_decimals >= least_price and qty_decimals >= least_qty
        if enough and tuple(stored) == fact_values(facts):
            break
    else:
        newest = versions[0] if versions else (0, 0, 0, 0)
        price_decimals = max(least_price, newest[2])
        qty_decimals = max(least_qty, newest[3])
        instrument_id = await insert_version(
            connection, facts, newest[1] + 1, (price_decimals, qty_decimals)
        )
    values = (instrument_id, key.kind, key.transport)
    rows = await _fetch(connection, _SELECT_STREAM, values)
    if not rows:  # under the advisory lock: nobody else inserts it meanwhile
        rows = await _fetch(connection, _INSERT_STREAM, values)
    return rows[0][0], price_decimals, qty_decimals


async def insert_version(
    connection: Connection, facts: Instrument, version: int, decimals: tuple[int, int]
) -> int:
    """Add a version of an instrument; return its id."""
    base, quote, tick_size, lot_size, contract_size = fact_values(facts)
    rows = await _fetch(
        connection,
        _INSERT_INSTRUMENT,
        (
            facts.venue, facts.symbol, version, base, quote, *decimals, _unit(decimals[0]),
            _unit(decimals[1]), tick_size, lot_size, contract_size, facts.status,
        ),
    )  # fmt: skip
    return int(rows[0][0])


async def _fetch(
    connection: Connection, query: str, values: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchall()


def fact_values(facts: Instrument) -> tuple[Any, ...]:
    """What makes a version besides decimals and status, as the database holds it."""
    return (
        facts.base,
        facts.quote,
        _number(facts.tick_size),
        _number(facts.lot_size),
        _number(facts.contract_size),
    )


def _number(text: str) -> decimal.Decimal | None:
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:
        return None
    return number if number.is_finite() else None


def _unit(decimals: int) -> decimal.Decimal:
    """10 ** -decimals, with exactly that many places: the views inherit the scale."""
    return decimal.Decimal(1).scaleb(-decimals)
