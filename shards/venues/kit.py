"""What a venue is to this project: data, and a few pure functions. No subclassing.

A venue file declares one `Venue`. Everything that differs between venues is a value here; only
decoding is code. Rule numbers in venue files refer to the venue's public documentation.

What the author of a venue writes, in this order:

1. `ListingCalls`: the call that names the instruments, and a `parse` that makes an `Instrument` of
   each row (`shards.venues.listing.RowReader`: one odd row costs itself alone). `next` where the
   listing comes in pages, and `together` where they say something only together. Prices and
   quantities stay in the venue's unit. `state` and `kind` say what the venue's words `status` and
   `venue_kind` mean; a word nobody knows is UNKNOWN.
2. Messages: a `msgspec.Struct` for each kind of frame. What is traded has the field types of
   `shards.venues.wire`; what the venue computes (rates, mark prices, open interest) is `Computed`
   or `ComputedRate` of `shards.venues.digits`, read by its `decoder`. What no market can mean is
   refused there, and no decoder looks again. Forms of a message that one `Shape` covers are one
   Struct; what only one of them must have is checked in `__post_init__` (ValueError), or, where
   that is too slow, by the decoder and `Shape.check`. Whether a book is whole says a bool, or a
   Literal with `snap` in the value of those that are. What stands beside elements (`action` of a
   frame, `code` of an answer) has a default: of a refused message those that can be read come
   again with its type alone (`shards.venues.salvage`).
3. A decoder: a function that is given the feeds and returns `decode(payload, ts_recv)`, which
   delivers rows to the feed of their symbol and says what is no data. It keeps no clock, sleeps
   never, and delivers all of a frame or nothing. A frame that is nothing it knows, `{}` as well,
   raises `MalformedFrameError("schema")`; rows of a symbol without a feed `UntakenError`. `Shape`
   says where the elements of a frame are, so that what can be read of a bad one is used. Where the
   type says whose a message is (`book.BTC-USD`), no tagged union can tell types apart: decode the
   type alone first, then the frame by the decoder of its type.
4. `SocketGroup`: one for each kind of WebSocket, with its pings, its limits and its manners.
5. `Channel` and `PollChannel`, one for each kind of stream: its topic or its call, after how long
   silence is a fault, and its feed, which is how its rows prove that none is missing:

   - trades that are numbered without holes: `ContiguousTrades` (a trade may stand for several ids;
     what a subscription repeats goes to its `on_past_trade`); others whose first frame repeats the
     past: `HistoryTrades`; any others: `UnorderedTrades`, with ids of up to 128 bits
     (`shards.feeds.trades.wide_id`);
   - books of deltas on a REST snapshot: `DeltaBook` (with `book_snapshot`); snapshot and deltas on
     one topic: `PushedBook`, or without ids `UnnumberedBook`, and `book` says how they chain
     (`shards.feeds.pushed.rules`), or `UnchainedBook` where nothing proves them whole; whole every
     time: `SnapshotBook`;
   - all else is known by its time (funding and open interest in one message: `FundingOpenInterest`,
     whose interval its rows alone say); what was paid (`SettledFunding`) is asked for since its
     newest row, with `{since}`.
6. `limits`: what the venue lets an address spend (`Limit`, for any window) and hold (`Places`);
   `limits_with` where several venues are at one server.
7. `examples` and `options`: symbols for examples, and what users may choose.
8. Recorded frames and what they mean in `tests/data/<name>/`, and a line in `shards.venues`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from msgspec import Struct

from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.book_rows import Level
from shards.feeds.feed import Feed
from shards.feeds.passing.kept import KeptFrames
from shards.feeds.pushed.rules import BookRule
from shards.venues.listing import Listing, Readings, joined

_F = TypeVar("_F", bound=Feed)


class Feeds:
    """The feeds of one connection or poller, by class and wire symbol: where decoders deliver. In
    place of a stream on its way here or from here stands what keeps its frames.
    """

    def __init__(self) -> None:
        self._rooms: defaultdict[type[Feed], dict[str, Any]] = defaultdict(dict)
        self._let_go: set[tuple[type[Feed], str]] = set()
        """What was removed since the socket was opened: it may still come for a moment."""

    def of(self, feed: type[_F]) -> Mapping[str, _F]:
        """The feeds of one class by symbol, as they come and go: bind its `get` once."""
        return self._rooms[feed]

    def add(self, stream: Feed, kept: KeptFrames | None = None) -> None:
        """Route the frames of the stream's symbol to it, or to what keeps them."""
        self._rooms[type(stream)][stream.key.symbol] = kept or stream
        self._let_go.discard((type(stream), stream.key.symbol))

    def remove(self, stream: Feed) -> None:
        """Route what still comes of the stream to nobody: frames that were under way when it was
        unsubscribed are no fault of the venue's.
        """
        room, symbol = self._rooms[type(stream)], stream.key.symbol
        taker = room.get(symbol)
        if taker is stream or (isinstance(taker, KeptFrames) and taker.stream is stream):
            del room[symbol]
            self._let_go.add((type(stream), symbol))

    def opened(self) -> None:
        """A new socket: nothing of what was removed is under way on it."""
        self._let_go.clear()

    def has_let_go(self, symbol: str | None, *feeds: type[Feed]) -> bool:
        """Whether one of these feeds of a symbol was removed."""
        return any((feed, symbol) in self._let_go for feed in feeds)

    @property
    def all(self) -> Sequence[Any]:
        """All feeds, of every class."""
        return [feed for room in self._rooms.values() for feed in room.values()]


