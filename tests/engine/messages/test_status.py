"""The aggregate: totals across lives, percentiles that never flatter, one light with a reason."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.names import StreamKey, StreamKind
from engine.messages.judgement import (
    GREEN,
    is_behind,
    judge,
    judge_database,
    judge_one_database,
    judge_upkeep,
)
from engine.messages.pipes import ShardStatus
from engine.messages.status import ChildReport, EngineStatus, WriterReport
from engine.messages.streams import StreamCounts, StreamState, StreamStatus
from engine.messages.totals import ShardTotals, StreamTotals, WriterTotals, summarize
from engine.messages.upkeep import DatabaseReport, TaskReport
from engine.messages.writer import (
    DatabaseThresholds,
    LatencyHistogram,
    RingStatus,
    SinkStatus,
    WriterStatus,
)

KEY = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES)


def writer_status(stored: int, dropped: int = 0) -> WriterStatus:
    ring = RingStatus("shard-0.trade", "trade", 0, 0, 0, dropped, 64)
    database = SinkStatus("database", "up", rows={"trade": stored}, inexact_rows=1)
    return WriterStatus([ring], {}, [database, SinkStatus("redis", "up")], 0, {}, 0, 0.0)


def test_stream_counts_survive_their_shard() -> None:
    totals = StreamTotals(0, KEY, 0)
    totals.update(StreamStatus(0, StreamState.LIVE, row_count=7))
    totals.shard_ended("shard-0 killed by SIGKILL")
    assert totals.report.state is StreamState.PENDING
    totals.update(StreamStatus(0, StreamState.LIVE, row_count=5))
    assert totals.report.row_count == 12


def shard_status(**rows: int) -> ShardStatus:
    counts = {StreamKind(kind): StreamCounts(1, count) for kind, count in rows.items()}
    return ShardStatus(0, [], counts, {}, 0, 0, 0.0, 0, 0.0)


def test_counts_by_kind_survive_their_shard() -> None:
    totals = ShardTotals()
    totals.update(shard_status(Trades=7))
    totals.update(shard_status(Trades=9, FundingOpenInterest=4))
    totals.shard_ended()
    totals.update(shard_status(Trades=2, L2Book=1))
    child = ChildReport("writer", "up")
    status = EngineStatus(
        "green", "", "running", "x", 1.0, [], WriterReport(child), child, [],
        counts_by_kind=totals.by_kind,
    )  # fmt: skip
    assert status.rows_by_kind() == {"trade": 11, "funding": 2, "open_interest": 2, "book": 1}


def test_what_a_killed_process_counted_is_a_lower_bound_of_who_goes_on() -> None:
    """Its successor's, or that of the one whose successor it was to be."""
    killed, other = ShardTotals(), ShardTotals()
    killed.update(shard_status(Trades=7))
    other.update(shard_status(Trades=5))
    killed.shard_ended()
    assert killed.are_least
    assert not other.are_least
    other.add(killed)
    assert other.are_least
    assert other.by_kind[StreamKind.TRADES].row_count == 12


def test_writer_counts_survive_their_writer() -> None:
    totals = WriterTotals()
    totals.update(writer_status(7, dropped=3))
    totals.writer_ended()
    totals.update(writer_status(5, dropped=3))
    assert totals.report.database.rows == {"trade": 12}
    assert totals.report.database.inexact_rows == 2
    assert totals.report.dropped_rows == {"trade": 3}, "the ring counts these itself"
    totals.update(writer_status(5, dropped=1))
    assert totals.report.dropped_rows == {"trade": 4}, "a smaller count is a new ring's"


@given(st.lists(st.integers(0, 50), max_size=70))
def test_percentiles_are_ordered_and_cover_their_share(counts: list[int]) -> None:
    summary = summarize(LatencyHistogram(counts))
    if not sum(counts):
        assert summary == {}
        return
    assert summary["p50"] <= summary["p90"] <= summary["p99"] <= summary["max"]
    below = sum(
        count for bucket, count in enumerate(counts)
        if round(10 ** ((bucket + 1) / 10), 1) <= summary["p90"]
    )  # fmt: skip
    assert below >= 0.9 * sum(counts)


