"""Children that behave, or misbehave, on command: run by `engine.process.birth` in supervisor
tests.

A fake learns its part from small files in the state directory, because its settings are the real
ones. What it lived through it appends to `events.jsonl`, for the tests to read.
"""

import asyncio
import json
import os
import signal
from pathlib import Path

import msgspec

from engine.base.errors import EngineError
from engine.data.instrument import Instrument
from engine.data.names import StreamKind
from engine.messages.control import CommandResult, Heartbeat, SystemStatus
from engine.messages.listings import ListingLoaded, ListingStored, ListingWanted, StoreListing
from engine.messages.pipes import Drain, FromChild, Ready, ShardStatus, ToChild
from engine.messages.settings import ControlSettings, ShardSettings, WriterSettings
from engine.messages.streams import (
    ExpectStreams,
    InheritStream,
    ReleaseStreams,
    StartStreams,
    StopStreams,
    StreamCounts,
    StreamInherited,
    StreamReleased,
    StreamsJoined,
    StreamSpec,
    StreamState,
    StreamStatus,
    sum_by_kind,
)
from engine.messages.upkeep import DatabaseReport, PauseUpkeep, UpkeepSettings, UpkeepStatus
from engine.messages.writer import (
    MakeWay,
    RingsSynced,
    SetStreamKnobs,
    SinkStatus,
    SyncRings,
    WriterStatus,
)
from engine.process.pipe import Pipe

SYMBOLS = {"binance_linear": ("BTCUSDT", "SOLUSDT"), "hyperliquid_perp": ("ETH", "DOGE")}
"""What the venues list."""


def note(directory: Path, **event: object) -> None:
    """Append an event in one write."""
    line = json.dumps({"pid": os.getpid(), **event}) + "\n"
    fd = os.open(directory / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


def writer_status(state: str = "up", backlog_rows: int = 0) -> WriterStatus:
    """A status with 10 stored trades."""
    return WriterStatus(
        rings=[],
        received_rows={"trade": 10},
        sinks=[
            SinkStatus("database", state, rows={"trade": 10}, backlog_rows=backlog_rows),
            SinkStatus("redis", "up"),
        ],
        journal_bytes=0,
        latency={},
        rss_bytes=0,
        cpu_s=0.0,
    )


async def writer(settings: WriterSettings, pipe: Pipe[ToChild]) -> int:
    """Is ready at once, syncs rings, drains. Part `backlog`: cannot deliver. Part `behind`: while
    it is there, millions of rows wait.
    """
    directory = Path(settings.paths.state_dir)
    backlog = 7 if (directory / "part.backlog").exists() else 0
    note(directory, who="writer", what="born")
    pipe.send(Ready())
    pipe.send(writer_status(backlog_rows=backlog))
    beat = asyncio.create_task(_writer_beat(pipe, directory / "part.behind", backlog))
    try:
        while (message := await pipe.receive()) is not None:
            match message:
                case SyncRings():
                    note(directory, who="writer", what="sync", rings=message.rings)
                    pipe.send(RingsSynced(message.request_id))
                case Drain() | MakeWay():
                    note(directory, who="writer", what=type(message).__name__.lower())
                    return 0
                case SetStreamKnobs():
                    off = [s for s, each in message.knobs.items() if not each.db_writes_enabled]
                    note(directory, who="writer", what="knobs", off=off)
                case StoreListing():
                    note(directory, who="writer", what="listing", venue=message.venue)
                    if not (directory / "part.forgetful").exists():
                        pipe.send(ListingStored(message.venue, message.loaded_ns))
                case _:
                    note(directory, who="writer", what=type(message).__name__)
        return 1
    finally:
        beat.cancel()


async def shard(settings: ShardSettings, pipe: Pipe[ToChild]) -> int:
    """Reports live streams. Parts: refuse, stillborn, deaf, mute."""
    directory = Path(settings.paths.state_dir)
    note(directory, who=f"shard-{settings.index}", what="born")
    lives: dict[int, int] = {}
    counts = Counts()
    passing = Passing(pipe, directory, settings)
    if (directory / "part.refuse").exists():
        raise EngineError("this shard never starts")
    stand_still_once(directory / "part.stillborn")
    pipe.send(Ready())
    beats: list[asyncio.Task[None]] = []
    while (message := await pipe.receive()) is not None:
        match message:
            case StartStreams():
                lives |= {spec.slot: spec.life for spec in message.streams}
                counts.kinds |= {spec.slot: spec.key.kind for spec in message.streams}
                slots = [spec.slot for spec in message.streams]
                note(directory, who=f"shard-{settings.index}", what="streams", slots=slots)
                counts.add(5, slots)
                status = shard_status(settings.index, lives, counts)
                pipe.send(status)
                if not (directory / "part.mute").exists():
                    beats.append(asyncio.create_task(_beat(pipe, status)))
            case StopStreams():
                note(directory, who=f"shard-{settings.index}", what="stop", slots=message.slots)
                lives = {slot: life for slot, life in lives.items() if slot not in message.slots}
                for beat in beats:
                    beat.cancel()
                counts.add(2, message.slots)  # no status has said so before they are removed
                status = shard_status(settings.index, lives, counts)
                beats.append(asyncio.create_task(_beat(pipe, status)))
            case ExpectStreams() | ReleaseStreams() | InheritStream():
                passing.take(message, lives, counts)
            case Drain() if not (directory / "part.deaf").exists():
                note(directory, who=settings.role, what="drain")
                break
            case _:
                pass
    for beat in beats:
        beat.cancel()
    return 0


def stand_still_once(part: Path) -> None:
    """Stop as under a debugger, if the part says so; the next process goes on."""
    if part.exists():
        part.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)


