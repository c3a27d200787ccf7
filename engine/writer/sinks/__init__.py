"""Where rows are brought: one module or package a sink, and `sink`, which says what a sink is.

May import `engine.writer.rows`. Must not know the other sinks, nor where rows come from. The table
of instruments is kept here, too, by the sink whose database it is in.
"""

from collections.abc import Callable, Mapping
from typing import Final

from engine.data.names import DEFAULT_DATABASE
from engine.data.slots import Slots
from engine.messages.settings import WriterSettings
from engine.writer.sinks.postgres.listing_store import ListingStore
from engine.writer.sinks.postgres.sink import make as make_postgres
from engine.writer.sinks.redis.sink import make as make_redis
from engine.writer.sinks.sink import Sink

__all__ = ["SINKS", "ListingStore", "make_sinks"]

SINKS: Final[Mapping[str, Callable[[WriterSettings, Slots], Sink | None]]] = {
    "database": make_postgres,
    "redis": make_redis,
}
"""By name: makes the sink, or nothing where it is not configured."""


def make_sinks(settings: WriterSettings, slots: Slots) -> dict[str, Sink | None]:
    """All there are, by name; of databases there may be several."""
    found: dict[str, Sink | None] = {}
    for name, make in SINKS.items():
        each_of = settings.by_database() if name == DEFAULT_DATABASE else [settings]
        for number, one in enumerate(each_of):
            found[one.database if number else name] = make(one, slots)
    return found
