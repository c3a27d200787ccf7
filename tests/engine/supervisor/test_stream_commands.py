"""Streams added, removed and tuned by command; the children play their parts."""

import os
import signal

import msgspec
import pytest

from engine.data.instrument import Instrument
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.control import AddStreams, RemoveStreams, SetKnobs
from engine.messages.listings import InstrumentEvent, ListingLoaded
from engine.messages.pipes import FromChild
from engine.messages.status import EngineStatus
from engine.messages.streams import KnobChanges, Knobs, StreamRequest
from engine.start.addresses import Secret
from engine.supervisor import stream_starts
from engine.supervisor.spawning import Targets
from tests.engine.full_disk import full_at
from tests.engine.supervisor.test_supervisor import FAKES, STREAMS, Engine, run
from tests.waiting import until

pytestmark = pytest.mark.whole

TARGETS = Targets(f"{FAKES}:shard", f"{FAKES}:writer", f"{FAKES}:commander")
SOL = StreamKey("binance_linear", "SOLUSDT", StreamKind.TRADES)
DOGE = StreamKey("hyperliquid_perp", "DOGE", StreamKind.TRADES)


def command(engine: Engine, *messages: FromChild) -> None:
    """Have the control process send these."""
    with (engine.layout.state_dir / "commands.jsonl").open("ab") as file:
        file.write(b"".join(msgspec.json.encode(message) + b"\n" for message in messages))


def answers(engine: Engine) -> dict[int, list[str]]:
    return {event["id"]: event["kinds"] for event in engine.events("control", "answer")}


def seen_by_control(engine: Engine) -> list[str]:
    """Symbols in the status the control process has."""
    path = engine.layout.state_dir / "status.json"
    status = msgspec.json.decode(path.read_bytes(), type=EngineStatus)
    return [stream.symbol for stream in status.streams]


def test_streams_come_and_go_and_every_command_is_answered(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        command(
            engine,
            AddStreams(1, [StreamRequest(SOL), StreamRequest(STREAMS[0]), StreamRequest(DOGE)]),
            RemoveStreams(2, [STREAMS[2], SOL]),
            RemoveStreams(3, [SOL]),
        )
        await until(lambda: len(answers(engine)) == 3)
        assert answers(engine) == {
            1: ["", "stream_exists", ""], 2: ["", ""], 3: ["stream_not_found"],
        }  # fmt: skip
        assert seen_by_control(engine) == ["BTCUSDT", "BTCUSDT", "DOGE"]
        status = engine.supervisor.status
        await until(lambda: all(report.state == "live" for report in status().streams))
        assert [event["slots"] for event in engine.events("shard-1", "stop")] == [[2, 3]]

    run(layout, scenario, targets=TARGETS)


def test_rows_of_removed_streams_count_to_the_last(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().rows_by_kind() == {"trade": 10, "book": 5})
        command(engine, RemoveStreams(1, STREAMS))
        await until(lambda: engine.supervisor.status().streams == [])
        await until(lambda: engine.supervisor.status().rows_by_kind() == {"trade": 14, "book": 7})

    run(layout, scenario, targets=TARGETS)


def test_commands_to_a_dead_shard_are_obeyed_by_its_successor(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.events("shard-1", "streams"))
        shard = engine.supervisor.status().shards[1].child
        os.kill(shard.pid, signal.SIGKILL)
        command(engine, AddStreams(1, [StreamRequest(SOL)]), RemoveStreams(2, [STREAMS[2]]))
        await until(lambda: len(answers(engine)) == 2)
        await until(lambda: engine.supervisor.status().status == "green")
        assert [report.symbol for report in engine.supervisor.status().streams][-1] == "SOLUSDT"
        await until(lambda: len(engine.events("shard-1", "born")) == 2)
        await until(lambda: engine.supervisor.status().streams[-1].state == "live")

    run(layout, scenario, targets=TARGETS)


def test_a_full_disk_holds_up_the_new_stream_and_nothing_else(layout: Layout) -> None:
    """Its slot was written and its instrument does not fit."""

    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "green")
        slot_bytes = len(layout.slots.read_bytes().splitlines(keepends=True)[0])
        with full_at(layout.slots.stat().st_size + slot_bytes + 10):
            command(engine, AddStreams(1, [StreamRequest(SOL)]))
            await until(lambda: engine.supervisor.status().status == "red")
            assert "the stream table cannot be written" in engine.supervisor.status().reason
            await until(lambda: answers(engine) == {1: [""]})
        await until(
            lambda: [report.state for report in engine.supervisor.status().streams] == ["live"] * 4
        )
        status = engine.supervisor.status()
        assert [shard.child.restart_count for shard in status.shards] == [0, 0]
        assert await engine.supervisor.stop()

    run(layout, scenario, targets=TARGETS)


