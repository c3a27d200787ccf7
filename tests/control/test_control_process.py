"""The control process itself: born as the supervisor bears it, asked over a socket, drained."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from control.cli.remote.client import Client, RefusedError
from control.http.protocol import Limits
from control.main import run
from control.proof.simulator import SimulatorProcess
from control.state.listings import Listings
from engine.data.layout import open_layout
from engine.data.names import StreamKey, StreamKind
from engine.messages.control import AddStreams, CommandResult, KeyResult, SystemStatus
from engine.messages.limits import LeaseGranted, LeaseRequest
from engine.messages.listings import ListingLoaded
from engine.messages.pipes import Drain, FromChild, Ready, ToChild
from engine.messages.settings import ControlSettings, LogSettings, Paths, VenueSettings
from engine.messages.streams import StreamState
from engine.process.child import Child
from engine.process.pipe import Pipe
from shards.venues import VENUES
from shards.venues.kit import limited_as
from tests.control.api.api_rig import Supervisor
from tests.waiting import until

pytestmark = [pytest.mark.whole, pytest.mark.flow]
AWAY = dict.fromkeys(VENUES, VenueSettings(rest_url="http://127.0.0.1:1"))
EVERYWHERE = ("--port", "0", "--rate", "10", "--venues", "all")
STREAM = {"exchange": "BinanceLinear", "symbol": "BTCUSDT", "kind": "Trades"}


class Parent:
    """A supervisor with one child: answers leases and commands, counts what it hears."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.heard: list[FromChild] = []
        self.engine = Supervisor()
        self.metrics = ""
        """Address of the port that is for metrics alone."""

    async def serve(self) -> None:
        """Until the child is gone."""
        while (message := await self.child.pipe.receive()) is not None:
            self.heard.append(message)
            match message:
                case LeaseRequest():
                    self.child.pipe.send(LeaseGranted(message.request_id))
                case AddStreams():
                    for request in message.streams:
                        self.engine.run(request.key, StreamState.PENDING)
                    self.tell()
                    results = [KeyResult(request.key) for request in message.streams]
                    self.child.pipe.send(CommandResult(message.request_id, results))
                case _:
                    pass

    def tell(self) -> None:
        """Send a status."""
        body = msgspec.Raw(msgspec.json.encode(self.engine.status()))
        self.child.pipe.send(SystemStatus(body))

    async def hear(self, kind: type[Any], count: int = 1) -> list[Any]:
        """Wait for messages of a kind."""

        def heard() -> list[Any]:
            return [each for each in self.heard if isinstance(each, kind)]

        await until(lambda: len(heard()) >= count, f"{count} {kind.__name__}")
        return heard()


def run_control(
    tmp_path: Path,
    venues: dict[str, VenueSettings],
    scenario: Callable[[Parent, Client], Awaitable[None]],
    *,
    tells: bool = True,
    behind_proxy: bool = False,
) -> None:
    """Bear a control process, run the scenario, drain it."""

    async def main() -> None:
        layout = open_layout(tmp_path / "state")
        local = ("127.0.0.1", 0)
        with socket.create_server(local) as listener, socket.create_server(local) as second:
            port, metrics_port = listener.getsockname()[1], second.getsockname()[1]
            settings = ControlSettings(
                "127.0.0.1", port, LogSettings(str(layout.log_file), to_stderr=False),
                listener.fileno(), Paths.of(layout), venues, behind_proxy=behind_proxy,
                metrics_fd=second.fileno(), metrics_path="/numbers",
            )  # fmt: skip
            passed = [listener.fileno(), second.fileno()]
            child = await Child.spawn("control", "control.main:run", settings, pass_fds=passed)
        parent = Parent(child)
        parent.metrics = f"http://127.0.0.1:{metrics_port}"
        serving = asyncio.create_task(parent.serve())
        try:
            await parent.hear(Ready)
            if tells:
                parent.tell()
            await scenario(parent, Client(f"http://127.0.0.1:{port}"))
            child.pipe.send(Drain(1.0))  # to nobody, where the scenario ended it
            assert await child.wait(10) == 0, layout.log_file.read_text()
        finally:
            child.kill()
            await child.wait()
            await serving
            await child.pipe.close()

    asyncio.run(main())


