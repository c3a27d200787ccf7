"""What makes a simulated venue this one: the bytes and topics of its protocol, and its rules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from shards.simulator.core.contracts import Contract, Liquidation, Terms
from shards.simulator.core.frames import Trade
from shards.simulator.core.limits import WEIGHT, RestGate, VenueLimit
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Hub, Session
from shards.simulator.core.symbol import Levels, Quote, Style, SymbolState

if TYPE_CHECKING:
    from shards.simulator.core.venue import SimVenue

__all__ = [
    "Answer",
    "Asked",
    "AskedFor",
    "BookMessage",
    "Encoder",
    "OwnRow",
    "Query",
    "ServedCall",
    "SocketPath",
    "Streams",
]


class AskedFor(NamedTuple):
    """What a client subscribes to."""

    symbol: str
    """Empty where the stream is of all symbols."""
    kind: str
    """A kind of row: trade, book, quote, funding, liquidation."""
    book: str = ""
    """Which of the symbol's book streams."""


class BookMessage(NamedTuple):
    """One message of a book stream. The ids are update ids, or times in ms without such."""

    stream: str
    ts_ms: int
    first: int
    last: int
    previous: int
    bids: Levels
    asks: Levels
    early_ns: int = 0
    """So long before `ts_ms` it is; below 0, after."""

    @property
    def ts_ns(self) -> int:
        """Its time as the ledger has it."""
        return self.ts_ms * 1_000_000 - self.early_ns


class SocketPath(NamedTuple):
    """Where clients connect, and as what category."""

    path: str
    group: str
    combined: bool = False
    """Messages are wrapped with the name of their stream."""


class Answer(NamedTuple):
    """What a REST call gets."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    extra_weight: int = 0
    """What it cost beyond what was charged before."""


class OwnRow(NamedTuple):
    """A message that is one row of a kind that only its venue has, or of open interest that comes
    alone; or one that is no row by itself.
    """

    kind: str
    topic: str
    payload: bytes
    row: tuple[int, ...] | None
    """For the ledger, as the kind is laid out there."""


Query: TypeAlias = Mapping[str, Any]


class Asked(NamedTuple):
    """What a client says about subscriptions."""

    topics: Sequence[str]
    begins: bool
    """Whether they are subscribed, or ended."""
    number: object = None
    """What the client calls the request."""
    said: Mapping[str, Any] = {}
    """What else it says, as its encoder needs it."""
    is_apart: bool = False
    """Whether each topic is answered for itself, before the next begins."""

    def parts(self) -> Iterable["Asked"]:
        """Give what is answered at once."""
        return [self._replace(topics=[each]) for each in self.topics] if self.is_apart else [self]


def _weigh_one(_: Query) -> int:
    return 1


class ServedCall(NamedTuple):
    """A REST call."""

    answer: Callable[["SimVenue", Query], Answer]
    weigh: Callable[[Query], int] = _weigh_one
    method: str = "GET"
    """GET comes with its query; POST with its body, nothing if that is no JSON object."""
    pool: str = WEIGHT
    """Which of the venue's limits it uses."""


