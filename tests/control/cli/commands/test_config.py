"""`fts config`: all faults at once with their lines, and each value with its origin."""

import json
from pathlib import Path
from typing import Any

import pytest

from control.cli.main import main

FAULTY = """\
[database]
flush_rows = "many"
flush_row = 5
url = "postgresql://fts:hunter2hunter2@db/ticks"

[control]
port = 70000
host = "0.0.0.0"

[shards.ring_records]
trade = 1000

[venues.kraken_spot]
stale_after_s = "long"

[[streams]]
venue = "binance_liner"
symbols = ["BTCUSDT"]

[[streams]]
symbols = ["BTC"]
kinds = ["Trades", "Tirades", "Trade"]

[[streams]]
venue = "kraken_spot"
symbols = 5
"""


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("FTS_LOG_LEVEL", "FTS_DATABASE_URL", "FTS_CONTROL_TOKEN", "FTS_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, Any]:
        code = main(["config", *arguments])
        out = capsys.readouterr().out
        return code, json.loads(out) if "--json" in arguments else out

    return run


def test_check_names_every_fault_with_its_line(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fts.toml"
    file.write_text(FAULTY)
    monkeypatch.setenv("FTS_LOG_LEVEL", "loud")
    code, found = told("check", str(file), "--json")
    assert code == 2
    assert [(each["line"], each["key"]) for each in found["faults"]] == [
        (0, "FTS_LOG_LEVEL"),
        (2, "database.flush_rows"),
        (3, "database.flush_row"),
        (4, "database.url"),
        (7, "control.port"),
        (8, "control.host"),
        (11, "shards.ring_records.trade"),
        (14, "venues.kraken_spot.stale_after_s"),
        (17, "streams[0].venue"),
        (20, "streams[1].venue"),
        (22, "streams[1].kinds[1]"),
        (22, "streams[1].kinds[2]"),
        (26, "streams[2].symbols"),
    ]
    assert "hunter2" not in json.dumps(found)
    code, text = told("check", str(file))
    assert code == 2
    assert f"{file}:17: streams[0].venue: unknown venue 'binance_liner'" in text
    assert text.endswith(": 13 faults\n")


@pytest.mark.parametrize(
    ("text", "line"), [("[log]\nlevel = \n", 2), ("[log]\nlevel = 'INFO'\n[log]\n", 3)]
)
def test_check_names_the_line_of_what_is_no_toml(
    told: Any, tmp_path: Path, text: str, line: int
) -> None:
    file = tmp_path / "fts.toml"
    file.write_text(text)
    code, found = told("check", str(file), "--json")
    assert (code, [each["line"] for each in found["faults"]]) == (2, [line])


def test_check_finds_nothing_wrong_with_what_is_right(told: Any, tmp_path: Path) -> None:
    file = tmp_path / "fts.toml"
    file.write_text("[log]\nlevel = 'INFO'\n")
    assert told("check", str(file)) == (0, f"{file}: no fault\n")
    assert told("check", str(tmp_path / "none"))[0] == 2


def test_check_does_not_blame_what_is_missed_only_by_itself(told: Any, tmp_path: Path) -> None:
    file = tmp_path / "fts.toml"
    file.write_text("[control]\nbehind_proxy = true\ntoken_file = 5\n")
    assert [each["key"] for each in told("check", str(file), "--json")[1]["faults"]] == [
        "control.token_file"
    ]


def test_show_names_the_origin_of_each_value_and_no_secret(
    told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fts.toml"
    file.write_text("[redis]\nurl_file = 'redis.url'\n[log]\nlevel = 'INFO'\nformat = 'json'\n")
    (tmp_path / "redis.url").write_text("redis://:hunter2@h/1")
    (tmp_path / "redis.url").chmod(0o600)
    monkeypatch.setenv("FTS_LOG_LEVEL", "debug")
    monkeypatch.setenv("FTS_DATABASE_URL", "postgresql://fts:hunter2@db/ticks")
    monkeypatch.setenv("FTS_CONTROL_TOKEN", "hunter2hunter2hunter2hunter2hunter2")
    options = ("--config", str(file), "--state-dir", str(tmp_path))
    code, found = told("show", *options, "--json")
    values = found["values"]
    assert code == 0
    assert values["log.level"] == {"value": "DEBUG", "origin": "environment: FTS_LOG_LEVEL"}
    assert values["log.format"] == {"value": "json", "origin": f"{file}:5"}
    assert values["journal.segment_mb"] == {"value": 64, "origin": "default"}
    assert values["state_dir"] == {"value": str(tmp_path), "origin": "command line"}
    assert values["redis.url"] == {"value": "redis://:***@h/1", "origin": f"{file}:2"}
    assert values["database.url"] == {
        "value": "postgresql://fts:***@db/ticks", "origin": "environment: FTS_DATABASE_URL",
    }  # fmt: skip
    assert values["control.token_file"]["value"] == "***"
    assert "hunter2" not in json.dumps(found) + told("show", *options)[1]
