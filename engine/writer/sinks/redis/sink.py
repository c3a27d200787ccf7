"""Rows to Redis streams and channels: a live view, never in the database's way.

Each flush is one MULTI/EXEC: an XADD for every stream (several events an entry) and the move of the
cursors. The cursor hash is watched from its last reading on, so a predecessor's EXEC that was still
under way makes ours fail instead of publishing twice; the watch rides on the flush before, and
costs no round trip.

The streams stay within their memory (`engine.writer.sinks.redis.room`), also on a server that is
full: XTRIM is allowed there, XADD is not, so the next connection begins with making room.
"""

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import hiredis
import numpy as np

from engine.base.clock import monotonic_s
from engine.base.errors import FencedError, StoreFullError, StoreUnavailableError
from engine.base.masking import scrub
from engine.base.redis_link import Command, RedisLink, first_error, parse_redis_url
from engine.data.flags import Flag
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, KINDS
from engine.data.kinds.gap import GAP, gap_events
from engine.data.layout import SourceKey
from engine.data.slots import Slot, Slots
from engine.messages.settings import WriterSettings
from engine.start.redis_memory import does_not_fit
from engine.writer.rows.events import by_stream, encode, events_by_stream
from engine.writer.rows.slice import Batch
from engine.writer.sinks.redis.room import Held, Room, ServerMemory
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken

_log = logging.getLogger(__name__)

_EVENTS_PER_ENTRY: Final = 500
_ROWS_PER_ENTRY: Final = 2_000
"""Levels of a book, 25 bytes each: what Redis can only drop whole stays small."""
_KEPT_S: Final = 7 * 86_400
"""A stream that gets no entry for a week is gone, whoever wanted it once."""
_RENEWED_EVERY_S: Final = 3_600.0
_KEYS_PER_SCAN: Final = 1_000
_STOCK_EVERY_S: Final = 2.0
_STOCK_KEY_S: Final = 0.002
"""To ask for the size of a stream takes some 6 µs, here and on the server: a third of a percent."""
_REFUSED_FOR_S: Final = 60.0


_Rows = RecordArray | Sequence[Any]
"""Levels of a book; of other kinds each row is an event."""


class _Entry(NamedTuple):
    """One stream entry to write."""

    kind: str
    key: str
    events: Sequence[Any]
    row_count: int


