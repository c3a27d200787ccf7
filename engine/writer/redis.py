"""Rows to Redis streams and channels: a live view, never in the database's way.

Each flush is one MULTI/EXEC: an XADD for every stream (several events an entry) and the move of the
cursors. The cursor hash is watched from its last reading on, so a predecessor's EXEC that was still
under way makes ours fail instead of publishing twice; the watch rides on the flush before, and
costs no round trip.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from engine.catalog import Catalog, CatalogEntry
from engine.errors import FencedError, RedisUnavailableError
from engine.records import RecordArray, RecordKind
from engine.redis_link import Command, RedisLink, parse_redis_url
from engine.settings import WriterSettings
from engine.writer.batch import Slice
from engine.writer.events import EVENTS, by_stream, encode, gap_events

_EVENTS_PER_ENTRY: Final = 500
_DEADLINE_S: Final = 2.0
_ENTRIES_MIN: Final = 16
_SMOOTHING: Final = 0.05


class RedisSink:
    """One connection to Redis. Not for two tasks at a time.

    Every failure is a RedisUnavailableError or a FencedError; then `connect`, read the cursors, go
    on. Nothing waits longer than the deadline.
    """

    def __init__(
        self, settings: WriterSettings, catalog: Catalog, deadline_s: float = _DEADLINE_S
    ) -> None:
        assert settings.redis_url, "without a URL there is no sink"
        self._address = parse_redis_url(settings.redis_url)
        self._name = f"fts-writer-{settings.paths.instance}"
        self._prefix = settings.redis_prefix
        self._cursor_key = f"{settings.redis_prefix}:cursor"
        self._maxlen_rows = settings.redis_stream_maxlen
        self._publish = settings.redis_publish
        self._deadline_s = deadline_s
        self._catalog = catalog
        self._link: RedisLink | None = None
        self._cursors: dict[str, int | None] = {}
        self._rows_per_entry: dict[str, float] = {}

    async def connect(self) -> None:
        """Open a new connection in place of the old one."""
        await self.close()
        self._cursors.clear()
        self._link = await RedisLink.open(self._address, self._name, self._deadline_s)

    async def close(self) -> None:
        """Close the connection, if any."""
        if self._link is not None:
            link, self._link = self._link, None
            await link.wait_closed()

    async def cursor(self, ring: str, epoch: int) -> int | None:
        """Sequence of the next row to publish; None when Redis knows nothing of this ring."""
        field = _cursor_field(ring, epoch)
        replies = await self._call([("WATCH", self._cursor_key), ("HGET", self._cursor_key, field)])
        self._cursors[field] = None if replies[1] is None else int(replies[1])
        return self._cursors[field]

    async def publish(self, slices: Sequence[Slice], gaps: Sequence[RecordArray] = ()) -> int:
        """Publish the rows, and gaps that are rows of no ring, and move the cursors; return how
        many events were sent.

        Raises FencedError when somebody else moved a cursor meanwhile, RedisUnavailableError.
        """
        ends = {_cursor_field(s.ring, s.epoch): s.end_seq for s in slices}
        if not ends:
            return 0
        sent = 0
        commands: list[Command] = [("MULTI",)]
        pieces = [(piece.spec.kind, piece.records) for piece in slices]
        pieces += [(RecordKind.GAP, records) for records in gaps]
        for key, events, row_count in self._entries(pieces):
            sent += len(events)
            payload = encode(events)
            commands.append(self._append(key, payload, row_count))
            if self._publish:
                commands.append(("PUBLISH", key, payload))
        moves = [part for field, end_seq in ends.items() for part in (field, end_seq)]
        commands.append(("HSET", self._cursor_key, *moves))
        commands.append(("EXEC",))
        commands.append(("WATCH", self._cursor_key))
        commands.append(("HMGET", self._cursor_key, *ends))
        replies = await self._call(commands)
        if replies[-3] is None:
            self._fence("somebody else moved a Redis cursor")
        self._cursors.update(ends)
        if [None if value is None else int(value) for value in replies[-1]] != list(ends.values()):
            self._fence("a Redis cursor moved right after ours")
        return sent

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        if self._link is None or self._link.is_closed:
            raise RedisUnavailableError("not connected")
        return await self._link.call(commands, self._deadline_s)

    def _fence(self, reason: str) -> None:
        if self._link is not None:
            self._link.close()
        raise FencedError(f"{reason}: another writer, or a flushed server")

    def _entries(
        self, pieces: Sequence[tuple[RecordKind, RecordArray]]
    ) -> Iterator[tuple[str, Sequence[Any], int]]:
        """(key, events, rows in them) of every stream entry to write."""
        for kind, records in pieces:
            if not len(records):
                continue
            for slot, rows in by_stream(records):
                entry = self._known(slot)
                if entry is None:
                    continue  # the database sink quarantines such rows
                key, events = self._events(kind, entry, rows)
                rows_per_event = len(rows) / len(events)
                for start in range(0, len(events), _EVENTS_PER_ENTRY):
                    chunk = events[start : start + _EVENTS_PER_ENTRY]
                    yield key, chunk, max(1, round(len(chunk) * rows_per_event))

    def _known(self, slot: int) -> CatalogEntry | None:
        entry = self._catalog.get(slot)
        if entry is None:
            self._catalog.refresh()
            entry = self._catalog.get(slot)
        return entry

    def _events(
        self, kind: RecordKind, entry: CatalogEntry, rows: RecordArray
    ) -> tuple[str, Sequence[Any]]:
        key = entry.key
        if kind is RecordKind.GAP:
            return f"{self._prefix}:gaps", gap_events(rows, key.venue, key.symbol, key.kind)
        word, events_of = EVENTS[kind]
        return f"{self._prefix}:{word}:{key.venue}:{key.symbol}", events_of(rows)

    def _append(self, key: str, payload: bytes, row_count: int) -> Command:
        """An XADD that keeps about `redis_stream_maxlen` rows, whatever an entry holds.

        Redis trims by entries, so their mean size is followed: an entry holds one row in a quiet
        market and five hundred in a storm, and the memory has to stay the same.
        """
        mean = self._rows_per_entry.get(key, float(row_count))
        mean += _SMOOTHING * (row_count - mean)
        self._rows_per_entry[key] = mean
        entries = max(_ENTRIES_MIN, round(self._maxlen_rows / mean))
        return ("XADD", key, "MAXLEN", "~", entries, "*", "events", payload)


def _cursor_field(ring: str, epoch: int) -> str:
    return f"{ring}/{epoch}"