def say_listings(directory: Path, pipe: Pipe[ToChild]) -> None:
    """Every symbol is an instrument with 2 and 3 decimals. Part `unlisted`: only others are
    listed. Part `no-listings`: the venues do not answer.
    """
    if (directory / "part.no-listings").exists():
        pipe.send(Heartbeat(listings=dict.fromkeys(SYMBOLS, "HTTP 418: this address is banned")))
        return
    ending = "2" if (directory / "part.unlisted").exists() else ""
    for venue, symbols in SYMBOLS.items():
        listed = [Instrument(venue, symbol + ending, 2, 3) for symbol in symbols]
        pipe.send(ListingLoaded(venue, listed, []))
    pipe.send(Heartbeat(listings=dict.fromkeys(SYMBOLS, "")))


async def control(settings: ControlSettings, pipe: Pipe[ToChild]) -> int:
    """Takes the status and keeps the last one on disk. Parts: deaf-control, worried-control, and
    those of `say_listings`.
    """
    directory = Path(settings.log.file).parent
    note(directory, who="control", what="born")
    pipe.send(Ready(port=settings.port))
    say_listings(directory, pipe)
    await pipe.flush()
    stand_still_once(directory / "part.deaf-control")
    is_worried = (directory / "part.worried-control").exists()
    said = Heartbeat("red", "rows wait 70 s for the database") if is_worried else Heartbeat()
    beat = asyncio.create_task(_beat(pipe, said))
    while (message := await pipe.receive()) is not None:
        match message:
            case SystemStatus():
                half = directory / "status.tmp"
                half.write_bytes(bytes(message.body))
                half.replace(directory / "status.json")
            case Drain():
                note(directory, who="control", what="drain")
                break
            case _:
                pass
    beat.cancel()
    return 0


async def commander(settings: ControlSettings, pipe: Pipe[ToChild]) -> int:
    """A control process that sends what tests write into `commands.jsonl`, and keeps answers and
    the last status on disk.
    """
    directory = Path(settings.log.file).parent
    note(directory, who="control", what="born")
    pipe.send(Ready(port=settings.port))
    say_listings(directory, pipe)
    sending = asyncio.create_task(_send_commands(directory / "commands.jsonl", pipe))
    beat = asyncio.create_task(_beat(pipe, Heartbeat()))
    try:
        while (message := await pipe.receive()) is not None:
            match message:
                case SystemStatus():
                    half = directory / "status.tmp"
                    half.write_bytes(bytes(message.body))
                    half.replace(directory / "status.json")
                case CommandResult():
                    kinds = [result.error_kind for result in message.results]
                    note(
                        directory, who="control", what="answer", id=message.request_id, kinds=kinds
                    )
                case ListingWanted():
                    note(directory, who="control", what="wanted", venue=message.venue)
                case Drain():
                    break
                case _:
                    note(directory, who="control", what=type(message).__name__)
    finally:
        sending.cancel()
        beat.cancel()
    return 0


