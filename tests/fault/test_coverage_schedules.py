"""Whoever has only the database can tell complete, missing and not collected.

Random stops, starts, crashes, silences and faults; another listener hears the venue all the time,
so that the simulator's ledger holds what the engine missed as well. Then nothing but SQL is asked
which times of which stream are complete, and must agree with the ledger: no row that is not stored
lies in a time that is called complete, and times far from any trouble are called complete.

`FTS_COVERAGE_SEEDS=20` runs as many schedules.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psutil
import psycopg
import pytest

from control.cli.commands.demo import demo_streams
from control.cli.remote.client import Client, RefusedError
from control.proof.ledger_kinds import as_shown
from engine.base.clock import wall_ns
from engine.data.kinds import KINDS
from engine.data.layout import open_layout
from engine.data.names import CARRIES, StreamKey, StreamKind, Transport
from engine.process import instance
from shards.simulator.core.ledger import LedgerRows, Rows, read_ledger
from tests.fault.observer import Observer
from tests.flow.rig import SHARD, WRITER, Rig

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
MakeRig = Callable[..., Rig]
SEEDS = int(os.environ.get("FTS_COVERAGE_SEEDS", "1"))
VENUES = ("binance_linear", "hyperliquid_perp")
OFTEN = "\n".join(
    f"[venues.{venue}.poll_interval_s]\nFunding = 1\nOpenInterest = 1\nFundingOpenInterest = 1\n"
    "SettledFunding = 1"
    for venue in VENUES
)
S = 1_000_000_000
BEFORE_NS, AFTER_NS = 4 * S, 2 * S
"""How far from a trouble times must be complete: what is pushed late, and what is said each second;
and the first row after it."""
SETTLED_NS = 6 * S
"""The same for liquidations, of which there may be none."""
OWN_TIMES = {("hyperliquid_perp", "funding"), ("hyperliquid_perp", "open_interest")}
"""Rows that are known by their numbers, because the venue states no time."""


@dataclass
class Schedule:
    """Troubles, one after the other, and when each of them was (ns)."""

    rig: Rig
    chance: random.Random
    troubles: list[tuple[int, int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def run(self) -> None:
        actions = [self.stop, self.crash_shard, self.crash_writer, self.crash_all, self.cut,
                   self.silence, self.withhold, self.remove]  # fmt: skip
        for act in self.chance.sample(actions, 3):
            self.pause(0.2, 1.0)
            self.names.append(act.__name__)
            began_ns = wall_ns()
            act()
            self.rig.until_every_stream_delivers()
            self.troubles.append((began_ns, wall_ns()))

    def pause(self, least_s: float, most_s: float) -> None:
        time.sleep(self.chance.uniform(least_s, most_s))

    @property
    def state_dir(self) -> Any:
        return self.rig.directory / "state"

    def stop(self) -> None:
        assert self.rig.engine is not None
        self.rig.engine.signal(signal.SIGTERM)
        assert self.rig.engine.end()[0] == 0, self.rig.engine.log
        self.pause(0.0, 1.0)
        self.rig.start()

    def crash_shard(self) -> None:
        assert self.rig.engine is not None
        self.rig.engine.child(SHARD).kill()

    def crash_writer(self) -> None:
        assert self.rig.engine is not None
        self.rig.engine.child(WRITER).kill()

    def crash_all(self) -> None:
        assert self.rig.engine is not None
        children = self.rig.engine.descendants()
        for process in children:
            process.kill()
        self.rig.engine.kill()
        psutil.wait_procs(children, timeout=30)
        self.rig.start()

    def cut(self) -> None:
        for venue in self.chance.sample(VENUES, self.chance.randint(1, 2)):
            self.rig.fault(fault=self.chance.choice(["disconnect", "close"]), venue=venue)

    def silence(self) -> None:
        self.rig.fault(fault="silence", venue=self.chance.choice(VENUES), seconds=1.5)

    def withhold(self) -> None:
        kind = self.chance.choice(["trade", "book"])
        symbol = self.rig.query("SELECT min(symbol) FROM instrument WHERE venue = 'binance_linear'")
        self.rig.fault(fault="gap", venue="binance_linear", kind=kind, symbol=symbol[0][0], count=3)

    def remove(self) -> None:
        note = instance.read_note(open_layout(self.state_dir))
        assert note is not None
        key = self.chance.choice([key for key in STREAMS if key.transport is Transport.WS])
        names = ("exchange", "symbol", "kind", "transport")
        body = [dict(zip(names, (key.venue, key.symbol, key.kind, key.transport), strict=True))]
        client = Client(note.control_url)
        client.ask("DELETE", "/streams", body)
        self.pause(0.5, 2.0)
        self.rig.until(lambda: _is_added(client, body), "the engine to take a stream")


def _is_added(client: Client, body: list[dict[str, str]]) -> bool:
    """Add the stream. While the writer is being restarted the engine takes none."""
    try:
        client.ask("POST", "/streams", body)
    except RefusedError as error:
        assert error.status == 503, error
        return False
    return True


STREAMS = demo_streams(2, all_kinds=True)


@pytest.mark.fault("N41")
@pytest.mark.fault("N42")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_sql_alone_tells_which_times_are_complete(make_rig: MakeRig, seed: int) -> None:
    rig = make_rig(
        all_kinds=True, settings=OFTEN, rate="300", symbols=2,
        simulator=("--seed", str(seed + 1), "--liquidations-per-minute", "240"),
    )  # fmt: skip
    observer = Observer(rig.simulator.venues(), STREAMS)
    observer.start()
    try:
        rig.start()
        rig.until_every_stream_delivers()
        since_ns = wall_ns()
        schedule = Schedule(rig, random.Random(seed))
        schedule.run()
        time.sleep((BEFORE_NS + SETTLED_NS) / 1e9 + 0.5)  # a calm to be told from trouble
        until_ns = wall_ns()
        rig.until_every_stream_delivers()
        rig.stop()
    finally:
        observer.stop()
    ledger = read_ledger(rig.ledger_dir)
    with psycopg.connect(rig.database_url) as connection:
        lost_count = calm_count = 0
        for key in STREAMS:
            times = complete_times(connection, key, since_ns - 60 * S, wall_ns() + 60 * S)
            lost = np.array(sorted(lost_rows(connection, ledger, key)), np.int64)
            lost_count += len(lost)
            for begin, end in times:
                wrong = lost[(lost >= begin) & (lost < end)]
                assert not len(wrong), f"{key}: {wrong} are missing in {begin} to {end}"
            late = late_polls(connection, key, since_ns, until_ns)
            for begin, end in calm(key, since_ns, until_ns, [*schedule.troubles, *late]):
                inside = [max(t, begin) < min(u, end) and t <= begin and end <= u for t, u in times]
                calm_count += 1
                assert any(inside), f"{key}: {begin} to {end} is not complete: {times}"
    names = ", ".join(schedule.names)
    said = f"{lost_count} rows missed, {calm_count} calm times proven complete"
    sys.stderr.write(f"seed {seed}: {names}: {said}\n")
    assert calm_count


def calm(
    key: StreamKey, since_ns: int, until_ns: int, troubles: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Times far from any trouble."""
    settled_ns = SETTLED_NS if key.kind is StreamKind.LIQUIDATIONS else AFTER_NS
    begin = since_ns + settled_ns
    for began_ns, over_ns in [*sorted(troubles), (until_ns, until_ns)]:
        if began_ns - BEFORE_NS > begin:
            yield begin, began_ns - BEFORE_NS
        begin = max(begin, over_ns + settled_ns)


