"""Versions of instruments: what table `instrument` says, compared with what a venue says.

Rows mean something only with the facts of their version, so a fact that a version knows never
changes: what differs makes a new version, with streams of its own. What a version does not know, be
it that an earlier release stored it or that nobody understood the venue's word, is filled in where
all else is as it was: then nothing that is stored changes its meaning, it only gets one, and no
stream of thousands goes on under another id because a release knows more.
"""

import datetime as dt
import decimal
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from engine.data.instrument import Instrument


class Facts(NamedTuple):
    """What makes a version besides decimals, as the table calls it. A number or a time that nobody
    knows is None, a word is empty.
    """

    base: str
    quote: str
    tick_size: decimal.Decimal | None
    lot_size: decimal.Decimal | None
    contract_size: decimal.Decimal | None
    status: str
    instrument_kind: str = ""
    venue_kind: str = ""
    instrument_state: str = ""
    settle: str = ""
    contract_unit: str = ""
    listed_at: dt.datetime | None = None
    delivery_at: dt.datetime | None = None

    @property
    def terms(self) -> tuple[object, ...]:
        """What every release has known."""
        return self[: len(self) - len(_NO_MARKET)]

    @property
    def market(self) -> tuple[object, ...]:
        """What releases before 0.2 did not know."""
        return self[len(self) - len(_NO_MARKET) :]


_NO_MARKET: Final[tuple[object, ...]] = ("", "", "", "", "", None, None)
FILL: Final = f"SELECT fill_unknown_facts(%s{', %s' * len(_NO_MARKET)})"
"""With an instrument's id and the `market` of what is known now."""
_COLUMNS: Final = ", ".join(("price_decimals", "qty_decimals", *Facts._fields))
OF_SYMBOL: Final = f"""
    SELECT instrument_id, version, {_COLUMNS}
    FROM instrument WHERE venue = %s AND symbol = %s ORDER BY version DESC
"""  # noqa: S608 - constants
"""All versions, newest first."""
NEWEST: Final = f"""
    SELECT DISTINCT ON (symbol) symbol, instrument_id, version, {_COLUMNS}
    FROM instrument WHERE venue = %s AND symbol = ANY(%s) ORDER BY symbol, version DESC
"""  # noqa: S608 - constants
"""A symbol and its newest version, of each of some symbols."""
ADD: Final = f"""
    INSERT INTO instrument (
        venue, symbol, version, valid_from, price_unit, qty_unit, {_COLUMNS}
    ) VALUES (
        %s, %s, %s, coalesce(%s::timestamptz, now()), %s, %s, %s, %s{", %s" * len(Facts._fields)}
    ) RETURNING instrument_id
"""  # noqa: S608 - constants
"""With `row_of`."""


class Version(NamedTuple):
    """A row of the table."""

    instrument_id: int
    version: int
    price_decimals: int
    qty_decimals: int
    facts: Facts

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Version":
        """As it is selected."""
        instrument_id, version, price_decimals, qty_decimals, *facts = row
        return cls(instrument_id, version, price_decimals, qty_decimals, Facts(*facts))

    def has_decimals(self, decimals: tuple[int, int]) -> bool:
        """Whether prices and quantities of so many decimals need no new version."""
        return self.decimals_or_more(decimals) == (self.price_decimals, self.qty_decimals)

    def decimals_or_more(self, decimals: tuple[int, int]) -> tuple[int, int]:
        """Its own decimals, or these where they are more."""
        return max(self.price_decimals, decimals[0]), max(self.qty_decimals, decimals[1])


def row_of(
    venue: str,
    symbol: str,
    version: int,
    decimals: tuple[int, int],
    facts: Facts,
    valid_from: dt.datetime | None = None,
) -> tuple[Any, ...]:
    """The values of a new version; without `valid_from`, it is from now on."""
    units = [decimal.Decimal(1).scaleb(-each) for each in decimals]  # the views inherit the scale
    return (venue, symbol, version, valid_from, *units, *decimals, *facts)


def facts_of(instrument: Instrument) -> Facts:
    """As the database holds them."""
    return Facts(
        instrument.base, instrument.quote, _number(instrument.tick_size),
        _number(instrument.lot_size), _number(instrument.contract_size), instrument.status,
        instrument.kind.value, instrument.venue_kind, instrument.state.value, instrument.settle,
        instrument.contract_unit.value, instrument.listed_at, instrument.delivery_at,
    )  # fmt: skip


def says(version: Facts, facts: Facts, *, may_fill: bool) -> bool:
    """Whether rows of an instrument with these facts belong to this version, or would if it were
    filled in, where it may be. Facts of before 0.2, which a stream table may still have, say
    nothing of the market.
    """
    if version.terms != facts.terms:
        return False
    if facts.market == _NO_MARKET:
        return True
    if not may_fill:
        return version.market == facts.market
    return all(known in (now, unknown) for known, now, unknown in _compared(version, facts))


def lacks(version: Facts, facts: Facts) -> bool:
    """Whether facts that this version `says` fill in something."""
    return any(
        known == unknown and now != unknown for known, now, unknown in _compared(version, facts)
    )


def _compared(version: Facts, facts: Facts) -> Iterator[tuple[object, object, object]]:
    return zip(version.market, facts.market, _NO_MARKET, strict=True)


def _number(text: str) -> decimal.Decimal | None:
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:
        return None
    return number if number.is_finite() else None
