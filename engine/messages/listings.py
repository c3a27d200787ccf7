"""What venues list: from control, which fetches it, to the streams and to the database."""

import msgspec

from engine.data.instrument import Instrument


class InstrumentEvent(msgspec.Struct, frozen=True):
    """A listing changed: `listed`, `delisted` or `changed`; or its row cannot be read
    (`unreadable`), or can be again (`readable`). `detail` says what is new or wrong.
    """

    venue: str
    symbol: str
    event: str
    detail: str = ""


class ListingWanted(msgspec.Struct, tag=True):
    """Control: fetch what a venue lists soon; streams wait for symbols that it did not list."""

    venue: str


class ListingLoaded(msgspec.Struct, tag=True):
    """Control: a venue's instruments as just fetched. `unreadable` is what it lists in a way nobody
    understands, and why, by symbol; `nameless` counts rows of which not even that can be read.
    """

    venue: str
    instruments: list[Instrument]
    events: list[InstrumentEvent]
    unreadable: dict[str, str] = {}
    nameless: int = 0


class StoreListing(msgspec.Struct, tag=True):
    """Writer: what a venue lists now, and what changed since the last listing."""

    venue: str
    instruments: list[Instrument]
    events: "list[InstrumentEvent]"
    loaded_ns: int = 0
    """When the supervisor took it in: the listing's name, so that repeating it stores nothing."""


class ListingStored(msgspec.Struct, tag=True):
    """Writer: the listing `loaded_ns` of a venue is in the database."""

    venue: str
    loaded_ns: int
