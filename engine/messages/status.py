"""The whole engine in one message: what the terminal view, `--json` and the control process show.

Children count from their own birth; the totals here (`engine.messages.totals`) from the engine's.
"""

from collections import Counter
from collections.abc import Callable
from typing import Literal

import msgspec

from engine.data.kinds import NOT_MARKET_DATA
from engine.data.names import CARRIES, DEFAULT_DATABASE, StreamKind
from engine.messages.account import Account, Moves
from engine.messages.streams import Knobs, StreamCounts, StreamState
from engine.messages.upkeep import DatabaseReport
from engine.messages.writer import BySink, DatabaseThresholds, SinkStatus

Light = Literal["green", "yellow", "red"]
Judgement = tuple[Light, str]
Phase = Literal["starting", "running", "draining", "stopped"]
ChildState = Literal["starting", "up", "restarting", "ended"]


class ChildReport(msgspec.Struct):
    """One child process."""

    name: str
    state: ChildState = "starting"
    pid: int = 0
    restart_count: int = 0
    reason: str = ""
    release: str = ""
    """What code it runs; empty of a server, and before it has said so."""


class StreamReport(msgspec.Struct):
    """One stream, with totals since the engine started."""

    slot: int
    venue: str
    symbol: str
    kind: str
    shard: int
    transport: str = "Ws"
    knobs: Knobs = Knobs()
    added_ns: int = 0
    state: StreamState = StreamState.PENDING
    reason: str = ""
    frame_count: int = 0
    row_count: int = 0
    gap_count: int = 0
    missing_count: int = 0
    duplicate_count: int = 0
    refused_count: int = 0
    last_recv_ns: int = 0
    process: str = ""
    """What the process of its shard is called, and so its rings (`engine.data.layout.shard_name`);
    empty where it is the usual one."""


class ShardReport(msgspec.Struct):
    """One shard."""

    child: ChildReport
    shard: int
    cpu: int | None = None
    connection_count: int = 0
    reconnect_count: int = 0
    malformed_by_reason: dict[str, int] = {}
    loop_lag_ms: float = 0.0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    taken_s: float = 0.0
    """When it said so, with its streams, on the monotonic clock; 0: not yet."""


class WriterReport(BySink, msgspec.Struct):
    """The writer and its sinks. Rows are by record kind, since the engine started."""

    child: ChildReport
    received_rows: dict[str, int] = {}
    sinks: list[SinkStatus] = []
    dropped_rows: dict[str, int] = {}
    moves: dict[str, Moves] = {}
    """What the rings took and the default database's cursors passed."""
    moves_of: dict[str, dict[str, Moves]] = {}
    """The same of each other database, by its sink."""
    journal_error: str = ""
    """Why rows are not journalled; empty while they are."""
    flush_delay_s: float = 0.0
    """Age of the rows that are being stored, in the database that is furthest behind."""
    flush_delays_s: dict[str, float] = {}
    """The same by database."""
    journal_bytes: int = 0
    rss_bytes: int = 0
    cpu_s: float = 0.0
    latency_us: dict[str, dict[str, float]] = {}
    """Percentiles by stage, since the writer was born."""
    recent_latency_us: dict[str, dict[str, float]] = {}
    """The same of the last minute; a stage is empty where nothing passed it in that time."""
    taken_s: float = 0.0
    """When it said so, on the monotonic clock; 0: not yet."""
    thresholds: dict[str, DatabaseThresholds] = {}
    """By database, from where on it is behind; of one that is not named, as by default."""


class LimiterReport(msgspec.Struct):
    """One budget of one venue, as `GET /limiters` shows it."""

    venue: str
    pool: str
    budget: float
    window_s: float | None
    """None where it is a limit on what is held at once."""
    used: float
    venue_used: float | None = None
    """What the venue's own header said last."""
    blocked_s: float = 0.0
    """Seconds until requests are allowed again (403, 418, 429, 451)."""
    waiting_count: int = 0
    others_used: float | None = None
    """Of `used`, what other engines on the address spent; None where budgets are not shared."""
    blocked_reason: str = ""
    """What the venue said; empty where nobody asked it."""


