"""A shard process: real rings, a real pipe to it, a simulated venue."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.data.kinds import KINDS
from engine.data.layout import Layout, open_layout, ring_name
from engine.data.ring import format_ring, ring_bytes
from engine.data.segment import create_segment
from engine.messages.limits import LeaseGranted, LeaseRequest
from engine.messages.pipes import Drain, Ready, ShardStatus
from engine.messages.settings import LogSettings, Paths, ShardSettings, VenueSettings
from engine.messages.streams import (
    StartStreams,
    StopStreams,
    StreamSpec,
    StreamState,
    StreamStatus,
)
from engine.process.child import Child
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.venues import VENUES
from tests.shards.doubles import spec_of
from tests.waiting import until

pytestmark = [pytest.mark.whole, pytest.mark.flow]
BINANCE = "binance_linear"


class Supervisor:
    """The other end of the shard's pipe: grants every lease."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.is_ready = asyncio.Event()
        self.streams: dict[int, StreamStatus] = {}

    async def serve(self) -> None:
        """Until the child is gone."""
        pipe = self.child.pipe
        while (message := await pipe.receive()) is not None:
            match message:
                case Ready():
                    self.is_ready.set()
                case LeaseRequest():
                    pipe.send(LeaseGranted(message.request_id))
                case ShardStatus():
                    self.streams = {stream.slot: stream for stream in message.streams}
                case _:
                    pass

    async def until(self, condition: Callable[[dict[int, StreamStatus]], bool]) -> None:
        """Wait for a status like that."""
        await until(lambda: condition(self.streams) or not self.child.is_running)
        assert self.child.is_running


def make_rings(layout: Layout) -> None:
    """What the writer does before shards start."""
    layout.shm_dir.mkdir(parents=True, exist_ok=True)
    for kind, spec in KINDS.items():
        segment = create_segment(
            layout.ring_path(ring_name("shard-0", kind)), ring_bytes(spec, 1 << 12)
        )
        with memoryview(segment.memory) as memory:
            format_ring(memory, spec, 1 << 12, 1)
        segment.close()


def run(tmp_path: Path, test: Callable[[Supervisor], Awaitable[None]]) -> None:
    async def body() -> None:
        layout = open_layout(tmp_path / "state", tmp_path)
        make_rings(layout)
        simulator = Simulator(SimulatorSettings(symbols=3, trades_per_s=200))
        await simulator.start()
        address = f"127.0.0.1:{simulator.port}/{BINANCE}"
        venues = {BINANCE: VenueSettings(rest_url=f"http://{address}", ws_url=f"ws://{address}")}
        doorbell_fd = os.eventfd(0, os.EFD_NONBLOCK)
        child = await Child.spawn(
            "shard-0",
            "shards.main:run",
            ShardSettings(
                0, None, Paths.of(layout), venues, doorbell_fd,
                LogSettings(str(layout.log_file), to_stderr=False), status_interval_s=0.05,
            ),
            pass_fds=[doorbell_fd],
        )  # fmt: skip
        supervisor = Supervisor(child)
        serving = asyncio.create_task(supervisor.serve())
        try:
            await asyncio.wait_for(supervisor.is_ready.wait(), 20)
            await test(supervisor)
            child.pipe.send(Drain(1.0))
            assert await child.wait(10) == 0, layout.log_file.read_text()
        finally:
            child.kill()
            await child.wait()
            await serving
            await child.pipe.close()
            os.close(doorbell_fd)
            await simulator.close()

    asyncio.run(body())


def test_a_venue_of_another_version_costs_only_its_own_streams(tmp_path: Path) -> None:
    async def test(supervisor: Supervisor) -> None:
        stranger = spec_of(1, venue="atlantis_spot")
        supervisor.child.pipe.send(StartStreams([stranger, spec_of(2)]))
        await supervisor.until(
            lambda streams: 2 in streams and streams[2].state is StreamState.LIVE
        )
        refused = supervisor.streams[1]
        assert refused.state is StreamState.FAILED
        known = ", ".join(VENUES)
        assert refused.reason == f"unknown venue 'atlantis_spot'; this version knows {known}"
        supervisor.child.pipe.send(StopStreams([1]))
        await supervisor.until(lambda streams: 1 not in streams)

    run(tmp_path, test)


def test_every_status_says_which_life_of_a_stream_it_is_about(tmp_path: Path) -> None:
    def lives(life: int) -> StartStreams:
        known, stranger = spec_of(2), spec_of(1, venue="atlantis_spot")
        return StartStreams(
            [StreamSpec(each.slot, each.key, life=life) for each in (known, stranger)]
        )

    async def test(supervisor: Supervisor) -> None:
        send = supervisor.child.pipe.send
        send(lives(1))
        await supervisor.until(lambda streams: 2 in streams and streams[2].row_count > 0)
        assert [supervisor.streams[slot].life for slot in (1, 2)] == [1, 1]
        send(StopStreams([1, 2]))
        send(lives(5))
        await supervisor.until(lambda streams: {each.life for each in streams.values()} == {5})
        await supervisor.until(lambda streams: streams[2].state is StreamState.LIVE)

    run(tmp_path, test)
