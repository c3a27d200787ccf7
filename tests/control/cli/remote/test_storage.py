"""What doctor says of storage: sizes, room, and the tasks of the engine that runs."""

import argparse
import os
from pathlib import Path

import pytest

from control.cli.options import load
from control.cli.remote import storage
from engine.data.layout import open_layout
from engine.database.condition.facts import DatabaseFacts
from engine.messages.upkeep import DatabaseReport, TableSize, TaskReport
from engine.process import instance
from engine.start.config import LoadedConfig
from tests.control.cli.remote.test_client_commands import engine

TRADE = TableSize("trade", 1000, 13 << 20, 13.3, 26 << 20, 2000, oldest_ns=10**18)


@pytest.mark.parametrize(
    ("free_bytes", "days", "level", "text"),
    [
        (None, None, "ok", "unknown: the server is another machine's"),
        (100 << 20, None, "ok", "100 MB free; how long that lasts is known after some hours"),
        (100 << 20, 3650.0, "ok", "100 MB free: full in ten years or more at today's rate"),
        (100 << 20, 30.0, "ok", "100 MB free: full in 30.0 days at today's rate"),
        (100 << 20, 3.84, "note", "disk of database: full in 3.8 days at today's rate"),
        (0, 0.0, "problem", "disk of database: full in 0.0 days at today's rate, 0.0 GB are free"),
    ],
)
def test_a_disk_that_fills_is_a_note_and_then_a_problem(
    free_bytes: int | None, days: float | None, level: str, text: str
) -> None:
    facts = DatabaseFacts(tables=[TRADE], disk_free_bytes=free_bytes, days_until_full=days)
    table, room = storage.tables_of(facts)
    assert (table.topic, table.level) == ("table trade", "ok")
    assert table.text.startswith("13 MB: 13.3 B a row, 26 MB a day; oldest row 2001-09-09")
    assert (room.topic, room.level) == ("room", level)
    assert room.text.startswith(text)
    assert room.advice == ("" if level == "ok" else "make room, or set database.keep")


def loaded_in(folder: Path) -> LoadedConfig:
    return load(argparse.Namespace(config=None, state_dir=folder))


def test_the_tasks_of_an_engine_that_runs_are_told(tmp_path: Path) -> None:
    layout, loaded = open_layout(tmp_path), loaded_in(tmp_path)
    assert list(storage.upkeep_of(loaded)) == [], "none runs"
    done = TaskReport("days_ahead", last_ns=10**18, next_ns=2 * 10**18, did="made 2025-11-24")
    failed = TaskReport("retention", last_ns=1, error="disk", failing_since_ns=1, next_ns=10**18)
    with instance.hold(layout):
        with engine() as (rig, url):
            instance.write_note(layout, instance.EngineNote(os.getpid(), url))
            rig.supervisor.upkeep = [DatabaseReport("database", error="away", tasks=[done, failed])]
            rig.supervisor.tell()
            away, fails, well = storage.upkeep_of(loaded)
        assert (away.level, away.text) == ("note", "database: away")
        assert (fails.level, fails.text) == (
            "note", "database: retention fails since 1970-01-01 00:00:00: disk",
        )  # fmt: skip
        assert fails.advice == "it is tried again at 2001-09-09 01:46:40"
        assert well.level == "ok"
        assert "days_ahead at 2001-09-09 01:46:40, made 2025-11-24 (next 2033" in well.text
        (gone,) = storage.upkeep_of(loaded)
        assert (gone.level, "no engine answers" in gone.text) == ("note", True)
