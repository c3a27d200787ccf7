"""The command line as a user meets it: bad input ends at once, in one line, with the right code."""

import argparse
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from control.cli.addresses import make_note
from control.cli.commands.doctor import examine
from control.cli.findings import Finding
from control.cli.ground import Ground, ServiceOptions
from control.cli.main import COMMANDS, main, parser
from control.cli.options import load
from engine.base.errors import ConfigError
from engine.data.layout import open_layout
from engine.messages.settings import LimitSettings
from engine.process import instance
from engine.start.addresses import Secret
from engine.start.config import load as load_config
from shards.venues import venue_limits
from tests import warm

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[3]
PERP = "hyperliquid_perp"


def fts(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `fts` to its end."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FTS_")}
    return warm.run(arguments, {**inherited, "PYTHONPATH": str(ROOT), **environment})


def refused(done: "subprocess.CompletedProcess[str]", code: int = 2) -> str:
    """The one line of complaint."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_ctrl_c_while_it_is_still_being_imported_ends_without_a_word(tmp_path: Path) -> None:
    slow = tmp_path / "numpy.py"
    slow.write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    starting = subprocess.Popen(
        [sys.executable, "-P", "-m", "control.cli.main", "version"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with starting:
        assert starting.stdout is not None
        assert starting.stdout.readline() == "importing\n"
        starting.send_signal(signal.SIGINT)
        assert starting.communicate(timeout=30) == ("", "")
    assert starting.returncode == -signal.SIGINT


def names_of(found: argparse.ArgumentParser) -> list[str]:
    """The commands it knows."""
    (below,) = (action.choices for action in found._actions if action.dest == "command")
    return list(below or ())


def test_each_command_is_found_by_its_name_alone() -> None:
    assert names_of(parser()) == list(COMMANDS)
    assert [name for name in COMMANDS if name not in names_of(parser(name))] == []


def test_what_collects_does_not_load_the_simulator() -> None:
    asked = "import sys; from control.cli.main import parser; parser('up'); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", asked], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "control.cli.service" in loaded
    assert [name for name in loaded if name.startswith(("shards.simulator", "aiohttp."))] == []


@pytest.mark.fault("C01")
@pytest.mark.parametrize("command", ["up", "demo", "migrate", "doctor"])
def test_misspelt_key_is_named_with_file_and_path(tmp_path: Path, command: str) -> None:
    config = tmp_path / "fts.toml"
    config.write_text("[control]\nprot = 1\n")
    state = tmp_path / "state"
    line = refused(fts(command, "--config", str(config), "--state-dir", str(state)))
    assert line == f"fts: {config}: control.prot: unknown key; did you mean port?"
    assert not state.exists(), "nothing was started"


@pytest.mark.fault("C02")
@pytest.mark.parametrize("command", ["up", "demo"])
def test_used_port_is_named_before_anything_starts(tmp_path: Path, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        state = tmp_path / "state"
        line = refused(fts(command, "--port", port, "--state-dir", str(state)))
    assert f"control port {port} on 127.0.0.1: Address already in use" in line
    assert "--port" in line
    assert not (state / "postgres").exists()


@pytest.mark.parametrize("command", ["up", "demo", "migrate", "doctor"])
def test_a_state_directory_that_cannot_be_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "a file").write_text("")
    state = tmp_path / "a file" / "state"
    port = ("--port", "0") if command in ("up", "demo") else ()
    line = refused(fts(command, "--state-dir", str(state), *port))
    assert line.startswith(f"fts: state directory {state}: Not a directory")
    assert "--state-dir" in line


@pytest.mark.parametrize("command", ["up", "demo", "migrate"])
def test_a_state_directory_that_cannot_be_written_is_one_line(tmp_path: Path, command: str) -> None:
    layout = open_layout(tmp_path / "state")
    (layout.state_dir / "this-is-a-demo").touch()
    layout.lock_file.mkdir()  # refused whoever asks; root may write what is read-only
    port = ("--port", "0") if command != "migrate" else ()
    line = refused(fts(command, "--state-dir", str(layout.state_dir), *port))
    assert line.startswith(f"fts: state directory {layout.state_dir}: Is a directory")


@pytest.mark.fault("V07")
def test_second_engine_is_refused_with_exit_code_3(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state")
    with instance.hold(layout):
        done = fts("up", "--port", "0", "--state-dir", str(layout.state_dir))
        line = refused(done, code=3)
    assert f"another engine (pid {os.getpid()}) runs on {layout.state_dir}" in line


def test_unknown_venue_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    config.write_text("[[streams]]\nvenue = 'binance_liner'\nsymbols = ['BTCUSDT']\n")
    line = refused(fts("up", "--config", str(config), "--state-dir", str(tmp_path / "s")))
    assert line.endswith("unknown venue 'binance_liner'; did you mean binance_linear?")


def test_ages_of_a_venue_are_for_a_venue_that_there_is(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    options = argparse.Namespace(config=config, state_dir=None)
    config.write_text("[database]\nkeep_by_venue = { BinanceLinear = { trade = '1d' } }\n")
    kept = load(options).config.database.keep_by_venue
    assert kept == {"binance_linear": {"trade": "1d"}}
    config.write_text("[database]\nkeep_by_venue = { binance_liner = { trade = '1d' } }\n")
    with pytest.raises(
        ConfigError, match=r"database\.keep_by_venue: unknown venue 'binance_liner'"
    ):
        load(options)


def test_a_group_of_sockets_that_the_venue_does_not_have_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    options = argparse.Namespace(config=config, state_dir=None)
    config.write_text('[venues.binance_inverse.socket_paths]\npubic = "/ws"\n')
    with pytest.raises(ConfigError) as caught:
        load(options)
    assert str(caught.value) == (
        f"{config}: venues.binance_inverse.socket_paths: 'pubic' is none of public, market"
    )
    config.write_text('[venues.binance_inverse.socket_paths]\npublic = "/ws"\n')
    assert load(options).config.venues["binance_inverse"].socket_paths == {"public": "/ws"}


def test_limits_of_one_server_are_those_of_all_its_venues(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    options = argparse.Namespace(config=config, state_dir=None)
    config.write_text("[venues.hyperliquid_spot.limits]\nrest_weight = { units = 60 }\n")
    venues = load(options).config.venues
    both = [venues[name].limits["rest_weight"].units for name in ("hyperliquid_spot", PERP)]
    assert both == [60, 60]
    budgets = {(each.venue, each.pool): each for each in venue_limits(venues)}
    ours = budgets[PERP, "rest_weight"]
    assert isinstance(ours, LimitSettings)
    assert ours.budget == 48.0
    limits, other = f"[venues.{PERP}.limits]\n", "[venues.hyperliquid_spot.limits]\n"
    for text, refusal in (
        (limits + "rest_wait = { units = 5 }", "'rest_wait' is none of rest_weight"),
        (limits + "ws_messages = { units = 1 }", "ws_messages: pings alone need more"),
        (f"[venues.{PERP}]\nreconnect_first_s = 40", "reconnect_first_s = 40 is more than"),
        (
            f"{limits}rest_weight = {{ units = 5 }}\n{other}rest_weight = {{ units = 6 }}",
            "another venue at the same server says otherwise",
        ),
    ):
        config.write_text(text)
        with pytest.raises(ConfigError, match=refusal):
            load(options)


def test_a_book_channel_that_the_venue_does_not_have_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    options = argparse.Namespace(config=config, state_dir=None)
    config.write_text("[venues.binance_linear]\nbook_channel = 'fast'\n")
    with pytest.raises(ConfigError) as caught:
        load(options)
    assert str(caught.value) == (
        f"{config}: venues.binance_linear.book_channel: 'fast' is none of depth@100ms,"
        " depth@250ms, depth@500ms, depth@0ms, depth"
    )
    config.write_text("[venues.HyperliquidPerp]\nbook_channel = 'fast'\n")
    assert load(options).config.venues["hyperliquid_perp"].book_channel == "fast"


def test_credentials_are_for_venues_that_take_them(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("name:secret")
    config = tmp_path / "fts.toml"
    options = argparse.Namespace(config=config, state_dir=None)
    config.write_text("[venues.deribit]\ncredentials_file = 'secret'\n")
    assert load(options).config.venues["deribit"].credentials_file == str(tmp_path / "secret")
    config.write_text("[venues.binance_linear]\ncredentials_file = 'secret'\n")
    with pytest.raises(ConfigError, match=r"binance_linear\.credentials_file: nobody needs"):
        load(options)


def test_what_runs_when_nothing_is_configured_are_the_examples_of_the_venues(
    tmp_path: Path,
) -> None:
    config = tmp_path / "fts.toml"
    config.write_text("")
    for options in (argparse.Namespace(config=path, state_dir=None) for path in (config, None)):
        keys = [(key.venue, key.symbol) for key in load(options).stream_keys()]
        assert list(dict.fromkeys(keys)) == [
            ("binance_linear", "BTCUSDT"), ("binance_linear", "ETHUSDT"),
            ("hyperliquid_perp", "BTC"), ("hyperliquid_perp", "ETH"),
        ]  # fmt: skip
    config.write_text("streams = []")
    assert load(argparse.Namespace(config=config, state_dir=None)).stream_keys() == []


def test_both_spellings_of_a_venue_are_known(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    config.write_text(
        "[venues.BinanceLinear]\nrest_url = 'http://127.0.0.1:1'\n"
        "[[streams]]\nvenue = 'HyperliquidPerp'\nsymbols = ['BTC']\n"
        "[[streams]]\nvenue = 'binance_linear'\nsymbols = ['BTCUSDT']\n"
    )
    loaded = load(argparse.Namespace(config=config, state_dir=tmp_path))
    venues = [entry.venue for entry in loaded.config.streams]
    assert venues == ["hyperliquid_perp", "binance_linear"]
    assert list(loaded.config.venues) == ["binance_linear"]
    config.write_text("[venues.BinanceLinear]\n[venues.binance_linear]\n")
    with pytest.raises(ConfigError, match="venues: one of them is there twice"):
        load(argparse.Namespace(config=config, state_dir=tmp_path))


def test_shared_limits_without_redis_are_refused(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    config.write_text("[limits]\nshared = true\n[redis]\nurl = 'redis://127.0.0.1:1'\n")
    state = tmp_path / "state"
    line = refused(fts("up", "--no-redis", "--config", str(config), "--state-dir", str(state)))
    assert "--no-redis" in line
    assert "limits.shared" in line
    assert not state.exists()


def test_demo_never_empties_a_directory_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    line = refused(fts("demo", "--state-dir", str(tmp_path)))
    assert "not a demo's" in line
    assert (tmp_path / "precious").read_text() == "data"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["demo", "--rate", "fast"], "--rate"),
        (["demo", "--symbols", "0"], "--symbols"),
        (["demo", "--for", "-1"], "--for"),
        (["demo", "--for", "nan"], "--for"),
        (["up", "--port", "99999"], "--port"),
        (["up", "--prot", "1"], "--prot"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_options_are_usage_errors(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_unreachable_database_is_no_traceback(tmp_path: Path) -> None:
    url = f"postgresql://u:canary@/d?host={tmp_path}"
    done = fts("migrate", FTS_DATABASE_URL=url)
    assert done.returncode == 1
    assert done.stderr.startswith("fts: ")
    assert "Is the server running" in done.stderr
    assert "\\" not in done.stderr, "the line breaks of the database's client"
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stdout + done.stderr


def test_doctor_says_what_to_do_and_masks_secrets(tmp_path: Path) -> None:
    url = f"postgresql://u:canary@/d?host={tmp_path}"
    done = fts("doctor", "--json", "--state-dir", str(tmp_path / "s"), FTS_DATABASE_URL=url)
    assert done.returncode == 1
    body = json.loads(done.stdout)
    findings = {finding["topic"]: finding for finding in body["findings"]}
    assert body["healthy"] is False
    assert findings["database"]["level"] == "problem"
    assert findings["database"]["advice"]
    assert findings["engine"]["text"].startswith("none runs on")
    assert findings["venue binance_linear"]["level"] in ("ok", "note")
    assert "canary" not in done.stdout + done.stderr


def test_doctor_is_content_with_defaults(tmp_path: Path) -> None:
    done = fts("doctor", "--state-dir", str(tmp_path / "s"), FTS_CONTROL_PORT="0")
    assert done.returncode == 0, done.stdout
    assert "private PostgreSQL" in done.stdout


def test_doctor_names_a_port_that_somebody_else_has(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "s")

    def finding() -> Finding:
        loaded = load(argparse.Namespace(config=None, state_dir=layout.state_dir, port=port))
        return next(each for each in examine(loaded, layout) if each.topic == "control port")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert (finding().level, finding().text) == (
            "problem", f"{port} on 127.0.0.1: Address already in use",
        )  # fmt: skip
        assert finding().advice.startswith("choose another with --port")
        with instance.hold(layout):
            ground = Ground(ServiceOptions(load_config(None, {})), layout, {})
            instance.write_note(layout, make_note(ground, "127.0.0.1", port))
            assert finding().level == "ok", "it is the engine's own"
    port = 0
    assert finding().level == "ok"


def test_version_and_help_teach(capsys: pytest.CaptureFixture[str]) -> None:
    assert fts("version").stdout.startswith("fintickstreams ")
    assert fts("--version").stdout == fts("version").stdout
    text = parser().format_help()
    assert "fts demo" in text
    for command in ("up", "demo", "migrate", "doctor", "simulate"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert "fts " + command in capsys.readouterr().out


@pytest.mark.fault("N24")
@pytest.mark.parametrize("command", ["demo", "doctor", "up", "streams list", "migrate"])
@pytest.mark.parametrize("option", ["--state-dir", "--config"])
def test_a_path_that_is_no_text_is_one_line(tmp_path: Path, command: str, option: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    if option == "--config":
        path.write_text("")
    line = refused(fts(*command.split(), option, str(path), FTS_STATE_DIR=str(tmp_path / "state")))
    assert "caf\\xe9: byte" in line
    assert "is no UTF-8" in line


@pytest.mark.fault("N31")
def test_without_a_home_directory_it_asks_for_a_state_directory(tmp_path: Path) -> None:
    nobody = {"HOME": "", "XDG_STATE_HOME": "", "FTS_STATE_DIR": "~nosuchuser/state"}
    line = refused(fts("doctor", **nobody))
    assert line.startswith("fts: ~nosuchuser/state: nobody knows that home directory: set HOME")
    assert fts("doctor", "--state-dir", str(tmp_path), **nobody).returncode in (0, 1)


@pytest.mark.fault("N23")
def test_lines_for_people_can_be_pasted(tmp_path: Path) -> None:
    database = Secret("postgresql://fts@/fts?host=/a%20b/it%27s")
    redis = Secret("unix:///a%20b/it%27s/valkey.sock?db=0")
    options = ServiceOptions(load_config(None, {}))
    ground = Ground(options, open_layout(tmp_path), {"database": database, "redis": redis})
    note = make_note(ground, "127.0.0.1", 1)
    assert shlex.split(note.psql) == ["psql", database.reveal()]
    assert shlex.split(note.redis_cli) == ["redis-cli", "-s", "/a b/it's/valkey.sock"]


@pytest.mark.fault("N35")
def test_a_second_engine_hears_of_the_first_and_not_of_its_port(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as taken, instance.hold(layout):
        port = str(taken.getsockname()[1])
        for command in ("up", "demo"):
            (layout.state_dir / "this-is-a-demo").touch()
            line = refused(fts(command, "--state-dir", str(layout.state_dir), "--port", port), 3)
            assert f"another engine (pid {os.getpid()}) runs on {layout.state_dir}" in line


@pytest.mark.fault("N35")
def test_a_refused_demo_keeps_what_the_last_one_stored(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state")
    (layout.state_dir / "this-is-a-demo").touch()
    layout.slots.write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "port" in refused(fts("demo", "--state-dir", str(layout.state_dir), "--port", port))
    assert layout.slots.read_text() == "kept"


@pytest.mark.fault("N33")
@pytest.mark.parametrize("command", ["up", "demo"])
def test_too_few_open_files_are_counted_before_anything_starts(
    tmp_path: Path, command: str
) -> None:
    text = f"ulimit -n 64; exec {shlex.quote(sys.executable)} -P -m control.cli.main {command}"
    done = subprocess.run(
        ["sh", "-c", f"{text} --port 0 --state-dir {shlex.quote(str(tmp_path / 's'))}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    line = refused(done)
    assert re.search(r"open files: the \w+ needs \d+ and may have 64; raise the hard limit", line)
    assert not (tmp_path / "s" / "postgres").exists()


@pytest.mark.fault("N31")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_stop_no_command(closed: str) -> None:
    text = f"exec {shlex.quote(sys.executable)} -P -m control.cli.main version {closed}"
    done = subprocess.run(
        ["sh", "-c", text], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""


@pytest.mark.fault("N31")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "control.cli.main", "version"], stdout=full,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "fts: standard output: No space left on device\n")


@pytest.mark.fault("N31")
def test_letters_that_standard_output_does_not_have_are_written_out(tmp_path: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = fts("doctor", "--state-dir", str(tmp_path / "币"), **ascii_only)
    assert "Traceback" not in done.stderr
    assert "\\u5e01" in done.stdout


@pytest.mark.fault("N33")
def test_doctor_counts_open_files_as_the_engine_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = open_layout(tmp_path)
    loaded = load(argparse.Namespace(config=None, state_dir=tmp_path))

    def finding() -> Finding:
        return next(each for each in examine(loaded, layout) if each.topic == "open files")

    assert finding().level == "ok"
    monkeypatch.setattr("engine.base.handles.raise_limit", lambda: 64)
    assert (finding().level, "and may have 64" in finding().text) == ("problem", True)
    assert finding().advice.startswith("raise the hard limit")


@pytest.mark.parametrize(
    ("free_mb", "files_free", "level", "said"),
    [
        (5_000, 9, "ok", "5,000 MB free"),
        (600, 9, "note", "600 MB free"),
        (63, 9, "problem", "not even one file of the journal"),
        (5_000, 0, "problem", "no file can be added"),
    ],
)
def test_doctor_names_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    free_mb: int, files_free: int, level: str, said: str,
) -> None:  # fmt: skip
    layout = open_layout(tmp_path / "state")
    loaded = load(argparse.Namespace(config=None, state_dir=layout.state_dir, port=0))
    statvfs = os.statvfs

    def filled(path: os.PathLike[str]) -> SimpleNamespace | os.statvfs_result:
        if Path(path) != layout.state_dir:
            return statvfs(path)
        return SimpleNamespace(
            f_bavail=free_mb << 8, f_frsize=4096, f_files=1000, f_favail=files_free
        )

    monkeypatch.setattr(os, "statvfs", filled)
    found = next(each for each in examine(loaded, layout) if each.topic == "disk")
    assert (found.level, said in found.text) == (level, True)
    assert bool(found.advice) == (level != "ok")


@pytest.mark.fault("N11")
def test_doctor_names_what_can_be_no_symbol(tmp_path: Path) -> None:
    config = tmp_path / "fts.toml"
    config.write_text("[[streams]]\nvenue = 'hyperliquid_perp'\nsymbols = ['BTC', \"a\\u001bb\"]")
    loaded = load_config(config, {})
    findings = list(itertools.islice(examine(loaded, open_layout(tmp_path / "state")), 3))
    (named,) = [each for each in findings if each.topic == "config" and each.level == "note"]
    assert named.text.endswith("streams[0].symbols[1]: 'a\\x1bb' can be no symbol: left out")