@pytest.mark.fault("H02")
def test_known_instruments_begin_while_the_venues_answer_nothing(layout: Layout) -> None:
    """Neither their streams nor other kinds of them wait for a listing; new ones say why."""
    ticker = StreamKey("binance_linear", "BTCUSDT", StreamKind.TICKER)

    async def first(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "green")

    async def second(engine: Engine) -> None:
        engine.part("no-listings")
        await engine.supervisor.start()
        status = engine.supervisor.status
        command(engine, AddStreams(1, [StreamRequest(ticker), StreamRequest(SOL)]))
        await until(lambda: [r.state for r in status().streams] == ["live"] * 4 + ["pending"])
        await until(lambda: status().streams[-1].reason.startswith("instruments: HTTP 418"))
        (layout.state_dir / "part.no-listings").unlink()
        os.kill(status().control.pid, signal.SIGKILL)
        await until(lambda: status().streams[-1].state == "live")
        assert [e["slots"] for e in engine.events("shard-0", "stop")] == []

    run(layout, first, targets=TARGETS)
    run(layout, second, targets=TARGETS)


@pytest.mark.fault("A10")
def test_a_symbol_that_nobody_lists_is_looked_for_and_begins_once_it_is_listed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_starts, "_AGAIN_AFTER_S", 0.1)
    new = StreamKey("binance_linear", "NEWUSDT", StreamKind.TRADES)

    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        status = engine.supervisor.status
        command(engine, AddStreams(1, [StreamRequest(new)]))
        await until(lambda: status().streams[-1].state == "failed")
        await until(lambda: len(engine.events("control", "wanted")) > 1)
        assert {e["venue"] for e in engine.events("control", "wanted")} == {"binance_linear"}
        listed = Instrument(new.venue, new.symbol, 4, 3)
        command(engine, ListingLoaded(new.venue, [listed], []))
        await until(lambda: status().streams[-1].state == "live")
        assert next(e.instrument for e in Slots(layout.slots) if e.key == new) == listed
        states = [report.state for report in status().streams]
        assert states == ["live"] * 4, "what runs goes on, though it is listed no more"

    run(layout, scenario, targets=TARGETS)


