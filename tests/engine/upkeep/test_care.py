"""The care for one database: tasks at their times, errors that end nothing, pauses and ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import psycopg
import pytest

from engine.base.errors import EngineError
from engine.database import locks
from engine.messages.upkeep import DatabaseUpkeep, TaskReport
from engine.upkeep import care as care_module
from engine.upkeep.care import Care
from engine.upkeep.task import Place
from tests.waiting import wait_for


class Counting:
    """Counts its runs. Breaks as often as it is told."""

    name: ClassVar[str] = "counting"
    every_s: ClassVar[float] = 0.02

    def __init__(
        self, breaks: int = 0, error: Exception | None = None, pauses: bool = False
    ) -> None:
        self.runs = 0
        self.begun = 0
        self._breaks, self._error, self._pauses = breaks, error, pauses

    def run(self, place: Place) -> str:
        self.begun += 1
        if self._pauses:
            place.pause()
        if self.begun <= self._breaks:
            if self._error is not None:
                raise self._error
            place.session.execute("SELECT 1 / 0")
        self.runs += 1
        return f"run {self.runs}"


class Other(Counting):
    """A second one."""

    name = "other"


@contextmanager
def caring(url: str, *tasks: Counting) -> Iterator[Care]:
    """Care in a thread, whose end must come at once."""
    care = Care(DatabaseUpkeep("database", url), [_made(task) for task in tasks])
    thread = threading.Thread(target=care.run)
    thread.start()
    try:
        yield care
    finally:
        care.stop()
        thread.join(5)
        assert not thread.is_alive()


def _made(task: Counting) -> Callable[[], Counting]:
    return lambda: task


def said(care: Care, name: str = "counting") -> TaskReport:
    return next((t for t in care.report.tasks if t.task == name), TaskReport(name))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for production's delays."""
    monkeypatch.setattr(care_module, "_RETRY_S", (0.02, 0.05))
    monkeypatch.setattr(care_module, "_CONNECT_AGAIN_S", (0.02, 0.05))
    monkeypatch.setattr(care_module, "_ELSEWHERE_S", 0.02)


def test_a_task_is_done_at_once_and_again(database_url: str) -> None:
    with caring(database_url, task := Counting()) as care:
        wait_for(lambda: task.runs > 2)
        report = said(care)
        assert (report.error, report.failure_count) == ("", 0)
        assert report.last_ns == report.done_ns > 0
        assert report.next_ns > report.last_ns
        assert report.did.startswith("run ")
        assert care.report.layout in ("partitions", "hypertables")


@pytest.mark.parametrize("error", [None, EngineError("the archive is full")])
def test_what_fails_is_tried_again_and_others_go_on(
    database_url: str, error: EngineError | None
) -> None:
    broken, sound = Counting(10**9, error), Other()
    with caring(database_url, broken, sound) as care:
        wait_for(lambda: said(care).failure_count > 2 and sound.runs > 2)
        report = said(care)
        assert (str(error) if error else "division by zero") in report.error
        assert report.failing_since_ns > 0
        assert report.done_ns == 0
        assert said(care, "other").error == ""
        broken._breaks = 0
        wait_for(lambda: said(care).error == "" and broken.runs > 0)
        assert said(care).failing_since_ns == 0


def test_what_only_the_owner_may_is_told_with_where_to_name_him(database_url: str) -> None:
    with caring(database_url, Counting(1, psycopg.errors.InsufficientPrivilege("no"))) as care:
        wait_for(lambda: said(care).failure_count, "a failure")
        assert "database.owner.url_file" in said(care).error
        assert "grant" not in said(care).error


def test_a_database_that_is_away_is_asked_again(database_url: str) -> None:
    with caring("postgresql:///none?host=/nowhere", task := Counting()) as care:
        wait_for(lambda: care.report.error)
        assert "nowhere" in care.report.error
        assert care.report.failing_since_ns > 0
        care._settings = DatabaseUpkeep("database", database_url)
        wait_for(lambda: task.runs > 0)
        assert (care.report.error, care.report.failing_since_ns) == ("", 0)


def test_a_database_without_tables_is_told_how_to_get_them(empty_database_url: str) -> None:
    with caring(empty_database_url, task := Counting()) as care:
        wait_for(lambda: care.report.error)
        assert "run `fts migrate`" in care.report.error
        assert (care.report.layout, task.begun) == (None, 0)


def test_one_engine_of_several_looks_after_a_database(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as other:
        key = locks.UPKEEP
        other.execute("SELECT pg_advisory_lock(%s)", (key,))
        with caring(database_url, task := Counting()) as care:
            wait_for(lambda: care.report.layout)
            assert task.begun == 0
            other.execute("SELECT pg_advisory_unlock(%s)", (key,))
            wait_for(lambda: task.runs > 0)
            assert care.report.error == ""


def test_what_takes_long_waits_while_the_writer_is_behind(database_url: str) -> None:
    """And only that: what is short, or is the cure, goes on."""
    long, short = Counting(pauses=True), Other()
    with caring(database_url, short, long) as care:
        wait_for(lambda: long.runs > 0)
        care.pause(True)
        done = wait_for(lambda: long.begun > long.runs and long.runs)
        assert care.report.is_paused
        care.pause(False)
        wait_for(lambda: long.runs > done)


def test_the_end_does_not_wait_for_a_pause(database_url: str) -> None:
    with caring(database_url, task := Counting(pauses=True)) as care:
        care.pause(True)
        wait_for(lambda: task.begun > task.runs)
