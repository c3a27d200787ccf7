"""Streams by command: the last accepted one counts, whatever came before."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.control import KeyResult
from engine.messages.pipes import ShardStatus
from engine.messages.streams import KnobChanges, Knobs, StreamRequest, StreamState, StreamStatus
from engine.streams.running_streams import RunningStreams
from engine.streams.wanted import Wanted, WantedStream


def key(symbol: str, kind: StreamKind = StreamKind.TRADES, venue: str = "acme") -> StreamKey:
    return StreamKey(venue, symbol, kind)


def make_running(directory: Path, shard_count: int = 2) -> RunningStreams:
    slots = Slots(directory / "streams.jsonl")
    return RunningStreams(
        slots, Wanted(directory / "registry.jsonl"), shard_count, max_rows_per_copy=1000
    )


def add(running: RunningStreams, *keys: StreamKey) -> dict[int, list[int]]:
    _, started = running.add([StreamRequest(each) for each in keys])
    return {shard: [spec.slot for spec in specs] for shard, specs in started.items()}


def test_answers_name_what_exists_and_what_does_not(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    results, _ = running.add([StreamRequest(key("A")), StreamRequest(key("A"))])
    assert [each.error_kind for each in results] == ["", "stream_exists"]
    results, _ = running.add([StreamRequest(key("A"))])
    assert results[0].error_kind == "stream_exists"
    gone, stopped = running.remove([key("A"), key("A"), key("B")])
    assert [each.error_kind for each in gone] == ["", "stream_not_found", "stream_not_found"]
    assert stopped == {0: [0]}
    assert running.set_knobs(key("A"), KnobChanges()).error_kind == "stream_not_found"
    assert running.reports() == []


def test_a_new_configuration_counts_as_it_would_at_a_start(tmp_path: Path) -> None:
    running = make_running(tmp_path, shard_count=1)
    running.open([key("A"), key("B")])
    add(running, key("C"))
    running.remove([key("B")])
    started, stopped = running.configure([key("B"), key("D")])
    assert [spec.key.symbol for spec in started[0]] == ["D"], "what was removed stays removed"
    assert stopped == {0: [0]}
    assert [each.symbol for each in running.reports()] == ["C", "D"], "a command's stays"
    assert running.configure([key("B"), key("D")]) == ({}, {})
    again = make_running(tmp_path, shard_count=1)
    again.open([key("B"), key("D")])
    assert [each.symbol for each in again.reports()] == ["C", "D"], "and so does a restart see it"


def test_streams_are_balanced_and_a_symbol_stays_together_and_comes_home(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    add(running, *(key(f"S{number}") for number in range(10)))
    assert [len(running.specs(shard)) for shard in (0, 1)] == [5, 5]
    home = next(each.shard for each in running.reports() if each.symbol == "S3")
    assert list(add(running, key("S3", StreamKind.L2_BOOK))) == [home]
    running.remove([key("S3"), key("S3", StreamKind.L2_BOOK)])
    assert add(running, key("S3")) == {home: [3]}, "the same slot on the same shard"


def test_changes_of_different_knobs_do_not_undo_each_other(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    add(running, key("A"))
    for changes in (
        KnobChanges(flush_rows=20),
        KnobChanges(flush_interval_ms=60, db_writes_enabled=False),
        KnobChanges(),
        KnobChanges(flush_interval_ms=None, redis_publishes_enabled=False),
    ):
        assert running.set_knobs(key("A"), changes) == KeyResult(key("A"))
    wanted = Knobs(db_writes_enabled=False, redis_publishes_enabled=False, flush_rows=20)
    assert running.knobs() == {0: wanted}
    for impossible in (KnobChanges(max_rows_per_copy=19), KnobChanges(flush_rows=1001)):
        result = running.set_knobs(key("A"), impossible)
        assert (result.error_kind, result.field) == ("contradiction", "flush_rows")
        assert "is more than max_rows_per_copy" in result.error
    assert running.knobs() == {0: wanted}, "what was refused changed nothing"


def test_knobs_show_and_come_back_on_another_number_of_shards(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    add(running, key("A"), key("B"), key("C"))
    quiet = Knobs(db_writes_enabled=False)
    assert running.set_knobs(key("B"), KnobChanges(db_writes_enabled=False)).error_kind == ""
    assert running.knobs() == {1: quiet}
    for shard_count in (1, 3):
        again = make_running(tmp_path, shard_count)
        again.open([])
        assert again.knobs() == {1: quiet}
        assert sorted(report.symbol for report in again.reports()) == ["A", "B", "C"]
        assert all(report.added_ns for report in again.reports())
        assert again.was_commanded


def test_commands_add_no_stream_beyond_the_limit(tmp_path: Path) -> None:
    slots, wanted = Slots(tmp_path / "streams.jsonl"), Wanted(tmp_path / "registry.jsonl")
    running = RunningStreams(slots, wanted, 1, 1000, most=2)
    results, _ = running.add([StreamRequest(key(name)) for name in "ABC"])
    assert [each.error_kind for each in results] == ["", "", "limit"]
    assert "limits.max_streams" in results[2].error
    running.remove([key("A")])
    assert running.add([StreamRequest(key("C"))])[0][0].error_kind == ""
    assert len(wanted.wanted()) == 2


def test_what_is_not_restored_stays_known_for_the_next_start(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    add(running, key("A"), key("B"), key("C"))
    running.set_knobs(key("B"), KnobChanges(db_writes_enabled=False))
    empty = make_running(tmp_path)
    empty.open([key("D")], restores=False)
    assert empty.reports() == []
    assert [empty.specs(shard) for shard in (0, 1)] == [[], []]
    assert empty.knobs() == {1: Knobs(db_writes_enabled=False)}, "its last rows may wait"
    late = [WantedStream(key("E"))]
    assert empty.adopt(late) == ({}, {}), "the database's memory begins nothing either"
    assert add(empty, key("A")) == {0: [0]}, "one may be begun by command"
    gone, stopped = empty.remove([key("C")])
    assert ([each.error_kind for each in gone], stopped) == ([""], {})
    again = make_running(tmp_path)
    again.open([key("D")])
    assert sorted(report.symbol for report in again.reports()) == ["A", "B", "D"]
    assert again.knobs() == {1: Knobs(db_writes_enabled=False)}


def test_a_shard_may_not_speak_of_streams_it_does_not_have(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    add(running, key("A"), key("B"))
    status = ShardStatus(
        0, [StreamStatus(0, StreamState.LIVE, row_count=3), StreamStatus(1, StreamState.LIVE)],
        {}, {}, 0, 0, 0.0, 0, 0.0,
    )  # fmt: skip
    running.update(status)
    assert [report.state for report in running.reports()] == ["live", "pending"]
    running.shard_ended(0, "killed")
    assert running.reports()[0].reason == "killed"
    running.remove([key("A")])
    running.update(status)
    assert [report.symbol for report in running.reports()] == ["B"]


def said(*streams: StreamStatus) -> ShardStatus:
    return ShardStatus(0, list(streams), {}, {}, 0, 0, 0.0, 0, 0.0)


def test_what_is_said_of_an_earlier_life_of_a_stream_does_not_count(tmp_path: Path) -> None:
    running = make_running(tmp_path, 1)
    add(running, key("A"))
    late = said(StreamStatus(0, StreamState.LIVE, row_count=1_000_000, life=0))
    running.update(late)
    for life in (1, 2):
        running.remove([key("A")])
        add(running, key("A"))
        assert [spec.life for spec in running.specs(0)] == [life]
        running.update(late)
        (report,) = running.reports()
        assert (report.state, report.row_count) == (StreamState.PENDING, 0)
    running.update(said(StreamStatus(0, StreamState.LIVE, row_count=3, life=2)))
    assert [report.row_count for report in running.reports()] == [3]


def test_rows_that_were_to_be_kept_back_are_so_after_their_stream_is_gone(tmp_path: Path) -> None:
    running = make_running(tmp_path)
    running.open([])
    kept_back = StreamRequest(key("A"), Knobs(db_writes_enabled=False, flush_rows=1))
    running.add([kept_back, StreamRequest(key("B"), Knobs(flush_rows=1))])
    running.remove([key("A"), key("B")])
    assert running.knobs() == {0: Knobs(db_writes_enabled=False)}
    running = make_running(tmp_path)
    running.open([])
    assert running.knobs() == {0: Knobs(db_writes_enabled=False)}, "they wait in the journal"
    add(running, key("A"))
    assert running.knobs() == {}


COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "knobs", "restart"]),
        st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=4),
        st.booleans(),
    ),
    max_size=40,
)


@pytest.mark.fault("A10")
@settings(deadline=None, max_examples=60)
@given(COMMANDS)
def test_the_end_is_what_the_last_accepted_commands_say(
    commands: list[tuple[str, list[str], bool]],
) -> None:
    """A model: a dictionary. What shards were told to run equals it at every moment."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        running = make_running(directory)
        running.open([])
        model: dict[str, Knobs] = {}
        told: set[int] = set()
        for what, symbols, on in commands:
            if what == "add":
                results, started = running.add([StreamRequest(key(s)) for s in symbols])
                for symbol, result in zip(symbols, results, strict=True):
                    assert (result.error_kind == "stream_exists") == (symbol in model)
                    model.setdefault(symbol, Knobs())
                told |= {spec.slot for specs in started.values() for spec in specs}
            elif what == "remove":
                results, stopped = running.remove([key(s) for s in symbols])
                for symbol, result in zip(symbols, results, strict=True):
                    assert (result.error_kind == "stream_not_found") == (symbol not in model)
                    model.pop(symbol, None)
                told -= {slot for slots in stopped.values() for slot in slots}
            elif what == "knobs":
                knobs = Knobs(db_writes_enabled=on)
                changes = KnobChanges(db_writes_enabled=on)
                found = not running.set_knobs(key(symbols[0]), changes).error_kind
                assert found == (symbols[0] in model)
                if found:
                    model[symbols[0]] = knobs
            else:
                running = make_running(directory, 1 + len(symbols))
                running.open([])
            assert {each.symbol: each.knobs for each in running.reports()} == model
            assert told == {report.slot for report in running.reports()}