class Talk(Protocol):
    """What a decoder may say besides rows."""

    def ready(self) -> None:
        """The greeting (`SocketGroup.greet`) was answered: subscribe now."""

    def acknowledged(self, request_id: int | None, topics: Collection[str] | None = None) -> None:
        """A request (None: it has no number) was taken: all of it, or only these topics."""

    def refused(
        self, text: str, request_id: int | None = None, topics: Collection[str] = ()
    ) -> None:
        """The venue said no, to a request where it names one. `topics` are those it is about where
        the venue tells them apart from its words; with a `request_id` the others of that request
        are asked for again, for it was refused as a whole. Where a venue takes the others all the
        same, hand on no id.
        """

    def answer(self, frame: bytes) -> None:
        """Send this: a pong, or what the venue wants to hear to go on."""

    def lost(self, text: str) -> None:
        """The socket has skipped something that may have been of any of its streams."""

    def closing(self, text: str) -> None:
        """The venue is about to end the socket."""


def topics_in(text: str, topics: Iterable[str]) -> set[str] | None:
    """Which of `topics` a venue's words name literally; None where they name nothing. A word that
    only ends with one (`flowusdt@…` with `wusdt@…`) names another.
    """
    found = (each for each in topics if each in text)
    return {t for t in found if re.search(rf"(?<!\w){re.escape(t)}(?!\w)", text)} or None


FrameDecoder = Callable[[bytes, int], None]
"""(payload, ts_recv in ns): delivers to feeds, or says something.

Raises msgspec.MsgspecError, UnicodeDecodeError, RecursionError or ValueError for a frame it cannot
use; nothing of such a frame has been delivered.
"""

OpenDecoder = Callable[[Feeds, Talk], FrameDecoder]
"""Opens a decoder for one socket's life: it may hold state, which ends with the socket."""


def no_levels(_: Mapping[str, bytes]) -> Sequence[bytes]:
    """Of what is no book."""
    return ()


