"""SIGHUP and `fts upgrade` go by one notion of the configuration in force."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from control.cli.changes.reloading import Reloading
from engine.data.layout import open_layout
from engine.messages.settings import LogSettings
from engine.start.config import load
from engine.supervisor.spawning import SupervisorSettings


class Engine:
    """A supervisor that takes over what it is told."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self.settings = settings

    def reload(self, settings: SupervisorSettings) -> tuple[int, int]:
        self.settings = settings
        return 0, 0


def test_what_an_upgrade_has_taken_on_is_not_taken_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "fts.toml"
    file.write_text("streams = []\n")
    loaded = load(file, {}, tmp_path)
    engine = Engine(
        SupervisorSettings(
            open_layout(tmp_path), loaded.config, [], [], [], {}, LogSettings("log"), -1, 0
        )
    )
    read_again = Reloading(
        lambda: load(file, {}, tmp_path), lambda each: each.stream_keys(), loaded,
        engine,  # type: ignore[arg-type]
    )  # fmt: skip
    caplog.set_level(logging.INFO)

    file.write_text("streams = []\n[database]\nflush_rows = 7\n[journal]\nsync_interval_s = 2.0\n")
    read_again()
    assert "journal.sync_interval_s changes with `fts upgrade`" in caplog.text
    assert engine.settings.config.database.flush_rows == 7
    engine.settings = replace(engine.settings, config=load(file, {}, tmp_path).config)  # upgraded
    caplog.clear()
    read_again()
    assert "configuration read again: nothing has changed" in caplog.text
    assert engine.settings.config.journal.sync_interval_s == 2.0

    file.write_text("streams = []\n[database]\nflush_rows = 8\n[journal]\nsync_interval_s = 2.0\n")
    read_again()
    assert engine.settings.config.database.flush_rows == 8
    assert engine.settings.config.journal.sync_interval_s == 2.0
    assert "sync_interval_s" not in caplog.text
