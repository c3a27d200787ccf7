"""received = stored + skipped + quarantined + lost + backlog: per kind, at any moment, after any
crash, whatever is refused."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.messages.streams import Knobs
from engine.writer.every_row import EveryRow
from engine.writer.rows.quarantine import Quarantine
from tests.engine.writer.bench import Bench, run
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.engine.writer.loss_rig import RING, deliver, receive
from tests.stores import execute, select
from tests.waiting import until

pytestmark = pytest.mark.fault("N05")
_PROGRAM = "tests.engine.writer.loss_rig"
_ROOT = Path(__file__).parents[3]
ROWS = 2000


@pytest.fixture
def bench(layout: Layout, slots: Slots) -> Iterator[Bench]:
    del slots
    bench = Bench(layout, TRADE, BOOK, GAP)
    yield bench
    bench.close()


def spoil(rows: RecordArray, chance: random.Random) -> None:
    """Some rows that nobody can store, for every reason there is."""
    for place in range(len(rows)):
        match chance.randrange(40):
            case 0:
                rows["price"][place] = np.nan
            case 1:
                rows["qty"][place] = 1e30
            case 2:
                rows["ts_event"][place] = chance.choice([0, 2**62])
            case 3:
                rows["stream"][place] = 4711


def stored_seq(url: str) -> int:
    """How far the cursor is."""
    return int(select(url, "SELECT coalesce(max(sequence), 0) FROM ingest_cursor")[0][0])


def sides(bench: Bench, delivery: EveryRow) -> tuple[Counter[str], Counter[str]]:
    """What was received, and what became of it, by kind."""
    received: Counter[str] = Counter()
    became: Counter[str] = Counter()
    for source in bench.sources:
        received[source.spec.name] += source.head_seq
        became[source.spec.name] += source.backlog_rows
    for counts in (
        delivery.rows, delivery.withheld_rows, delivery.refused_rows,
        delivery.missed_rows,
    ):  # fmt: skip
        became.update(counts)
    return +received, +became


@pytest.mark.parametrize("seed", range(3))
def test_it_holds_at_any_moment(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades,
    books: MakeTrades, seed: int,
) -> None:  # fmt: skip
    """Stored, withheld, refused by us and by the database, and by a table in a bad state."""
    chance = random.Random(seed)
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id % 37 <> 5)")
    settings = make_settings(
        database_url=database_url, knobs={2: Knobs(db_writes_enabled=False)}, flush_interval_s=0.005
    )
    delivery = bench.delivery(settings)
    looks = 0

    async def watch() -> None:
        nonlocal looks
        while True:
            received, became = sides(bench, delivery)
            assert received == became
            looks += 1
            await asyncio.sleep(0)

    async def body() -> None:
        watching = asyncio.create_task(watch())
        for number in range(20):
            rows, levels = trades(chance.randrange(1, 200), first_id=1000 * number), books(20)
            spoil(rows, chance)
            spoil(levels, chance)
            bench.put(rows)
            bench.put(levels)
            if number == 8:
                # Not on this loop: the writer's transaction, which it would wait for, needs it.
                await asyncio.to_thread(
                    execute,
                    database_url,
                    "ALTER TABLE book ADD CONSTRAINT no CHECK (seq < 0) NOT VALID",
                )
            if number == 14:
                await asyncio.to_thread(
                    execute, database_url, "ALTER TABLE book DROP CONSTRAINT no"
                )
            await asyncio.sleep(0.01)
        bench.put(trades(30, first_id=50_000))  # a row is to blame only beside one that is taken
        await until(lambda: watching.done() or delivery.backlog_rows == 0)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert watching.cancelled(), watching.exception()

    run(delivery, body)
    assert looks > 20
    assert delivery.refused_rows["trade"] > 50
    assert delivery.withheld_rows["trade"] > 50
    assert delivery.sink.waits.text == ""
    declared = select(database_url, "SELECT sum(missing) FROM gap WHERE reason = 13")
    assert declared == [(delivery.refused_rows.total(),)]


def test_it_holds_in_the_database_after_any_crash(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    """A writer is killed again and again at random; each id is stored once or in a gap once."""
    del slots
    chance = random.Random(5)
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id % 37 <> 5)")
    rows = trades(ROWS)
    spoil(rows, chance)
    epoch = receive(layout, rows, ring_stays=False)
    arguments = [str(layout.state_dir), str(layout.shm_dir.parent), database_url, "40"]
    killed = 0
    for _ in range(4):
        until_seq = stored_seq(database_url) + chance.randrange(1, ROWS // 6)
        process = subprocess.Popen([sys.executable, "-m", _PROGRAM, *arguments], cwd=_ROOT)
        while stored_seq(database_url) < until_seq and process.poll() is None:
            pass
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed > 0
    deliver(layout, database_url)
    assert select(database_url, "SELECT ring, epoch, sequence FROM ingest_cursor") == [
        (f"{layout.instance}/{RING}", epoch, ROWS)
    ]
    stored = Counter(number for (number,) in select(database_url, "SELECT trade_id FROM trade"))
    declared: Counter[int] = Counter()
    noted = select(database_url, "SELECT sequence FROM quarantined_row")
    for (seq,) in noted:
        declared[seq] += 1
    assert stored + declared == Counter(range(ROWS)), "each once, here or there"
    missing = select(database_url, "SELECT sum(missing) FROM gap WHERE reason = 13")
    assert missing == [(len(noted),)]
    covered = {
        number
        for from_seq, to_seq in select(database_url, "SELECT from_seq, to_seq FROM gap")
        for number in range(from_seq, to_seq + 1)
    }
    assert covered == set(declared), "a gap names exactly what is not there"
    kept = {row.seq for row in Quarantine(layout.quarantine_dir).read()}
    assert kept >= set(declared), "and its content is not lost"