@dataclass(frozen=True, slots=True)
class Shape:
    """Where in a message, or a part of an answer, that the decoder has refused the elements are of
    which rows are made, and what they say of themselves (`shards.venues.salvage`).

    The message's type is `tag`, with `{symbol}` in it where the type says whose the message is
    (`book.{symbol}`), and then `symbol` is empty; `.*` at its end stands for any one word
    (`book.{symbol}.*` where a pace follows). Without a `tag` it is a message without a type, known
    by its members. An element, or with `is_list` an array of them, is at `path`, where an empty
    name stands for each element of an array on the way. Carried of it are named by `symbol`,
    `seq`, `prev_seq` and `time` (ms, or a `Moment`). `levels` gives, of the members of a book, the
    arrays whose elements are a row each; others are `row_count` rows.

    A message that several feeds take has a shape for each, all with the same elements, which differ
    in `feed` and `where`: only elements that say this text in this member are rows of the feed, or,
    with None in place of a text, say anything there but null.
    """

    feed: type[Feed]
    element: type[Struct]
    tag: str = ""
    path: tuple[str, ...] = ()
    is_list: bool = False
    symbol: str = ""
    seq: str = ""
    prev_seq: str = ""
    time: str = ""
    levels: Callable[[Mapping[str, bytes]], Sequence[bytes]] = no_levels
    row_count: int = 1
    where: tuple[str, str | None] | None = None
    is_of_all_symbols: bool = False
    """Whether messages bring elements of all symbols, also of those nobody collects."""
    check: Callable[[Any], object] | None = None
    """What the decoder makes of each element before it delivers any, and raises for one that no
    market can mean: by it the elements of a refused frame are told apart."""

    def symbol_in(self, tag: str) -> str | None:
        """The symbol that a message's type names; empty where types name none, and None where it
        is the type of another shape.
        """
        pattern = self.tag
        if pattern.endswith(".*"):
            pattern, tag = pattern[:-2], tag.rpartition(".")[0]
        before, is_named, behind = pattern.partition("{symbol}")
        if not is_named:
            return "" if tag == before else None
        if not (tag.startswith(before) and tag.endswith(behind)):
            return None
        return tag[len(before) : len(tag) - len(behind)] or None


@dataclass(frozen=True, slots=True)
class SocketGroup:
    """One kind of WebSocket of a venue, with its limits.

    Where the venue says nothing of one: `streams_per_connection` for `topics_per_message`, 0.1 for
    `message_interval_s`, three pings for `idle_timeout_s`, a day for `lifetime_s`.
    """

    path: str
    streams_per_connection: int
    topics_per_message: int
    message_interval_s: float
    idle_timeout_s: float
    lifetime_s: float
    hangs_up_on_unknown: bool = False
    """Whether a name the venue does not know costs the whole socket
    (`shards.transport.hangups`)."""
    refuses_repeats: bool = False
    """Whether what is subscribed must be unsubscribed before it can be subscribed again."""
    greet: Callable[[VenueSettings], Sequence[bytes]] | None = None
    """What is sent first, a login or a request for heartbeats; nothing is subscribed before the
    decoder says that it is `ready`.
    """
    json_ping: bytes | None = None
    ping_interval_s: float = 10.0
    """Idle seconds before a WebSocket ping. A `json_ping` is sent every so often, data or not; its
    answer is a frame that the decoder knows and says nothing of.
    """
    pings_always: bool = False
    """Whether the venue wants WebSocket pings also while data comes."""


@dataclass(frozen=True, slots=True)
class Channel:
    """How one kind of stream is subscribed and sequenced. Several kinds may share a topic."""

    group: str
    feed: type[Feed]
    topic: Callable[[str, VenueSettings], str]
    stale_after_s: float
    """Silence after which something is wrong; infinite where silence is normal."""
    note: str = ""
    """What to know before one relies on it."""
    has_venue_time: bool = True
    """Whether the venue says when what it sends has happened; else rows have our time."""
    book: BookRule | None = None
    """Of a `PushedBook`: how its messages chain. Its group `refuses_repeats`, for a snapshot comes
    only with a new subscription.
    """
    is_of_all_symbols: bool = False
    """Whether the topic is the same for all symbols, and brings the rows of all."""


