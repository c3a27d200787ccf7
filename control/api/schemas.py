"""Requests and answers of the API. These types validate what comes in and make the OpenAPI
document, so that the document cannot be wrong about it.
"""

import fnmatch
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.base.wrong_input import nearest
from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.names import SYMBOL_PATTERN, StreamKey, StreamKind, Transport, bare_name
from engine.messages.status import StreamReport
from engine.messages.streams import ROWS_PER_COPY_MIN, KnobChanges, Knobs, StreamState
from shards.venues import VENUES

BULK_MAX = 5000


def spelled(venue: str) -> str:
    """`some_venue` as the seed's bodies spell it: `SomeVenue`."""
    return "".join(part.capitalize() for part in venue.split("_"))


VENUE_OF_SPELLING = {name: venue for venue in VENUES for name in (spelled(venue), venue)}
_VENUE_OF_BARE_NAME = {bare_name(venue): venue for venue in VENUES}


def known_venue(name: str) -> str | None:
    """The venue that somebody means, in any case and with any signs between the words."""
    return _VENUE_OF_BARE_NAME.get(bare_name(name))


def unknown_venue(name: str) -> str:
    """What to say of a name that means none."""
    near = nearest(name, VENUE_OF_SPELLING)
    hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(VENUE_OF_SPELLING))}"
    return f"{name[:64]!a}; {hint}"


Exchange = Annotated[
    str,
    Meta(
        description="Either spelling of an exchange",
        extra_json_schema={"enum": sorted(VENUE_OF_SPELLING)},
    ),
]
Symbol = Annotated[
    str,
    Meta(
        pattern=SYMBOL_PATTERN,
        max_length=32,
        description="The exchange's own spelling, in any script; in a path, percent-encoded, where"
        " '/' may stay as it is",
    ),
]
Rows = Annotated[int, Meta(ge=1, le=10_000_000)]
CopyRows = Annotated[int, Meta(ge=ROWS_PER_COPY_MIN, le=10_000_000)]
FlushMs = Annotated[int, Meta(ge=1, le=60_000)]
DatabaseName = Annotated[
    str,
    Meta(
        pattern=r"^database(s\.[a-z][a-z0-9_]{0,30})?$",
        description="One of several databases, as `/health/runtime` calls it; null: as routed",
    ),
]
Pattern = Annotated[str, Meta(min_length=1, max_length=64)]


