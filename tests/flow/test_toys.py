"""A venue, a kind and a sink that the product does not have, all at once, while processes are
killed: each is one file in `tests/toys`, and a line where the product lists its own.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import psutil
import pytest

from control.cli.ending import Ending
from control.proof.ledger_check import LedgerCheck
from control.proof.verdict import Verdict
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.settings import VenueSettings
from engine.messages.status import EngineStatus
from engine.messages.streams import StreamState
from engine.supervisor.spawning import Targets
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from tests.flow.processes import ROOT
from tests.flow.rig import assert_equation
from tests.flow.test_control_plane import Plane, listing_of
from tests.stores import execute, select
from tests.toys.kind import SQL
from tests.toys.processes import register, sink_path
from tests.toys.simulator import Toy
from tests.toys.sink import lines
from tests.toys.venue import CLOSED, NAME
from tests.waiting import until

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(120)]

NS_OF_TIME = "(extract(epoch FROM time) * 1000000)::bigint * 1000 + time_sub_us"
SHARD, WRITER = "tests.toys.processes:shard", "tests.toys.processes:writer"
TARGETS = Targets(SHARD, WRITER, "tests.engine.supervisor.fake_children:commander")
KINDS = (StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.TICKER, StreamKind.FUNDING)
POLLED = StreamKind.FUNDING_OPEN_INTEREST
TABLES = {"trade": "trade_id", "book": "seq", "quote": "seq", "settlement": NS_OF_TIME,
          "funding": NS_OF_TIME, "open_interest": NS_OF_TIME}  # fmt: skip
OPEN = ("T0-USD", "T1-USD", "T2-USD")
CLOSED_STREAM = (NAME, CLOSED, StreamKind.TICKER)
STREAMS = [StreamKey(NAME, symbol, kind) for symbol in OPEN for kind in KINDS]
STREAMS.remove(StreamKey(NAME, "T2-USD", StreamKind.TICKER))  # comes with its trades all the same
STREAMS.append(StreamKey(*CLOSED_STREAM))
STREAMS.append(StreamKey(NAME, OPEN[0], POLLED, Transport.HTTP_POLL))
SINKS = {"database": "up", "redis": "off", "toy": "up"}
WANTED = [StreamState.FAILED] + [StreamState.LIVE] * (len(STREAMS) - 1)


class Rig:
    """An engine of toys and its simulator."""

    def __init__(self, plane: Plane, simulator: Simulator, url: str, ledger: Path) -> None:
        self.plane, self.simulator = plane, simulator
        self._url, self._ledger = url, ledger

    async def until_all_flow(self) -> None:
        """Until every stream but the refused one has a row received from now on."""
        tables = " UNION ALL ".join(f"SELECT stream_id, ts_recv FROM {name}" for name in TABLES)
        now = "SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint"
        ((now_ns,),) = await self.plane.query(now)
        fresh = f"SELECT count(DISTINCT stream_id) FROM ({tables}) AS r WHERE ts_recv > {now_ns}"
        while await self.plane.query(fresh) != [(len(STREAMS) - 1,)]:
            await asyncio.sleep(0.1)

    async def kill(self, target: str, unread_rows: int = 0) -> None:
        """SIGKILL to a child, which has not taken the last rows that were sent; returns when
        another has taken its place and every stream flows again.
        """
        (victim,) = (
            child for child in psutil.Process(os.getpid()).children() if target in child.cmdline()
        )
        victim.suspend()
        wanted = self._sent() + unread_rows
        await until(lambda: self._sent() >= wanted, "rows that nobody reads")
        victim.kill()
        await until(lambda: not victim.is_running(), f"the end of {target}")
        await self.until_all_flow()
        await until(lambda: sorted(self.plane.states()) == WANTED, "the streams' states")

    def sinks(self) -> dict[str, str]:
        """Their states, as the writer said last."""
        return {each.name: each.state for each in self.plane.supervisor.status().writer.sinks}

    def _sent(self) -> int:
        return sum(self.simulator.status()["sent"].values())

    async def verdicts(self) -> dict[str, Verdict]:
        """What the ledger says of the database."""
        check = await asyncio.to_thread(LedgerCheck, self._ledger, self._url)
        return check.verdicts

    async def settle(self) -> None:
        """Stop the market and wait until all of it has arrived."""
        assert await self.simulator.pause()
        while any(each.missing for each in (await self.verdicts()).values()):
            await asyncio.sleep(0.1)


def run(
    layout: Layout, url: str, ledger: Path, scenario: Callable[[Rig], Awaitable[None]]
) -> EngineStatus:
    """A scenario with an engine and a simulator, ended in order; what the engine said last."""

    async def main() -> EngineStatus:
        settings = SimulatorSettings(trades_per_s=1500.0, symbols=4, ledger=ledger)
        simulator = Simulator(settings, [Toy])
        await simulator.start()
        at = f"127.0.0.1:{simulator.port}/{NAME}"
        venues = {NAME: VenueSettings(
            rest_url=f"http://{at}", ws_url=f"ws://{at}", poll_interval_s={POLLED: 1.0}
        )}  # fmt: skip
        (layout.state_dir / "part.no-listings").touch()
        plane = Plane(layout, url, venues, STREAMS, 1, TARGETS)
        plane.command(await listing_of(NAME, venues[NAME]))
        try:
            await plane.supervisor.start()
            await scenario(Rig(plane, simulator, url, ledger))
        finally:
            await plane.supervisor.stop()
            plane.close()
            await simulator.close()
        return plane.supervisor.status()

    return asyncio.run(main())


def test_a_venue_a_kind_and_a_sink_of_a_file_each_survive_kills_together(
    layout: Layout, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch.setitem)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    execute(database_url, SQL)

    async def scenario(rig: Rig) -> None:
        await until(lambda: sorted(rig.plane.states()) == WANTED, "the streams' states")
        await rig.until_all_flow()
        reports = rig.plane.reports()
        closed = reports.pop(CLOSED_STREAM)
        assert closed.state is StreamState.FAILED
        words = f"not permitted: ticker.{CLOSED}"
        assert closed.reason == f"{NAME} refused it, tried again later: {words}"
        pushed = [each for each in reports.values() if each.transport == Transport.WS]
        assert sum(report.gap_count for report in pushed) == 0, "a busy machine may miss a poll"
        assert (rig.plane.reconnects(), rig.plane.malformed()) == (0, {})
        await rig.kill(SHARD, unread_rows=500)
        await rig.kill(WRITER)
        await rig.settle()
        await until(lambda: rig.sinks() == SINKS, "both sinks at work again")

    status = run(layout, database_url, tmp_path / "ledger", scenario)
    ending = Ending.of(status, delivered=True)
    assert (ending.problem, ending.unfinished) == ("", ())
    verdicts = LedgerCheck(tmp_path / "ledger", database_url).verdicts
    total = Verdict()
    for verdict in verdicts.values():
        total.add(verdict)
    assert_equation(total)
    assert total.declared_missing >= 500, "sent to the shard that was killed"
    kept = ids_by_kind(sink_path(layout.state_dir))
    for table, name in TABLES.items():
        ids = [row[0] for row in select(database_url, f"SELECT {name} FROM {table} ORDER BY 1")]
        assert sorted(kept[table]) == ids, table
        assert ids, table


def ids_by_kind(path: Path) -> Mapping[str, list[int]]:
    """What the toy sink has."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for line in lines(path.read_bytes()):
        found[line.kind] += line.ids
    return found
