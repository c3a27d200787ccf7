"""What a stream id means, read from one database and given to another.

A row's numbers mean something only with the decimals of its instrument's version, so every file
carries the streams of its rows. Another database has other ids: it gets streams that say the same.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from engine.database import versions
from engine.database.locks import STREAMS
from engine.database.session import DatabaseSession
from engine.database.versions import Facts, Version, lacks, row_of, says
from engine.upkeep.lake.raw import LakeError

Int64s = npt.NDArray[np.int64]

_SELECT: Final = """
    SELECT s.stream_id, i.venue, i.symbol, i.version, s.kind, s.transport, i.base, i.quote,
        i.price_decimals, i.qty_decimals, i.tick_size::text, i.lot_size::text,
        i.contract_size::text, i.status, i.valid_from, i.instrument_kind, i.venue_kind,
        i.instrument_state, i.settle, i.contract_unit, i.listed_at, i.delivery_at
    FROM stream AS s JOIN instrument AS i USING (instrument_id)
    ORDER BY i.venue, i.symbol, i.version, s.stream_id
"""
_FIND: Final = """
    SELECT stream_id FROM stream WHERE instrument_id = %s AND kind = %s AND transport = %s
"""
_ADD: Final = """
    INSERT INTO stream (instrument_id, kind, transport) VALUES (%s, %s, %s) RETURNING stream_id
"""


STREAMS_KEY: Final = b"fts.streams"
"""Under which a Parquet file carries the streams of its rows, as JSON."""


class LakeStream(msgspec.Struct, frozen=True):
    """One stream with the version of its instrument. Sizes are decimal text. What follows
    `valid_from` is not in files that a release before 0.2 wrote.
    """

    stream_id: int
    venue: str
    symbol: str
    version: int
    kind: str
    transport: str
    base: str
    quote: str
    price_decimals: int
    qty_decimals: int
    tick_size: str | None
    lot_size: str | None
    contract_size: str | None
    status: str
    valid_from: dt.datetime
    instrument_kind: str = ""
    venue_kind: str = ""
    state: str = ""
    settle: str = ""
    contract_unit: str = ""
    listed_at: dt.datetime | None = None
    delivery_at: dt.datetime | None = None

    @property
    def facts(self) -> Facts:
        """What makes a version besides decimals."""
        return Facts(
            self.base, self.quote, _number(self.tick_size), _number(self.lot_size),
            _number(self.contract_size), self.status, self.instrument_kind, self.venue_kind,
            self.state, self.settle, self.contract_unit, self.listed_at, self.delivery_at,
        )  # fmt: skip

    @property
    def seed(self) -> int:
        """A number below 2 ** 31 that says which stream it is, in every database. Checksums of
        files have it, so it goes by what every release has known.
        """
        base, quote, *others = self.facts.terms
        facts = (base, quote, self.price_decimals, self.qty_decimals, *others)
        said = (self.venue, self.symbol, self.kind, self.transport, *map(_plain, facts))
        return int.from_bytes(hashlib.sha256("\n".join(said).encode()).digest()[:4], "big") >> 1


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _plain(fact: Any) -> str:
    """0.10 and 0.1 are the same size."""
    return f"{fact.normalize():f}" if isinstance(fact, Decimal) else str(fact)


def read_streams(session: DatabaseSession) -> dict[int, LakeStream]:
    """All of a database, in the order of venue and symbol. Raises psycopg.Error."""
    rows = session.execute(_SELECT.encode()).fetchall()
    return {row[0]: LakeStream(*row) for row in rows}


class Meanings:
    """What the streams of some rows say, looked up for many rows at once. A stream that is not
    among them is nobody's: it has no words, its numbers no decimals, and its seed is 0.
    """

    def __init__(self, streams: Iterable[LakeStream]) -> None:
        found = sorted(streams, key=lambda each: each.stream_id)
        self._ids = np.array([each.stream_id for each in found], np.int64)
        self._seeds = np.array([*(each.seed for each in found), 0], np.int64)
        self._decimals = {
            "price": np.array([*(each.price_decimals for each in found), 0], np.int64),
            "qty": np.array([*(each.qty_decimals for each in found), 0], np.int64),
        }
        self._words = {
            "symbol": _coded([each.symbol for each in found]),
            "kind_of_stream": _coded([each.kind for each in found]),
            "transport": _coded([each.transport for each in found]),
        }

    def places(self, stream_ids: npt.NDArray[np.int32]) -> Int64s:
        """Where each row's stream is in what the others look up."""
        places = np.searchsorted(self._ids, stream_ids)
        known = places < len(self._ids)
        known[known] = self._ids[places[known]] == stream_ids[known]
        return np.where(known, places, len(self._ids))

    def seeds(self, places: Int64s) -> Int64s:
        """`LakeStream.seed` of each row."""
        return self._seeds[places]

    def decimals(self, of: str, places: Int64s) -> Int64s:
        """Of each row's `price` or `qty`."""
        return self._decimals[of][places]

    def words(self, name: str, places: Int64s) -> tuple[Int64s, list[str]]:
        """`symbol`, `kind_of_stream` or `transport` of each row: places in a list, -1 for none."""
        codes, words = self._words[name]
        return codes[places], words


