"""Messages of every shape a venue declares, made from their definitions, with one value replaced.

Nothing here knows a venue: a field, a message or a venue that is added is covered by itself.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from engine.data.flags import Flag
from engine.data.kind import RecordArray
from engine.data.kinds import GAP, KINDS
from engine.data.names import StreamKind, Transport
from shards.feeds.book_rows import BookEvent
from shards.feeds.books import BookFeed, DeltaBook
from shards.feeds.feed import Feed
from shards.feeds.unnumbered import UnnumberedFeed
from shards.transport.connection import Connection
from shards.transport.poller import Poller, PollShare
from shards.transport.socket import Socket
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.digits import decoder
from shards.venues.json_parts import members, text_of
from shards.venues.kit import FrameDecoder, PollChannel, Shape, Venue, capabilities, no_levels
from shards.venues.salvage import message, tag_paths
from tests.shards.doubles import MemoryRings, Open, spec_of
from tests.shards.venues.recorded import UNDER_TEST

DEEP = b"[" * 100_000 + b"]" * 100_000
HOSTILE: dict[str, bytes | None] = {
    "missing": None, "null": b"null", "text": b'"x"', "list": b"[]", "object": b"{}",
    "true": b"true", "negative": b'"-1"', "absurd": b'"1e30"', "nan": b'"NaN"', "bare_nan": b"NaN",
    "empty": b'""', "huge": b"1" + b"0" * 30, "deep": DEEP, "bad_utf8": b'"\xff\xfe"',
}  # fmt: skip
"""What takes a value's place; None takes its name away as well."""

TIME_MS = 1_795_000_000_000
TS_RECV = (TIME_MS + 5) * 1_000_000
_MARK = "@@here@@"

_type_of = lru_cache(inspect.type_info)
_decoder_of = lru_cache(decoder)
"""Both cost more than what is done with them."""

Place = tuple[str | int, ...]
"""Where a value is in an element."""


class Offer(NamedTuple):
    """A kind of stream, how it is delivered, and the shape of that."""

    kind: StreamKind
    transport: Transport
    shape: Shape


def offers(venue: Venue) -> list[Offer]:
    """All of a venue, with the shapes of its frames and answers."""
    frames = {each.feed: each for each in venue.shapes}
    found = []
    for kind, transport in capabilities(venue):
        channel = venue.channels[kind, transport]
        shape = channel.shape if isinstance(channel, PollChannel) else frames[channel.feed]
        found.append(Offer(kind, transport, shape))
    return found


def sharing(offered: Iterable[Offer], offer: Offer) -> list[Offer]:
    """What else of them has rows of the same messages, and it."""
    tag = offer.shape.tag
    return [each for each in offered if each == offer or (tag and each.shape.tag == tag)]


