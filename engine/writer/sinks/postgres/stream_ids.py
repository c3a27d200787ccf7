"""Slots of the rings to streams of the database: registers them, and raises their decimals.

An instrument's row in the database is a version: facts and decimals that never change. The newest
version that has the slot table's facts and at least its decimals is used, so decimals that were
raised stay raised after a restart; otherwise a new version is added, with streams of its own.

When the slot table describes a slot anew, the slot's next rows go to the version that says so; what
is stored keeps the version it was stored with. A slot's decimals never become fewer.
"""

import decimal
from collections.abc import Iterable
from typing import Any

import numpy as np

from engine.data.instrument import Instrument
from engine.data.names import StreamKey
from engine.data.slots import Slot, Slots
from engine.database.locks import STREAMS
from engine.database.session import AsyncSession
from engine.writer.rows.copy import StreamLookup

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

Connection = AsyncSession


class StreamIds:
    """Fills a `StreamLookup` from the slot table and the database."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._line_count = 0
        self._resolved_as: dict[int, Instrument] = {}
        """What the slot table said of each slot that is resolved."""
        self.lookup = StreamLookup()

    def forget(self) -> None:
        """Look everything up again: a database that crashed may have lost the newest rows."""
        self.lookup = StreamLookup()
        self._resolved_as.clear()

    def catch_up(self) -> None:
        """Read what is new in the slot table; slots that it describes anew are to be resolved
        again.

        Called before every batch. Facts are on disk before anybody acts on them, so no message can
        come too early or too late for the rows it is about.
        """
        self._slots.refresh()
        if self._slots.line_count == self._line_count:
            return
        self._line_count = self._slots.line_count
        for entry in self._slots:
            if self._resolved_as.get(entry.slot, facts := _facts(entry)) != facts:
                del self._resolved_as[entry.slot]
                self.lookup.unset(entry.slot)

    def name(self, slot: int) -> str:
        """The stream of a slot, for people."""
        entry = self._slots.get(slot)
        return str(entry.key) if entry else f"slot {slot}"

    def venue(self, slot: int) -> str:
        """The venue of a slot; empty where the slot table does not know it."""
        entry = self._slots.get(slot)
        return entry.key.venue if entry else ""

    def stream_id(self, slot: int) -> int:
        """The database's id of a slot's stream; 0, which is nobody's, where it is not resolved."""
        return int(self.lookup.stream_id[slot]) if self.is_resolved(slot) else 0

    async def resolve(self, connection: Connection, slots: Iterable[int]) -> None:
        """Resolve `slots` that the slot table knows; the others stay unresolved.

        Own transaction, durable at once: rows that name a stream must not outlive it.
        """
        missing = [slot for slot in slots if not self.is_resolved(slot)]
        if not missing:
            return
        facts = {e.slot: (e.key, _facts(e)) for slot in missing if (e := self._slots.get(slot))}
        if not facts:
            return
        async with connection.transaction():
            await lock_durably(connection)
            found = {
                slot: await _register(connection, *known, self.lookup.decimals(slot))
                for slot, known in facts.items()
            }
        for slot, stream in found.items():
            self.lookup.set(slot, *stream)
            self._resolved_as[slot] = facts[slot][1]

    async def raise_decimals(
        self, connection: Connection, slot: int, price_decimals: int, qty_decimals: int
    ) -> None:
        """Give the stream of `slot` at least these decimals. Own transaction."""
        entry = self._slots.get(slot)
        assert entry is not None, "resolved slots are in the slot table"
        async with connection.transaction():
            await lock_durably(connection)
            facts = await _newest_known(connection, _facts(entry))
            wanted = (price_decimals, qty_decimals)
            stream = await _register(connection, entry.key, facts, wanted)
        self.lookup.set(slot, *stream)

    def is_resolved(self, slot: int) -> bool:
        """Whether the lookup knows this slot."""
        return slot < len(self.lookup.stream_id) and bool(self.lookup.stream_id[slot] >= 0)


def unresolved(lookup: StreamLookup, slots: np.ndarray[Any, np.dtype[np.uint32]]) -> list[int]:
    """Distinct slots the lookup does not know. Nearly always none, and then without a sort."""
    known = len(lookup.stream_id)
    if len(slots) and int(slots.max()) < known and (lookup.stream_id[slots] >= 0).all():
        return []
    distinct = np.unique(slots)
    return [int(slot) for slot in distinct[~lookup.resolved(distinct)]]


def _facts(entry: Slot) -> Instrument:
    """A stream whose venue has not described it yet starts with no decimals, and they are raised
    as its rows need them."""
    key = entry.key
    return entry.instrument or Instrument(key.venue, key.symbol, 0, 0, contract_size="")


async def lock_durably(connection: Connection) -> None:
    """Own the instrument and stream tables until the transaction ends, which is then on disk."""
    await connection.execute("SET LOCAL synchronous_commit = on")
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (STREAMS,))


async def _register(
    connection: Connection, key: StreamKey, facts: Instrument, at_least: tuple[int, int]
) -> tuple[int, int, int]:
    """Return (stream_id, price_decimals, qty_decimals), adding rows where needed."""
    least_price = max(facts.price_decimals, at_least[0])
    least_qty = max(facts.qty_decimals, at_least[1])
    versions = await _fetch(connection, _SELECT_INSTRUMENTS, (key.venue, key.symbol))
    for instrument_id, _, price_decimals, qty_decimals, *stored in versions:  # noqa: B007
        enough = price_decimals >= least_price and qty_decimals >= least_qty
        if enough and tuple(stored) == (*fact_values(facts), facts.status):
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


async def _newest_known(connection: Connection, facts: Instrument) -> Instrument:
    """the slot table's facts, or those of the newest version where the slot table is behind:
    another engine may have stored a listing that this one has not seen. What no version says is
    newer than all of them.
    """
    versions = await _fetch(connection, _SELECT_INSTRUMENTS, (facts.venue, facts.symbol))
    said = (*fact_values(facts), facts.status)
    if said not in [tuple(stored) for _, _, _, _, *stored in versions]:
        return facts
    base, quote, tick_size, lot_size, contract_size, status = versions[0][4:]
    return Instrument(
        facts.venue, facts.symbol, facts.price_decimals, facts.qty_decimals, base, quote,
        _text(tick_size), _text(lot_size), _text(contract_size), status,
    )  # fmt: skip


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


def _text(number: decimal.Decimal | None) -> str:
    return "" if number is None else str(number)


def _unit(decimals: int) -> decimal.Decimal:
    """10 ** -decimals, with exactly that many places: the views inherit the scale."""
    return decimal.Decimal(1).scaleb(-decimals)
