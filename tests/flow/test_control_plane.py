"""Hundreds of streams by message: real shards, real writer, real database, simulated venues."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import msgspec
import psycopg
import pytest

from control.cli.footing import bind
from control.proof.simulator import SimulatorProcess
from control.state.listing_fetch import ListingFetch
from engine.base.clock import monotonic_s
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind
from engine.messages.control import AddStreams, RemoveStreams, SetKnobs
from engine.messages.listings import ListingLoaded
from engine.messages.pipes import FromChild
from engine.messages.settings import LogSettings, VenueSettings
from engine.messages.status import EngineStatus, StreamReport
from engine.messages.streams import KnobChanges, StreamRequest
from engine.start import migrations, preflight
from engine.start.addresses import Secret
from engine.start.config import Config, ShardsConfig
from engine.start.databases import DatabaseConfig
from engine.supervisor.spawning import SupervisorSettings, Targets
from engine.supervisor.supervisor import Supervisor
from shards.simulator.venues.listed import binance_instruments, hyperliquid_instruments
from shards.venues import VENUES, venue_limits
from tests.flow.processes import ROOT
from tests.shards.doubles import free_leases
from tests.waiting import until

pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]

BINANCE, HYPERLIQUID = "binance_linear", "hyperliquid_perp"
TRADES, BOOK = StreamKind.TRADES, StreamKind.L2_BOOK
CONFIG = Config(
    shards=msgspec.convert({"ring_records": {"trade": 1 << 15, "book": 1 << 16}}, ShardsConfig),
    database=DatabaseConfig(flush_rows=20_000),
)
TARGETS = Targets(control="tests.engine.supervisor.fake_children:commander")


def skipped(status: EngineStatus) -> dict[str, int]:
    """Rows that a knob keeps from the database, by kind."""
    return status.writer.database.withheld_rows


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(["--port", "0", "--rate", "1500", "--symbols", "130"])
    yield process
    process.stop()


class Plane:
    """An engine with real children but the control process, which sends what the test says."""

    def __init__(
        self,
        layout: Layout,
        database_url: str,
        venues: dict[str, VenueSettings],
        streams: list[StreamKey],
        shard_count: int,
        targets: Targets = TARGETS,
    ) -> None:
        self.layout = layout
        self._url = database_url
        self._listener = bind("127.0.0.1", 0)
        plan = preflight.plan_rings(CONFIG, "test", shard_count, 1 << 30, 0)
        self.supervisor = Supervisor(
            SupervisorSettings(
                layout=layout,
                config=CONFIG,
                rings=plan.rings,
                cpus=[None] * shard_count,
                streams=streams,
                venues=venues,
                log=LogSettings(str(layout.log_file), to_stderr=False),
                listen_fd=self._listener.fileno(),
                port=0,
                urls={"database": Secret(database_url)},
                limits=venue_limits(),
                targets=targets,
            ),
            migrations.migrate,
        )

    def command(self, message: FromChild) -> None:
        with (self.layout.state_dir / "commands.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(message) + b"\n")

    def reports(self) -> dict[tuple[str, str, str], StreamReport]:
        reports = self.supervisor.status().streams
        return {(report.venue, report.symbol, report.kind): report for report in reports}

    def states(self) -> list[str]:
        return [report.state for report in self.supervisor.status().streams]

    def reconnects(self) -> int:
        return sum(shard.reconnect_count for shard in self.supervisor.status().shards)

    def malformed(self) -> dict[str, int]:
        shards = self.supervisor.status().shards
        return {k: v for shard in shards for k, v in shard.malformed_by_reason.items()}

    async def query(self, text: str) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            with psycopg.connect(self._url) as connection:
                return connection.execute(text.encode()).fetchall()

        return await asyncio.to_thread(ask)

    def close(self) -> None:
        self._listener.close()


async def listing_of(name: str, settings: VenueSettings) -> ListingLoaded:
    """What a venue lists, as the control process would say it."""
    fetch = ListingFetch({name: settings}, free_leases())
    found = VENUES[name].listing.read(await fetch.fetch(VENUES[name]))
    await fetch.close()
    return ListingLoaded(name, list(found.known.values()), [])


Scenario = Callable[[Plane], Awaitable[None]]
RunPlane = Callable[..., None]


@pytest.fixture
def plane(
    layout: Layout, database_url: str, simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> RunPlane:
    """Run a scenario on a started engine."""
    listings = [
        asyncio.run(listing_of(name, settings)) for name, settings in simulator.venues().items()
    ]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(
        scenario: Scenario,
        streams: list[StreamKey] | None = None,
        shard_count: int = 2,
        *,
        killed: bool = False,
    ) -> None:
        async def main() -> None:
            (layout.state_dir / "commands.jsonl").unlink(missing_ok=True)
            (layout.state_dir / "part.no-listings").touch()
            plane = Plane(layout, database_url, simulator.venues(), streams or [], shard_count)
            for listing in listings:
                plane.command(listing)
            try:
                await plane.supervisor.start()
                await scenario(plane)
            finally:
                if killed:
                    plane.supervisor.kill()
                await plane.supervisor.stop()
                plane.close()

        asyncio.run(main())

    return run


def wanted(count: int) -> list[StreamKey]:
    """`count` streams: trades of both venues, and books of the one that needs no REST weight."""
    keys = []
    for binance, hyperliquid in zip(
        binance_instruments(130), hyperliquid_instruments(130), strict=True
    ):
        keys.append(StreamKey(BINANCE, binance.symbol, TRADES))
        keys.append(StreamKey(HYPERLIQUID, hyperliquid.symbol, TRADES))
        keys.append(StreamKey(HYPERLIQUID, hyperliquid.symbol, BOOK))
    return keys[:count]


def test_hundreds_of_streams_come_and_go_beside_one_that_flows(
    plane: RunPlane,
) -> None:
    first, *others = wanted(300)

    async def scenario(plane: Plane) -> None:
        await until(lambda: plane.states() == ["live"], "the first stream")
        plane.command(AddStreams(1, [StreamRequest(key) for key in others]))
        await until(lambda: len(plane.states()) == 300, "the answer", 5)
        asked_s = monotonic_s()
        await until(lambda: set(plane.states()) == {"live"}, "300 live streams")
        took_s = monotonic_s() - asked_s
        sys.stderr.write(f"299 streams were live after {took_s:.1f} s\n")
        plane.command(RemoveStreams(2, others[:250]))
        await until(lambda: len(plane.states()) == 50, "the removal", 5)
        before = plane.reports()[first.venue, first.symbol, first.kind].row_count
        plane.command(AddStreams(3, [StreamRequest(key) for key in others[:250]]))
        await until(lambda: plane.states().count("live") == 300, "300 live streams again")
        report = plane.reports()[first.venue, first.symbol, first.kind]
        assert report.row_count > before
        assert (report.gap_count, report.missing_count) == (0, 0)
        assert plane.reconnects() == 0, "no socket was touched"
        assert plane.malformed() == {}
        gaps = await plane.query(
            "SELECT count(*) FROM gaps WHERE symbol = 'BTCUSDT' AND kind = 'Trades'"
        )
        assert gaps == [(0,)]

    plane(scenario, [first])


def test_a_stream_that_comes_back_declares_exactly_what_it_missed(
    plane: RunPlane, simulator: SimulatorProcess
) -> None:
    """Contiguous ids prove it: every id between the first and the last row is stored once or
    declared missing.
    """
    keys = [StreamKey(BINANCE, "BTCUSDT", TRADES), StreamKey(BINANCE, "ETHUSDT", TRADES)]
    url = simulator.venues()[BINANCE].ws_url

    async def scenario(plane: Plane) -> None:
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/market/ws") as other:
            # The simulated market only trades while somebody listens.
            topic = "btcusdt@aggTrade"
            await other.send_json({"method": "SUBSCRIBE", "params": [topic], "id": 1})
            await until(lambda: plane.states() == ["live", "live"], "both streams")
            for number in range(3):
                plane.command(RemoveStreams(2 * number, keys[:1]))
                await until(lambda: len(plane.states()) == 1, "the removal")
                for _ in range(50):
                    await other.receive(timeout=30)
                plane.command(AddStreams(2 * number + 1, [StreamRequest(keys[0])]))
                await until(lambda: plane.states() == ["live", "live"], "its return")
            plane.command(RemoveStreams(9, keys[:1]))
            await until(lambda: len(plane.states()) == 1, "the last removal")
        assert plane.reconnects() == 0
        assert plane.malformed() == {}
        async with asyncio.timeout(30):
            while not await ids_add_up(plane):
                await asyncio.sleep(0.1)

    plane(scenario, keys)


async def ids_add_up(plane: Plane) -> bool:
    """Whether what was received last has been stored, and nothing is missing or there twice."""
    ((stored, distinct, span),) = await plane.query(
        "SELECT count(*), count(DISTINCT trade_id), max(trade_id) - min(trade_id) + 1"
        " FROM trades WHERE symbol = 'BTCUSDT'"
    )
    gaps = await plane.query("SELECT missing FROM gaps WHERE symbol = 'BTCUSDT'")
    assert stored == distinct
    return bool(gaps) and span == stored + sum(missing for (missing,) in gaps)


def test_everything_killed_resumes_with_knobs_on_another_number_of_shards(
    plane: RunPlane,
) -> None:
    keys = wanted(60)

    async def first(plane: Plane) -> None:
        plane.command(AddStreams(1, [StreamRequest(key) for key in keys]))
        await until(lambda: plane.states().count("live") == 60, "60 live streams")
        plane.command(SetKnobs(2, keys[0], KnobChanges(db_writes_enabled=False)))
        report = plane.supervisor.status
        await until(lambda: skipped(report()).get("trade", 0) > 0, "held back rows")

    async def second(plane: Plane) -> None:
        await until(lambda: plane.states().count("live") == 60, "60 live streams")
        knobs = plane.reports()[keys[0].venue, keys[0].symbol, keys[0].kind].knobs
        assert not knobs.db_writes_enabled
        mirrored = "SELECT count(*) FROM stream_registry"
        assert await plane.query(mirrored) == [(60,)]
        assert {report.shard for report in plane.supervisor.status().streams} == {0}
        newest = "SELECT max(recv_time) FROM trades WHERE symbol = 'BTCUSDT'"
        before = await plane.query(newest)
        status = plane.supervisor.status
        before_rows = skipped(status()).get("trade", 0)
        await until(lambda: skipped(status())["trade"] > before_rows + 100, "rows")
        assert await plane.query(newest) == before

    plane(first, killed=True)
    plane(second, shard_count=1)


def test_a_book_that_was_not_stored_for_a_while_says_so_and_starts_anew(plane: RunPlane) -> None:
    book = StreamKey(BINANCE, "BTCUSDT", BOOK)
    whole = "SELECT DISTINCT seq FROM book_levels WHERE is_snapshot ORDER BY seq"

    async def scenario(plane: Plane) -> None:
        await until(lambda: plane.states() == ["live"], "a live book")
        while not await plane.query(whole):  # else the knob may come before its first commit
            await asyncio.sleep(0.05)
        writer = plane.supervisor.status
        plane.command(SetKnobs(1, book, KnobChanges(db_writes_enabled=False)))
        await until(lambda: skipped(writer()).get("book", 0) > 50, "held back rows")
        assert len(await plane.query(whole)) == 1
        plane.command(SetKnobs(2, book, KnobChanges(db_writes_enabled=True)))
        while len(found := await plane.query(whole)) < 2:
            await asyncio.sleep(0.05)
        renewed = found[1][0]
        after = f"SELECT DISTINCT seq, prev_seq FROM book_levels WHERE seq > {renewed} ORDER BY 1"
        while len(events := await plane.query(after)) < 20:
            await asyncio.sleep(0.05)
        links = [renewed, *(seq for seq, _ in events)]
        assert [prev for _, prev in events] == links[:-1], "it goes on from the new start"
        (gap,) = await plane.query("SELECT reason, state, missing, from_time, to_time FROM gaps")
        assert gap[:2] == ("not_stored", "unrecoverable")
        await until(lambda: skipped(writer())["book"] == gap[2], "the same count")
        (first,) = await plane.query("SELECT min(time) FROM book_levels WHERE after_gap")
        assert gap[3] <= gap[4] <= first[0]
        assert plane.states() == ["live"]
        assert not plane.reports()[BINANCE, "BTCUSDT", "L2Book"].gap_count

    plane(scenario, [book], shard_count=1)
