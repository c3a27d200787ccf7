"""A configuration with names that no venue lists, or that are no names: the others run."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from control.cli.exits import Exit
from control.proof.simulator import SimulatorProcess
from tests.flow.processes import Fts
from tests.flow.rig import remove_shared_memory

_STREAMS = """
[[streams]]
venue = "hyperliquid_perp"
symbols = ["BTC", "@107", "xyz:TSLA", "B\\u001b[2JTC"]
kinds = ["Trades"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """The configuration, with a simulator behind it."""
    simulator = SimulatorProcess(["--port", "0", "--rate", "200", "--symbols", "2"])
    venue = simulator.venues()["hyperliquid_perp"]
    path = tmp_path / "fts.toml"
    addresses = f"rest_url = '{venue.rest_url}'\nws_url = '{venue.ws_url}'"
    path.write_text(f"[venues.hyperliquid_perp]\n{addresses}\n{_STREAMS}", encoding="utf-8")
    yield path
    simulator.stop()
    remove_shared_memory(tmp_path / "state")


def _up(config: Path, database_url: str, *options: str) -> Fts:
    return Fts(
        "up", "--config", str(config), "--port", "0", "--no-redis", "--state-dir",
        str(config.parent / "state"), *options, FTS_DATABASE_URL=database_url,
    )  # fmt: skip


@pytest.mark.fault("N11")
def test_unknown_symbols_cost_their_own_streams_alone(config: Path, database_url: str) -> None:
    engine = _up(config, database_url, "--for", "4")
    try:
        code, _ = engine.end()
        assert code == Exit.UNFINISHED, engine.log
        for name in ("@107", "xyz:TSLA"):
            assert f"unknown symbol: hyperliquid_perp lists no '{name}'" in engine.log
        refused = f"{config}: streams[0].symbols[3]: 'B\\x1b[2JTC' can be no symbol: left out"
        assert refused in engine.log
        assert "\x1b" not in engine.log
        with psycopg.connect(database_url) as connection:
            found = connection.execute("SELECT DISTINCT symbol FROM trades").fetchall()
        assert found == [("BTC",)]
    finally:
        engine.kill()


@pytest.mark.fault("N11")
def test_strict_stops_at_an_unknown_symbol(config: Path, database_url: str) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(', "B\\u001b[2JTC"', "").replace('"@107"', '"BTCC"'))
    engine = _up(config, database_url, "--strict")
    try:
        code, output = engine.end()
        assert code == 2, engine.log
        assert "hyperliquid_perp/BTCC/Trades/Ws: unknown symbol" in output
        assert "did you mean BTC" in output
        assert "hyperliquid_perp/xyz:TSLA/Trades/Ws: unknown symbol" in output
    finally:
        engine.kill()


@pytest.mark.fault("N11")
def test_strict_refuses_what_can_be_no_symbol_before_anything_starts(config: Path) -> None:
    engine = _up(config, "postgresql://nobody@127.0.0.1:1/none", "--strict")
    try:
        code, _ = engine.end()
        assert (code, engine.log.count("\n")) == (2, 1), engine.log
        assert "streams[0].symbols[3]: 'B\\x1b[2JTC' can be no symbol" in engine.log
        assert not (config.parent / "state").exists()
    finally:
        engine.kill()