def _timestamp(number: int) -> str:
    at = datetime.fromtimestamp((TIME_MS + number) / 1e3, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{(TIME_MS + number) % 1000:03d}Z"


def is_asked_alone(venue: Venue, offer: Offer) -> bool:
    """Whether a call answers for one symbol. Else what an answer says of a name that nobody has is
    of somebody else.
    """
    channel = venue.channels[offer.kind, offer.transport]
    return isinstance(channel, PollChannel) and channel.call is not None


def _value(kind: inspect.Type, symbol: str, number: int) -> Any:
    match kind:
        case inspect.ListType(item):
            # Numbers apart, so that no two elements of a list are the same one.
            return [_value(item, symbol, number), _value(item, symbol, number + 1_000_000)]
        case inspect.TupleType(items):
            return [_value(item, symbol, number) for item in items]
        case inspect.StructType():
            found = {
                f.encode_name: _value(f.type, symbol, number)
                if f.default in (msgspec.NODEFAULT, None)
                else f.default
                for f in kind.fields
            }
            return list(found.values()) if kind.array_like else found
        case inspect.UnionType(types):
            return _value(next(t for t in types if not isinstance(t, inspect.NoneType)), symbol,
                          number)  # fmt: skip
    return _scalar(kind, symbol, number)


def _scalar(kind: inspect.Type, symbol: str, number: int) -> Any:
    match kind:
        case inspect.FloatType() | inspect.CustomType():
            return "10.5"
        case inspect.IntType():
            return number
        case inspect.BoolType():
            return False  # also of a book that says whether it is whole: these are changes
        case inspect.StrType():
            return symbol
        case inspect.DateTimeType() | inspect.RawType():  # the one is a time that is read late
            return _timestamp(number)
        case inspect.LiteralType(values):
            return next((each for each in values if "snap" not in str(each)), values[0])
    raise AssertionError(f"no example of {kind}")


def element(shape: Shape, symbol: str, number: int) -> dict[str, Any]:
    """The `number`th element of a stream: its ids and times go on from the one before."""
    found: dict[str, Any] = _value(_type_of(shape.element), symbol, number)
    at: Any = TIME_MS + number
    if shape.time and isinstance(found[shape.time], str):
        at = _timestamp(number)
    chain = {shape.prev_seq: number - 1, shape.seq: number, shape.time: at}
    found |= {name: value for name, value in chain.items() if name}
    if shape.where and shape.where[1] is not None:
        found |= dict([shape.where])
    found["zz"] = "a field nobody reads"
    return found


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every value inside of an element."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        yield (*at, name)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*at, name))


def mutated(value: Any, place: Place, hostile: bytes | None) -> bytes:
    """The element as it is written, with one value replaced."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for name in place[:-1]:
        inner = inner[name]
    if hostile is None:
        del inner[place[-1]]
        return json.dumps(copy).encode()
    inner[place[-1]] = _MARK
    return json.dumps(copy).encode().replace(f'"{_MARK}"'.encode(), hostile)


def wrapped(shape: Shape, body: bytes) -> bytes:
    """What is at its path, with all that is around it."""
    for name in reversed(shape.path):
        body = b'{"%b":%b}' % (name.encode(), body) if name else b"[%b]" % body
    return body


def row_count(shape: Shape, text: bytes) -> int:
    """Rows an element makes that can be read."""
    said = json.loads(text.decode(errors="replace"))
    sides = shape.levels({name: json.dumps(value).encode() for name, value in said.items()})
    rows = sum(len(json.loads(side)) for side in sides)
    is_list = shape.levels is not no_levels and not issubclass(shape.feed, BookFeed)
    return rows if rows or is_list else shape.row_count  # an empty book is a row, too


class Market:
    """One venue's streams, each behind the socket or poller it would have; `symbols` of each. With
    `of` only the streams that such a message reaches: all of a venue take the longest to make.
    """

    def __init__(
        self,
        name: str,
        symbols: int = 1,
        capacity: int = 1 << 8,
        *,
        gives_snapshots: bool = True,
        of: Offer | None = None,
    ) -> None:
        self.venue = UNDER_TEST[name]
        self._gives_snapshots = gives_snapshots
        self.double = MemoryRings(capacity, gap_capacity=capacity)
        self.symbols = [f"S{number}" for number in range(symbols)]
        self.streams: dict[tuple[StreamKind, Transport, str], Feed] = {}
        self.offers = sharing(offers(self.venue), of) if of else offers(self.venue)
        self.numbers: defaultdict[tuple[str, Transport, str], int] = defaultdict(lambda: 1000)
        """By what goes on from each other: a message, or the answers of a kind."""
        for kind, transport, _ in self.offers:
            for symbol in self.symbols:
                self._make(kind, transport, symbol)
        topics = {
            f"{kind}{symbol}": stream
            for (kind, transport, symbol), stream in self.streams.items()
            if transport is Transport.WS
        }
        group = next(iter(self.venue.groups.values()))
        self.connection = Connection(
            self.venue, group, "ws://nowhere", topics.items(), self.double.rings.publish, Open(),
            lifetime_s=3600.0,
        )  # fmt: skip
        self.decode = self._opened()
        self.pollers = {
            kind: self._poller(kind) for kind, transport, _ in self.offers
            if transport is Transport.HTTP_POLL
        }  # fmt: skip

    def _opened(self) -> FrameDecoder:
        return self.connection.opened(Socket(self.connection, self.double.rings.publish))

    def opened_again(self) -> None:
        """The socket ends, and the next one is open."""
        for stream in self.connection.streams:
            stream.cut("cut")
        self.decode = self._opened()

    def _make(self, kind: StreamKind, transport: Transport, symbol: str) -> None:
        slot = len(self.streams)
        stream = self.double.feed(
            spec_of(slot, self.venue.name, symbol, kind, transport), self.venue
        )
        stream.subscribed()
        self.streams[kind, transport, symbol] = stream

    def _poller(self, kind: StreamKind) -> Poller:
        channel = self.venue.channels[kind, Transport.HTTP_POLL]
        assert isinstance(channel, PollChannel)
        poller = Poller(
            self.venue.name, channel, None, self.double.rings.publish,  # type: ignore[arg-type]
            interval_s=3600.0, share=PollShare(Open(), 1e9, lambda: False),
        )  # fmt: skip
        for (each, transport, _), stream in self.streams.items():
            if each is kind and transport is Transport.HTTP_POLL:
                assert isinstance(stream, UnnumberedFeed)
                poller.add(stream)
        return poller

    def next_element(self, offer: Offer, symbol: str) -> dict[str, Any]:
        """The stream's next one."""
        key = (offer.shape.tag or offer.kind, offer.transport, symbol)
        self.numbers[key] += 1
        return element(offer.shape, symbol, self.numbers[key])

    def frame(self, shape: Shape, texts: list[bytes], symbol: str = "S0") -> bytes:
        """The venue's message around elements of a symbol: one, or a list of them."""
        if not shape.is_list:
            (body,) = texts
        else:
            body = b"[" + b",".join(texts) + b"]"
        if not shape.tag:
            return wrapped(shape, body)
        tag, said = tag_paths(self.venue.tag), shape.tag.replace("{symbol}", symbol)
        if shape.path:
            return message(tag, said, shape.path, body)
        return b'{"%b":%b,%b' % (tag[0][0].encode(), json.dumps(said).encode(), body[1:])

    def push(self, payload: bytes) -> None:
        """A frame arrives, as `Socket` has it."""
        try:
            self.decode(payload, TS_RECV)
        except BAD_FRAME as error:
            self.connection.bad_frame(error, payload)

    def answer(self, kind: StreamKind, texts: Mapping[str, bytes], *, alone: bool) -> None:
        """A poll of all symbols is answered, or of one alone."""
        poller = self.pollers[kind]
        shape = self.offer(kind).shape
        if alone:
            ((symbol, body),) = texts.items()
            body = wrapped(shape, b"[%b]" % body if shape.is_list else body)
        elif shape.symbol:
            symbol, body = "", wrapped(shape, b"[%b]" % b",".join(texts.values()))
        else:  # known by their place
            names = json.dumps([{"name": name} for name in texts]).encode()
            symbol = ""
            body = b'[{"universe":%b},[%b]]' % (names, b",".join(texts.values()))
        poller._deliver(symbol, body, 0.0)

    def offer(self, kind: StreamKind) -> Offer:
        """How a kind is polled."""
        return next(o for o in self.offers if o[:2] == (kind, Transport.HTTP_POLL))

    def deliver(self, offer: Offer, texts: list[bytes], symbol: str) -> None:
        """Elements of one symbol: one message each, or all in a list where the venue has lists."""
        if offer.transport is Transport.HTTP_POLL:
            for text in texts:
                self.answer(offer.kind, {symbol: text}, alone=is_asked_alone(self.venue, offer))
        elif offer.shape.is_list:
            self.push(self.frame(offer.shape, texts, symbol))
        else:
            for text in texts:
                self.push(self.frame(offer.shape, [text], symbol))
        stream = self.streams[offer.kind, offer.transport, symbol]
        if isinstance(stream, DeltaBook) and not stream.is_synced and self._gives_snapshots:
            self._give_snapshot(stream)

    def _give_snapshot(self, book: DeltaBook) -> None:
        """One that fits the newest event."""
        side = [(10.5, 1.0)]
        seq, ts = book._last_seq, book._last_ts
        book.on_snapshot(BookEvent(seq, 0, ts, TS_RECV, side, side, is_snapshot=True))

    def settle(self) -> None:
        """What `VenueSession.tick` does."""
        for stream in self.streams.values():
            stream.tick(TS_RECV)
        self.double.rings.publish()

    def rows(self, stream: Feed) -> int:
        """Its rows in the rings, without snapshots that were asked for."""
        found = 0
        for kind in KINDS:
            if kind != GAP.name:
                rows = self.double.rows(kind)
                mine = rows[rows["stream"] == stream.slot]
                if isinstance(stream, DeltaBook):
                    mine = mine[mine["flags"] & int(Flag.SNAPSHOT) == 0]
                found += len(mine)
        return found

    def gaps(self, stream: Feed) -> RecordArray:
        """Its gaps."""
        rows = self.double.rows("gap")
        found: RecordArray = rows[rows["stream"] == stream.slot]
        return found


def is_refused(shape: Shape, text: bytes, symbol: str) -> bool:
    """Whether an element, alone, is none by its definition, and does not say that it is of another
    kind.
    """
    return not is_read(shape, text, symbol) and not _is_another(shape, text)


def _is_another(shape: Shape, text: bytes) -> bool:
    if shape.where is None:
        return False
    member, said = shape.where
    found = members(text).get(member)
    if said is None:
        return found in (None, b"null")
    return text_of(found) not in (None, said)


def is_read(shape: Shape, text: bytes, symbol: str) -> bool:
    """Whether an element, alone, is one of the stream's by its definition."""
    if _is_another(shape, text):
        return False
    try:
        found = _decoder_of(shape.element)(text)
        if shape.check:
            shape.check(found)
    except BAD_FRAME:
        return False
    return not shape.symbol or text_of(members(text)[shape.symbol]) == symbol