def late_polls(
    connection: psycopg.Connection[tuple[Any, ...]], key: StreamKey, since_ns: int, until_ns: int
) -> list[tuple[int, int]]:
    """When polls came too late, on a machine that stood still: a trouble that nobody has made."""
    rows = connection.execute(
        "SELECT (extract(epoch FROM from_time) * 1e9)::bigint,"
        " (extract(epoch FROM to_time) * 1e9)::bigint FROM gaps WHERE reason = 'poll_missed'"
        " AND (venue, symbol, kind, transport) = (%s, %s, %s, %s)"
        " AND from_time < %s AND to_time > %s",
        (key.venue, key.symbol, key.kind, key.transport, _time(until_ns), _time(since_ns)),
    )
    return [(begin, end) for begin, end in rows]


def complete_times(
    connection: psycopg.Connection[tuple[Any, ...]], key: StreamKey, since_ns: int, until_ns: int
) -> list[tuple[int, int]]:
    """What the database says is complete, in ns."""
    rows = connection.execute(
        "SELECT (extract(epoch FROM from_time) * 1e9)::bigint,"
        " (extract(epoch FROM to_time) * 1e9)::bigint"
        " FROM completeness(%s, %s, %s, %s, %s, %s) WHERE answer = 'complete'",
        (key.venue, key.symbol, key.kind, _time(since_ns), _time(until_ns), key.transport),
    )
    return [(begin, end) for begin, end in rows]


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def lost_rows(
    connection: psycopg.Connection[tuple[Any, ...]], ledger: LedgerRows, key: StreamKey
) -> Iterator[int]:
    """Venue times of the rows that the venue sent and the database does not have."""
    number = ledger.symbols.index((key.venue, key.symbol))
    of = (key.venue, key.symbol)
    if key.transport is not Transport.WS:
        return
    if key.kind is StreamKind.TRADES:
        sent = [each[each["symbol"] == number] for each in (ledger.trade, ledger.withheld)]
        yield from _without(connection, "trade_id", "trades", of, np.concatenate(sent), "trade_id")
    elif key.kind is StreamKind.L2_BOOK:
        rows = ledger.book[ledger.book["symbol"] == number]
        table = "book_levels WHERE is_snapshot = (venue <> 'binance_linear')"
        yield from _without(connection, "seq", f"(SELECT * FROM {table}) b", of, rows, "seq")
    for kind in map(KINDS.__getitem__, CARRIES[key.kind]):
        if kind.view:
            query = (
                f"SELECT time, {kind.view_values} FROM {kind.view}"
                " WHERE venue = %s AND symbol = %s AND transport = 'Ws'"
            )
            stored = set(connection.execute(query.encode(), of).fetchall())
            own = (key.venue, kind.name) in OWN_TIMES
            if own:
                stored = {values[1:] for values in stored}
            pushed = _pushed(getattr(ledger, kind.name), number)
            for at, said in zip(pushed["ts_event"], as_shown(kind, pushed), strict=True):
                if (said[1:] if own else said) not in stored:
                    yield int(at)


def _pushed(rows: Rows, number: int) -> Rows:
    rows = rows[rows["symbol"] == number]
    return rows[rows["rest"] == 0] if "rest" in (rows.dtype.names or ()) else rows


def _without(
    connection: psycopg.Connection[tuple[Any, ...]],
    column: str, view: str, of: tuple[str, str], sent: Rows, name: str,
) -> Iterator[int]:  # fmt: skip
    query = f"SELECT DISTINCT {column} FROM {view} WHERE venue = %s AND symbol = %s"
    stored = [value for (value,) in connection.execute(query.encode(), of)]
    yield from sent["ts_event"][~np.isin(sent[name], stored)].tolist()
