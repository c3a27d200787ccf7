"""The first hour as its page has it, and on its engine the commands and queries of other pages, and
the whole README of the collector that others come from.

`fts up` collects from a simulator here: its address is added to the configuration. All else is as
the pages have it.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from control.cli.main import main
from tests.control.api.routes.test_streams import SEED_CALLS
from tests.docs.inventory import ENDED, INVENTORY, RUN, UP, fate
from tests.flow.hour import FIRST_HOUR, Hour
from tests.pages import Block, blocks, python_examples
from tests.waiting import wait_for

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

by_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the pages speak curl")
USUAL_ADDRESS = "http://127.0.0.1:8080"
_PLAIN = re.compile(r"fts (?!psql|redis)[^|<>$&;*`(]*$")
"""A command of ours that needs no shell, and does not become another program."""


@pytest.fixture(scope="module")
def hour() -> Iterator[Hour]:
    parent = Path(tempfile.mkdtemp(prefix="fts-pages-"))
    parent.chmod(0o755)  # also the account of root's private PostgreSQL walks there
    found = Hour(parent)
    yield found
    found.close()


def said(block: Block, hour: Hour, capfd: pytest.CaptureFixture[str]) -> str:
    """What the commands of a block print. Each must end well."""
    capfd.readouterr()
    if all(map(_PLAIN.match, block.lines)):  # in this process: Python takes a while to start
        for line in block.lines:
            words = shlex.split(line, comments=True)[1:]
            if words == ["health"]:  # green in the end, on a machine that is busy, too
                wait_for(lambda: main(["health"]) == 0, "a healthy engine")
            else:
                assert main(words) == 0, line
        return capfd.readouterr().out
    text = block.text
    if USUAL_ADDRESS in text:
        text = text.replace(USUAL_ADDRESS, hour.note.control_url)
    done = subprocess.run(
        ["sh", "-eu", "-c", text],
        capture_output=True, text=True, timeout=60, check=False, cwd=hour.parent,
        env=hour.shell_environment(is_ours="fts " in text),
    )  # fmt: skip
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def here(hour: Hour, monkeypatch: pytest.MonkeyPatch) -> Hour:
    """Commands in this process find the engine as well."""
    for name in [name for name in os.environ if name.startswith("FTS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FTS_STATE_DIR", str(hour.state_dir))
    monkeypatch.chdir(hour.parent)
    return hour


SHOWS = {
    "fts health": ("green",),
    'fts psql -c "SELECT time': ("(5 rows)", "price", "events"),
    "fts instruments list SOL --exchange binance_linear": ("SOLUSDT", "2 of 2", "1 of 1"),
    'fts psql -c "SELECT venue, symbol, kind, started': ("stopped", "SOLUSDT"),
    "fts config check fts.toml": ("no fault",),
    'fts psql -c "SELECT venue, symbol, kind, reason': ("stopped", "complete"),
}
"""What a newcomer is to see of each block of the first hour."""


def test_the_first_hour(here: Hour, capfd: pytest.CaptureFixture[str]) -> None:
    (configuration,) = (block.text for block in blocks(FIRST_HOUR, "toml"))
    (here.parent / "fts.toml").write_text(configuration, encoding="utf-8")
    shown = set()
    for block in blocks(FIRST_HOUR, "sh"):
        if fate(block) == ENDED:
            here.end()
        if fate(block) == UP:
            has_file = "--config" in block.text
            here.up(configuration if has_file else "")
        elif fate(block) in (RUN, ENDED):
            text = said(block, here, capfd)
            ((name, words),) = [each for each in SHOWS.items() if block.name.startswith(each[0])]
            assert [word for word in words if word not in text] == [], f"{block.name}\n{text}"
            shown.add(name)
    assert shown == SHOWS.keys()


MAY_BE_EMPTY = {
    "-- funding that was paid (streams of kind SettledFunding)", "-- what is missing, and why",
}  # fmt: skip
"""Queries for what nobody collects here, and for what there is after the first hour alone."""
OTHERS = [
    pytest.param(page, marks=[by_curl] if page == "docs/control-api.md" else [])
    for page, fates in INVENTORY.items()
    if RUN in fates.values() and page != FIRST_HOUR
]


@pytest.mark.parametrize("page", OTHERS)
def test_what_a_page_shows_works(page: str, here: Hour, capfd: pytest.CaptureFixture[str]) -> None:
    here.must_run()
    for block in blocks(page, "sh", "sql"):
        if fate(block) == RUN and block.language == "sql":
            finding_rows(block, here.note.database)
        elif fate(block) == RUN:
            said(block, here, capfd)


def finding_rows(block: Block, url: str) -> None:
    """Ask each query until all have rows: an engine that has just begun has none of some kinds."""
    queries = [each for each in block.text.split(";\n") if each.strip()]

    def empty() -> set[str]:
        with psycopg.connect(url) as connection:
            return {
                query.strip().splitlines()[0]
                for query in queries
                if not connection.execute(query.encode()).fetchall()
            }

    wait_for(lambda: empty() <= MAY_BE_EMPTY, f"rows of {block.page}: {block.name}")


def reader(**names: Any) -> dict[str, Any]:
    """The program of docs/redis.md, run with these names."""
    (source,) = python_examples("docs/redis.md")
    exec(compile(source, "reader", "exec"), names)  # noqa: S102 - our own page
    return names


def test_the_reader_shows_trades_as_they_come(here: Hour, monkeypatch: pytest.MonkeyPatch) -> None:
    here.must_run()
    shown: list[str] = []

    def show(what: str, *_: Any) -> None:
        shown.append(what)
        if shown.count("trade:") == 5:
            raise EOFError

    monkeypatch.setenv("FTS_REDIS_URL", here.note.redis)
    with pytest.raises(EOFError):  # at the fifth
        reader(__name__="__main__", print=show)


def test_the_reader_reads_every_trade_once_and_notices_what_was_trimmed(here: Hour) -> None:
    """Against Redis' own list."""
    here.must_run()
    found = reader()
    trades = found["TRADES"]
    with redis.Redis.from_url(here.note.redis, decode_responses=True) as client:
        wait_for(lambda: client.xlen(trades) > 10, "trades in Redis")
        first, *others = client.xrevrange(trades, count=10)[::-1]  # the oldest may be trimmed
        stored = [
            (entry_id, event["id"])
            for entry_id, fields in others
            for event in json.loads(fields["events"])
        ]
        events = found["follow"](client, {trades: first[0]})
        read = [next(events) for _ in stored]
        assert [(entry_id, event["id"]) for _, entry_id, event in read] == stored
        assert {type(event["price"]) for _, _, event in read} <= {int, Decimal}
        client.xtrim(trades, minid=others[1][0], approximate=False)
        events = found["follow"](client, {trades: first[0]})
        assert next(events)[2]["reason"] == "trimmed"
        assert next(events)[1] == others[1][0]