async def _send_commands(path: Path, pipe: Pipe[ToChild]) -> None:
    offset = 0
    while True:
        if path.exists():  # noqa: ASYNC240 - a test's small file
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    if line.endswith(b"\n"):
                        offset += len(line)
                        pipe.send(msgspec.json.decode(line, type=FromChild))
        await asyncio.sleep(0.01)


async def stubborn_writer(settings: WriterSettings, pipe: Pipe[ToChild]) -> int:
    """Is ready, then stops itself as a debugger would: alive, and deaf to everything."""
    note(Path(settings.paths.state_dir), who="writer", what="born")
    pipe.send(Ready())
    await pipe.flush()
    os.kill(os.getpid(), signal.SIGSTOP)
    return 0


class Counts:
    """Rows by the kind of their stream."""

    def __init__(self) -> None:
        self.kinds: dict[int, StreamKind] = {}
        self.by_kind: dict[StreamKind, StreamCounts] = {}

    def add(self, rows: int, slots: list[int]) -> None:
        more = [{self.kinds[slot]: StreamCounts(rows, rows)} for slot in slots]
        self.by_kind = sum_by_kind([self.by_kind, *more])


class Passing:
    """Streams that come from another fake, or go to one: each has 7 rows when it goes."""

    def __init__(self, pipe: Pipe[ToChild], directory: Path, settings: ShardSettings) -> None:
        self._pipe, self._directory, self._settings = pipe, directory, settings
        self._expected: dict[int, StreamSpec] = {}

    def take(
        self,
        message: ExpectStreams | ReleaseStreams | InheritStream,
        lives: dict[int, int],
        counts: Counts,
    ) -> None:
        """Obey."""
        match message:
            case ExpectStreams():
                self._expected = {spec.slot: spec for spec in message.streams}
                self._pipe.send(StreamsJoined(list(self._expected)))
            case ReleaseStreams():
                for slot in message.slots:
                    last = StreamStatus(slot, StreamState.LIVE, row_count=7, life=lives[slot])
                    self._pipe.send(StreamReleased(slot, last, "{}"))
            case InheritStream():
                spec = self._expected[message.slot]
                lives[spec.slot], counts.kinds[spec.slot] = spec.life, spec.key.kind
                note(self._directory, who=self._settings.role, what="inherit", slot=spec.slot)
                self._pipe.send(StreamInherited(spec.slot, True))
                self._pipe.send(shard_status(self._settings.index, lives, counts))


def shard_status(index: int, lives: dict[int, int], counts: Counts) -> ShardStatus:
    """Five rows a stream."""
    return ShardStatus(
        shard=index,
        streams=[
            StreamStatus(slot, StreamState.LIVE, row_count=5, life=life)
            for slot, life in lives.items()
        ],
        counts_by_kind=counts.by_kind,
        malformed_by_reason={},
        connection_count=1,
        reconnect_count=0,
        loop_lag_ms=0.0,
        rss_bytes=1,
        cpu_s=0.1,
    )


async def _writer_beat(pipe: Pipe[ToChild], behind: Path, backlog: int) -> None:
    while True:
        await asyncio.sleep(0.1)
        rows = 3_000_000 if behind.exists() else backlog  # noqa: ASYNC240 - as above
        pipe.send(writer_status(backlog_rows=rows))


async def _beat(
    pipe: Pipe[ToChild], status: ShardStatus | WriterStatus | Heartbeat | UpkeepStatus
) -> None:
    while True:
        await asyncio.sleep(0.1)
        pipe.send(status)


async def upkeep(settings: UpkeepSettings, pipe: Pipe[ToChild]) -> int:
    """Says that it looks after its database. Part `stillborn-upkeep`: not in its first life."""
    directory = Path(settings.paths.state_dir)
    kept = [str(each.keep) for each in settings.databases]
    note(directory, who="upkeep", what="born", kept=kept)
    stillborn = directory / "part.stillborn-upkeep"
    if stillborn.exists():
        stillborn.unlink()
        return 1
    pipe.send(Ready())
    said = UpkeepStatus([DatabaseReport(each.name, "partitions") for each in settings.databases])
    beat = asyncio.create_task(_beat(pipe, said))
    while (message := await pipe.receive()) is not None:
        match message:
            case PauseUpkeep():
                note(directory, who="upkeep", what="pause", paused=message.paused)
            case Drain():
                note(directory, who="upkeep", what="drain")
                break
            case _:
                note(directory, who="upkeep", what=type(message).__name__)
    beat.cancel()
    return 0
