"""What a venue lists, read row by row: one odd row must not keep the others from starting.

Rows are cut out of the answer undecoded and decoded one at a time. One that cannot be read is kept
by its symbol with the field that is wrong, for whoever wants that symbol; the others are as good as
ever. A symbol that no stream could carry (`engine.data.slots.is_symbol`) is such a row too. An
answer that is no JSON has no rows: it is refused whole.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec

from engine.base.errors import VenueError
from engine.base.wrong_input import explain
from engine.data.instrument import Instrument
from engine.data.names import is_symbol
from shards.venues.bad_frames import BAD_FRAME

Row = TypeVar("Row")
Fact = TypeVar("Fact")

_SHOWN_TEXT: Final = 120
_STEP: Final = re.compile(r"\d{1,20}(\.\d{1,20})?(e-?\d{1,2})?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)  # slots and generics: typing.Generic sets an attribute
class Readings(Generic[Fact]):
    """By symbol: what could be read, and of the other rows what is wrong with them. `nameless`
    counts rows of which not even the symbol can be read.
    """

    known: Mapping[str, Fact]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    nameless: int = 0


Listing = Readings[Instrument]
"""What a venue lists."""


def joined(pages: Iterable[Readings[Fact]]) -> Readings[Fact]:
    """What several answers say together: a symbol that can be read in one of them is read."""
    known: dict[str, Fact] = {}
    unreadable: dict[str, str] = {}
    nameless = 0
    for page in pages:
        known.update(page.known)
        unreadable.update(page.unreadable)
        nameless += page.nameless
    left = {name: why for name, why in unreadable.items() if name not in known}
    return Readings(known, left, nameless)


class RowReader(Generic[Row]):
    """Reads rows that are a `kind`; `name_field` holds the symbol."""

    def __init__(self, kind: type[Row], name_field: str) -> None:
        self._kind = kind
        self._name_field = name_field
        self._decode = msgspec.json.Decoder(kind).decode

    def read(self, rows: Iterable[msgspec.Raw], make: Callable[[Row], Fact]) -> Readings[Fact]:
        """`make` what is to be known of each row; it raises a ValueError for one that says nothing
        a market can mean. A symbol that is there twice is read if one of its rows can be.
        """
        known: dict[str, Fact] = {}
        unreadable: dict[str, str] = {}
        nameless = 0
        for raw in rows:
            try:
                row = self._decode(raw)
                known[_symbol(getattr(row, self._name_field))] = make(row)
            except BAD_FRAME as error:
                if name := self._name_in(raw):
                    unreadable[name] = self._why(error)
                else:
                    nameless += 1
        for name in unreadable.keys() & known.keys():
            del unreadable[name]
        return Readings(known, unreadable, nameless)

    def _name_in(self, raw: msgspec.Raw) -> str:
        """The symbol of a row that cannot be read, fit to be shown; empty where there is none."""
        try:
            row = msgspec.json.decode(raw)
        except BAD_FRAME:
            return ""
        name = row.get(self._name_field) if isinstance(row, dict) else None
        if not isinstance(name, str):
            return ""
        return name if is_symbol(name) else ascii(name[:64])

    def _why(self, error: Exception) -> str:
        if not isinstance(error, msgspec.ValidationError):
            return str(error)[:_SHOWN_TEXT]
        key, text = explain(str(error), self._kind)
        return f"{key}: {text}"[:_SHOWN_TEXT] if key else text[:_SHOWN_TEXT]


def usable(venue: str, listing: Listing) -> Listing:
    """The listing, if it lists anything that can be read; else a VenueError says what is wrong.
    Believed, it would delist everything.
    """
    if listing.known:
        return listing
    if not (count := len(listing.unreadable) + listing.nameless):
        raise VenueError(f"{venue} lists nothing")
    example = next((f"{name}: {why}" for name, why in listing.unreadable.items()), "no symbol")
    raise VenueError(f"{venue}: none of {count} rows of its listing can be read (e.g. {example})")


def step_size(name: str, value: Any) -> str:
    """`value` if it is a size by which something grows: a positive decimal number, as text."""
    if not isinstance(value, str) or not _STEP.fullmatch(value) or not float(value) > 0:
        raise ValueError(f"{name}: {str(value)[:32]!a} is no step size")
    return value


def _symbol(name: str) -> str:
    if not is_symbol(name):
        raise ValueError("no name of an instrument")
    return name
