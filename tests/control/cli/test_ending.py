"""The verdict on a run: whatever is not well shows in the text, in JSON and in the exit code."""

from typing import Any

import msgspec
import pytest

from control.cli.ending import Ending
from control.cli.exits import Exit
from control.cli.terminal.summary import engine_summary, engine_text
from engine.data.names import StreamKind
from engine.messages.account import Moves
from engine.messages.status import (
    ChildReport,
    EngineStatus,
    ShardReport,
    StreamReport,
    WriterReport,
)
from engine.messages.streams import StreamCounts, StreamState
from engine.messages.writer import SinkStatus
from tests.told import telling

pytestmark = pytest.mark.fault("N29")

LIVE = StreamReport(0, "binance_linear", "BTCUSDT", "Trades", 0, state=StreamState.LIVE)
FAILED = msgspec.structs.replace(
    LIVE, symbol="BTCUSTD", state=StreamState.FAILED, reason="no such symbol"
)


def status(moves: Moves, received: int = 100, refused: int = 0, **writer: Any) -> EngineStatus:
    counts = {StreamKind.TRADES: StreamCounts(1, received, refused_count=refused)}
    rows = {"trade": moves.moved}
    report = telling(
        WriterReport(ChildReport("writer", "ended"), moves={"trade": moves}),
        **{"database_state": "up", "database_rows": rows, "redis_state": "up", **writer},
    )
    shard = ShardReport(ChildReport("shard-0", "ended"), 0, 0)
    return EngineStatus(
        "green", "", "stopped", "x", 1.0, [shard], report, ChildReport("control"), [],
        counts_by_kind=counts,
    )  # fmt: skip


def kill_shard(engine: EngineStatus) -> EngineStatus:
    engine.shards[0].child.restart_count = 1
    return engine


def kill_heir(engine: EngineStatus) -> EngineStatus:
    """A process that was to take a shard's streams over: nothing else is known of it."""
    engine.counts_are_least = True
    return engine


def kill_writer(engine: EngineStatus) -> EngineStatus:
    engine.writer.child.restart_count = 1
    return engine


