"""`fts streams|instruments|limiters|health` against a served API: tables, JSON, exit codes."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from control.cli.addresses import make_note
from control.cli.ground import Ground, ServiceOptions
from control.cli.main import main, parser
from control.cli.remote import client
from control.http.auth import Guard
from engine.data.instrument import InstrumentKind
from engine.data.layout import open_layout
from engine.messages.control import RenewBook
from engine.messages.upkeep import DatabaseReport, TableSize, TaskReport
from engine.process import instance
from engine.start.config import load
from tests.control.api.api_rig import Rig, instrument, served

TOKEN = "c0ffee" + "0123456789" * 6

Fts = Callable[..., tuple[int, str, str]]


@contextlib.contextmanager
def engine(**options: Any) -> Iterator[tuple[Rig, str]]:
    """A served rig on a loop of its own, and its address."""
    found: list[tuple[Rig, str]] = []
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        rig = Rig(**options)
        async with served(rig) as port:
            found.append((rig, f"http://127.0.0.1:{port}"))
            started.set()
            while not ended.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def fts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fts:
    """Runs a command; returns exit code, stdout, stderr."""

    def run(*arguments: str, url: str | None = None) -> tuple[int, str, str]:
        where = ("--url", url) if url else ("--state-dir", str(tmp_path / "state"))
        capsys.readouterr()
        code = main([*arguments, *where])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_streams_are_added_listed_tuned_shown_and_removed(fts: Fts) -> None:
    with engine() as (rig, url):
        code, out, _ = fts(
            "streams", "add", "binance_linear", "BTCUSDT", "ETHUSDT", "--kind", "Trades",
            "--kind", "L2Book", url=url,
        )  # fmt: skip
        assert (code, out) == (0, "4 of 4 streams accepted\n")
        code, out, _ = fts("streams", "list", "--kind", "Trades", url=url)
        assert code == 0
        assert [line.split()[1] for line in out.splitlines() if "USDT" in line] == [
            "BTCUSDT", "ETHUSDT",
        ]  # fmt: skip
        code, out, _ = fts("streams", "list", "--json", url=url)
        assert len(json.loads(out)) == 4
        code, out, _ = fts(
            "streams", "set", "BinanceLinear", "BTCUSDT", "Trades", "db_writes_enabled=false",
            "flush_rows=9", "--json", url=url,
        )  # fmt: skip
        assert code == 0
        assert json.loads(out)["knobs"]["flush_rows"] == 9
        code, out, _ = fts("streams", "show", "BinanceLinear", "BTCUSDT", "Trades", url=url)
        assert code == 0
        assert "knobs.db_writes_enabled" in out
        code, out, _ = fts(
            "streams", "remove", "binance_linear", "--all", "--match", "BTC*", "--kind", "Trades",
            url=url,
        )  # fmt: skip
        assert (code, out) == (0, "1 of 1 stream ended\n")
        assert len(rig.supervisor.streams) == 3


def test_a_whole_book_is_asked_for(fts: Fts) -> None:
    with engine() as (rig, url):
        fts("streams", "add", "binance_linear", "BTCUSDT", "--kind", "L2Book", url=url)
        code, out, _ = fts("streams", "snapshot", "binance_linear", "BTCUSDT", url=url)
        assert (code, out.startswith("asked for")) == (0, True)
        (asked,) = [each for each in rig.supervisor.received if isinstance(each, RenewBook)]
        assert asked.key.symbol == "BTCUSDT"
        code, _, complaint = fts("streams", "snapshot", "binance_linear", "ETHUSDT", url=url)
        assert (code, "is not running" in complaint) == (1, True)


def test_a_list_is_shown_to_its_end(fts: Fts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAGE_ROWS", 2)
    with engine() as (_, url):
        for symbols, count in ((("BTCUSDT", "ETHUSDT"), 2), (("SOLUSDT",), 3)):
            add = ("streams", "add", "binance_linear", *symbols, "--kind", "Trades")
            assert fts(*add, url=url)[0] == 0
            rows = json.loads(fts("streams", "list", "--json", url=url)[1])
            assert len({row["symbol"] for row in rows}) == len(rows) == count


def test_all_instruments_of_a_quote_are_one_command(fts: Fts) -> None:
    with engine() as (_, url):
        code, out, _ = fts(
            "streams", "add", "BinanceLinear", "--all", "--quote", "USDT", "--limit", "2",
            "--kind", "Trades", "--json", url=url,
        )  # fmt: skip
        body = json.loads(out)
        assert (code, body["accepted"], body["refused"]) == (0, 2, 0)


def test_instruments_that_can_have_no_such_stream_are_skipped_and_counted(fts: Fts) -> None:
    with engine() as (rig, url):
        spot = instrument("binance_linear", "BTCUSDT", kind=InstrumentKind.SPOT)
        rig.instruments._listings["binance_linear"]["BTCUSDT"] = spot
        add = ("streams", "add", "BinanceLinear", "--all", "--kind=OpenInterest")
        code, out, _ = fts(*add, url=url)
        assert code == 0
        assert out.endswith("; 1 instrument skipped, whose kind can have no such stream\n")
        assert json.loads(fts(*add, "--json", url=url)[1])["skipped"] == 1


def test_what_is_traded_and_paid_in_is_a_filter_of_both_commands(fts: Fts) -> None:
    future = {"kind": InstrumentKind.FUTURE, "settle": "BTC", "venue_kind": "QUARTER"}
    with engine() as (rig, url):
        listing = rig.instruments._listings["binance_linear"]
        listing["BTCUSDT"] = instrument("binance_linear", "BTCUSDT", **future)
        for condition in ("--kind=future", "--settle=btc", "--venue-kind=quarter"):
            code, out, _ = fts("instruments", "list", condition, "--json", url=url)
            assert (code, [row["symbol"] for row in json.loads(out)]) == (0, ["BTCUSDT"]), condition
        assert fts("instruments", "list", "--state=halted", url=url)[1].startswith(
            "no instruments;"
        )
        code, _, err = fts("instruments", "list", "--kind=futures", url=url)
        assert code == 2 and "kind" in err
        chosen = ("--all", "--instrument-kind=future", "--state=trading", "--settle=BTC")
        for verb in ("add", "remove"):
            code, out, _ = fts(
                "streams",
                verb,
                "BinanceLinear",
                "--all",
                "--kind=Trades",
                *chosen,
                "--json",
                url=url,
            )
            results = json.loads(out)["results"]
            assert [(each["symbol"], each["ok"]) for each in results] == [("BTCUSDT", True)]


def test_a_refusal_is_exit_code_1_with_its_reason(fts: Fts) -> None:
    with engine() as (rig, url):
        add = ("streams", "add", "binance_linear", "BTCUSDT", "NOSUCH", "--kind", "Trades")
        code, out, err = fts(*add, url=url)
        assert (code, out) == (1, "1 of 2 streams accepted\n")
        assert "binance_linear/NOSUCH/Trades: binance_linear lists no 'NOSUCH'" in err
        code, _, err = fts("streams", "show", "binance_linear", "ETHUSDT", "Trades", url=url)
        assert code == 1
        assert err == "fts: binance_linear:ETHUSDT:Ws:Trades is not running\n"
        code, out, _ = fts(
            "streams", "show", "binance_linear", "ETHUSDT", "Trades", "--json", url=url
        )
        assert (code, json.loads(out)["kind"]) == (1, "stream_not_found")
        rig.supervisor.deaf = True
        code, _, err = fts(*add, url=url)
        assert code == 1
        assert "did not answer" in err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("streams", "add", "Nasdaq", "X", "--kind", "Trades"), "unknown exchange 'Nasdaq'"),
        (("streams", "add", "binance_linear", "--kind", "Trades"), "name symbols, or say --all"),
        (("streams", "list", "--state", "happy"), "state"),
        (("instruments", "list", "--limit", "0"), "limit"),
        (("instruments", "refresh", "--exchange", "binance linear&"), "unknown exchange"),
    ],
)
def test_what_cannot_be_asked_is_exit_code_2(
    fts: Fts, arguments: tuple[str, ...], text: str
) -> None:
    with engine() as (_, url):
        code, out, err = fts(*arguments, url=url)
        assert (code, out) == (2, "")
        assert text in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("streams", "set", "binance_linear", "BTCUSDT", "Trades", "speed=9"),
        ("streams", "set", "binance_linear", "BTCUSDT", "Trades", "flush_rows=fast"),
        ("streams", "add", "binance_linear", "BTCUSDT"),
        ("streams", "add", "binance_linear", "BTCUSDT", "--kind", "Candles"),
        ("instruments", "eat"),
    ],
)
def test_bad_arguments_are_usage_errors(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2


@pytest.mark.fault("N37")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("strems",), "argument COMMAND: unknown: 'strems'; did you mean streams?"),
        (("streams", "lst"), "argument VERB: unknown: 'lst'; did you mean list?"),
        (("up", "--confg", "x"), "unrecognized arguments: --confg x; did you mean --config?"),
        (("demo", "--all-kind"), None),
        (("streams", "list", "--kind", "trads"), "'trads' is none of Trades, L2Book, Ticker,"),
        (("streams", "list", "--kind", "trads"), "did you mean Trades?"),
        (("zzz",), "unknown: 'zzz'; one of up, demo, psql, redis, streams,"),
    ],
)
def test_what_was_meant_is_guessed_from_what_was_typed(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], expected: str | None
) -> None:
    if expected is None:  # argparse completes what is unambiguous
        assert parser().parse_args(list(arguments)).all_kinds
        return
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(list(arguments))
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.fault("N37")
@pytest.mark.parametrize("arguments", [(), ("streams",), ("instruments",)])
def test_who_names_no_command_sees_which_there_are(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    assert "examples:" in (text := capsys.readouterr().out) or "start here:" in text


@pytest.mark.fault("N37")
def test_the_refusal_of_one_stream_names_what_was_typed(fts: Fts) -> None:
    with engine() as (_, url):
        add = ("streams", "add", "binance_liner", "BTCUSDT", "--kind", "trades")
        code, _, err = fts(*add, url=url)
        said = "exchange: unknown exchange 'binance_liner'; did you mean binance_linear?"
        assert (code, err) == (2, f"fts: {said}\n")
        ask = ("streams", "list", "--exchange", "BINANCE-LINEAR", "--kind", "l2book")
        assert fts(*ask, url=url)[0] == 0


def test_nobody_there_is_exit_code_3(fts: Fts) -> None:
    code, out, err = fts("streams", "list", url="http://127.0.0.1:1")
    assert (code, out) == (3, "")
    assert "no engine answers at http://127.0.0.1:1" in err
    code, _, err = fts("health")
    assert code == 3
    assert "fts up" in err
    assert fts("health", url="ftp://x")[0] == 2


@pytest.mark.parametrize("below", [".", "demo"])
def test_the_running_engine_is_found_by_its_note(fts: Fts, tmp_path: Path, below: str) -> None:
    open_layout(tmp_path / "state")
    layout = open_layout(tmp_path / "state" / below)
    with engine() as (_, url), instance.hold(layout):
        port = int(url.rpartition(":")[2])
        ground = Ground(ServiceOptions(load(None, {})), layout, {})
        instance.write_note(layout, make_note(ground, "127.0.0.1", port))
        assert fts("streams", "list") == (0, "no streams\n", "")


def test_health_prints_the_lights_and_is_1_unless_all_are_green(fts: Fts) -> None:
    with engine() as (rig, url):
        code, out, _ = fts("health", url=url)
        assert code == 0
        assert out.count("green") == 4
        rig.supervisor.verdict = ("yellow", "1 of 24 streams in trouble")
        rig.supervisor.tell()
        code, out, _ = fts("health", url=url)
        assert (code, out.count("green")) == (1, 3)
        assert "engine" in out
        assert "1 of 24 streams in trouble" in out
        rig.supervisor.writer.database.state = "down"
        rig.supervisor.writer.database.error = "refused"
        rig.supervisor.tell()
        code, out, _ = fts("health", url=url)
        assert code == 1
        assert "new streams are refused" in out
        code, out, _ = fts("health", "--json", url=url)
        assert (code, json.loads(out)["db"]["status"]) == (1, "red")


def test_health_names_each_task_of_the_upkeep_and_what_became_of_it(fts: Fts) -> None:
    done = TaskReport("days_ahead", last_ns=1_764_000_000 * 10**9, did="made 2025-11-24")
    failed = TaskReport("retention", last_ns=1, error="the disk is full")
    with engine() as (rig, url):
        rig.supervisor.upkeep = [
            DatabaseReport("database", tasks=[done, failed, TaskReport("sizes")])
        ]
        rig.supervisor.tell()
        code, out, _ = fts("health", url=url)
        assert code == 0
        lines = [line.split() for line in out.splitlines()]
        assert "database days_ahead 2025-11-24 16:00:00 made 2025-11-24" in map(" ".join, lines)
        assert [
            "database",
            "retention",
            "1970-01-01",
            "00:00:00",
            "the",
            "disk",
            "is",
            "full",
        ] in lines
        assert "database sizes - not yet" in map(" ".join, lines)
        told = json.loads(fts("health", "--json", url=url)[1])["runtime"]["upkeep"]
        assert [task["error"] for task in told[0]["tasks"]] == ["", "the disk is full", ""]
        rig.supervisor.upkeep = [DatabaseReport("database", error="it is away")]
        rig.supervisor.tell()
        assert "it is away" in fts("health", url=url)[1]


def test_health_says_what_each_table_takes_and_how_long_the_disk_suffices(fts: Fts) -> None:
    trade = TableSize(
        "trade", 1000, 13 << 20, 13.3, 26 << 20, 2000, 5 << 20, 43 << 20, 1_764_000_000 * 10**9,
        "400d",
    )  # fmt: skip
    with engine() as (rig, url):
        report = DatabaseReport("database", "hypertables", [trade, TableSize("book")])
        rig.supervisor.upkeep = [report]
        rig.supervisor.tell()
        out = [" ".join(line.split()) for line in fts("health", url=url)[1].splitlines()]
        assert "database trade 13 MB 13.3 B 26 MB 8.6 x 2025-11-24 16:00:00 400d" in out
        assert any(line.startswith("database free disk unknown") for line in out)
        assert not any("book" in line for line in out)
        report.disk_free_bytes, report.days_until_full = 100 << 20, 3.84
        rig.supervisor.tell()
        out = [" ".join(line.split()) for line in fts("health", url=url)[1].splitlines()]
        assert any(line.startswith("database free disk 100 MB full in 3.8 days") for line in out)
        (told,) = json.loads(fts("health", "--json", url=url)[1])["runtime"]["upkeep"]
        assert (told["days_until_full"], told["tables"][0]["rows_a_day"]) == (3.84, 2000)


def test_instruments_and_limiters_are_tables_and_json(fts: Fts) -> None:
    with engine() as (rig, url):
        code, out, _ = fts("instruments", "list", "pepe", url=url)
        assert code == 0
        assert "kPEPE" in out
        code, out, _ = fts("instruments", "list", "--quote", "USDT", "--json", url=url)
        assert len(json.loads(out)) == 3
        assert fts("instruments", "events", url=url)[1] == "no events\n"

        async def fetch(_: Any) -> list[bytes]:
            return [b"nonsense"]

        rig.instruments._fetch = fetch
        code, out, _ = fts("instruments", "refresh", url=url)
        assert code == 1
        assert "a listing nobody can use" in out
        code, out, _ = fts("limiters", url=url)
        assert code == 0
        assert "rest_weight" in out
        assert json.loads(fts("limiters", "--json", url=url)[1])[0]["budget"] == 2400


def test_a_token_comes_from_its_file(fts: Fts, tmp_path: Path) -> None:
    guard = Guard.load(None, None, {"FTS_CONTROL_TOKEN": TOKEN})
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with engine(guard=guard) as (_, url):
        code, _, err = fts("streams", "list", url=url)
        assert code == 1
        assert err == (
            "fts: a bearer token is needed; name its file with --token-file, or set"
            " FTS_CONTROL_TOKEN\n"
        )
        assert fts("streams", "list", "--token-file", str(file), url=url)[0] == 0
        code, _, err = fts("streams", "list", "--token-file", str(tmp_path / "no"), url=url)
        assert code == 2
