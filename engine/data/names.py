"""What streams are called: venue, symbol, kind, transport; and which records each kind brings."""

import enum
import re
from collections.abc import Mapping
from typing import Final, Self

import msgspec

_LETTERS = "A-Za-z0-9\u00c0-\u1fff\u2c00-\ud7ff"
_SYMBOL = rf"[{_LETTERS}@][{_LETTERS}._:/@-]{{0,31}}"
SYMBOL_PATTERN = f"^{_SYMBOL}$"
"""What a symbol may look like: venues list names in any script (币安人生USDT), and pairs
that have only a number (@107). No control characters, no spaces, no quotes, no marks
that turn the direction of writing; at most 96 bytes. Whether there is such a symbol, only the
venue's listing tells.
"""


UNKNOWN_SYMBOL: Final = "unknown symbol"
"""So begins the reason of a stream whose venue does not list its symbol."""


def is_symbol(text: str) -> bool:
    """Whether `text` can be a symbol. Stricter than the pattern, which also serves other languages:
    every character is one that shows.
    """
    return re.fullmatch(_SYMBOL, text) is not None and text.isprintable()


class _AnyCase(enum.StrEnum):
    """Names that people type: `trades`, `open_interest` and `OPENINTEREST` are understood, too."""

    @classmethod
    def _missing_(cls, value: object) -> "Self | None":
        typed = bare_name(value) if isinstance(value, str) else ""
        return next((each for each in cls if bare_name(each.value) == typed), None)


def bare_name(text: str) -> str:
    """What is left of a name without case and signs between its words."""
    return re.sub(r"[\s_-]", "", text).lower()


class StreamKind(_AnyCase):
    """What a stream carries, spelled as in the control API."""

    TRADES = "Trades"
    L2_BOOK = "L2Book"
    TICKER = "Ticker"
    FUNDING = "Funding"
    OPEN_INTEREST = "OpenInterest"
    FUNDING_OPEN_INTEREST = "FundingOpenInterest"
    LIQUIDATIONS = "Liquidations"
    SETTLED_FUNDING = "SettledFunding"


class Transport(_AnyCase):
    """How a stream arrives."""

    WS = "Ws"
    HTTP_POLL = "HttpPoll"


class StreamKey(msgspec.Struct, frozen=True, order=True):
    """What makes a stream this stream and no other."""

    venue: str
    symbol: str
    kind: StreamKind
    transport: Transport = Transport.WS

    def __str__(self) -> str:
        return f"{self.venue}/{self.symbol}/{self.kind}/{self.transport}"


CARRIES: Final[Mapping[StreamKind, tuple[str, ...]]] = {
    StreamKind.TRADES: ("trade",),
    StreamKind.L2_BOOK: ("book",),
    StreamKind.TICKER: ("quote",),
    StreamKind.FUNDING: ("funding",),
    StreamKind.OPEN_INTEREST: ("open_interest",),
    StreamKind.FUNDING_OPEN_INTEREST: ("funding", "open_interest"),
    StreamKind.LIQUIDATIONS: ("liquidation",),
    StreamKind.SETTLED_FUNDING: ("funding",),
}
"""The kinds of record (`engine.data.kinds`) that each kind of stream brings: one row of each, or
none of any."""


TELLS_THE_PAST: Final = frozenset({StreamKind.SETTLED_FUNDING})
"""The kinds of stream whose rows say what has been: none of them is the newest state."""


def carriers_of(kind: str) -> list[StreamKind]:
    """The kinds of stream that bring a kind of record."""
    return [stream for stream, brought in CARRIES.items() if kind in brought]


DEFAULT_DATABASE: Final = "database"
"""The sink of `[database]`, which has the streams that no rule gives to another one."""
_NAMED: Final = "databases."


def database_sink(name: str) -> str:
    """What the sink of `[databases.<name>]` is called in status, metrics, lights and the log."""
    return _NAMED + name


def is_database(sink: str) -> bool:
    """Whether a sink of this name is a database."""
    return sink == DEFAULT_DATABASE or sink.startswith(_NAMED)
