"""What others build on stays word for word: the document, the help pages, answers and tables.

`FTS_RENEW_SURFACE=1 ./fts test tests/control/test_surface.py` writes `tests/data/surface` anew;
what `git diff` then shows is what users will see change.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.api import openapi
from control.app import OPERATIONS
from control.cli.main import main, parser
from control.state.listings import TimedEvent
from engine.data.instrument import InstrumentState
from engine.data.names import StreamKey, StreamKind
from engine.messages.listings import InstrumentEvent
from engine.messages.streams import StreamState
from tests.control.api.api_rig import POLL, Rig, instrument, run_with_rig
from tests.control.cli.remote.test_client_commands import engine

FOLDER = Path(__file__).parents[1] / "data" / "surface"
STREAM = {"exchange": "BinanceLinear", "symbol": "BTCUSDT", "kind": "Trades"}
ASKED: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/", None),
    ("GET", "/livez", None),
    ("GET", "/readyz", None),
    ("GET", "/startupz", None),
    ("GET", "/streams", None),
    ("GET", "/streams/capabilities", None),
    ("GET", "/streams/capabilities/hyperliquid_perp", None),
    ("GET", "/streams/capabilities/nasdaq", None),
    ("POST", "/streams", STREAM),
    ("POST", "/streams", STREAM),
    ("POST", "/streams", STREAM | {"symbol": "BTCUSD"}),
    ("POST", "/streams", STREAM | {"symbol": "OLDUSDT"}),
    ("POST", "/streams", STREAM | {"symbol": "SOONUSDT"}),
    ("POST", "/streams", STREAM | {"symbol": "ODDUSDT"}),
    ("POST", "/streams", STREAM | {"kind": "Candles"}),
    ("POST", "/streams", STREAM | {"kind": "Ticker"}),
    ("POST", "/streams", STREAM | {"transport": "HttpPoll"}),
    ("POST", "/streams", STREAM | {"knobs": {"flush_rows": 9_999_999}}),
    ("POST", "/streams", STREAM | {"knobs": {"flush_rows": 0}}),
    ("POST", "/streams", STREAM | {"exchange": "binance_liner"}),
    ("POST", "/streams", STREAM | {"speed": 1}),
    ("POST", "/streams", [STREAM, STREAM | {"kind": "Funding"}, STREAM | {"symbol": "NONE"},
                          STREAM | {"kind": "Funding", "exchange": "binance_linear"}]),
    ("POST", "/streams", {"exchange": "hyperliquid_perp", "kind": "L2Book",
                          "filter": {"quote": "usdc", "limit": 2}}),
    ("POST", "/streams", {"exchange": "binance_linear", "kind": "L2Book",
                          "filter": {"status": None}}),
    ("GET", "/streams?limit=3&offset=1", None),
    ("GET", "/streams?exchange=BinanceLinear&kind=Trades&state=pending", None),
    ("GET", "/streams?exchange=old_venue", None),
    ("GET", "/streams?kind=trads", None),
    ("GET", "/streams?limit=0", None),
    ("GET", "/streams/count", None),
    ("GET", "/streams/count?symbol=BTCUSDT&transport=Ws", None),
    ("GET", "/streams/count?limit=1", None),
    ("GET", "/streams/BinanceLinear/BTCUSDT/Trades/Ws", None),
    ("GET", "/streams/BinanceLinear/NONE/Trades/Ws", None),
    ("GET", "/streams/old_venue/X/Trades/Ws", None),
    ("GET", "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs", None),
    ("PATCH", "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs",
     {"flush_rows": 7, "db_writes_enabled": False}),
    ("PATCH", "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs", {"flush_rows": 9_999_999}),
    ("GET", "/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs", None),
    ("POST", "/streams/BinanceLinear/BTCUSDT/Trades/Ws/snapshot", None),
    ("POST", "/streams/BinanceLinear/BTCUSDT/L2Book/Ws/snapshot", None),
    ("POST", "/streams/hyperliquid_perp/BTC/L2Book/Ws/snapshot", None),
    ("DELETE", "/streams", STREAM | {"kind": "Funding"}),
    ("DELETE", "/streams", STREAM | {"kind": "Funding"}),
    ("DELETE", "/streams", [STREAM, STREAM | {"symbol": "NONE"}]),
    ("DELETE", "/streams", {"exchange": "hyperliquid_perp", "kind": "L2Book",
                            "filter": {"symbol": "B*"}}),
    ("GET", "/instruments", None),
    ("GET", "/instruments?exchange=BinanceLinear&quote=usdt&limit=1&offset=1", None),
    ("GET", "/instruments?q=pepe", None),
    ("GET", "/instruments?exchange=nasdaq", None),
    ("GET", "/instruments/count", None),
    ("GET", "/instruments/count?symbol=BTC*&status=trading&base=BTC", None),
    ("GET", "/instruments/exists?exchange=BinanceLinear&symbol=BTCUSDT", None),
    ("GET", "/instruments/exists?exchange=BinanceLinear&symbol=BTCUDST", None),
    ("GET", "/instruments/events", None),
    ("GET", "/instruments/events?exchange=hyperliquid_perp&limit=1", None),
    ("POST", "/instruments/refresh?exchange=BinanceLinear", None),
    ("POST", "/instruments/refresh", {"exchange": "BinanceLinear"}),
    ("GET", "/limiters", None),
    ("GET", "/limiters?exchange=hyperliquid_perp", None),
    ("GET", "/health/db", None),
    ("GET", "/health/redis", None),
    ("GET", "/nothing", None),
    ("GET", "/livez?x=1", None),
)  # fmt: skip
TYPED = (
    "streams list",
    "streams list --state live --json",
    "streams add binance_linear BTCUSDT NONE --kind trades --kind l2book",
    "streams add binance_linear --all --quote USDT --limit 1 --kind Funding --json",
    "streams add binance_linear --kind Trades",
    "streams show binance_linear BTCUSDT Trades",
    "streams set binance_linear BTCUSDT Trades flush_rows=5 redis_publishes_enabled=false",
    "streams set binance_linear BTCUSDT Trades flush_rows=default --json",
    "streams snapshot binance_linear BTCUSDT",
    "streams snapshot binance_linear BTCUSDT --json",
    "streams remove binance_linear BTCUSDT ETHUSDT --kind Trades",
    "streams remove binance_linear --all --match BTC* --kind L2Book",
    "streams show binance_linear BTCUSDT Trades --json",
    "streams list --exchange nasdaq",
    "instruments list --exchange binance_linear --base BTC",
    "instruments list none",
    "instruments list PEPE --json",
    "instruments refresh --exchange hyperliquid_perp",
    "instruments refresh --exchange hyperliquid_perp --json",
    "instruments events",
    "instruments events --limit 1 --json",
    "limiters",
    "limiters --exchange hyperliquid_perp",
    "limiters --json",
    "health",
)


def agree(name: str, text: str) -> None:
    """Compare with the file, or write it."""
    file = FOLDER / name
    if os.environ.get("FTS_RENEW_SURFACE"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def still(text: str) -> str:
    """Without what moves with the clock, and without blanks at the ends of lines."""
    return re.sub(
        r'(?<="retry_after_s":)( ?)\d+\.\d+', r"\1#", re.sub(r" +$", "", text, flags=re.M)
    )


def test_the_document_is_as_it_was() -> None:
    described = openapi.document(OPERATIONS, "0")
    agree("openapi.json", json.dumps(described, indent=1, ensure_ascii=False) + "\n")


def pages(command: argparse.ArgumentParser) -> Iterator[str]:
    """Help of a command and of those below it."""
    yield f"$ {command.prog} --help\n{command.format_help()}"
    for action in command._actions:
        for below in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from pages(below)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each argparse draws it in its own way")
def test_help_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    shown = list(pages(parser()))
    for name in ("psql", "redis"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown.append(f"$ fts {name} --help\n{capsys.readouterr().out}")
    agree("help.txt", "\n".join(shown))


def prepare(rig: Rig) -> None:
    """Listings with something odd in them, and streams that run."""
    listing = rig.instruments._listings["binance_linear"]
    for symbol, status, state in (
        ("OLDUSDT", "DELIVERED", InstrumentState.EXPIRED),
        ("SOONUSDT", "PENDING_TRADING", InstrumentState.ANNOUNCED),
    ):
        listing[symbol] = instrument("binance_linear", symbol, status=status, state=state)
    rig.instruments._unreadable["binance_linear"] = {"ODDUSDT": "no tickSize"}
    rig.supervisor.run(StreamKey("old_venue", "X", StreamKind.TRADES))
    rig.supervisor.run(StreamKey("hyperliquid_perp", "BTC", StreamKind.L2_BOOK), StreamState.STALE)
    rig.supervisor.run(
        StreamKey("binance_linear", "ETHUSDT", StreamKind.OPEN_INTEREST, POLL), StreamState.FAILED
    )
    for report in rig.supervisor.streams.values():
        report.reason, report.added_ns, report.row_count = "as it is", 1_700_000_000_000_000_000, 12
    event = InstrumentEvent("binance_linear", "OLDUSDT", "changed", "status: TRADING -> DELIVERED")
    for place, each in enumerate((event, InstrumentEvent("hyperliquid_perp", "NEW", "listed"))):
        at_ns = (1_700_000_000 + place) * 1_000_000_000
        rig.instruments._events[each.venue].append(TimedEvent(at_ns, each))
    rig.instruments._fetch = _nothing
    rig.supervisor.tell()


async def _nothing(_: Any) -> list[bytes]:
    return [b"nonsense"]


def test_answers_are_as_they_were() -> None:
    async def scenario(rig: Rig) -> str:
        prepare(rig)
        lines = []
        for method, target, body in ASKED:
            asked = "" if body is None else f" {json.dumps(body)}"
            answer = await rig.ask(method, target, body)
            headers = {
                name: text
                for name, text in answer.headers.items()
                if name in ("x-total-count", "location", "retry-after")
            }
            text = answer.text.decode()
            lines.append(f"{method} {target}{asked}\n{answer.status} {headers}\n{still(text)}\n")
        return "\n".join(lines)

    agree("answers.txt", run_with_rig(scenario))


@pytest.mark.whole
def test_tables_are_as_they_were(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shown = []
    with engine() as (rig, url):
        prepare(rig)
        where = ["--url", url, "--state-dir", str(tmp_path)]
        for line in TYPED:
            code = main([*line.split(), *where])
            captured = capsys.readouterr()
            shown.append(f"$ fts {line}\n{still(captured.out)}{captured.err}[{int(code)}]\n")
    agree("tables.txt", "\n".join(shown))
