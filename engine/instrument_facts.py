"""What is known of the streams' instruments: on disk before a stream subscribes.

A shard names the instruments of its new streams and waits until the stream table has them. A disk
that is full holds up those streams and nobody else: what waits is written once there is room.
"""

import logging
from collections.abc import Callable, Mapping

from engine.catalog import Catalog, Instrument

_log = logging.getLogger(__name__)


class InstrumentFacts:
    """Between the shards and the stream table. `on_stored` gets a shard and its slots that are on
    disk now.
    """

    def __init__(self, catalog: Catalog, on_stored: Callable[[int, list[int]], None]) -> None:
        self._catalog = catalog
        self._on_stored = on_stored
        self._waiting: dict[int, dict[int, Instrument]] = {}
        """By shard and slot."""
        self.problem = ""
        """Why nothing can be written; empty while it can."""

    def resolved(self, shard: int, instruments: Mapping[int, Instrument]) -> None:
        """A shard has learned the instruments of these slots."""
        self._waiting.setdefault(shard, {}).update(instruments)
        self.store()

    def shard_ended(self, shard: int) -> None:
        """Nobody waits for these any more."""
        self._waiting.pop(shard, None)

    def store(self) -> None:
        """Write down what waits, as far as the disk takes it."""
        problem = ""
        for shard, instruments in list(self._waiting.items()):
            try:
                known = {s: i for s, i in instruments.items() if self._catalog.get(s)}
                self._catalog.describe_all(known)
            except OSError as error:
                problem = f"the stream table cannot be written: {error.strerror}"
                break
            del self._waiting[shard]
            # Also for streams that were removed meanwhile: the shard waits for the answer.
            self._on_stored(shard, list(instruments))
        if problem and problem != self.problem:
            _log.error(f"{problem}: streams that begin wait for it")
        self.problem = problem