class Streams(Protocol):
    """What sockets are served from: a market, or a recorded session."""

    encoder: "Encoder"
    hub: Hub
    gate: RestGate

    def subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Deliver these streams."""

    def unsubscribe(self, session: Session, names: Iterable[str]) -> None:
        """Stop delivering these streams."""


class Encoder(Style, Protocol):
    """A venue's protocol: bytes and topics, what it is told and what it answers.

    Every venue says its `name`, `terms`, `channels`, `sockets`, `limits`, `rest` and `grids`; of
    what its clients say, how it is read (`read`), answered (`answer`) and what comes first
    (`begin`); of its trades (`Style`) `first_trade_id` and `trade_rows`; with books also `book`
    and `whole`, and `spoiled` for the fault. The rest as it needs it. What it overrides has its
    type written out (`statuses: Sequence[str] = …`).
    """

    name: str
    terms: Terms
    numbered_books: bool = False
    """Changes of books have update ids, and a snapshot by REST that they continue."""
    forced_trades: bool = False
    """A forced order is a trade as well, and takes its id."""
    book_clocks: Mapping[str, float] = {}
    """Book streams that say the whole top on a clock of the venue, and every how many seconds;
    0 for the cadence of the scene."""
    spoiled: Mapping[str, Sequence[str]] = {}
    """By kind of row: the members with a number that no element of it can do without, in pushed
    messages and in answers; those with funding and open interest are of kind funding. The fault
    `unreadable` replaces the first one there is."""
    spoiled_among: int = 1
    """How many trades share the frame in which the middle one cannot be read."""
    own_kinds: Mapping[str, np.dtype[np.void]] = {}
    """Kinds of row that only this venue has, and their layout in the ledger (`ledger.row_of`)."""
    history_rows: int = 1024
    """Trades of a symbol that REST can still give."""

    channels: Mapping[str, str] = {}
    """Words of the channels whose topics are a word and a symbol, and the kind of row each brings;
    of several kinds, the one that takes most to begin with."""
    separator: str = " "
    """Between the two."""
    sockets: Sequence[SocketPath] = ()
    greeting: bytes = b""
    """What a socket hears before anything else, once its client has spoken."""
    limits: Sequence[VenueLimit] = ()
    """What the venue lets an address, a socket and a request use."""
    counter: bytes = b""
    """What stands in messages where each socket has the number of its message."""
    pings: bool = False
    """The venue sends ping frames, and counts the client's as messages."""
    ping_s: float = float("inf")
    """At least so often, whatever the settings say."""
    rest: Mapping[str, ServedCall] = {}
    """By path behind the venue's name. What is polled goes through `SimVenue.serve_contract`, which
    puts it into the ledger."""
    weight_header: str | None = None
    bans: bool = False
    busy: tuple[int, bytes] = (429, b'{"code":429,"msg":"Too many requests."}')
    """Status and body of the answer to a call above a limit."""
    malformed: Mapping[str, bytes] = {}
    """Payloads no client may take for data, beside those of any venue (fault `malformed`)."""
    a_stream: str = ""
    """A stream under whose name combined sockets get those."""
    statuses: Sequence[str] = ("listed", "delisted")
    """Words for the state of a symbol: that it trades, that it was delisted, and others."""
    changeable: frozenset[str] = frozenset()
    """What of a listed instrument a request may change."""

    def grids(self, count: int) -> Sequence[Grid]:
        """List `count` instruments."""

    def grid(
        self, symbol: str, price: float, request: Mapping[str, object], now: Grid | None
    ) -> Grid:
        """Make the instrument of a request to list, or to change what it is `now`.

        Raises ValueError with what is wrong.
        """
        raise ValueError("this venue's instruments cannot be listed or changed")

    def describe(self, venue: "SimVenue", index: int) -> Mapping[str, object]:
        """Tell what a listing or a change came to."""
        return {"status": venue.statuses[index]}

    def pays_funding(self, symbol: str) -> bool:
        """Tell whether a contract pays funding; those with a date of delivery do not."""
        return True

    def _word(self, kind: str) -> str | None:
        """Give the first channel of a kind."""
        return next((word for word, brought in self.channels.items() if brought == kind), None)

    def topic(self, kind: str, symbol: str) -> str | None:
        word = self._word(kind)
        return None if word is None else f"{word}{self.separator}{symbol}"

    def book_topic(self, symbol: str, stream: str) -> str:
        return f"{stream}{self.separator}{symbol}"

    def funding_topics(self, contract: Contract) -> Sequence[str]:
        """Name the streams that say a contract's values of this second."""
        topic = Encoder.topic(self, "funding", contract.instrument.symbol)
        return () if topic is None else (topic,)

    def due(self, stream: str, steps: int | None) -> bool:
        """Tell whether a stream has an event after so many steps of a book, or half way (None)."""
        return steps is not None

    def wants(self, name: str, group: str) -> AskedFor | None:
        """Read the name of a stream; None if it leads nowhere on sockets of this category."""
        word, _, symbol = name.rpartition(self.separator)
        kind = self.channels.get(word)
        return AskedFor(symbol, kind, word if kind == "book" else "") if kind else None

    def read(self, venue: "SimVenue", session: Session, text: str | bytes) -> Asked | None:
        """Read what a client says. What is not about subscriptions is answered here: None."""
        return None

    def answer(self, venue: "SimVenue", session: Session, request: Asked) -> Sequence[str]:
        """Answer a request within its limits; give the topics that begin or end with it."""
        return request.topics

    def begin(self, venue: "SimVenue", session: Session, topic: str, request: Asked) -> None:
        """Send what a topic begins with."""
        return

    def over(self, session: Session, limit: VenueLimit, request: Asked | None) -> bytes:
        """Say that a client has exceeded a limit with a request, or by its messages; nothing where
        the venue has no words for it.
        """
        return b""

    def beat(self, venue: "SimVenue", now_ms: int) -> None:
        """Say what it is time for beside the market, as a heartbeat; called every 5 ms."""
        return

    def notice(self, now_ms: int) -> bytes | None:
        """Announce that sockets will be closed; None if the venue never does."""
        return None

    def messages(self, event: BookMessage) -> Sequence[BookMessage]:
        """Give the messages in which an event is said, with the numbers they have."""
        return (event,)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        """Write an event of a book."""
        return b""

    def whole(self, state: SymbolState, event: BookMessage) -> bytes:
        """Write a whole book, as a subscription begins with it."""
        return b""

    def quote_number(self, state: SymbolState, now_ms: int) -> int:
        """Give the number of a quote: the update id as of which it holds, or a time."""
        return state.last_update if self.numbered_books else now_ms

    def quote(self, state: SymbolState, quote: Quote, now_ms: int) -> bytes:
        """Write a best bid and offer."""
        return b""

    def funding(self, venue: "SimVenue", contract: Contract) -> bytes:
        """Write a contract's values of this second."""
        return b""

    def liquidation(self, contract: Contract, order: Liquidation) -> bytes:
        """Write a forced order that is no trade."""
        return b""

    def forced(self, state: SymbolState, trade: Trade) -> bytes:
        """Write a forced order that is this trade."""
        return b""

    def own_rows(self, contract: Contract) -> Iterable[OwnRow]:
        """Write what its values of this second say beside `funding`, and before it."""
        return ()
