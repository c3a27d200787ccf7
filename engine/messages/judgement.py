"""Lights and their reasons: the one judge that log, view, API, metrics and exit code read."""

from typing import Final

import msgspec

from engine.data.names import DEFAULT_DATABASE
from engine.messages.status import (
    ChildReport,
    Judgement,
    Light,
    Phase,
    StreamReport,
    WriterReport,
)
from engine.messages.streams import StreamState
from engine.messages.upkeep import DatabaseReport
from engine.messages.writer import LIVE, DatabaseThresholds, SinkStatus

_TROUBLED = frozenset({StreamState.STALE, StreamState.BACKOFF, StreamState.FAILED})
_SINKS = {"postgres": DEFAULT_DATABASE} | {each.server: each.name for each in LIVE}


def without_servers(writer: WriterReport, servers: list[ChildReport]) -> WriterReport:
    """The writer as it is while these of the engine's own servers are not up: it knows only that
    nobody answers, or not even that yet.
    """
    problems = {
        _SINKS[server.name]: f"private {server.name}: {server.reason}; it starts again"
        for server in servers
        if server.state != "up"
    }
    told = [writer.sink(name) for name in problems if all(s.name != name for s in writer.sinks)]
    sinks = [
        msgspec.structs.replace(sink, state="down", error=problems[sink.name])
        if sink.name in problems
        else sink
        for sink in [*writer.sinks, *told]
    ]
    return msgspec.structs.replace(writer, sinks=sinks)


RANK: Final[dict[Light, int]] = {"green": 0, "yellow": 1, "red": 2}
GREEN: Final[Judgement] = ("green", "")
_USUAL: Final = DatabaseThresholds()
_AWAY_NS: Final = 120 * 10**9
_TASK_FAILS_NS: Final = 3600 * 10**9
"""So long the upkeep may try again before that is trouble: a lock or a long query is none."""
ROOM_DAYS: Final = (7.0, 1.0)
"""Where yellow and red begin, from above."""


def worst(found: list[Judgement]) -> Judgement:
    """The worst of several; the first of equals."""
    return max(found, key=lambda judged: RANK[judged[0]], default=GREEN)


def above(value: float, limits: tuple[float, float], text: str) -> Judgement:
    """Green below the first limit, red from the second on."""
    if value < limits[0]:
        return GREEN
    return ("red" if value >= limits[1] else "yellow"), text


def judge_database(writer: WriterReport) -> Judgement:
    """The light of the worst of the databases: the same for the log, the view, the API and the exit
    code.
    """
    return worst([judge_one_database(writer, each) for each in writer.databases])


def judge_one_database(writer: WriterReport, database: SinkStatus) -> Judgement:
    """The light of one. Beside the default one each is called by its name."""
    is_default = database.name == DEFAULT_DATABASE
    name = "the database" if is_default else database.name
    if database.state == "off":
        return GREEN
    if database.state == "down":
        return "red", f"{name} is down: {database.error}; {_where_rows_wait(writer)}"
    if database.state != "up":
        return "yellow", f"{name} is {database.state}"
    if database.waits_for:
        of = "" if is_default else f"{name}: "
        return "red", f"{of}{database.waits_for}; {_where_rows_wait(writer)}"
    journal: Judgement = GREEN
    if writer.journal_error:
        text = f"{writer.journal_error}; rows are in memory only until they are stored"
        journal = ("yellow", text)
    return worst([journal, _judge_lag(writer, database, name)])


def is_behind(writer: WriterReport, sink: str = DEFAULT_DATABASE) -> bool:
    """Whether a database has enough to do with the rows that come."""
    database = writer.sink(sink)
    if database.state != "up" or database.waits_for:
        return True
    return _judge_lag(writer, database, sink) != GREEN


