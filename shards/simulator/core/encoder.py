"""What makes a simulated venue this one: the bytes and topics of its protocol, and its rules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from shards.simulator.core.contracts import Contract, Liquidation, Terms
from shards.simulator.core.frames import Trade
from shards.simulator.core.limits import RestGate
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Hub, Session
from shards.simulator.core.symbol import Levels, Quote, Style, SymbolState

if TYPE_CHECKING:
    from shards.simulator.core.venue import SimVenue

__all__ = [
    "Answer",
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


class ServedCall(NamedTuple):
    """A REST call."""

    answer: Callable[["SimVenue", Query], Answer]
    weigh: Callable[[Query], int | None]
    """None: without weight, but of the pool that funding calls share."""
    method: str = "GET"
    """GET comes with its query; POST with its body, nothing if that is no JSON object."""


class Streams(Protocol):
    """What sockets are served from: a market, or a recorded session."""

    hub: Hub
    gate: RestGate

    def subscribe(self, session: Session, names: Iterable[str]) -> None:
        """Deliver these streams."""

    def unsubscribe(self, session: Session, names: Iterable[str]) -> None:
        """Stop delivering these streams."""


class Encoder(Style, Protocol):
    """A venue's protocol: bytes and topics, what it is told and what it answers.

    Every venue says its `name`, `terms`, `sockets`, `rest`, `grids`, `wants` and `hear`, and of its
    trades (`Style`) `topic`, `trade_ids`, `price_text` and `trade_rows`; with books also
    `book_topic` and `book`, and `spoiled` for the fault. The rest as it needs it. What it overrides
    has its type written out (`statuses: Sequence[str] = …`).
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

    sockets: Sequence[SocketPath] = ()
    counter: bytes = b""
    """What stands in messages where each socket has the number of its message."""
    pings: bool = False
    """The venue sends ping frames, and counts the client's as messages."""
    ping_s: float = float("inf")
    """At least so often, whatever the settings say."""
    messages_per_s: float = float("inf")
    """What a client may send on one socket; past that the venue hangs up."""
    connects_per_minute: float = float("inf")
    rest: Mapping[str, ServedCall] = {}
    """By path behind the venue's name. What is polled goes through `SimVenue.serve_contract`, which
    puts it into the ledger."""
    weight_header: str | None = None
    weight_limit: int = 1200
    """REST weight a minute, where the settings of the simulator say nothing of this venue. A limit
    for another window is said as what it allows in a minute."""
    bans: bool = False
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

    def funding_topics(self, contract: Contract) -> Sequence[str]:
        """Name the streams that say a contract's values of this second."""
        return ()

    def due(self, stream: str, steps: int | None) -> bool:
        """Tell whether a stream has an event after so many steps of a book, or half way (None)."""
        return steps is not None

    def wants(self, name: str, group: str) -> AskedFor | None:
        """Read the name of a stream; None if it leads nowhere on sockets of this category."""
        return None

    def hear(self, venue: "SimVenue", session: Session, text: str | bytes) -> None:
        """Carry out and answer what a client says."""

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