class RedisSink(Sink):
    """One connection to Redis.

    Every failure is a StoreUnavailableError or a FencedError. Nothing waits longer than the
    deadline. A key that Redis refuses alone is told, and keeps nothing else from being published.
    """

    name = "redis"
    promise = Promise.LIVE

    def __init__(
        self, settings: WriterSettings, slots: Slots, deadline_s: float | None = None
    ) -> None:
        assert settings.redis_url, "without a URL there is no sink"
        self._address = parse_redis_url(settings.redis_url)
        self._name = f"fts-writer-{settings.paths.instance}"
        self._prefix = settings.redis_prefix
        self._cursor_key = f"{settings.redis_prefix}:cursor"
        self._template = settings.redis_key_template.replace("{prefix}", settings.redis_prefix)
        self._keys: dict[tuple[str, int], str] = {}
        """By kind and slot."""
        self._publishes = {
            kind: settings.redis_publish if each.publish is None else each.publish
            for kind, each in settings.redis_kinds.items()
        }
        self._publish = settings.redis_publish
        self._maxlens = {kind: each.maxlen for kind, each in settings.redis_kinds.items()}
        self._needed_bytes = settings.redis_needed_bytes
        self._memory_bytes = settings.redis_memory_bytes
        self._deadline_s = deadline_s or settings.redis_answer_within_s
        self._slots = slots
        self._link: RedisLink | None = None
        self._begins: dict[SourceKey, int] = {}
        """Where we begin in each source, until that is written down."""
        self._refusals: dict[str, tuple[float, str]] = {}
        """By key: when Redis last refused it alone, and why."""
        self._stock_due_s = monotonic_s() + _STOCK_EVERY_S
        self._was_full = False
        self._renewed_s: dict[str, float] = {}
        self._said_level_bytes = math.inf
        self._server_is_known = False
        self.room = Room(settings.redis_memory_bytes, settings.redis_stream_maxlen)

    async def open(self, drained: Mapping[SourceKey, int]) -> Collection[SourceKey]:
        """A new connection in place of the old one. On a server that was full, make room."""
        await self.close()
        self._link = await RedisLink.open(self._address, self._name, self._deadline_s)
        if self._was_full:
            await self._make_room()
            self._was_full = False
        return ()

    async def close(self) -> None:
        """Close the connection, if any."""
        if self._link is not None:
            link, self._link = self._link, None
            await link.wait_closed()

    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        """Watch them from now on."""
        found: dict[SourceKey, Cursor] = {}
        self._begins = {}
        for key, start_seq in starts.items():
            reading = ("HGET", self._cursor_key, _cursor_field(key))
            replies = await self._call([("WATCH", self._cursor_key), reading])
            seq = None if replies[1] is None else int(replies[1])
            found[key] = Cursor(seq)
            self._begins[key] = start_seq if seq is None else seq
        return found

    async def tend(self) -> None:
        """Begin the session, and see now and then what the streams take."""
        if self._begins:
            await self._introduce()
        if monotonic_s() >= self._stock_due_s:
            await self.take_stock()
            pause_s = max(_STOCK_EVERY_S, _STOCK_KEY_S * len(self.room.keys))
            self._stock_due_s = monotonic_s() + pause_s

    async def _introduce(self) -> None:
        """Write down where we begin, and forget the epochs before. That proves that the server
        takes what we write, and not only our connection.
        """
        (known,) = await self._call([("HKEYS", self._cursor_key)])
        epochs = dict(self._begins.keys())
        old = [name for name in known if _is_before(name, epochs)]
        commands: list[Command] = [("HDEL", self._cursor_key, *old)] if old else []
        ends = {_cursor_field(key): seq for key, seq in self._begins.items()}
        if ends or commands:
            await self._transact(commands, ends)
        self._begins = {}

    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        """Publish the rows, and gaps that are rows of no ring, and move the cursors."""
        taken, slices = Taken(), batch.slices
        pieces = [(each.spec.name, each.records) for each in slices]
        pieces += [(GAP.name, records) for records in batch.gaps]
        entries: list[_Entry | None] = []
        commands: list[Command] = []
        for entry in self._entries(pieces, taken.refused):
            payload = encode(entry.events)
            commands.append(self._append(entry, payload))
            entries.append(entry)
            if self._publishes.get(entry.kind, self._publish):
                commands.append(("PUBLISH", entry.key, payload))
                entries.append(None)
        ends = {_cursor_field(each.source): each.end_seq for each in slices}
        outcomes = await self._transact(commands, ends)
        now_s = monotonic_s()
        for sent, outcome in zip(entries, outcomes, strict=True):
            if sent is None:
                continue
            if isinstance(outcome, hiredis.ReplyError):
                taken.refused[sent.kind] += sent.row_count
                self._refusals[sent.key] = now_s, f"{sent.key}: {self._scrubbed(outcome)}"
            else:
                taken.rows[sent.kind] += sent.row_count
                self._refusals.pop(sent.key, None)
        return taken

    @property
    def refuses(self) -> str:
        """A key that is refused, until a while after the last try: its stream may be gone."""
        if not self._refusals:
            return ""
        since_s = monotonic_s() - _REFUSED_FOR_S
        self._refusals = {key: met for key, met in self._refusals.items() if met[0] > since_s}
        return next((text for _, text in self._refusals.values()), "")

    @property
    def memory_bytes(self) -> tuple[int, int]:
        """What the streams take, and what they may."""
        return self.room.used_bytes, self.room.budget_bytes

    async def take_stock(self) -> None:
        """See what the streams take, and trim those that take more than their share."""
        server, held = await self._measure(self.room.keys)
        await self._trim(self.room.take_stock(held, server))
        if 2 * self.room.level_bytes < self._said_level_bytes:
            self._said_level_bytes = self.room.level_bytes
            _log.info(
                "redis: %d streams share %.0f MB: the largest keep %.0f kB each; redis.memory_mb"
                " or the server's maxmemory would give them more",
                len(held), self.room.budget_bytes / 2**20, self.room.level_bytes / 1024,
                extra={"event": "store_room"},
            )  # fmt: skip

    async def _transact(self, commands: Sequence[Command], ends: Mapping[str, int]) -> list[Any]:
        """Run the commands and move the cursors, all or nothing; watch on. Returns what became of
        each command: one that is refused inside EXEC does not stop its neighbours.
        """
        moves = [part for field, end_seq in ends.items() for part in (field, end_seq)]
        replies = await self._ask(
            [
                ("MULTI",),
                *commands,
                *([("HSET", self._cursor_key, *moves)] if moves else []),
                ("EXEC",),
                ("WATCH", self._cursor_key),
                ("HMGET", self._cursor_key, *ends) if ends else ("PING",),
            ]
        )
        outcomes = replies[-3]
        moved = outcomes[len(commands) :] if isinstance(outcomes, list) else [outcomes]
        error = first_error([*replies[:-3], *moved, *replies[-2:]])
        if error is not None:
            raise self._refused(error)
        if outcomes is None:
            self._fence("somebody else moved a Redis cursor")
        if ends and [None if v is None else int(v) for v in replies[-1]] != list(ends.values()):
            self._fence("a Redis cursor moved right after ours")
        return list(outcomes[: len(commands)])

    async def _make_room(self) -> None:
        """Cut what streams hold on a server that is full, those that nobody writes to any more
        included.
        """
        keys = list(dict.fromkeys([*self.room.keys, *await self._stream_keys()]))
        server, held = await self._measure(keys)
        self.room.was_full(held)
        await self._trim(self.room.take_stock(held, server))

    async def _trim(self, trims: Iterable[tuple[str, int]]) -> None:
        """Cut streams, and renew the time for which those that are written to are kept."""
        commands: list[Command] = [("XTRIM", key, "MAXLEN", "~", count) for key, count in trims]
        now_s, keys = monotonic_s(), self.room.keys
        renewed_s = {key: self._renewed_s.get(key, -_RENEWED_EVERY_S) for key in keys}
        for key in keys:
            if now_s - renewed_s[key] >= _RENEWED_EVERY_S:
                commands.append(("EXPIRE", key, _KEPT_S))
                renewed_s[key] = now_s
        self._renewed_s = renewed_s
        if commands:
            await self._ask(commands)

    async def _measure(self, keys: Sequence[str]) -> tuple[ServerMemory | None, dict[str, Held]]:
        """What the server has, and what these streams take of it. A login that may not ask for
        that goes by what was written.
        """
        asked: list[Command] = [("INFO", "memory")]
        for key in keys:
            asked += [("XLEN", key), ("MEMORY", "USAGE", key)]
        info, *sizes = await self._ask(asked)
        held = {}
        for key, entry_count, byte_count in zip(keys, sizes[::2], sizes[1::2], strict=True):
            if not isinstance(entry_count, int) or byte_count is None:
                continue  # no stream, or none any more
            estimate = round(entry_count * self.room.mean_bytes(key))
            is_told = isinstance(byte_count, int)
            held[key] = Held(byte_count if is_told else estimate, entry_count)
        server = _server_memory(info)
        if server is not None:
            self._say_what_is_short(server)
        return server, held

    def _say_what_is_short(self, server: ServerMemory) -> None:
        """Once: a server of others may be bounded below what all rows take, or drop keys."""
        if self._server_is_known:
            return
        self._server_is_known = True
        if 0 < server.most < self._memory_bytes:
            text = does_not_fit(self._needed_bytes, server.most, "its maxmemory")
            if text:
                _log.warning("redis: %s", text, extra={"event": "store_short"})
        if server.most and server.policy not in ("", "noeviction"):
            _log.warning(
                "redis: its maxmemory-policy is %s: when it is full it drops whole streams, or the"
                " cursors by which nothing is published twice; set noeviction",
                server.policy,
                extra={"event": "store_short"},
            )

    async def _stream_keys(self) -> list[str]:
        """Every stream of ours on the server; none where the login may not look."""
        keys: list[str] = []
        pattern, cursor = f"{self._prefix}:*", b"0"
        while True:
            (reply,) = await self._ask(
                [("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_SCAN, "TYPE", "stream")]
            )
            if isinstance(reply, hiredis.ReplyError):
                return keys
            cursor, found = reply
            keys += [key.decode("utf-8", "surrogateescape") for key in found]
            if cursor == b"0":
                return keys

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        replies = await self._ask(commands)
        if (error := first_error(replies)) is not None:
            raise self._refused(error)
        return replies

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if self._link is None or self._link.is_closed:
            raise StoreUnavailableError("not connected")
        return await self._link.ask(commands, self._deadline_s)

    def _refused(self, error: hiredis.ReplyError) -> StoreUnavailableError:
        assert self._link is not None
        refused = self._link.refused(error)
        self._was_full = self._was_full or isinstance(refused, StoreFullError)
        return refused

    def _scrubbed(self, error: hiredis.ReplyError) -> str:
        return scrub(str(error), self._address.url)

    def _fence(self, reason: str) -> None:
        if self._link is not None:
            self._link.close()
        raise FencedError(f"{reason}: another writer, or a flushed server")

    def _entries(
        self, pieces: Sequence[tuple[str, RecordArray]], refused_rows: Counter[str]
    ) -> Iterator[_Entry]:
        """Every stream entry to write."""
        for kind, records in pieces:
            if not len(records):
                continue
            if kind == GAP.name:
                yield from self._gap_entries(records, refused_rows)
                continue
            for slot, events, rows in _by_stream(kind, records):
                key = self._stream_key(kind, slot)
                if key is None:
                    refused_rows[kind] += len(rows)  # the database sink quarantines them
                    continue
                yield from _cut(kind, key, events, rows)

    def _gap_entries(self, records: RecordArray, refused_rows: Counter[str]) -> Iterator[_Entry]:
        """All in one stream: each says whose it is."""
        for slot, rows in by_stream(records):
            known = self._known(slot)
            if known is None:
                refused_rows[GAP.name] += len(rows)
                continue
            events = gap_events(rows, known.key.venue, known.key.symbol, known.key.kind)
            yield from _cut(GAP.name, f"{self._prefix}:gaps", events, events)

    def _known(self, slot: int) -> Slot | None:
        entry = self._slots.get(slot)
        if entry is None:
            self._slots.refresh()
            entry = self._slots.get(slot)
        return entry

    def _stream_key(self, kind: str, slot: int) -> str | None:
        """The key of a stream. A slot is one stream for ever."""
        key = self._keys.get((kind, slot))
        if key is None and (known := self._known(slot)) is not None:
            word, venue, symbol = KINDS[kind].word, known.key.venue, known.key.symbol
            key = self._template.format(kind=word, venue=venue, symbol=symbol)
            self._keys[kind, slot] = key
        return key

    def _append(self, entry: _Entry, payload: bytes) -> Command:
        """An XADD that keeps what the stream may hold."""
        maxlen = self._maxlens.get(entry.kind)
        kept = self.room.entries_kept(entry.key, entry.row_count, len(payload), maxlen)
        return ("XADD", entry.key, "MAXLEN", "~", kept, "*", "events", payload)


def _by_stream(kind: str, records: RecordArray) -> Iterator[tuple[int, Sequence[Any], _Rows]]:
    """(slot, events, what they are of) for every slot."""
    if kind == BOOK.name:
        yield from ((slot, BOOK.events(rows), rows) for slot, rows in by_stream(records))
    else:
        for slot, events in events_by_stream(KINDS[kind], records):
            yield slot, events, events


def _cut(kind: str, key: str, events: Sequence[Any], rows: _Rows) -> Iterator[_Entry]:
    """The entries of a stream's events: one, unless they are many."""
    if len(rows) <= _EVENTS_PER_ENTRY:
        yield _Entry(kind, key, events, len(rows))
        return
    starts = _event_starts(rows)
    at_once = max(1, min(_EVENTS_PER_ENTRY, _ROWS_PER_ENTRY * len(events) // len(rows)))
    for start in range(0, len(events), at_once):
        stop = min(start + at_once, len(events))
        yield _Entry(kind, key, events[start:stop], starts[stop] - starts[start])


def _event_starts(rows: _Rows) -> Sequence[int]:
    """Where each event begins in the rows of a stream, and where the last one ends."""
    if not isinstance(rows, np.ndarray):
        return range(len(rows) + 1)
    is_first = (rows["flags"] & int(Flag.FIRST_IN_EVENT)) != 0
    is_first[0] = True
    starts: list[int] = np.flatnonzero(is_first).tolist()
    return [*starts, len(rows)]


def _server_memory(info: object) -> ServerMemory | None:
    """Of the answer to INFO; None where that is refused, or not what we know."""
    if not isinstance(info, bytes):
        return None
    lines = dict(line.partition(b":")[::2] for line in info.splitlines())
    try:
        policy = lines.get(b"maxmemory_policy", b"").decode("ascii", "replace")
        return ServerMemory(int(lines[b"used_memory"]), int(lines[b"maxmemory"]), policy)
    except (KeyError, ValueError):
        return None


def _cursor_field(source: SourceKey) -> str:
    return f"{source.ring}/{source.epoch}"


def _is_before(field: bytes, epochs: Mapping[str, int]) -> bool:
    """Whether a cursor is one of an earlier epoch of these rings."""
    ring, _, epoch = field.decode("utf-8", "surrogateescape").rpartition("/")
    return epoch.isdecimal() and int(epoch) < epochs.get(ring, 0)


def make(settings: WriterSettings, slots: Slots) -> RedisSink | None:
    """The sink, if there is a Redis."""
    return RedisSink(settings, slots) if settings.redis_url else None