def test_streams_that_wait_for_a_listing_can_be_removed(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("no-listings")
        await engine.supervisor.start()
        status = engine.supervisor.status
        command(engine, AddStreams(1, [StreamRequest(SOL)]), RemoveStreams(2, [SOL, STREAMS[0]]))
        await until(lambda: answers(engine) == {1: [""], 2: ["", ""]})
        os.kill(status().shards[0].child.pid, signal.SIGKILL)
        await until(lambda: status().shards[0].child.restart_count == 1)
        listed = [Instrument("binance_linear", symbol, 2, 3) for symbol in ("BTCUSDT", "SOLUSDT")]
        command(engine, ListingLoaded("binance_linear", listed, []))
        await until(lambda: [r.state for r in status().streams] == ["live", "pending"])
        assert engine.events("shard-0", "streams")[0]["slots"] == [1]
        assert engine.events("shard-0", "stop") == engine.events("shard-1", "streams") == []

    run(layout, scenario, targets=TARGETS)


def test_knobs_reach_the_writer_and_its_successor(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        quiet = Knobs(db_writes_enabled=False)
        off = KnobChanges(db_writes_enabled=False)
        command(engine, SetKnobs(1, STREAMS[1], off), SetKnobs(2, SOL, off))
        await until(lambda: len(answers(engine)) == 2)
        assert answers(engine) == {1: [""], 2: ["stream_not_found"]}
        await until(lambda: [1] in [event["off"] for event in engine.events("writer", "knobs")])
        assert engine.supervisor.status().streams[1].knobs == quiet
        os.kill(engine.supervisor.status().writer.child.pid, signal.SIGKILL)
        await until(lambda: len(engine.events("writer", "knobs")) == 3)
        assert engine.events("writer", "knobs")[-1]["off"] == [1]

    run(layout, scenario, targets=TARGETS)


@pytest.mark.fault("A10")
def test_a_thousand_crossing_commands_end_as_the_last_one_says(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        for number in range(500):
            command(
                engine,
                AddStreams(2 * number, [StreamRequest(SOL)]),
                RemoveStreams(2 * number + 1, [SOL]),
            )
        command(engine, AddStreams(1000, [StreamRequest(SOL)]))
        await until(lambda: 1000 in answers(engine))
        assert set(map(tuple, answers(engine).values())) == {("",)}
        assert seen_by_control(engine)[-1] == "SOLUSDT"
        status = engine.supervisor.status()
        shard = f"shard-{status.streams[-1].shard}"
        await until(lambda: sum(3 in e["slots"] for e in engine.events(shard, "streams")) == 501)
        await until(lambda: sum(3 in e["slots"] for e in engine.events(shard, "stop")) == 500)
        assert len(Slots(layout.slots)) == 4, "one slot, however often"

    run(layout, scenario, targets=TARGETS)


def test_everything_killed_resumes_on_another_number_of_shards(layout: Layout) -> None:
    async def first(engine: Engine) -> None:
        await engine.supervisor.start()
        command(
            engine,
            AddStreams(1, [StreamRequest(SOL, Knobs(flush_rows=9)), StreamRequest(DOGE)]),
            RemoveStreams(2, [STREAMS[0]]),
        )
        await until(lambda: len(answers(engine)) == 2)
        engine.supervisor.kill()

    async def second(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "green")
        reports = engine.supervisor.status().streams
        assert {report.symbol: report.knobs.flush_rows for report in reports} == {
            "BTCUSDT": None, "ETH": None, "SOLUSDT": 9, "DOGE": None,
        }  # fmt: skip
        assert [report.kind for report in reports if report.symbol == "BTCUSDT"] == ["L2Book"]
        assert {report.shard for report in reports} == {0}

    run(layout, first, targets=TARGETS)
    (layout.state_dir / "commands.jsonl").unlink()
    run(layout, second, targets=TARGETS, cpus=[None])


def test_an_engine_without_streams_waits_for_commands(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        await engine.supervisor.start()
        await until(lambda: engine.supervisor.status().status == "green")
        assert engine.supervisor.status().reason == "no stream is wanted yet"
        command(engine, AddStreams(1, [StreamRequest(SOL)]))
        await until(lambda: [r.state for r in engine.supervisor.status().streams] == ["live"])

    run(layout, scenario, targets=TARGETS, streams=[])


def test_refused_streams_do_not_end_an_engine_that_takes_commands(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("unlisted")
        await engine.supervisor.start()
        command(engine, AddStreams(1, [StreamRequest(SOL)]))
        await until(lambda: [r.state for r in engine.supervisor.status().streams] == ["failed"])
        await until(lambda: engine.supervisor.status().status == "red")
        assert not engine.supervisor.failed.done()

    run(layout, scenario, targets=TARGETS, streams=[])


def test_listings_wait_until_a_writer_has_stored_them(layout: Layout) -> None:
    async def scenario(engine: Engine) -> None:
        engine.part("forgetful")
        await engine.supervisor.start()
        instrument = Instrument("acme", "A", 2, 3)
        event = InstrumentEvent("acme", "A", "listed")
        command(engine, ListingLoaded("acme", [instrument], [event]))
        await until(lambda: told(engine) == 1)
        (layout.state_dir / "part.forgetful").unlink()
        os.kill(engine.supervisor.status().writer.child.pid, signal.SIGKILL)
        await until(lambda: told(engine) == 2)
        os.kill(engine.supervisor.status().writer.child.pid, signal.SIGKILL)
        await until(lambda: len(engine.events("writer", "born")) == 3)
        await until(lambda: engine.supervisor.status().status == "green")
        assert told(engine) == 2

    def told(engine: Engine) -> int:
        return sum(each["venue"] == "acme" for each in engine.events("writer", "listing"))

    run(layout, scenario, targets=TARGETS, urls={"database": Secret("postgresql:///none")})