async def ask(client: Client, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(client.ask, method, path, body)


def test_it_loads_instruments_within_leases_and_serves_commands(tmp_path: Path) -> None:
    simulator = SimulatorProcess([*EVERYWHERE, "--symbols", "3"])

    async def scenario(parent: Parent, client: Client) -> None:
        assert await ask(client, "POST", "/streams", STREAM) == "ok"
        (loaded,) = await parent.hear(ListingLoaded)
        assert loaded.venue == "binance_linear", "others are left alone until somebody asks"
        await ask(client, "POST", "/instruments/refresh")
        loaded = await parent.hear(ListingLoaded, len(VENUES))
        assert {message.venue for message in loaded} == VENUES.keys()
        leases = await parent.hear(LeaseRequest, len(VENUES))
        assert {(lease.venue, lease.pool, lease.units) for lease in leases} == {
            (limited_as(venue), venue.listing.first.pool, venue.listing.first.weight)
            for venue in VENUES.values()
        }
        assert (await ask(client, "GET", "/instruments/count"))["count"] == 3 * len(VENUES)
        (row,) = await ask(client, "GET", "/streams")
        assert (row["symbol"], row["state"]) == ("BTCUSDT", "pending")
        health = await ask(client, "GET", "/health/runtime")
        assert health["ok"] is True, health
        assert health["processes"][-1]["rss_bytes"] > 1 << 20

    try:
        run_control(tmp_path, simulator.venues(), scenario)
    finally:
        simulator.stop()
    assert (tmp_path / "state" / "instruments" / "binance_linear.json").exists()


@pytest.mark.fault("N45")
def test_a_supervisor_that_stands_still_shows_in_the_probes(tmp_path: Path) -> None:
    async def scenario(parent: Parent, client: Client) -> None:
        assert (await ask(client, "GET", "/readyz"))["ok"] is True
        assert (await ask(Client(parent.metrics), "GET", "/healthz"))["ok"] is True
        async with asyncio.timeout(30):
            while True:  # nobody speaks to it meanwhile
                try:
                    await ask(client, "GET", "/readyz")
                except RefusedError as error:
                    assert (error.status, error.body["reason"]) == (503, "supervisor")
                    break
                await asyncio.sleep(0.1)
        assert (await ask(client, "GET", "/livez"))["ok"] is True, "that takes longer"
        parent.tell()
        async with asyncio.timeout(30):
            while not await ready(client):
                await asyncio.sleep(0.05)

    async def ready(client: Client) -> bool:
        try:
            return bool((await ask(client, "GET", "/readyz"))["ok"])
        except RefusedError:
            return False

    run_control(tmp_path, AWAY, scenario)


def test_with_the_venues_away_it_serves_what_it_knew(tmp_path: Path) -> None:
    simulator = SimulatorProcess([*EVERYWHERE, "--symbols", "2"])
    venues = simulator.venues()

    async def first(_: Parent, client: Client) -> None:
        await ask(client, "POST", "/instruments/refresh")

    async def second(_: Parent, client: Client) -> None:
        assert (await ask(client, "GET", "/instruments/count"))["count"] == 2 * len(VENUES)
        assert await ask(client, "POST", "/streams", STREAM) == "ok"
        with pytest.raises(RefusedError, match="a moment ago"):  # it has just tried by itself
            await ask(client, "POST", "/instruments/refresh", {"exchange": STREAM["exchange"]})

    try:
        run_control(tmp_path, venues, first)
    finally:
        simulator.stop()
    run_control(tmp_path, venues, second)


def test_requests_wait_until_it_is_known_what_runs(tmp_path: Path) -> None:
    """Answered before, a live stream would be a 404 and their number 0 after every restart."""

    async def scenario(parent: Parent, client: Client) -> None:
        asking = asyncio.create_task(ask(client, "GET", "/streams/count"))
        done, _ = await asyncio.wait({asking}, timeout=0.5)
        assert not done
        key = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES)
        parent.engine.run(key)
        parent.tell()
        assert await asking == {"count": 1}
        shown = await ask(client, "GET", "/streams/binance_linear/BTCUSDT/Trades/Ws")
        assert shown["state"] == "live"

    run_control(tmp_path, AWAY, scenario, tells=False)


def test_one_that_never_hears_what_runs_leaves_when_told(tmp_path: Path) -> None:
    async def scenario(_: Parent, __: Client) -> None:
        """Nothing: the drain follows."""

    run_control(tmp_path, AWAY, scenario, tells=False)


def test_behind_a_proxy_one_address_may_have_every_connection(tmp_path: Path) -> None:
    """All clients have the proxy's address."""
    share = Limits().connections_per_client

    async def scenario(_: Parent, client: Client) -> None:
        port = int(client.url.rpartition(":")[2])
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(share)]
        assert (await ask(client, "GET", "/streams/count")) == {"count": 0}
        for _reader, writer in idle:
            writer.close()

    run_control(tmp_path, AWAY, scenario, behind_proxy=True)


class SilentPipe:
    """The pipe to a supervisor that says nothing."""

    def send(self, message: FromChild) -> None:
        """Nobody hears it."""

    async def receive(self) -> ToChild | None:
        """Not in this life."""
        await asyncio.Event().wait()
        return None


def test_a_task_that_dies_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a control process would look well for ever; the supervisor starts a whole one."""

    async def fault(_: Listings) -> None:
        raise RuntimeError("a bug")

    async def scenario() -> None:
        settings = ControlSettings("127.0.0.1", 0, LogSettings(str(tmp_path / "log")))
        async with asyncio.timeout(30):
            await run(settings, cast("Pipe[ToChild]", SilentPipe()))

    monkeypatch.setattr(Listings, "run", fault)
    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(scenario())


@pytest.mark.fault("V10")
def test_it_leaves_when_the_supervisor_does(tmp_path: Path) -> None:
    async def scenario(parent: Parent, _: Client) -> None:
        await parent.child.pipe.close()
        assert await parent.child.wait(10) == 0

    run_control(tmp_path, AWAY, scenario)