class _Input(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class KnobsPatch(KnobChanges, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Knobs to change; absent ones stay. null: back to the configured value. `flush_rows` may not
    be more than `max_rows_per_copy` (422), which no schema can say.
    """

    flush_rows: Rows | UnsetType | None = UNSET
    flush_interval_ms: FlushMs | UnsetType | None = UNSET
    max_rows_per_copy: CopyRows | UnsetType | None = UNSET
    database: DatabaseName | UnsetType | None = UNSET


class StreamItem(_Input):
    """One stream. Without `transport`, the first that the exchange offers for the kind."""

    exchange: Exchange
    symbol: Symbol
    kind: StreamKind
    transport: Transport | None = None
    knobs: KnobsPatch | None = None

    def __post_init__(self) -> None:
        # `$` in a pattern also matches before a final newline.
        if self.symbol.endswith("\n"):
            raise ValueError("a symbol has no newline")


class InstrumentFilter(_Input):
    """Which instruments: all conditions must hold. `symbol` is a glob, e.g. `BTC*`. `status` and
    `venue_kind` are the exchange's own words, `state` and `kind` what they mean; empty, those that
    nobody knows. Without `status` and `state`, streams begin on what trades, and end whatever its
    state.
    """

    symbol: Pattern | None = None
    base: Pattern | None = None
    quote: Pattern | None = None
    status: Pattern | UnsetType | None = UNSET
    kind: InstrumentKind | None = None
    venue_kind: Pattern | None = None
    state: InstrumentState | UnsetType | None = UNSET
    settle: Pattern | None = None
    limit: Annotated[int, Meta(ge=1, le=BULK_MAX)] = BULK_MAX

    @property
    def asks_for_facts(self) -> bool:
        """Whether it takes more than the symbol to tell what is meant."""
        conditions = (
            self.base, self.quote, self.status, self.kind, self.venue_kind, self.state, self.settle,
        )  # fmt: skip
        return any(each not in (None, UNSET) for each in conditions)

    @property
    def names_a_state(self) -> bool:
        """Whether somebody has said what may not trade yet, or that it does not matter."""
        return self.status is not UNSET or self.state is not UNSET

    def names(self, symbol: str) -> bool:
        """Whether a symbol is meant, as far as its name goes."""
        return self.symbol is None or fnmatch.fnmatchcase(symbol, self.symbol)

    def matches(self, instrument: Instrument) -> bool:
        """Whether an instrument is meant."""
        return (
            self.names(instrument.symbol)
            and _same(self.base, instrument.base)
            and _same(self.quote, instrument.quote)
            and (self.status is UNSET or _same(self.status, instrument.status))
            and self.kind in (None, instrument.kind)
            and _same(self.venue_kind, instrument.venue_kind)
            and self.state in (None, UNSET, instrument.state)
            and _same(self.settle, instrument.settle)
        )


class FilteredStreams(_Input):
    """The same kind of stream on every instrument of an exchange that the filter lets through."""

    exchange: Exchange
    kind: StreamKind
    filter: InstrumentFilter
    transport: Transport | None = None
    knobs: KnobsPatch | None = None


StreamList = Annotated[list[StreamItem], Meta(min_length=1, max_length=BULK_MAX)]


class Page(_Input):
    """Which part of a list."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 10_000
    offset: Annotated[int, Meta(ge=0, le=10_000_000)] = 0


class StreamsQuery(Page):
    """Filters of `GET /streams`."""

    exchange: Exchange | None = None
    symbol: Symbol | None = None
    kind: StreamKind | None = None
    transport: Transport | None = None
    state: StreamState | None = None


class CountQuery(_Input):
    """Filters of `GET /streams/count`."""

    exchange: Exchange | None = None
    symbol: Symbol | None = None
    kind: StreamKind | None = None
    transport: Transport | None = None
    state: StreamState | None = None


class TopStreams(_Input):
    """`GET /metrics/streams`: how many, those with the most rows first."""

    top: Annotated[int, Meta(ge=1, le=1000)] = 50


class InstrumentsCountQuery(_Input):
    """Filters of `GET /instruments/count`. `q` is part of a symbol, in any case; the others are as
    when streams are added by filter, but whatever does not trade is shown as well.
    """

    exchange: Exchange | None = None
    q: Pattern | None = None
    symbol: Pattern | None = None
    base: Pattern | None = None
    quote: Pattern | None = None
    status: Pattern | None = None
    kind: InstrumentKind | None = None
    venue_kind: Pattern | None = None
    state: InstrumentState | None = None
    settle: Pattern | None = None


class InstrumentsQuery(Page):
    """Filters of `GET /instruments`: those of its count."""

    exchange: Exchange | None = None
    q: Pattern | None = None
    symbol: Pattern | None = None
    base: Pattern | None = None
    quote: Pattern | None = None
    status: Pattern | None = None
    kind: InstrumentKind | None = None
    venue_kind: Pattern | None = None
    state: InstrumentState | None = None
    settle: Pattern | None = None


class ExistsQuery(_Input):
    """`GET /instruments/exists`."""

    exchange: Exchange
    symbol: Symbol


class ExchangeChoice(_Input):
    """Only one exchange, in a query or in a body."""

    exchange: Exchange | None = None


class EventsQuery(_Input):
    """Filters of `GET /instruments/events`."""

    exchange: Exchange | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class StreamRow(msgspec.Struct):
    """A stream, as lists show it."""

    id: str
    status: str
    """`Running`, `Stopped` or `Failed`; `state` is finer."""
    exchange: str
    symbol: str
    kind: str
    transport: str
    state: StreamState
    reason: str
    shard: int
    added_ns: int
    last_recv_ns: int
    frame_count: int
    row_count: int
    gap_count: int
    missing_count: int
    duplicate_count: int
    refused_count: int
    """What came for it and could not be read."""
    knobs: Knobs


class StreamIdentity(msgspec.Struct):
    """What makes a stream this stream and no other."""

    exchange: str
    symbol: str
    kind: str
    transport: str


class StreamDetail(StreamRow):
    """A stream, by itself."""

    spec: StreamIdentity


class Count(msgspec.Struct):
    """How many."""

    count: int


class Exists(msgspec.Struct, omit_defaults=True):
    """Whether the exchange lists the symbol, and what may have been meant."""

    exists: bool
    near: list[str] = []


class KnobsBody(msgspec.Struct):
    """The knobs of a stream. null: the configured value."""

    knobs: Knobs


class Capability(msgspec.Struct):
    """Something that can be asked for, and what one may rely on."""

    exchange: str
    transport: str
    kind: str
    note: str | None = None
    proof: Literal["ids", "checksum", "history", "samples", "nothing"] = "nothing"
    """What tells whether rows are missing. `ids`: the venue's ids, and how many. `checksum`: its
    sums, that some are. `history`: it tells the past once more. `samples`: each row is how things
    were, and nothing is to be complete. `nothing`: no row can prove it; interruptions are declared.
    """
    interval_s: float | None = None
    """Between two polls, as long as the venue's budget allows."""
    time: Literal["venue", "receipt"] = "venue"
    """Whose time rows have: the venue's of the event, or ours of its receipt."""


class BulkItem(msgspec.Struct, omit_defaults=True):
    """What became of one stream of many; `error_kind` as in an error's `kind`."""

    exchange: str
    symbol: str
    kind: str
    transport: str
    ok: bool
    error: str = ""
    error_kind: str = ""


class BulkResult(msgspec.Struct):
    """What became of each. `matched` counts what the filter let through before its limit, and
    `skipped` what it would have let through if instruments of their kind could have such a stream.
    """

    accepted: int
    refused: int
    matched: int
    skipped: int
    results: list[BulkItem]


class InstrumentRow(msgspec.Struct):
    """An instrument as its exchange describes it. `status` and `venue_kind` are its own words,
    `state` and `kind` what they mean, one word for all exchanges; empty where that is not known. A
    quantity times `contract_size` is an amount of the base or of the quote currency, as
    `contract_unit` says. A time is 0 where the exchange does not say it.
    """

    exchange: str
    symbol: str
    base: str
    quote: str
    status: str
    tick_size: str
    lot_size: str
    contract_size: str
    price_decimals: int
    qty_decimals: int
    kind: InstrumentKind
    venue_kind: str
    state: InstrumentState
    settle: str
    contract_unit: SizeUnit
    listed_ns: int
    delivery_ns: int


class InstrumentEventRow(msgspec.Struct):
    """A listing changed: `listed`, `delisted`, `changed`, `unreadable` or `readable`."""

    exchange: str
    symbol: str
    event: str
    detail: str
    at_ns: int


class RefreshResult(msgspec.Struct):
    """An exchange's instruments after a refresh; `error` says why it did not succeed."""

    exchange: str
    instrument_count: int
    event_count: int
    error: str = ""
    unreadable_count: int = 0
    """Symbols whose rows nobody understands: `GET /instruments/events` says why."""


class LimiterRow(msgspec.Struct):
    """A budget of an exchange."""

    exchange: str
    pool: str
    budget: float
    window_s: float | None
    """null: it limits what is held at once."""
    used: float
    remaining: float
    venue_used: float | None
    blocked_s: float
    waiting_count: int
    others_used: float | None
    """Of `used`, what other engines spent; null where `limits.shared` is off."""
    blocked_reason: str
    """What the exchange refused with."""


Row = TypeVar("Row", bound=msgspec.Struct)


def row_of(kind: type[Row], source: object, **others: Any) -> Row:
    """A row of what `source` has by the same names (its venue is the exchange), and of `others`."""
    for name in kind.__struct_fields__:
        if name not in others:
            others[name] = getattr(source, "venue" if name == "exchange" else name)
    return kind(**others)


_STATUS = {StreamState.STOPPED: "Stopped", StreamState.FAILED: "Failed"}


def identifier(stream: StreamKey | StreamReport) -> str:
    """The seed's serialized stream id."""
    return f"{stream.venue}:{stream.symbol}:{stream.transport}:{stream.kind}"


def stream_row(report: StreamReport) -> StreamRow:
    """A stream for lists."""
    return _stream(StreamRow, report)


def stream_detail(report: StreamReport) -> StreamDetail:
    """A stream by itself."""
    return _stream(StreamDetail, report, spec=row_of(StreamIdentity, report))


def _stream(kind: type[Row], report: StreamReport, **others: Any) -> Row:
    status = _STATUS.get(report.state, "Running")
    return row_of(kind, report, id=identifier(report), status=status, **others)


def _same(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.casefold() == value.casefold()
