"""Slots of the rings to streams of the database: registers them, and raises their decimals.

An instrument's row in the database is a version: facts and decimals that never change
(`engine.database.versions`). The newest version that has the slot table's facts and at least its
decimals is used, so decimals that were raised stay raised after a restart; otherwise a new version
is added, with streams of its own.

When the slot table describes a slot anew, the slot's next rows go to the version that says so; what
is stored keeps the version it was stored with. A slot's decimals never become fewer.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from engine.data.instrument import Instrument
from engine.data.names import StreamKey
from engine.data.slots import Slot, Slots
from engine.database import versions
from engine.database.locks import STREAMS
from engine.database.session import AsyncSession
from engine.database.versions import Facts, Version, facts_of, lacks, says
from engine.writer.rows.copy import StreamLookup

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
            if self._resolved_as.get(entry.slot, known := _instrument(entry)) != known:
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
        entries = [entry for slot in missing if (entry := self._slots.get(slot))]
        if not entries:
            return
        async with connection.transaction():
            await lock_durably(connection)
            found = [await self._registered(connection, entry) for entry in entries]
        for entry, stream in zip(entries, found, strict=True):
            self.lookup.set(entry.slot, *stream)
            self._resolved_as[entry.slot] = _instrument(entry)

    async def _registered(self, connection: Connection, entry: Slot) -> tuple[int, int, int]:
        instrument = _instrument(entry)
        decimals = _more(instrument, self.lookup.decimals(entry.slot))
        return await _register(connection, entry.key, facts_of(instrument), decimals)

    async def raise_decimals(
        self, connection: Connection, slot: int, price_decimals: int, qty_decimals: int
    ) -> None:
        """Give the stream of `slot` at least these decimals. Own transaction."""
        entry = self._slots.get(slot)
        assert entry is not None, "resolved slots are in the slot table"
        async with connection.transaction():
            await lock_durably(connection)
            instrument = _instrument(entry)
            facts = await _newest_known(connection, entry.key, facts_of(instrument))
            decimals = _more(instrument, (price_decimals, qty_decimals))
            stream = await _register(connection, entry.key, facts, decimals)
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


def _instrument(entry: Slot) -> Instrument:
    """A stream whose venue has not described it yet starts with no decimals, and they are raised
    as its rows need them."""
    key = entry.key
    return entry.instrument or Instrument(key.venue, key.symbol, 0, 0, contract_size="")


def _more(instrument: Instrument, decimals: tuple[int, int]) -> tuple[int, int]:
    """The larger ones of what the instrument has and these."""
    return max(instrument.price_decimals, decimals[0]), max(instrument.qty_decimals, decimals[1])


async def lock_durably(connection: Connection) -> None:
    """Own the instrument and stream tables until the transaction ends, which is then on disk."""
    await connection.execute("SET LOCAL synchronous_commit = on")
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (STREAMS,))


async def _register(
    connection: Connection, key: StreamKey, facts: Facts, decimals: tuple[int, int]
) -> tuple[int, int, int]:
    """Return (stream_id, price_decimals, qty_decimals), these decimals at least, adding rows where
    needed.
    """
    known = await _versions(connection, key)
    for version in known:
        is_newest = version is known[0]  # the others are history: nothing is filled in there
        if version.has_decimals(decimals) and says(version.facts, facts, may_fill=is_newest):
            await fill_in(connection, version, facts)
            break
    else:
        newest = known[0] if known else None
        version = await insert_version(connection, key, facts, decimals, newest)
    values = (version.instrument_id, key.kind, key.transport)
    rows = await _fetch(connection, _SELECT_STREAM, values)
    if not rows:  # under the advisory lock: nobody else inserts it meanwhile
        rows = await _fetch(connection, _INSERT_STREAM, values)
    return rows[0][0], version.price_decimals, version.qty_decimals


async def _versions(connection: Connection, key: StreamKey) -> list[Version]:
    """All of a stream's instrument, newest first."""
    rows = await _fetch(connection, versions.OF_SYMBOL, (key.venue, key.symbol))
    return [Version.of(row) for row in rows]


async def _newest_known(connection: Connection, key: StreamKey, facts: Facts) -> Facts:
    """The slot table's facts, or those of the newest version where the slot table is behind:
    another engine may have stored a listing that this one has not seen. What no version says is
    newer than all of them.
    """
    known = await _versions(connection, key)
    is_old = any(says(each.facts, facts, may_fill=each is known[0]) for each in known)
    return known[0].facts if is_old else facts


async def insert_version(
    connection: Connection,
    of: StreamKey | Instrument,
    facts: Facts,
    decimals: tuple[int, int],
    newest: Version | None,
) -> Version:
    """Add a version of an instrument, with the decimals of the `newest` at least."""
    version = 1
    if newest is not None:
        version = newest.version + 1
        decimals = newest.decimals_or_more(decimals)
    row = versions.row_of(of.venue, of.symbol, version, decimals, facts)
    rows = await _fetch(connection, versions.ADD, row)
    return Version(rows[0][0], version, *decimals, facts)


async def fill_in(connection: Connection, version: Version, facts: Facts) -> None:
    """Let a version say what it does not know of `facts`."""
    if lacks(version.facts, facts):
        await connection.execute(versions.FILL.encode(), (version.instrument_id, *facts.market))


async def _fetch(
    connection: Connection, query: str, values: tuple[Any, ...]
) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query.encode(), values)
    return await cursor.fetchall()