def test_latencies_of_the_last_minute_forget_what_was_before() -> None:
    now_s = [0.0]
    totals = WriterTotals(lambda: now_s[0])
    status = writer_status(1)

    def told(at_s: float, *counts: int) -> dict[str, float]:
        now_s[0] = at_s
        status.latency = {"database": LatencyHistogram([*counts])}
        totals.update(status)
        return totals.report.recent_latency_us["database"]

    slow, fast = round(10**0.3, 1), round(10**0.1, 1)
    assert told(0.0, 0, 0, 0) == {}
    assert told(0.5, 0, 0, 9)["max"] == slow, "what was counted in the first half second is seen"
    for at_s in range(1, 60):
        assert told(at_s, at_s, 0, 9)["p99"] == slow
    for at_s in range(60, 70):
        shown = told(at_s, at_s, 0, 9)
    assert shown == dict.fromkeys(("p50", "p90", "p99", "max"), fast)
    assert totals.report.latency_us["database"]["max"] == slow, "since birth it is still there"
    assert told(200.0, 69, 0, 9) == {}, "nothing passed for a minute"
    totals.writer_ended()
    assert told(201.0, 0, 2, 0)["max"] == round(10**0.2, 1), "another writer counts from 0"


def test_the_light_names_the_worst_thing_first() -> None:
    up = ChildReport("shard-0", "up")
    writer = WriterReport(
        ChildReport("writer", "up"), sinks=[SinkStatus("database", "up"), SinkStatus("redis", "up")]
    )
    live = StreamTotals(0, KEY, 0).report
    live.state = StreamState.LIVE
    assert judge("starting", [up], writer, [live]) == ("yellow", "starting")
    assert judge("running", [up], writer, [live]) == ("green", "all streams deliver")
    waiting = StreamTotals(2, KEY, 0).report
    waiting.state, waiting.reason = StreamState.CONNECTING, "the venue does not answer"
    light, reason = judge("running", [up], writer, [waiting])
    assert (light, "the venue does not answer" in reason) == ("yellow", True)
    light, reason = judge("running", [up], writer, [live, waiting])
    assert (light, reason) == ("green", "1 of 2 streams deliver, the others are starting")
    stale = StreamTotals(1, KEY, 0).report
    stale.state, stale.reason = StreamState.STALE, "silent"
    assert judge("running", [up], writer, [live, stale])[0] == "yellow"
    assert judge("running", [up], writer, [stale])[0] == "red"
    writer.sink("redis").state = "down"
    assert judge("running", [up], writer, [live])[0] == "yellow"
    writer.database.state = "down"
    assert judge("running", [up], writer, [live])[0] == "red"
    dead = ChildReport("shard-0", "restarting", reason="killed by SIGKILL")
    light, reason = judge("running", [dead], writer, [live])
    assert (light, "SIGKILL" in reason) == ("red", True)


def test_a_dead_journal_and_lost_rows_are_no_green_light() -> None:
    totals = WriterTotals()
    totals.report.child.state = "up"
    status = writer_status(7)
    status.journal_error, status.database.missed_rows = "no space left", {"trade": 3}
    totals.update(status)
    assert judge("running", [], totals.report, [])[0] == "yellow"
    assert "no space left" in judge("running", [], totals.report, [])[1]
    totals.writer_ended()
    status.journal_error, status.database.missed_rows = "", {"trade": 2}
    totals.update(status)
    assert judge("running", [], totals.report, []) == (
        "yellow", "5 rows were lost after their receipt: see the gaps",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("database", "waits_for"), [("down", ""), ("up", "table trade refuses every row: 0A000")]
)
def test_nothing_is_said_to_be_in_a_journal_that_takes_nothing(
    database: str, waits_for: str
) -> None:
    totals = WriterTotals()
    totals.report.child.state = "up"
    status = writer_status(7)
    sink = status.database
    sink.state, sink.error, sink.waits_for = database, "gone", waits_for
    totals.update(status)
    assert judge_database(totals.report)[1].endswith("; rows wait in the journal")
    status.journal_error = "no space left"
    totals.update(status)
    light, reason = judge_database(totals.report)
    assert (light, "in the journal" in reason) == ("red", False)
    assert "in memory only" in reason
    assert reason.endswith("no space left"), "what to mend"


