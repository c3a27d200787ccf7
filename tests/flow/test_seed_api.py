"""The seed's whole README, call by call, against the engine of `fts demo`, with curl's own words.

It needs every part of the third slice: all stream kinds in the shards, the simulator behind them,
and a supervisor that adds, removes and tunes.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data.layout import open_layout
from engine.process import instance
from tests.flow.processes import Fts
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.flow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the README speaks curl"),
]
SEED_STREAMS = [
    ("BinanceLinear", "BTCUSDT", "OpenInterest", "HttpPoll"),
    ("BinanceLinear", "BTCUSDT", "Funding", "HttpPoll"),
    ("BinanceLinear", "BTCUSDT", "Trades", "Ws"),
    ("BinanceLinear", "BTCUSDT", "L2Book", "Ws"),
    ("BinanceLinear", "BTCUSDT", "Liquidations", "Ws"),
    ("HyperliquidPerp", "BTC", "Trades", "Ws"),
    ("HyperliquidPerp", "BTC", "L2Book", "Ws"),
    ("HyperliquidPerp", "BTC", "FundingOpenInterest", "Ws"),
]


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """Address of a demo's control port, with no stream running."""
    parent = Path(tempfile.mkdtemp(prefix="fts-seed-"))
    parent.chmod(0o755)
    demo = Fts("demo", "--symbols", "3", "--rate", "500", "--state-dir", str(parent / "state"))
    try:
        demo.wait_for("control is ready")
        note = instance.read_note(open_layout(parent / "state"))
        assert note is not None
        until_green(note.control_url)
        _, running = curl("GET", f"{note.control_url}/streams")
        if running:
            members = ("exchange", "symbol", "kind", "transport")
            bodies = [{name: row[name] for name in members} for row in running]
            curl("DELETE", f"{note.control_url}/streams", bodies)
        yield note.control_url
    finally:
        demo.kill()
        identity = (parent / "state" / "instance").read_text().strip()
        shutil.rmtree(f"/dev/shm/fts-{identity}", ignore_errors=True)
        shutil.rmtree(parent, ignore_errors=True)


def curl(method: str, url: str, body: object = None) -> tuple[int, Any]:
    """As the README has it: `curl -sS [-X METHOD] URL [-H 'Content-Type: ...' -d BODY]`."""
    command = ["curl", "-sS", "-w", "\n%{http_code}", url]
    if method != "GET":
        command[2:2] = ["-X", method]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text)


def until_green(base: str) -> None:
    def is_green() -> bool:
        parts = ("runtime", "db", "redis")
        return all(curl("GET", f"{base}/health/{part}")[1]["ok"] for part in parts)

    wait_for(is_green, "green lights")


def body_of(stream: tuple[str, str, str, str]) -> dict[str, str]:
    return dict(zip(("exchange", "symbol", "kind", "transport"), stream, strict=True))


def test_the_seeds_readme_from_top_to_bottom(base: str) -> None:
    offered = curl("GET", f"{base}/streams/capabilities")[1]
    for exchange, _, kind, transport in SEED_STREAMS:
        venue = "binance_linear" if exchange == "BinanceLinear" else "hyperliquid_perp"
        found = [(row["exchange"], row["kind"], row["transport"]) for row in offered]
        assert (venue, kind, transport) in found
    before = curl("GET", f"{base}/streams/count")[1]["count"]
    assert curl("GET", f"{base}/streams")[0] == 200
    for stream in SEED_STREAMS:
        assert curl("POST", f"{base}/streams", body_of(stream)) == (201, "ok"), stream
    for stream in SEED_STREAMS:
        status, shown = curl("GET", f"{base}/streams/{'/'.join(stream)}")
        assert (status, shown["status"]) == (200, "Running"), stream
        assert shown["state"] in ("pending", "connecting", "syncing", "live"), shown
        assert shown["spec"]["kind"] == stream[2]
    assert curl("GET", f"{base}/streams/count")[1]["count"] == before + len(SEED_STREAMS)
    knobs = f"{base}/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs"
    assert curl("GET", knobs)[1]["knobs"]["db_writes_enabled"] is True
    patch = {"db_writes_enabled": True, "redis_publishes_enabled": True}
    assert curl("PATCH", knobs, patch) == (200, "ok")
    for stream in SEED_STREAMS:
        until_live(base, stream)
    for stream in SEED_STREAMS:
        assert curl("DELETE", f"{base}/streams", body_of(stream)) == (200, "ok"), stream
    assert curl("GET", f"{base}/streams/count")[1]["count"] == before


def until_live(base: str, stream: tuple[str, str, str, str]) -> None:
    def is_live() -> bool:
        _, shown = curl("GET", f"{base}/streams/{'/'.join(stream)}")
        has_rows = shown["row_count"] > 0 or stream[2] == "Liquidations"  # those are rare
        return shown["state"] == "live" and has_rows

    wait_for(is_live, f"rows of {stream}")


@pytest.mark.parametrize(
    ("method", "path", "change", "status", "kind"),
    [
        ("DELETE", "/streams", {}, 404, "stream_not_found"),
        ("GET", "/streams/BinanceLinear/ETHUSDT/Trades/Ws", None, 404, "stream_not_found"),
        ("POST", "/streams", {"kind": "Candles"}, 400, "invalid_argument"),
        ("POST", "/streams", {"symbol": "ETHUSTD"}, 404, "unknown_symbol"),
        ("POST", "/streams", {"kind": "OpenInterest"}, 422, "not_offered"),
    ],
)
def test_the_seeds_errors(
    base: str, method: str, path: str, change: dict[str, str] | None, status: int, kind: str
) -> None:
    stream = body_of(("BinanceLinear", "ETHUSDT", "Trades", "Ws"))
    body = None if change is None else stream | change
    found, answer = curl(method, f"{base}{path}", body)
    assert (found, answer["kind"]) == (status, kind)


def test_a_duplicate_is_a_conflict(base: str) -> None:
    stream = body_of(("BinanceLinear", "ETHUSDT", "Trades", "Ws"))
    assert curl("POST", f"{base}/streams", stream)[0] == 201
    status, answer = curl("POST", f"{base}/streams", stream)
    assert (status, answer["kind"]) == (409, "stream_exists")
    assert curl("DELETE", f"{base}/streams", stream) == (200, "ok")
