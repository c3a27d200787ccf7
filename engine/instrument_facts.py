"""What is known of the streams' instruments: on disk before a stream subscribes.

A shard is handed what is known already, so that a venue that refuses REST requests for days holds
up no stream that can do without. It names the instruments of its new streams and waits until the
stream table has them. A disk that is full holds up those streams and nobody else: what waits is
written once there is room.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from engine.catalog import Catalog, Instrument
from engine.clock import monotonic_s
from engine.commands import InstrumentsLoaded, StreamSpec

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
        self._listed: dict[str, tuple[float, dict[str, Instrument]]] = {}
        """By venue: when it came, and what it says."""
        self.problem = ""
        """Why nothing can be written; empty while it can."""

    def listed(self, message: InstrumentsLoaded) -> None:
        """What a venue lists now."""
        listed = {each.symbol: each for each in message.instruments}
        self._listed[message.venue] = monotonic_s(), listed

    def brief(self, specs: Iterable[StreamSpec]) -> list[StreamSpec]:
        """The same streams with their instruments: as listed last, or else as described last. A
        symbol that is not listed any more is for the shard to judge.
        """
        return [self._brief(each) for each in specs]

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

    def _brief(self, spec: StreamSpec) -> StreamSpec:
        if spec.key.venue in self._listed:
            listed_s, listed = self._listed[spec.key.venue]
            instrument = listed.get(spec.key.symbol)
        else:
            listed_s, instrument = 0.0, self._catalog.instrument(spec.key.venue, spec.key.symbol)
        return msgspec.structs.replace(spec, instrument=instrument, listed_s=listed_s)