@pytest.mark.fault("N02")
@pytest.mark.fault("N05")
def test_rows_that_wait_are_red_and_rows_in_quarantine_yellow_until_none_is() -> None:
    totals = WriterTotals()
    totals.report.child.state = "up"
    status = writer_status(7)
    status.database.waits_for = "table trade refuses every row: 0A000: frozen"
    status.database.set_aside_rows = {"trade": 2, "book": 1}
    totals.update(status)
    assert judge("running", [], totals.report, []) == (
        "red", "table trade refuses every row: 0A000: frozen; rows wait in the journal",
    )  # fmt: skip
    totals.writer_ended()
    status.database.waits_for = ""
    totals.update(status)
    assert judge("running", [], totals.report, []) == (
        "yellow", "3 rows are in quarantine: see `fts quarantine list`",
    )  # fmt: skip
    status.database.set_aside_rows = {}
    totals.update(status)
    assert judge("running", [], totals.report, [])[0] == "green", "stored or dropped by a person"


def test_what_an_upkeep_cannot_do_is_yellow_and_only_when_it_lasts() -> None:
    minute_ns = 60 * 10**9
    dead = ChildReport("upkeep", "restarting", reason="killed by SIGKILL")
    assert judge_upkeep(dead, [], 0)[0] == "yellow"
    assert judge_upkeep(ChildReport("upkeep", "starting"), [], 0) == GREEN
    failed = TaskReport("retention", error="disk", failing_since_ns=1)
    up = ChildReport("upkeep", "up")
    for report, patience_ns, text in (
        (DatabaseReport("main", tasks=[failed]), 60 * minute_ns, "upkeep of main: retention: disk"),
        (DatabaseReport("main", error="away", failing_since_ns=1), 2 * minute_ns, "main: away"),
    ):
        assert judge_upkeep(up, [report], patience_ns - 1) == GREEN
        light, reason = judge_upkeep(up, [report], patience_ns + 2)
        assert light == "yellow"
        assert text in reason


@pytest.mark.parametrize(
    ("days", "light"),
    [(None, "green"), (3650.0, "green"), (7.0, "green"), (6.9, "yellow"), (1.0, "yellow"),
     (0.9, "red"), (0.0, "red")],
)  # fmt: skip
def test_a_disk_that_fills_is_told_a_week_before(days: float | None, light: str) -> None:
    up = ChildReport("upkeep", "up")
    failed = TaskReport("retention", error="disk", failing_since_ns=1)
    full = DatabaseReport("main", days_until_full=days, disk_free_bytes=12_340_000_000)
    others = [DatabaseReport("other", tasks=[failed]), DatabaseReport("new")]
    judged, reason = judge_upkeep(up, [*others, full], 2)
    assert judged == light
    if light != "green":
        assert reason.startswith(f"disk of main: full in {days:.1f} days")
        assert "12.3 GB are free; make room, or set database.keep" in reason
    worst_of_all = judge_upkeep(up, [*others, full], 2 * 3600 * 10**9)
    assert worst_of_all[0] == ("red" if light == "red" else "yellow")


def test_each_database_is_behind_from_where_its_configuration_says() -> None:
    patient = DatabaseThresholds(flush_delay_s=(20, 40), backlog_rows=(100, 1000))
    writer = WriterReport(ChildReport("writer", "up"), thresholds={"databases.slow": patient})
    names = "database", "databases.slow"
    writer.sinks = [SinkStatus(name, "up") for name in names]
    for delay_s, backlog, lights in (
        (10.0, 0, ("yellow", "green")), (20.0, 0, ("yellow", "yellow")),
        (40.0, 0, ("yellow", "red")), (0.0, 100, ("green", "yellow")),
        (0.0, 1000, ("green", "red")),
    ):  # fmt: skip
        writer.flush_delays_s = dict.fromkeys(names, delay_s)
        for sink in writer.sinks:
            sink.backlog_rows = backlog
        assert tuple(judge_one_database(writer, sink)[0] for sink in writer.sinks) == lights
        assert tuple(is_behind(writer, name) for name in names) == tuple(
            light != "green" for light in lights
        )


def test_the_writer_is_behind_where_its_light_says_so() -> None:
    writer = WriterReport(ChildReport("writer", "up"), sinks=[SinkStatus("database", "up")])
    assert not is_behind(writer)
    assert not is_behind(msgspec.structs.replace(writer, journal_error="no room"))
    assert is_behind(msgspec.structs.replace(writer, flush_delays_s={"database": 5.0}))
    for changes in ({"backlog_rows": 2_000_000}, {"state": "down"}, {"waits_for": "a lock"}):
        sinks = [msgspec.structs.replace(SinkStatus("database", "up"), **changes)]
        assert is_behind(msgspec.structs.replace(writer, sinks=sinks))