def _coded(words: list[str]) -> tuple[Int64s, list[str]]:
    distinct = sorted(set(words))
    code = {word: place for place, word in enumerate(distinct)}
    return np.array([*(code[word] for word in words), -1], np.int64), distinct


def register(session: DatabaseSession, streams: Iterable[LakeStream]) -> dict[int, int]:
    """The ids that this database has for them, added where it has none. One transaction, on disk at
    its end: rows that name a stream must not outlive it.
    """
    found = {}
    with session.transaction():
        session.execute("SET LOCAL synchronous_commit = on")
        session.execute("SELECT pg_advisory_xact_lock(%s)", (STREAMS,))
        for each in streams:
            key = (_version(session, each), each.kind, each.transport)
            rows = session.execute(_FIND.encode(), key).fetchall()
            rows = rows or session.execute(_ADD.encode(), key).fetchall()
            found[each.stream_id] = rows[0][0]
    return found


def _version(session: DatabaseSession, stream: LakeStream) -> int:
    """The instrument's version that says the same. A new one keeps its number if that is free."""
    rows = session.execute(versions.OF_SYMBOL.encode(), (stream.venue, stream.symbol)).fetchall()
    known = [Version.of(row) for row in rows]
    decimals = (stream.price_decimals, stream.qty_decimals)
    same = [
        each for each in reversed(known)
        if (each.price_decimals, each.qty_decimals) == decimals
        and says(each.facts, stream.facts, may_fill=True)
    ]  # fmt: skip
    if same:  # also an old version: the same rows must not be stored beside it once more
        best = min(same, key=lambda each: lacks(each.facts, stream.facts))
        if lacks(best.facts, stream.facts):
            session.execute(versions.FILL.encode(), (best.instrument_id, *stream.facts.market))
        return best.instrument_id
    taken = {each.version for each in known}
    version = stream.version if stream.version not in taken else max(taken) + 1
    row = row_of(stream.venue, stream.symbol, version, decimals, stream.facts, stream.valid_from)
    return int(session.execute(versions.ADD.encode(), row).fetchall()[0][0])


def decoded(text: bytes) -> list[LakeStream]:
    """The streams that a file carries. Raises LakeError."""
    try:
        return msgspec.json.decode(text, type=list[LakeStream])
    except msgspec.MsgspecError as error:
        raise LakeError(f"what a file says of its streams cannot be read: {error}") from None


def seeds_of(streams: Mapping[int, LakeStream]) -> dict[int, int]:
    """The seed of each, by the same ids."""
    return {stream_id: each.seed for stream_id, each in streams.items()}


def chosen(
    streams: Mapping[int, LakeStream], venues: Iterable[str], symbols: Iterable[str]
) -> dict[int, LakeStream]:
    """Those of some venues and symbols; of all where none is named."""
    of_venues, of_symbols = frozenset(venues), frozenset(symbols)
    return {
        each.stream_id: each
        for each in streams.values()
        if (not of_venues or each.venue in of_venues)
        and (not of_symbols or each.symbol in of_symbols)
    }