# -- the seed's README, call by call, with curl's own words ----------------------------------------


@pytest.fixture(scope="module")
def base(hour: Hour) -> str:
    """Address of the control port, with no stream running."""
    hour.must_run()
    address = hour.note.control_url
    parts = ("runtime", "db", "redis")
    wait_for(
        lambda: all(curl("GET", f"{address}/health/{part}")[1]["ok"] for part in parts), "green"
    )
    _, running = curl("GET", f"{address}/streams")
    members = ("exchange", "symbol", "kind", "transport")
    curl("DELETE", f"{address}/streams", [{name: row[name] for name in members} for row in running])
    return address


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


def body_of(stream: tuple[str, str, str, str]) -> dict[str, str]:
    return dict(zip(("exchange", "symbol", "kind", "transport"), stream, strict=True))


@by_curl
def test_the_seeds_readme_from_top_to_bottom(base: str) -> None:
    offered = curl("GET", f"{base}/streams/capabilities")[1]
    for exchange, _, kind, transport in SEED_CALLS:
        venue = "binance_linear" if exchange == "BinanceLinear" else "hyperliquid_perp"
        found = [(row["exchange"], row["kind"], row["transport"]) for row in offered]
        assert (venue, kind, transport) in found
    before = curl("GET", f"{base}/streams/count")[1]["count"]
    assert curl("GET", f"{base}/streams")[0] == 200
    for stream in SEED_CALLS:
        assert curl("POST", f"{base}/streams", body_of(stream)) == (201, "ok"), stream
    for stream in SEED_CALLS:
        status, shown = curl("GET", f"{base}/streams/{'/'.join(stream)}")
        assert (status, shown["status"]) == (200, "Running"), stream
        assert shown["state"] in ("pending", "connecting", "syncing", "live"), shown
        assert shown["spec"]["kind"] == stream[2]
    assert curl("GET", f"{base}/streams/count")[1]["count"] == before + len(SEED_CALLS)
    knobs = f"{base}/streams/BinanceLinear/BTCUSDT/Trades/Ws/knobs"
    assert curl("GET", knobs)[1]["knobs"]["db_writes_enabled"] is True
    patch = {"db_writes_enabled": True, "redis_publishes_enabled": True}
    assert curl("PATCH", knobs, patch) == (200, "ok")
    for stream in SEED_CALLS:
        until_live(base, stream)
    for stream in SEED_CALLS:
        assert curl("DELETE", f"{base}/streams", body_of(stream)) == (200, "ok"), stream
    assert curl("GET", f"{base}/streams/count")[1]["count"] == before


def until_live(base: str, stream: tuple[str, str, str, str]) -> None:
    def is_live() -> bool:
        _, shown = curl("GET", f"{base}/streams/{'/'.join(stream)}")
        has_rows = shown["row_count"] > 0 or stream[2] == "Liquidations"  # those are rare
        return shown["state"] == "live" and has_rows

    wait_for(is_live, f"rows of {stream}")


@by_curl
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


@by_curl
def test_a_duplicate_is_a_conflict(base: str) -> None:
    stream = body_of(("BinanceLinear", "ETHUSDT", "Trades", "Ws"))
    assert curl("POST", f"{base}/streams", stream)[0] == 201
    status, answer = curl("POST", f"{base}/streams", stream)
    assert (status, answer["kind"]) == (409, "stream_exists")
    assert curl("DELETE", f"{base}/streams", stream) == (200, "ok")
