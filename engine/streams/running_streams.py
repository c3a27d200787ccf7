"""The streams of a running engine: which are wanted, on which shard, with which knobs.

Commands change them; what a shard or the writer must be told follows from it. It talks to
nobody itself: the supervisor sends what it returns. The registry remembers it on disk before a
command is answered, and the last accepted command wins.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from engine.base.clock import wall_ns
from engine.data.layout import Layout
from engine.data.names import StreamKey
from engine.data.slots import Slot, Slots
from engine.messages.control import KeyResult
from engine.messages.pipes import ShardStatus
from engine.messages.status import StreamReport
from engine.messages.streams import (
    KnobChanges,
    Knobs,
    StreamRequest,
    StreamSpec,
    StreamState,
    StreamStatus,
)
from engine.messages.totals import StreamTotals
from engine.streams.placement import spread
from engine.streams.wanted import Origin, Wanted, WantedStream

STREAMS_MAX = 20_000
"""Far above what the venues allow one address; it bounds what abuse can make us remember."""

ByShard = dict[int, list[StreamSpec]]


class RunningStream(msgspec.Struct):
    """One of them, for another program of this process."""

    spec: StreamSpec
    report: StreamReport
    base: dict[str, int]


class StreamsEstate(msgspec.Struct):
    """All of them, and what is remembered of others."""

    streams: list[RunningStream]
    lives: dict[int, int]
    homes: list[tuple[str, str, int]]
    """Venue, symbol, and the shard where that was last."""
    ended_knobs: dict[int, Knobs]
    was_commanded: bool
    restores: bool


class RunningStreams:
    """Owned by the supervisor, which is the only one to change it."""

    def __init__(
        self,
        slots: Slots,
        wanted: Wanted,
        shard_count: int,
        max_rows_per_copy: int,
        now_ns: Callable[[], int] = wall_ns,
        databases: Collection[str] = (),
        most: int = STREAMS_MAX,
    ) -> None:
        """`databases` are the sinks among which a stream may be given to one; commands add no
        stream beyond the `most`.
        """
        self._most = most
        self._restores = True
        self._databases = databases
        self.slots = slots
        self.wanted = wanted
        self._max_rows_per_copy = max_rows_per_copy
        self._now_ns = now_ns
        self._totals: dict[int, StreamTotals] = {}
        self._lives: Counter[int] = Counter()
        """How often a slot was given up: a shard may still speak of such a life."""
        self._slot_of: dict[StreamKey, int] = {}
        self._shards: list[dict[int, StreamSpec]] = [{} for _ in range(shard_count)]
        self._homes: dict[tuple[str, str], int] = {}
        """Where a symbol was last: it returns there, beside what its shard still knows of it."""
        self._crowds: Counter[tuple[int, str]] = Counter()
        """Streams of a venue on a shard."""
        self._ended_knobs: dict[int, Knobs] = {}
        self.was_commanded = False
        """Whether a command ever had a say, now or before a restart."""

    @classmethod
    def of(
        cls,
        layout: Layout,
        shard_count: int,
        max_rows_per_copy: int,
        databases: Collection[str],
        most: int = STREAMS_MAX,
    ) -> "RunningStreams":
        """Those that a state directory remembers."""
        slots, wanted = Slots(layout.slots), Wanted(layout.wanted)
        return cls(slots, wanted, shard_count, max_rows_per_copy, databases=databases, most=most)

    def open(self, configured: Sequence[StreamKey], *, restores: bool = True) -> None:
        """Take in the registry and the configuration; deal everything out to the shards. What is
        not restored stays in the registry for the next start, and none of it runs in this one.
        """
        self._restores = restores
        self.wanted.seed(configured, self._now_ns())
        self.was_commanded = any(
            entry.removed or entry.origin is Origin.COMMAND for entry in self.wanted.entries()
        )
        for ended in self.wanted.entries():
            if restores and not ended.removed:
                continue
            if (known := self.slots.find(ended.key)) is not None:
                self._keep_back(known.slot, ended.knobs)
        wanted = self.wanted.wanted() if restores else []
        entries = self.slots.assign_all(entry.key for entry in wanted)
        placed = spread([self._spec(entry) for entry in entries], len(self._shards))
        for shard, specs in enumerate(placed):
            for spec in specs:
                self._enter(spec, shard)

    def estate(self) -> StreamsEstate:
        """What `inherit` takes. The files of slots and wanted streams are on disk."""
        return StreamsEstate(
            [
                RunningStream(spec, self._totals[slot].report, self._totals[slot].base)
                for specs in self._shards
                for slot, spec in specs.items()
            ],
            dict(self._lives),
            [(*where, shard) for where, shard in self._homes.items()],
            self._ended_knobs,
            self.was_commanded,
            self._restores,
        )

    def inherit(self, estate: StreamsEstate, configured: Sequence[StreamKey]) -> None:
        """Go on from there, instead of `open`. The configuration names what it named."""
        self.wanted.seed(configured, self._now_ns())
        for each in estate.streams:
            self._enter(each.spec, each.report.shard)
            self._totals[each.spec.slot] = StreamTotals.of(each.report, each.base)
        self._lives = Counter(estate.lives)
        self._homes = {(venue, symbol): shard for venue, symbol, shard in estate.homes}
        self._ended_knobs = estate.ended_knobs
        self.was_commanded, self._restores = estate.was_commanded, estate.restores

    def configure(self, configured: Sequence[StreamKey]) -> tuple[ByShard, dict[int, list[int]]]:
        """The configuration names these streams now, by the rules that hold at a start: streams to
        start, slots to stop.
        """
        self.wanted.seed(configured, self._now_ns())
        wanted = {entry.key: entry for entry in self.wanted.wanted()}
        gone = [key for key in self._slot_of if key not in wanted]
        begun = [entry for key, entry in wanted.items() if key not in self._slot_of]
        if begun or gone:
            self.was_commanded = True  # whoever wrote a file that is of no use can write another
        return self._begin(begun), self._leave(gone)

    def limit_copies(self, max_rows_per_copy: int) -> None:
        """What knobs may not contradict is configured otherwise now."""
        self._max_rows_per_copy = max_rows_per_copy

    def add(self, requests: Sequence[StreamRequest]) -> tuple[list[KeyResult], ByShard]:
        """Want these streams. Returns a result for each, and what each shard has to start."""
        results, fresh = [], dict[StreamKey, Knobs]()
        for request in requests:
            key = request.key
            if key in self._slot_of or key in fresh:
                results.append(KeyResult(key, "stream_exists", f"{key} is collected already"))
            elif problem := self._no_database(request.knobs):
                results.append(KeyResult(key, "contradiction", problem, field="database"))
            elif len(self._slot_of) + len(fresh) >= self._most:
                text = f"{self._most} streams are the limit (limits.max_streams)"
                results.append(KeyResult(key, "limit", text))
            else:
                fresh[key] = request.knobs
                results.append(KeyResult(key))
        now_ns = self._now_ns()
        entries = [WantedStream(key, knobs, added_ns=now_ns) for key, knobs in fresh.items()]
        return results, self._begin(entries)

    def adopt(self, entries: Iterable[WantedStream]) -> tuple[ByShard, dict[int, list[int]]]:
        """What the registry took over from its mirror, late: streams to start, slots to stop."""
        begun = [
            e for e in entries if self._restores and not e.removed and e.key not in self._slot_of
        ]
        gone = [e.key for e in entries if e.removed and e.key in self._slot_of]
        for entry in entries:
            if not entry.removed and (slot := self._slot_of.get(entry.key)) is not None:
                self._totals[slot].report.knobs = entry.knobs
        return self._begin(begun), self._leave(gone)

    def reseed(self, configured: Sequence[StreamKey]) -> tuple[ByShard, dict[int, list[int]]]:
        """What the configuration names now: streams to start, slots to stop."""
        self.wanted.seed(configured, self._now_ns())
        wanted = {entry.key: entry for entry in self.wanted.wanted()}
        gone = [key for key in self._slot_of if key not in wanted]
        begun = [entry for key, entry in wanted.items() if key not in self._slot_of]
        return self._begin(begun), self._leave(gone)

    def remove(self, keys: Sequence[StreamKey]) -> tuple[list[KeyResult], dict[int, list[int]]]:
        """Want these streams no more. Returns results, and the slots each shard has to stop."""
        results, gone = [], dict[StreamKey, None]()
        for key in keys:
            if (key in self._slot_of or self.wanted.get(key)) and key not in gone:
                gone[key] = None
                results.append(KeyResult(key))
            else:
                results.append(not_found(key))
        if gone:
            self.was_commanded = True
            self.wanted.remove(gone)
        return results, self._leave([key for key in gone if key in self._slot_of])

    def set_knobs(self, key: StreamKey, changes: KnobChanges) -> KeyResult:
        """Tune a stream; knobs that `changes` does not name stay as they are now."""
        entry, slot = self.wanted.get(key), self._slot_of.get(key)
        if entry is None or slot is None:
            return not_found(key)
        knobs = changes.over(entry.knobs)
        if problem := knobs.contradiction(self._max_rows_per_copy):
            return KeyResult(key, "contradiction", problem, field="flush_rows")
        if problem := self._no_database(knobs):
            return KeyResult(key, "contradiction", problem, field="database")
        if entry.knobs != knobs:
            self.wanted.put([WantedStream(key, knobs, entry.origin, entry.added_ns)])
            self._totals[slot].report.knobs = knobs
        return KeyResult(key)

    def knobs(self) -> dict[int, Knobs]:
        """Knobs by slot, where they are not the defaults. Of a stream that was removed, what keeps
        its last rows out of a sink: some wait in the journal, and nobody wanted them there.
        """
        default = Knobs()
        return self._ended_knobs | {
            slot: totals.report.knobs
            for slot, totals in self._totals.items()
            if totals.report.knobs != default
        }

    def home(self, key: StreamKey) -> tuple[int, int] | None:
        """(shard, slot) of a stream; None when it is not collected."""
        slot = self._slot_of.get(key)
        return None if slot is None else (self._totals[slot].report.shard, slot)

    def stored_again(self, before: Mapping[int, Knobs]) -> dict[int, list[int]]:
        """By shard, the slots whose rows the database gets now and did not with those knobs."""
        resumed: defaultdict[int, list[int]] = defaultdict(list)
        for slot, knobs in before.items():
            report = self._totals[slot].report if slot in self._totals else None
            if report and report.knobs.db_writes_enabled and not knobs.db_writes_enabled:
                resumed[report.shard].append(slot)
        return dict(resumed)

    def moved(self, before: Mapping[int, Knobs]) -> dict[int, list[int]]:
        """By shard, the slots that another database has now than with those knobs."""
        moved: defaultdict[int, list[int]] = defaultdict(list)
        for slot, totals in self._totals.items():
            report = totals.report
            if report.knobs.database != before.get(slot, Knobs()).database:
                moved[report.shard].append(slot)
        return dict(moved)

    def specs(self, shard: int) -> list[StreamSpec]:
        """What a shard has to run."""
        return list(self._shards[shard].values())

    def reports(self) -> list[StreamReport]:
        """Every stream, as the status shows it."""
        return [totals.report for totals in self._totals.values()]

    def update(self, status: ShardStatus) -> None:
        """Take in what a shard says of its streams; removed ones are nobody's business, nor are
        earlier lives of those that came back.
        """
        mine = self._shards[status.shard]
        for stream in status.streams:
            spec = mine.get(stream.slot)
            if spec is not None and spec.life == stream.life:
                self._totals[stream.slot].update(stream)

    def say(self, slot: int, state: StreamState, reason: str) -> bool:
        """How a stream is that no shard runs. Returns whether that is news."""
        report = self._totals[slot].report
        is_news = (report.state, report.reason) != (state, reason)
        report.state, report.reason = state, reason
        return is_news

    def has_failed(self, slot: int) -> bool:
        """Whether a stream cannot run."""
        totals = self._totals.get(slot)
        return totals is not None and totals.report.state is StreamState.FAILED

    def end_life(self, slot: int, process: str = "") -> StreamSpec:
        """A stream is still wanted and its shard is to end it: what that says of it from now on is
        about an earlier life. Returns the next one, in a process of this name, or the same.
        """
        totals = self._totals[slot]
        totals.report.process = process or totals.report.process
        totals.shard_ended("")
        self._lives[slot] += 1
        key, shard = self._shards[totals.report.shard][slot].key, totals.report.shard
        self._shards[shard][slot] = StreamSpec(slot, key, self._lives[slot])
        return self._shards[shard][slot]

    def succeeded(self, heir: StreamSpec, last: StreamStatus | None, process: str) -> bool:
        """A stream has passed to the next process of its shard, where it runs as `heir`; `last` is
        what the one before said at its end. False: it was removed meanwhile, or began anew.
        """
        totals = self._totals.get(heir.slot)
        if totals is None or self._lives[heir.slot] + 1 != heir.life:
            return False
        if last is not None:
            totals.update(last)
        totals.shard_ended(totals.report.reason, totals.report.state)
        totals.report.process = process
        self._lives[heir.slot] = heir.life
        self._shards[totals.report.shard][heir.slot] = heir
        return True

    def shard_ended(self, shard: int, reason: str) -> None:
        """A shard is gone; its streams wait for the next one."""
        for slot in self._shards[shard]:
            self._totals[slot].shard_ended(reason)

    def _no_database(self, knobs: Knobs) -> str:
        """Why there is no such database; empty where there is."""
        if knobs.database is None or knobs.database in self._databases:
            return ""
        return f"there is no database {knobs.database!a}: none of that name is configured"

    def _spec(self, entry: Slot) -> StreamSpec:
        return StreamSpec(entry.slot, entry.key, life=self._lives[entry.slot])

    def _begin(self, entries: Sequence[WantedStream]) -> ByShard:
        if not entries:
            return {}
        if any(entry.origin is Origin.COMMAND for entry in entries):
            self.was_commanded = True
        slots = self.slots.assign_all(entry.key for entry in entries)
        self.wanted.put(entries)
        begun: defaultdict[int, list[StreamSpec]] = defaultdict(list)
        for entry in slots:
            spec = self._spec(entry)
            shard = self._choose(entry.key)
            self._enter(spec, shard)
            begun[shard].append(spec)
        return dict(begun)

    def _leave(self, keys: Iterable[StreamKey]) -> dict[int, list[int]]:
        ended: defaultdict[int, list[int]] = defaultdict(list)
        for key in keys:
            slot = self._slot_of.pop(key)
            report = self._totals.pop(slot).report
            shard = report.shard
            self._keep_back(slot, report.knobs)
            del self._shards[shard][slot]
            self._lives[slot] += 1
            self._crowds[shard, key.venue] -= 1
            ended[shard].append(slot)
        return dict(ended)

    def _enter(self, spec: StreamSpec, shard: int) -> None:
        totals = StreamTotals(spec.slot, spec.key, shard)
        entry = self.wanted.get(spec.key)
        if entry is not None:
            totals.report.knobs, totals.report.added_ns = entry.knobs, entry.added_ns
        totals.report.reason = "accepted, waiting for its shard"
        self._ended_knobs.pop(spec.slot, None)
        self._totals[spec.slot] = totals
        self._slot_of[spec.key] = spec.slot
        self._shards[shard][spec.slot] = spec
        self._crowds[shard, spec.key.venue] += 1
        self._homes[spec.key.venue, spec.key.symbol] = shard

    def _keep_back(self, slot: int, knobs: Knobs) -> None:
        """Until the slot lives again; a stream that is gone has no say in the flush limits."""
        if (kept := knobs.of_sinks) != Knobs():
            self._ended_knobs[slot] = kept

    def _choose(self, key: StreamKey) -> int:
        """Beside its symbol, else on the emptiest shard; among equals the one with fewest streams
        of the venue, then the first.
        """
        home = self._homes.get((key.venue, key.symbol))
        if home is not None:
            return home
        return min(
            range(len(self._shards)),
            key=lambda shard: (len(self._shards[shard]), self._crowds[shard, key.venue], shard),
        )


def not_found(key: StreamKey) -> KeyResult:
    """The answer to a command on a stream that nobody wants."""
    return KeyResult(key, "stream_not_found", f"{key} is not collected")
