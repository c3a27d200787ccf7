"""Funding that was paid comes from the venue's history: also what was paid while nobody asked."""

from pathlib import Path

import pytest
import uvloop

from engine.data.flags import Flag
from engine.data.kinds import FUNDING
from engine.data.layout import open_layout
from engine.data.names import StreamKind, Transport
from engine.data.positions import Positions
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamState
from shards.session.venue_session import VenueSession
from shards.simulator.core.contracts import HOUR_MS, Settlement
from shards.simulator.server import Simulator
from shards.simulator.settings import SimulatorSettings
from shards.venues import VENUES
from tests.shards.doubles import MemoryRings, free_leases, spec_of
from tests.waiting import until

pytestmark = pytest.mark.whole

PAYERS = {"binance_linear": "BTCUSDT", "binance_inverse": "BTCUSD_PERP"}
DATED = "BTCUSD_301227"


def session_with(
    simulator: Simulator, name: str, double: MemoryRings, directory: Path
) -> VenueSession:
    settings = VenueSettings(
        rest_url=f"http://127.0.0.1:{simulator.port}/{name}",
        poll_interval_s={StreamKind.SETTLED_FUNDING: 0.1},
    )
    layout = open_layout(directory / "state", directory)
    session = VenueSession(
        VENUES[name], settings, double.rings, layout, _no_fault, free_leases()
    )  # fmt: skip
    kind, transport = StreamKind.SETTLED_FUNDING, Transport.HTTP_POLL
    session.start([spec_of(1, name, PAYERS[name], kind, transport)])
    if name == "binance_inverse":
        session.start([spec_of(2, name, DATED, kind, transport)])
    return session


def _no_fault(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("name", list(PAYERS))
def test_every_payment_is_stored_once_also_those_of_the_time_without_an_engine(
    name: str, tmp_path: Path
) -> None:
    async def body() -> None:
        simulator = Simulator(SimulatorSettings(venues=name, trades_per_s=0.0, symbols=3))
        await simulator.start()
        try:
            await _check(simulator, name, tmp_path)
        finally:
            await simulator.close()

    uvloop.run(body())


async def _check(simulator: Simulator, name: str, directory: Path) -> None:
    contract = simulator.venues[name].contract(PAYERS[name])
    assert contract is not None
    first, again = MemoryRings(), MemoryRings()
    session = session_with(simulator, name, first, directory)
    await until(lambda: all(each.frame_count > 2 for each in session.streams), "three answers")
    assert {each.state for each in session.streams} == {StreamState.LIVE}
    await session.close()
    positions = Positions(open_layout(directory / "state", directory).positions_dir, FUNDING)
    positions.advance(first.rows("funding"))
    positions.close()
    newest = contract.settlements[-1]
    paid = [Settlement(newest.ts_ms + n * HOUR_MS // 60, 17 * n, 8_000 + n) for n in (1, 2, 3)]
    contract.settlements.extend(paid)  # while nobody asks
    session = session_with(simulator, name, again, directory)
    await until(lambda: all(each.frame_count > 2 for each in session.streams), "three answers")
    await session.close()
    stored = [*first.rows("funding").tolist(), *again.rows("funding").tolist()]
    day = [each for each in contract.settlements if each.ts_ms > newest.ts_ms - 20 * HOUR_MS]
    assert len(day) > len(paid)
    assert {(row[3], round(row[5] * 1e8), round(row[6] * 1e8)) for row in stored} >= {
        (each.ts_ms * 1_000_000, each.rate, each.mark) for each in day
    }
    assert len({row[3] for row in stored}) == len(stored), "each once"
    assert all(row[1] & Flag.SETTLED for row in stored)
    assert {row[0] for row in stored} == {1}, "a dated contract pays none"
    assert len(again.rows("funding")) == len(paid)
    assert len(first.rows("gap")) == len(again.rows("gap")) == 0
