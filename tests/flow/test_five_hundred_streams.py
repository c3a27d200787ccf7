"""Five hundred streams by one call; everything killed; five hundred streams back without a call."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
import psutil
import pytest

from engine.data.layout import open_layout
from engine.process import instance
from shards.simulator.venues.listed import binance_instruments, hyperliquid_instruments
from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]
MakeRig = Callable[..., Rig]

TOTAL = 500
SYMBOLS = 130


def api(rig: Rig, method: str, path: str, body: object = None) -> Any:
    """Call the engine's API; an error status raises."""
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    request = Request(  # noqa: S310 - an engine of this test
        note.control_url + path,
        msgspec.json.encode(body) if body is not None else None,
        {"Content-Type": "application/json"},
        method=method,
    )
    with urlopen(request, timeout=60) as reply:  # noqa: S310
        return msgspec.json.decode(reply.read())


def live_count(rig: Rig) -> int:
    """Streams that deliver."""
    return int(api(rig, "GET", "/streams/count?state=live")["count"])


def is_listed(rig: Rig) -> bool:
    """Whether the venues have told what they list."""
    counts = [
        api(rig, "GET", f"/instruments/count?exchange={name}")["count"]
        for name in ("BinanceLinear", "HyperliquidPerp")
    ]
    return bool(min(counts) >= SYMBOLS)


def are_added(rig: Rig) -> bool:
    """Add them by one call; a machine too busy to answer in time is asked again."""
    try:
        answer = api(rig, "POST", "/streams", wanted())
    except HTTPError as error:
        assert error.code == 503, error
        return False
    fine = ("", "stream_exists")
    refused = [each for each in answer["results"] if each.get("error_kind", "") not in fine]
    assert not refused, refused[:3]
    return True


def wanted() -> list[dict[str, str]]:
    """What is added to the two streams of the file."""
    of_binance = [
        {"exchange": "BinanceLinear", "symbol": each.symbol, "kind": kind, "transport": "Ws"}
        for each in binance_instruments(SYMBOLS)
        for kind in ("Trades", "Ticker", "Funding")
    ]
    of_hyperliquid = [
        {"exchange": "HyperliquidPerp", "symbol": each.symbol, "kind": "Trades"}
        for each in hyperliquid_instruments(SYMBOLS)
    ]
    return [*of_binance[1:], *of_hyperliquid][: TOTAL - 2]


def test_five_hundred_streams_survive_the_death_of_everything(make_rig: MakeRig) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    rig = make_rig(
        rate="1500",
        symbols=SYMBOLS,
        simulator=("--enforce-limits",),
        streams=[("binance_linear", "BTCUSDT")],
        settings=f"[control]\nadmission = 'any'\n[shards]\ncpus = {cpus}\n",
    )
    engine = rig.start()
    rig.until(lambda: is_listed(rig), "the venues' instruments")
    began_s = time.monotonic()  # noqa: TID251 - a test may look at the clock
    rig.until(lambda: are_added(rig), "the answer")
    rig.until(lambda: live_count(rig) == TOTAL, f"{TOTAL} live streams")
    took_s = time.monotonic() - began_s  # noqa: TID251
    sys.stderr.write(f"{TOTAL} streams were live after {took_s:.1f} s\n")
    assert rig.query("SELECT count(*) FROM gaps WHERE symbol = 'BTCUSDT'") == [(0,)]

    processes = engine.descendants()
    engine.kill()
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=30)
    rig.stream_count = TOTAL
    rig.start()
    rig.until(lambda: live_count(rig) == TOTAL, f"{TOTAL} live streams again")
    rig.until_more_rows(2000)
    assert_equation(rig.stop())
    gaps = rig.query("SELECT DISTINCT symbol FROM gaps WHERE symbol = 'BTCUSDT'")
    assert gaps == [("BTCUSDT",)], "what was missed meanwhile is declared"