REST_WEIGHT: Final = "rest_weight"
"""The pool that most calls of a venue share."""
CONNECTS: Final = "ws_connects"
"""The pool of handshakes: a unit each."""
MESSAGES: Final = "ws_messages"
"""The pool of what clients send over all sockets of an address: a unit a message."""
SUBSCRIPTIONS: Final = "ws_subscriptions"
SOCKETS: Final = "ws_sockets"
"""What an address may hold at once."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What an address may spend of a pool: `units` in any `window_s` seconds."""

    pool: str
    units: float
    window_s: float

    def within(self, window_s: float) -> float:
        """Units that it allows in so many seconds, in the long run."""
        return self.units * window_s / self.window_s


@dataclass(frozen=True, slots=True)
class Places:
    """What an address may hold of a pool at once."""

    pool: str
    count: int


@dataclass(frozen=True, slots=True)
class RestCall:
    """One REST request; `{symbol}` in `path` or `body` is filled in. It costs `weight` units of
    `pool`. `{since}` in the path of a poll for one symbol becomes the time (ms) of its stream's
    newest row. Then the answer has the rows from that moment on, the moment included, and the
    oldest of them where it has a limit: the next call goes on there (docs/adding-a-venue.md).
    """

    method: str
    path: str
    weight: int
    body: str = ""
    pool: str = REST_WEIGHT


def no_more(_: bytes) -> None:
    """Of a listing that is one answer."""


@dataclass(frozen=True, slots=True)
class ListingCalls:
    """How to ask what a venue lists: `first`, and what `next` makes of each answer while there is
    more; then each of `others` likewise, where a call is for one type of instruments. `parse` reads
    one answer; a listing is all of them or none. `together` reads all answers at once, where rows
    of one mean something only with another.
    """

    first: RestCall
    parse: Callable[[bytes], Listing]
    next: Callable[[bytes], RestCall | None] = no_more
    others: tuple[RestCall, ...] = ()
    together: Callable[[Sequence[bytes]], Listing] | None = None

    def read(self, pages: Iterable[bytes]) -> Listing:
        """What all answers say together."""
        if self.together is not None:
            return self.together(list(pages))
        return joined(self.parse(page) for page in pages)


OnBadFrame = Callable[[Exception, bytes], None]
"""Called with a part of an answer that could not be used; the other parts are delivered."""


@dataclass(frozen=True, slots=True)
class PollChannel:
    """How one kind of stream is polled. `call` answers for one symbol, `batch` for all at once; at
    least one is there, and both answers are read by `decode` (body, feeds, ts_recv in ns): around a
    function that delivers one element, `take_one` of `shards.venues.elements` for one symbol (for a
    list about it `take_list`), and `take_parts` for all, whose `funding_row` makes rows of funding.

    `decode` raises as a `FrameDecoder` does where the whole answer cannot be used; parts of one it
    hands to its `OnBadFrame`.
    """

    shape: Shape
    """Of an element of its answers; it has no `tag`."""
    decode: Callable[[bytes, Feeds, int, OnBadFrame], None]
    interval_s: float
    """Between two samples; where the venue names no pace 5 for funding, 10 for open interest."""
    stale_after_s: float
    call: RestCall | None = None
    batch: RestCall | None = None
    note: str = ""
    """As of a `Channel`."""
    has_venue_time: bool = True
    """As of a Channel."""

    @property
    def feed(self) -> type[Feed]:
        """What takes its samples."""
        return self.shape.feed


@dataclass(frozen=True, slots=True)
class FundingIntervals:
    """A call that tells how often contracts pay funding, where their rows do not say it.

    `parse` gives seconds by symbol; a symbol it does not name pays every `usual_s`, unless a row
    of its answer could not be read that may be about it.
    """

    call: RestCall
    parse: Callable[[bytes], Readings[int]]
    usual_s: int
    refresh_s: float


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """A REST book: absolute levels as of update id `seq` at `ts_event` (ns; 0 where the venue does
    not say it: then it is when the answer came).
    """

    seq: int
    ts_event: int
    bids: Sequence[Level]
    asks: Sequence[Level]


