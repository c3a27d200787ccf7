"""What a new reading of the configuration changes at once, and what waits."""

from pathlib import Path

import pytest

from engine.base.errors import ConfigError
from engine.start.config import LoadedConfig, load
from engine.start.file.change import changed, takes_start

STREAM = "[[streams]]\nvenue = 'a'\nsymbols = ['A']\n"


def read(path: Path, text: str, env: dict[str, str] | None = None) -> LoadedConfig:
    file = path / "fts.toml"
    file.write_text(text)
    return load(file, env or {}, path)


def test_what_can_change_does_and_the_rest_is_named(tmp_path: Path) -> None:
    before = read(tmp_path, f"state_dir = '/x'\n{STREAM}")
    text = (
        "[log]\nlevel = 'DEBUG'\nformat = 'json'\n[control]\nadmission = 'any'\nport = 1\n"
        "[database]\nflush_rows = 7\nbars = true\n[redis]\nurl = 'redis://h/1'\n"
        f"{STREAM}{STREAM.replace('A', 'B')}[venues.a]\nstale_after_s = 3.0\n"
    )
    change = changed(before, read(tmp_path, text))
    assert sorted(change.now) == [
        "control.admission", "database.flush_rows", "log.format", "log.level", "streams",
    ]  # fmt: skip
    assert change.later == ["state_dir", "control.port", "database.bars", "redis.url", "venues.a"]
    config = change.loaded.config
    assert (config.database.flush_rows, config.database.bars) == (7, False)
    assert (config.control.admission, config.control.port) == ("any", 8080)
    assert len(config.streams) == 2
    assert change.loaded.urls == before.urls, "what waits does not come with the next child either"
    again = changed(change.loaded, read(tmp_path, text))
    assert again.now == []
    assert again.later == change.later, "it still waits"


def test_an_address_in_a_file_of_its_own_is_seen_and_not_shown(tmp_path: Path) -> None:
    text = "[database]\nurl_file = 'url'\n"
    (tmp_path / "url").write_text("postgresql://fts:hunter2@a/d")
    (tmp_path / "url").chmod(0o600)
    before = read(tmp_path, text)
    (tmp_path / "url").write_text("postgresql://fts:hunter2@b/d")
    assert changed(before, read(tmp_path, text)).later == ["the address of database"]


def test_what_is_taken_over_must_go_with_what_stays(tmp_path: Path) -> None:
    before = read(tmp_path, "[shards.ring_records]\ntrade = 1024\n[database]\nflush_rows = 1000\n")
    wanted = "[shards.ring_records]\ntrade = 8192\n[database]\nflush_rows = 5000\n"
    with pytest.raises(ConfigError, match="the ring would fill before a flush"):
        changed(before, read(tmp_path, wanted))


def test_what_a_start_alone_takes_on_is_told_from_what_an_upgrade_does() -> None:
    of_a_start = [
        "state_dir", "shards.cpus", "shards.ring_records.trade", "control.port", "metrics.host",
        "database.url", "database.owner.url_file", "database.registry_name", "databases.archive",
        "databases.archive.schema", "redis.url", "redis.memory_mb", "the address of redis",
    ]  # fmt: skip
    of_an_upgrade = [
        "control.allowed_hosts", "metrics.path", "limits.shared", "venues.a", "venues.a.limits",
        "database.keep", "database.routes", "databases.archive.keep_by_venue", "redis.kinds",
        "redis.prefix", "journal.sync_interval_s", "health.cpu_percent", "share",
    ]  # fmt: skip
    assert [key for key in of_a_start if not takes_start(key)] == []
    assert [key for key in of_an_upgrade if takes_start(key)] == []
