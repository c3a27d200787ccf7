"""Obeys commands: streams come, go and are tuned, on disk first; then whom it concerns is told.

A shard or writer that is not there now learns everything when it is ready, so nothing waits here.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from engine.base.errors import EngineError
from engine.data.names import StreamKey
from engine.messages.control import AddStreams, KeyResult, RemoveStreams, RenewBook, SetKnobs
from engine.messages.streams import Knobs, RenewBooks
from engine.messages.writer import SetStreamKnobs
from engine.start.addresses import Secret
from engine.streams.running_streams import RunningStreams, not_found
from engine.streams.wanted import WantedStream
from engine.streams.wanted_mirror import WantedMirror
from engine.supervisor.stream_starts import StreamStarts

_log = logging.getLogger(__name__)

Command = AddStreams | RemoveStreams | SetKnobs | RenewBook


class CommandDesk:
    """Changes which streams run. `to_shard` and `to_writer` reach who is ready, and nobody else."""

    def __init__(
        self,
        running: RunningStreams,
        starts: StreamStarts,
        to_shard: Callable[[int, RenewBooks], None],
        to_writer: Callable[[SetStreamKnobs], None],
        when_heard: Callable[[Callable[[], None]], None],
        registry: tuple[str, Secret | None],
    ) -> None:
        """`when_heard` calls back when the writer acts on what it was told; `registry` is whose
        rows of `stream_registry` are ours, and where that table is.
        """
        self._when_heard = when_heard
        self._running = running
        self._starts = starts
        self._to_shard = to_shard
        self._to_writer = to_writer
        self.mirror = WantedMirror(running.wanted, *registry, self.adopt)

    def obey(self, command: Command) -> list[KeyResult]:
        """What became of each stream of the command."""
        knobs = self._running.knobs()
        try:
            match command:
                case AddStreams():
                    results, started = self._running.add(command.streams)
                    self._starts.start(started)
                case RemoveStreams():
                    results, stopped = self._running.remove(command.keys)
                    self._starts.stop(stopped)
                case SetKnobs():
                    results = [self._running.set_knobs(command.key, command.changes)]
                case RenewBook():
                    results = [self._renew(command.key)]
        except OSError as error:  # the disk is full: what is not on disk was not accepted
            _log.error(f"a command could not be written down: {error}")
            return refuse(command, f"cannot be written down: {error.strerror}")
        self._tell_knobs(knobs)
        self.mirror.changed()
        return results

    def configure(self, configured: Sequence[StreamKey], max_rows_per_copy: int) -> tuple[int, int]:
        """The configuration names these streams and this limit now. Returns how many streams began
        and ended. Raises EngineError where that cannot be written down: then nothing has changed.
        """
        knobs = self._running.knobs()
        try:
            started, stopped = self._running.configure(configured)
        except OSError as error:
            raise EngineError(f"streams cannot be written down: {error.strerror}") from error
        self._running.limit_copies(max_rows_per_copy)
        self._starts.stop(stopped)
        self._starts.start(started)
        self._tell_knobs(knobs)
        self.mirror.changed()
        return sum(map(len, started.values())), sum(map(len, stopped.values()))

    def adopt(self, entries: Iterable[WantedStream]) -> None:
        """The database came back and remembers streams of an earlier life."""
        knobs = self._running.knobs()
        started, stopped = self._running.adopt(entries)
        self._starts.stop(stopped)
        self._starts.start(started)
        self._tell_knobs(knobs)

    def reseed(self, configured: Sequence[StreamKey]) -> None:
        """The configuration was read anew. Raises OSError where that cannot be written down."""
        knobs = self._running.knobs()
        started, stopped = self._running.reseed(configured)
        self._starts.stop(stopped)
        self._starts.start(started)
        self._tell_knobs(knobs)
        self.mirror.changed()

    def _tell_knobs(self, before: dict[int, Knobs]) -> None:
        if (knobs := self._running.knobs()) != before:
            # What a stream has to say of its end still goes to the database that it leaves.
            moved = self._running.moved(before)
            self._starts.end_for_now(moved)
            self._to_writer(SetStreamKnobs(knobs))
            if moved:
                self._when_heard(lambda: self._starts.go_on(moved))
            # The database missed changes of these books: it can follow them from a new start only.
            for index, slots in self._running.stored_again(before).items():
                self._to_shard(index, RenewBooks(slots))

    def _renew(self, key: StreamKey) -> KeyResult:
        home = self._running.home(key)
        if home is None:
            return not_found(key)
        shard, slot = home
        self._to_shard(shard, RenewBooks([slot]))
        return KeyResult(key)


def refuse(command: Command, reason: str) -> list[KeyResult]:
    """The same answer for every stream of a command."""
    return [KeyResult(key, "unavailable", reason) for key in _keys_of(command)]


def _keys_of(command: Command) -> list[StreamKey]:
    match command:
        case AddStreams():
            return [request.key for request in command.streams]
        case RemoveStreams():
            return command.keys
        case SetKnobs() | RenewBook():
            return [command.key]
