"""What databases take, in words, and how an engine that runs looks after them."""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

import msgspec

from control.cli.remote.client import RefusedError, UnreachableError, running
from engine.base.errors import EngineError
from engine.database.condition.facts import DatabaseFacts
from engine.messages.judgement import judge_room
from engine.messages.status import Light
from engine.messages.upkeep import FAR_DAYS, DatabaseReport, TableSize, TaskReport
from engine.start.config import LoadedConfig

COLUMNS: Final = (
    "database", "table", "size", "a row", "a day", "compressed", "oldest row", "kept for",
)  # fmt: skip
_ANSWER_WITHIN_S: Final = 2.0
_LEVELS: Final[dict[Light, Literal["ok", "note", "problem"]]] = {
    "green": "ok", "yellow": "note", "red": "problem",
}  # fmt: skip


class Said(NamedTuple):
    """A line of a report, as `fts doctor` has them."""

    topic: str
    level: Literal["ok", "note", "problem"]
    text: str
    advice: str = ""


def lines(databases: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line for each table that takes room, under `COLUMNS`; as the API tells databases."""
    found: list[tuple[str, ...]] = []
    for report in msgspec.convert(databases, list[DatabaseReport]):
        found += [
            (report.database, table.table, *_cells(table))
            for table in report.tables
            if table.oldest_ns is not None
        ]
        if report.tables:
            found.append((report.database, "free disk", *_free(report), "", "", "", ""))
    return found


def tables_of(facts: DatabaseFacts) -> Iterator[Said]:
    """What each table takes, and how long the disk suffices."""
    for table in facts.tables:
        if table.oldest_ns is not None:
            size, a_row, a_day, ratio, oldest, kept = _cells(table)
            compressed = f", compressed {ratio}" if ratio != "-" else ""
            yield Said(
                f"table {table.table}", "ok",
                f"{size}: {a_row} a row, {a_day} a day{compressed}; oldest row {oldest}, kept for"
                f" {kept}",
            )  # fmt: skip
    if facts.disk_free_bytes is None:
        yield Said("room", "ok", "unknown: the server is another machine's, or another user's")
        return
    free, days = _size(facts.disk_free_bytes), facts.days_until_full
    light, reason = judge_room("database", days, facts.disk_free_bytes)
    if light != "green":
        text, _, advice = reason.partition("; ")
        yield Said("room", _LEVELS[light], text, advice)
    elif days is None:
        yield Said("room", "ok", f"{free} free; how long that lasts is known after some hours")
    else:
        yield Said("room", "ok", f"{free} free: full in {_days(days)} at today's rate")


def upkeep_of(loaded: LoadedConfig) -> Iterator[Said]:
    """What the tasks of an engine that runs have come to."""
    try:
        if (client := running(loaded, _ANSWER_WITHIN_S)) is None:
            return
        told = client.light("runtime")["upkeep"]
    except (RefusedError, UnreachableError) as error:
        yield Said("upkeep", "note", f"not told: {error}")
        return
    except EngineError as error:
        yield Said("upkeep", "problem", str(error))
        return
    for report in msgspec.convert(told, list[DatabaseReport]):
        if report.error:
            yield Said("upkeep", "note", f"{report.database}: {report.error}", "it is tried again")
        for task in report.tasks:
            if task.error:
                since = _moment(task.failing_since_ns)
                yield Said(
                    "upkeep", "note",
                    f"{report.database}: {task.task} fails since {since}: {task.error}",
                    f"it is tried again at {_moment(task.next_ns)}",
                )  # fmt: skip
        if well := [task for task in report.tasks if task.last_ns and not task.error]:
            yield Said("upkeep", "ok", f"{report.database}: {', '.join(map(_task, well))}")


def _task(task: TaskReport) -> str:
    last, following = _moment(task.last_ns), _moment(task.next_ns)
    did = f", {task.did}" if task.did else ""
    return f"{task.task} at {last}{did} (next {following})"


def _cells(table: TableSize) -> tuple[str, str, str, str, str, str]:
    ratio = table.compression_ratio
    return (
        _size(table.size_bytes),
        f"{table.bytes_a_row:,.1f} B" if table.bytes_a_row is not None else "-",
        _size(table.bytes_a_day) if table.bytes_a_day is not None else "-",
        f"{ratio:.1f} x" if ratio is not None else "-",
        _moment(table.oldest_ns or 0),
        table.kept_for or "ever",
    )


def _free(report: DatabaseReport) -> tuple[str, str]:
    if report.disk_free_bytes is None:
        return "unknown", ""
    days = report.days_until_full
    return _size(report.disk_free_bytes), f"full in {_days(days)}" if days is not None else ""


def _days(days: float) -> str:
    return "ten years or more" if days >= FAR_DAYS else f"{days:,.1f} days"


def _size(size_bytes: float) -> str:
    size_mb = size_bytes / 2**20
    return f"{size_mb:,.0f} MB" if size_mb >= 10 else f"{size_mb:.1f} MB"


def _moment(time_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(time_ns // 10**9, dt.UTC):%Y-%m-%d %H:%M:%S}"