@dataclass(frozen=True, slots=True)
class Venue:
    """Everything a shard must know of a venue."""

    name: str
    rest_url: str
    ws_url: str
    groups: Mapping[str, SocketGroup]
    channels: Mapping[tuple[StreamKind, Transport], Channel | PollChannel]
    limits: tuple[Limit | Places, ...]
    """Of an address, a pool each. `REST_WEIGHT` and `CONNECTS` are always there, others where the
    venue has them: calls name pools of their own here.
    """
    subscribe: Callable[[Sequence[str], int], Sequence[bytes]]
    """(topics, request id) to the frames that subscribe them."""
    unsubscribe: Callable[[Sequence[str], int], Sequence[bytes]]
    """The same to end them."""
    open_decoder: OpenDecoder
    tag: str
    """The member of a frame that says which `Shape` it has; `a.b` is member b of member a. Where
    two members say it together, `a.b:a.c`, a shape's tag is both with a colon between
    (`books:{symbol}`), the second empty where there is none.
    """
    shapes: tuple[Shape, ...]
    """Of every kind of frame that rows are made of."""
    listing: ListingCalls
    configured_decoder: Callable[[VenueSettings], OpenDecoder] | None = None
    """What opens decoders in place of `open_decoder` where an option changes what frames mean."""
    topics_in: Callable[[str, Iterable[str]], set[str] | None] = topics_in
    """Which topics a refusal is about by its words: none that we know (an empty set), or None where
    it names nothing.
    """
    too_often: tuple[bytes, ...] = ()
    """What a short answer says, or a refusal on a socket, that means HTTP 429 under any status."""
    limits_with: str = ""
    """The venue whose limits these are as well, where one server has the markets of several: what
    one of them spends, or holds, all of them do. They all say the same `limits`.
    """
    parse_limits: Callable[[bytes], Sequence[Limit]] | None = None
    """Limits that the listing's first page announces: they count where they are stricter."""
    used_weight_header: str | None = None
    """Reply header with the weight the venue has counted in this minute."""
    funding_intervals: FundingIntervals | None = None
    book_snapshot: RestCall | None = None
    parse_book_snapshot: Callable[[bytes], BookSnapshot] | None = None
    examples: tuple[str, ...] = ()
    """Symbols that everybody knows, for examples; at least two."""
    takes_credentials: bool = False
    """Whether it tells more to who logs in (`VenueSettings.credentials_file`)."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By key of `VenueSettings` that is a matter of the venue: what it may be, the default first.
    """


def configured(venue: Venue, settings: VenueSettings) -> Venue:
    """The venue as its settings have it."""
    if venue.configured_decoder is None:
        return venue
    return replace(venue, open_decoder=venue.configured_decoder(settings))


def limited_as(venue: Venue) -> str:
    """The name that a venue's limits have."""
    return venue.limits_with or venue.name


def limit_of(venue: Venue, pool: str) -> Limit | None:
    """What an address may spend of a pool; None where the venue does not limit that."""
    limits = (each for each in venue.limits if isinstance(each, Limit))
    return next((limit for limit in limits if limit.pool == pool), None)


def rest_pools_of(venue: Venue) -> list[str]:
    """The pools that REST calls draw on."""
    limits = (each.pool for each in venue.limits if isinstance(each, Limit))
    return [pool for pool in limits if pool not in (CONNECTS, MESSAGES)]


def places_of(venue: Venue, pool: str) -> int | None:
    """What an address may hold of a pool at once; None where the venue does not limit that."""
    places = (each for each in venue.limits if isinstance(each, Places))
    return next((each.count for each in places if each.pool == pool), None)


def capabilities(venue: Venue) -> list[tuple[StreamKind, Transport]]:
    """What a venue offers: kind and transport, WebSocket first."""
    kinds, transports = list(StreamKind), list(Transport)
    return sorted(venue.channels, key=lambda o: (kinds.index(o[0]), transports.index(o[1])))


def preferred_transport(venue: Venue, kind: StreamKind) -> Transport:
    """How a kind comes when nobody said how. WebSocket where the kind is not offered at all."""
    offered = [transport for each, transport in capabilities(venue) if each is kind]
    return offered[0] if offered else Transport.WS
