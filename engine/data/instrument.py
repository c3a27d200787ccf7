"""What is known of an instrument, in one meaning for all venues."""

import datetime as dt
import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from engine.data.names import StreamKind


class InstrumentKind(enum.StrEnum):
    """What is traded. Empty is unknown: a version of before, or a word nobody has mapped yet."""

    UNKNOWN = ""
    PERPETUAL = "perpetual"
    FUTURE = "future"
    OPTION = "option"
    SPOT = "spot"


_LACKING: Final[Mapping[InstrumentKind, frozenset[StreamKind]]] = {
    InstrumentKind.SPOT: frozenset(
        {
            StreamKind.OPEN_INTEREST,
            StreamKind.FUNDING_OPEN_INTEREST,
            StreamKind.SETTLED_FUNDING,
        }
    ),
    InstrumentKind.OPTION: frozenset({StreamKind.SETTLED_FUNDING}),
}
"""What there is none of at any venue: only contracts are open, and only futures pay funding. Not
here are `Funding`, whose rows have the mark and index price of a pair as well, and `Liquidations`,
for pairs are traded on margin.
"""


class InstrumentState(enum.StrEnum):
    """Whether it trades. The last two are for ever; an instrument leaves all others again."""

    UNKNOWN = ""
    ANNOUNCED = "announced"
    """Listed, and not tradable yet."""
    TRADING = "trading"
    HALTED = "halted"
    """A pause, an auction, cancels or posts alone: no free trading now."""
    SETTLING = "settling"
    """Being delivered, or between two settlements."""
    EXPIRED = "expired"
    """Delivered on its date."""
    DELISTED = "delisted"


ENDED_STATES = frozenset({InstrumentState.EXPIRED, InstrumentState.DELISTED})


class SizeUnit(enum.StrEnum):
    """What one contract is `contract_size` of: the size of a trade, in this unit, is its quantity
    times `contract_size`.
    """

    UNKNOWN = ""
    BASE = "base"
    QUOTE = "quote"
    """A fixed value at whatever price (inverse contracts: 100 USD): the base quantity is
    quantity * contract_size / price."""


class Instrument(msgspec.Struct, frozen=True):
    """An instrument as its venue describes it. Sizes are the venue's own decimal strings.

    `price_decimals` and `qty_decimals` are the exponents of the integer mantissas in the database.
    Quantities of rows are in the venue's unit: contracts where the venue trades contracts. `status`
    and `venue_kind` are the venue's own words, `state` and `kind` what they mean.
    """

    venue: str
    symbol: str
    price_decimals: int
    qty_decimals: int
    base: str = ""
    quote: str = ""
    tick_size: str = ""
    lot_size: str = ""
    contract_size: str = "1"
    status: str = ""
    state: InstrumentState = InstrumentState.UNKNOWN
    kind: InstrumentKind = InstrumentKind.UNKNOWN
    venue_kind: str = ""
    settle: str = ""
    """The currency that gains and losses are paid in; of spot the quote currency."""
    contract_unit: SizeUnit = SizeUnit.UNKNOWN
    listed_ns: int = 0
    """When it was listed, or will be; 0 where the venue does not say."""
    delivery_ns: int = 0
    """When it is delivered; 0 for what has no end, or where the venue does not say."""

    def lacks(self, kind: StreamKind) -> str:
        """Why there can be no stream of this kind of it, whatever its venue offers; empty where
        there can be one, and where its own kind is not known.
        """
        if kind not in _LACKING.get(self.kind, ()):
            return ""
        return f"{self.venue} can have no {kind} of {self.symbol}, for its kind is {self.kind}"

    @property
    def listed_at(self) -> dt.datetime | None:
        """`listed_ns`, to the microsecond."""
        return _time(self.listed_ns)

    @property
    def delivery_at(self) -> dt.datetime | None:
        """`delivery_ns`, to the microsecond."""
        return _time(self.delivery_ns)


MARKET_FACTS: Final = (
    "state", "kind", "venue_kind", "settle", "contract_unit", "listed_ns", "delivery_ns",
)  # fmt: skip
"""Fields that releases before 0.2 did not know: files of theirs say none of them."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NS_MAX: Final = 2**63 - 1


def knows_market(instrument: Instrument) -> bool:
    """Whether it says any of `MARKET_FACTS`."""
    return any(getattr(instrument, name) for name in MARKET_FACTS)


def _time(ns: int) -> dt.datetime | None:
    """None for 0, and for what no venue can mean."""
    return _EPOCH + dt.timedelta(microseconds=ns // 1000) if 0 < ns <= _NS_MAX else None