WELL = Moves(100, 100)
CASES: list[tuple[str, EngineStatus, bool, list[StreamReport], Exit, str]] = [
    ("all stored", status(WELL), True, [LIVE], Exit.OK, ""),
    ("rows of an earlier run", status(Moves(100, 120)), True, [LIVE], Exit.OK, "+ left over 20 ="),
    ("knobs",
     status(WELL, database_rows={"trade": 60}, database_withheld_rows={"trade": 40}), True, [LIVE],
     Exit.OK, "kept out by knobs 40"),
    ("lost and declared",
     status(WELL, database_rows={"trade": 97}, database_missed_rows={"trade": 3}), True,
     [LIVE], Exit.OK, "lost after their receipt 3"),
    ("a full ring", status(WELL, dropped_rows={"trade": 4}), True, [LIVE], Exit.OK,
     "received 104 = stored 100 + dropped by a full ring 4"),
    ("unreadable", status(WELL, refused=2), True, [LIVE], Exit.OK, "received 102 ="),
    ("database down", status(Moves(100, 0, 0, 100), database_rows={}), False, [LIVE],
     Exit.UNFINISHED, "100 rows wait in the journal for the next start"),
    ("the disk is full, too", status(Moves(100, 0, 0, 100), database_rows={}, journal_error="full"),
     False, [LIVE], Exit.UNFINISHED, "a reboot loses those in memory (full)"),
    ("only gaps wait", status(WELL), False, [LIVE], Exit.UNFINISHED, "has not taken everything"),
    ("quarantine", status(WELL, database_rows={"trade": 99}, database_refused_rows={"trade": 1},
                          database_set_aside_rows={"trade": 3}), True, [LIVE],
     Exit.UNFINISHED, "3 rows are in quarantine"),
    ("a bad symbol", status(WELL), True, [LIVE, FAILED], Exit.UNFINISHED,
     "1 of 2 streams failed: binance_linear/BTCUSTD/Trades: no such symbol"),
    ("never a row", status(Moves(), received=0), True,
     [msgspec.structs.replace(LIVE, state=StreamState.CONNECTING)], Exit.UNFINISHED,
     "no stream has delivered anything"),
    ("a quiet stream", status(Moves(), received=0), True, [LIVE], Exit.OK, "received 0 = stored 0"),
    ("no stream wanted", status(Moves(), received=0), True, [], Exit.OK, "received 0 = stored 0"),
    ("a row nobody counted", status(WELL, database_rows={"trade": 99}), True, [LIVE], Exit.FAILED,
     "1 rows passed a cursor and were not counted"),
    ("an answer that was lost", status(Moves(100, 100, 1), database_rows={"trade": 99}), True,
     [LIVE], Exit.OK, "committed without an answer 1"),
    ("counted twice", status(WELL, database_rows={"trade": 101}), True, [LIVE], Exit.FAILED,
     "passed no cursor"),
    ("a row from nowhere", status(Moves(100, 90, 0, 5), database_rows={"trade": 90}), True, [LIVE],
     Exit.FAILED, "passed 5 rows more"),
    ("shards counted more", status(WELL, received=101), True, [LIVE], Exit.FAILED,
     "shards counted"),
    ("shards counted less", status(WELL, received=99), True, [LIVE], Exit.FAILED, "shards counted"),
    ("a killed shard", kill_shard(status(WELL, received=90, refused=1)), True, [LIVE], Exit.OK,
     "unreadable at least 1"),
    ("a shard killed in an upgrade", kill_heir(status(WELL, received=90, refused=1)), True, [LIVE],
     Exit.OK, "unreadable at least 1"),
    ("a killed writer", kill_writer(status(WELL, database_rows={"trade": 60})), True, [LIVE],
     Exit.OK, "stored at least 60 + committed without an answer 40"),
    ("nowhere",
     status(Moves(), database_state="off", database_rows={}, redis_state="down",
            redis_error="refused"), True, [LIVE], Exit.UNFINISHED,
     "no database is wanted and Redis is down: refused"),
    ("no database", status(Moves(), database_state="off", database_rows={}), True, [LIVE], Exit.OK,
     "received 100"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "delivered", "streams", "code", "text"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
def test_text_json_and_exit_code_say_the_same(
    engine: EngineStatus, delivered: bool, streams: list[StreamReport], code: Exit, text: str
) -> None:
    ending = Ending.of(engine, delivered=delivered, streams=streams)
    assert ending.exit_code == code
    shown = engine_text(engine, ending)
    assert text in shown
    assert ("does not hold" in shown) == (code == Exit.FAILED)
    assert ("unfinished" in shown) == bool(ending.unfinished)
    summary = msgspec.to_builtins(engine_summary(engine, ending)["equation"])
    assert summary["holds"] == (code != Exit.FAILED)
    assert bool(ending.unfinished) == (code == Exit.UNFINISHED) or code == Exit.FAILED
    assert tuple(summary["unfinished"]) == ending.unfinished
    if summary["by_kind"] and code != Exit.FAILED:
        total = summary["total"]
        terms = sum(total[name] for name in total if name not in ("left", "received"))
        assert total["left"] + total["received"] == terms


def test_many_failed_streams_are_named_by_a_few() -> None:
    ending = Ending.of(status(WELL), delivered=True, streams=[FAILED] * 500)
    (text,) = ending.unfinished
    assert text.startswith("500 of 500 streams failed")
    assert text.endswith("; and 497 more")
    assert len(text) < 400


OTHER = "databases.b"


def two(stored_there: int, waiting: int = 0) -> EngineStatus:
    """100 rows, of which 60 are the default database's."""
    own = status(WELL, database_rows={"trade": 60}, database_elsewhere_rows={"trade": 40})
    there = SinkStatus(
        OTHER, "up", rows={"trade": stored_there}, backlog_rows=waiting,
        elsewhere_rows={"trade": 100 - waiting - stored_there},
    )  # fmt: skip
    own.writer.sinks.append(there)
    own.writer.moves_of = {OTHER: {"trade": Moves(100, 100 - waiting, waiting=waiting)}}
    return own


def test_the_equation_holds_for_each_of_several_databases() -> None:
    ending = Ending.of(two(40), delivered=True, streams=[LIVE])
    assert ending.exit_code is Exit.OK
    assert ending.equation() == "received 100 = stored 60 + of other databases 40"
    assert f"{OTHER}: received 100 = stored 40 + of other databases 60" in ending.lines()
    told = ending.summary()["databases"][OTHER]["total"]
    assert (told.stored, told.elsewhere, told.waiting) == (40, 60, 0)


def test_a_row_that_each_of_several_leaves_to_another_is_missed() -> None:
    ending = Ending.of(two(39), delivered=True, streams=[LIVE])
    assert ending.exit_code is Exit.FAILED
    assert ending.problem == "trade: all databases together have 99 rows, the rings took 100"


def test_rows_that_wait_for_one_of_several_are_unfinished() -> None:
    ending = Ending.of(two(30, waiting=20), delivered=False, streams=[LIVE])
    assert ending.problem == ""
    assert ending.unfinished == ("20 rows wait in the journal for the next start",)
