"""Two engines behind one address, one Redis, a venue that enforces limits: nobody is refused."""

import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control.proof.simulator import SimulatorProcess
from engine.data.layout import open_layout
from engine.process import instance
from shards.simulator.venues.listed import binance_instruments
from tests.flow.processes import Fts
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]

BOOKS = 110
SNAPSHOT_WEIGHT = 20
BUDGET = 1920
"""One engine's books take more: whoever starts first still asks when the other one does."""
NAMES = ("one", "other")


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(
        ["--port", "0", "--rate", "200", "--symbols", str(BOOKS), "--enforce-limits"]
    )
    yield process
    process.stop()


def rest(simulator: SimulatorProcess) -> dict[str, Any]:
    status: dict[str, Any] = simulator.status()["venues"]["binance_linear"]["rest"]
    return status


def rest_weight_of(state_dir: Path, engine: Fts) -> Callable[[], dict[str, Any]]:
    """How to ask a running engine for its view of the REST budget."""
    engine.wait_for("control is ready")
    note = instance.read_note(open_layout(state_dir))
    assert note is not None

    def ask() -> dict[str, Any]:
        url = f"{note.control_url}/limiters?exchange=BinanceLinear"
        with urllib.request.urlopen(url) as reply:  # noqa: S310 - an engine of this test
            rows: list[dict[str, Any]] = msgspec.json.decode(reply.read())
        return next(row for row in rows if row["pool"] == "rest_weight")

    return ask


@pytest.mark.fault("H07")
def test_the_weight_of_two_engines_together_stays_within_one_budget(
    tmp_path: Path, simulator: SimulatorProcess, redis_url: str
) -> None:
    assert BOOKS * SNAPSHOT_WEIGHT > BUDGET
    venue = simulator.venues()["binance_linear"]
    symbols = [each.symbol for each in binance_instruments(BOOKS)]
    config = tmp_path / "fts.toml"
    config.write_text(
        "[limits]\nshared = true\n"
        f"[venues.binance_linear]\nrest_url = '{venue.rest_url}'\nws_url = '{venue.ws_url}'\n"
        f"[[streams]]\nvenue = 'binance_linear'\nkinds = ['L2Book']\nsymbols = {symbols}\n",
        encoding="utf-8",
    )
    engines = [
        Fts(
            "up", "--config", str(config), "--port", "0", "--no-database",
            "--state-dir", str(tmp_path / name), FTS_REDIS_URL=redis_url,
        )
        for name in NAMES
    ]  # fmt: skip
    try:
        limiters = [
            rest_weight_of(tmp_path / name, engine)
            for name, engine in zip(NAMES, engines, strict=True)
        ]
        wait_for(lambda: rest(simulator)["calls"] >= BUDGET // SNAPSHOT_WEIGHT, "the calls")
        time.sleep(2)  # in which engines without a limit would go on
        both = "what each sees of the other"
        wait_for(lambda: all(ask()["others_used"] > 0 for ask in limiters), both, timeout_s=90.0)
        assert rest(simulator)["refused"] == {}
        assert rest(simulator)["weight_peak_per_minute"] <= BUDGET
        assert sum(ask()["others_used"] for ask in limiters) <= BUDGET
    finally:
        for engine in engines:
            engine.signal(signal.SIGTERM)
        for engine in engines:
            engine.end()
