"""Symbols like Binance's 币安人生USDT: from the socket to every place that knows symbols."""

import subprocess
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
import redis

from engine.data.layout import open_layout
from engine.process import instance
from tests.flow.processes import ROOT
from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]
MakeRig = Callable[..., Rig]

NAME, COIN = "币安人生USDT", "币安人生"
LISTINGS = [
    {"venue": "binance_linear", "action": "list", "symbol": NAME, "price": 42.0},
    {"venue": "hyperliquid_perp", "action": "list", "symbol": COIN, "price": 3.5},
]
STREAM = {"exchange": "BinanceLinear", "symbol": NAME, "kind": "Ticker", "transport": "Ws"}


def ask(address: str, method: str, path: str, body: object) -> Any:
    """One call; anything but a success fails."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    payload = msgspec.json.encode(body) if body is not None else None
    connection.request(method, path, payload, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    text = reply.read()
    connection.close()
    assert reply.status < 300, text
    return msgspec.json.decode(text)


def fts(rig: Rig, *arguments: str) -> str:
    """The command line, as another process: its words travel as bytes."""
    state = str(rig.directory / "state")
    command = [sys.executable, "-m", "control.cli.main", *arguments, "--state-dir", state]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_every_place_that_knows_symbols_knows_it(make_rig: MakeRig, redis_url: str) -> None:
    rig = make_rig(
        rate="500",
        redis_url=redis_url,
        settings="[control]\nadmission = 'any'\n",
        streams=[("binance_linear", NAME), ("hyperliquid_perp", COIN)],
    )
    for listing in LISTINGS:
        address = rig.simulator.venues()["binance_linear"].rest_url or ""
        ask(address, "POST", "/simulator/instruments", listing)
    rig.start()  # from the file, trades and books: with REST snapshots at one venue
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    api = note.control_url
    path = f"/streams/BinanceLinear/{quote(NAME)}/Ticker/Ws"

    known = f"/instruments/exists?exchange=BinanceLinear&symbol={quote(NAME)}"
    rig.until(lambda: ask(api, "GET", known, None)["exists"], "the listing")
    assert ask(api, "POST", "/streams", STREAM) == "ok"
    rig.until(lambda: ask(api, "GET", path, None)["row_count"] > 0, "quotes")
    assert ask(api, "PATCH", f"{path}/knobs", {"flush_rows": 100}) == "ok"
    everything = {"exchange": "BinanceLinear", "kind": "Funding", "filter": {"symbol": f"{COIN}*"}}
    assert ask(api, "POST", "/streams", everything)["accepted"] == 1
    assert NAME in fts(rig, "streams", "list", "--symbol", NAME)
    shown = fts(rig, "streams", "show", "BinanceLinear", NAME, "Ticker").splitlines()
    assert ["knobs.flush_rows", "100"] in [line.split() for line in shown]
    fts(rig, "streams", "set", "BinanceLinear", NAME, "Ticker", "flush_rows=default")
    with redis.Redis.from_url(redis_url) as server:
        for key in (f"fts:trades:binance_linear:{NAME}", f"fts:book:hyperliquid_perp:{COIN}"):
            rig.until(lambda key=key: server.xlen(key) > 0, key)  # type: ignore[misc]
    rig.quiet()  # what is under way to a stream that ends is nobody's
    assert "1 of 1 stream ended" in fts(
        rig, "streams", "remove", "BinanceLinear", NAME, "--kind", "Ticker"
    )
    assert ask(api, "DELETE", "/streams", everything)["accepted"] == 1
    assert_equation(rig.stop())
    symbols = rig.query("SELECT DISTINCT symbol FROM trades ORDER BY 1")
    assert symbols == [(COIN,), (NAME,)]