UpgradeState = Literal["running", "done", "failed"]


class UpgradeReport(msgspec.Struct):
    """The last replacement of the engine's processes, or the one that goes on."""

    state: UpgradeState = "running"
    step: str = "trial"
    """What is being done, or was last."""
    passed_count: int = 0
    """Streams that have passed to a new process."""
    stream_count: int = 0
    """Those that are to pass."""
    reason: str = ""
    """Why it failed."""
    started_ns: int = 0
    ended_ns: int = 0
    """0 while it goes on."""


class EngineStatus(msgspec.Struct):
    """Everything, at one moment."""

    status: Light
    reason: str
    phase: Phase
    instance: str
    uptime_s: float
    shards: list[ShardReport]
    writer: WriterReport
    control: ChildReport
    streams: list[StreamReport]
    limiters: list[LimiterReport] = []
    counts_by_kind: dict[StreamKind, StreamCounts] = {}
    """Of all streams since the engine started, also of those that were removed."""
    counts_are_least: bool = False
    """Whether a shard was killed that may have counted more."""
    servers: list[ChildReport] = []
    """The sinks' private servers, where they are the engine's own."""
    upkeep: list[DatabaseReport] = []
    """How the databases are looked after; empty where there is none, and before it was said."""
    upkeep_child: ChildReport | None = None
    """The process that does it; None where there is no database."""
    upgrade: UpgradeReport | None = None
    """None before the first."""
    upgrades: dict[str, int] = {}
    """How many there were, by how they ended (`UpgradeState`)."""
    release: str = ""
    """What code the supervisor runs."""

    @property
    def children(self) -> list[ChildReport]:
        """The supervisor's children; servers are not."""
        upkeep = [self.upkeep_child] if self.upkeep_child is not None else []
        return [*(shard.child for shard in self.shards), self.writer.child, self.control, *upkeep]

    @property
    def releases(self) -> dict[str, list[str]]:
        """Which processes run which code: more than one where an upgrade goes on, or has failed."""
        found = {self.release: ["supervisor"]} if self.release else {}
        for child in self.children:
            if child.release:
                found.setdefault(child.release, []).append(child.name)
        return found

    def rows_by_kind(self) -> dict[str, int]:
        """Rows the shards put into their rings, by record kind; never fewer than before."""
        return self._by_kind(lambda counts: counts.row_count)

    def refused_by_kind(self) -> dict[str, int]:
        """Rows that came and could not be read, by record kind."""
        return self._by_kind(lambda counts: counts.refused_count)

    def _by_kind(self, count: Callable[[StreamCounts], int]) -> dict[str, int]:
        rows: Counter[str] = Counter()
        for stream_kind, counts in self.counts_by_kind.items():
            kinds = CARRIES[stream_kind]
            for kind in kinds:
                rows[kind] += count(counts) // len(kinds)
        return dict(rows)

    def accounts(self, sink: str = DEFAULT_DATABASE) -> dict[str, Account]:
        """What became of the rows of market data in one database, by kind; of none where there is
        no database. Exact at the end: while it runs, shards and writer are not heard at the same
        moment.
        """
        writer, database = self.writer, self.writer.sink(sink)
        if database.state == "off":
            return {}
        moves = writer.moves if sink == DEFAULT_DATABASE else writer.moves_of.get(sink, {})
        counted = {
            "stored": database.rows, "skipped": database.withheld_rows,
            "quarantined": database.refused_rows, "lost": database.missed_rows,
            "elsewhere": database.elsewhere_rows,
            "refused": self.refused_by_kind(), "dropped": writer.dropped_rows,
        }  # fmt: skip
        kinds = set().union(*counted.values(), moves) - NOT_MARKET_DATA
        return {
            kind: Account.of(
                moves.get(kind, Moves()),
                {name: rows.get(kind, 0) for name, rows in counted.items()},
            )
            for kind in sorted(kinds)
        }