def judge_upkeep(
    child: ChildReport | None, databases: list[DatabaseReport], now_ns: int
) -> Judgement:
    """Red for a disk that is full within a day, else no more than yellow: rows are stored without
    an upkeep. What its next tries cure is no trouble.
    """
    found = [
        judge_room(each.database, each.days_until_full, each.disk_free_bytes) for each in databases
    ]
    if child is not None and child.state in ("restarting", "ended"):
        text = f"{child.name} is {child.state}: {child.reason}; rows are stored as before"
        found.append(("yellow", text))
    for each in databases:
        troubles = [(each.error, each.failing_since_ns, _AWAY_NS)]
        troubles += [
            (f"{task.task}: {task.error}", task.failing_since_ns, _TASK_FAILS_NS)
            for task in each.tasks
        ]
        for text, since_ns, patience_ns in troubles:
            if since_ns and now_ns - since_ns > patience_ns:
                found.append(("yellow", f"upkeep of {each.database}: {text}"))
    return worst(found)


def judge_room(
    database: str, days_until_full: float | None, disk_free_bytes: int | None
) -> Judgement:
    """How long a database can go on as it does; what nobody knows is no trouble."""
    if days_until_full is None or days_until_full >= ROOM_DAYS[0]:
        return GREEN
    light: Light = "yellow" if days_until_full >= ROOM_DAYS[1] else "red"
    return light, (
        f"disk of {database}: full in {days_until_full:.1f} days at today's rate,"
        f" {(disk_free_bytes or 0) / 1e9:,.1f} GB are free; make room, or set database.keep"
    )


def _judge_lag(writer: WriterReport, database: SinkStatus, name: str) -> Judgement:
    limits = writer.thresholds.get(database.name, _USUAL)
    delay_s, waiting = writer.flush_delays_s.get(database.name, 0.0), database.backlog_rows
    return worst(
        [
            above(delay_s, limits.flush_delay_s, f"rows wait {delay_s:,.0f} s for {name}"),
            above(waiting, limits.backlog_rows, f"{waiting:,} rows wait for {name}"),
        ]
    )


def _where_rows_wait(writer: WriterReport) -> str:
    """Those the database does not take. Memory has no room for long, and a reboot empties it."""
    if writer.journal_error:
        return f"rows are in memory only, while that has room: {writer.journal_error}"
    return "rows wait in the journal"


def judge(
    phase: Phase, children: list[ChildReport], writer: WriterReport, streams: list[StreamReport]
) -> Judgement:
    """One light and the reason for it, worst first."""
    if phase in ("starting", "draining", "stopped"):
        return "yellow", phase
    for child in children:
        if child.state != "up":
            light: Light = "yellow" if child.name == "control" else "red"
            return light, f"{child.name} is {child.state}: {child.reason or 'not ready yet'}"
    database = judge_database(writer)
    if database[0] != "green":
        return database
    if lost := writer.database_rows("missed_rows").total():
        return "yellow", f"{lost} rows were lost after their receipt: see the gaps"
    by_streams = _judge_streams(streams)
    if by_streams is not None and by_streams[0] != "green":
        return by_streams
    for sink in writer.live:
        if sink.state == "down":
            return "yellow", f"{sink.name} is down: {sink.error}; the database is not affected"
    if quarantined := writer.database_rows("set_aside_rows").total():
        return "yellow", f"{quarantined} rows are in quarantine: see `fts quarantine list`"
    return by_streams or ("green", "all streams deliver")


def _judge_streams(streams: list[StreamReport]) -> Judgement | None:
    """What the streams alone say; None when all of them deliver."""
    troubled = [stream for stream in streams if stream.state in _TROUBLED]
    if troubled and len(troubled) == len(streams):
        return "red", f"no stream delivers: {_name(troubled[0])}: {troubled[0].reason}"
    if troubled:
        first = troubled[0]
        return "yellow", (
            f"{len(troubled)} of {len(streams)} streams in trouble: {_name(first)} is"
            f" {first.state}: {first.reason}"
        )
    live = sum(stream.state is StreamState.LIVE for stream in streams)
    if streams and not live:
        first = streams[0]
        return "yellow", f"no stream is live yet: {_name(first)} is {first.state}: {first.reason}"
    if live < len(streams):
        return "green", f"{live} of {len(streams)} streams deliver, the others are starting"
    return None if streams else ("green", "no stream is wanted yet")


def _name(stream: StreamReport) -> str:
    return f"{stream.venue}/{stream.symbol}/{stream.kind}"
