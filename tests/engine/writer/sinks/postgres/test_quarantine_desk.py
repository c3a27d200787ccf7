"""Rows leave quarantine once: stored, with their gap repaired, or dropped, with their gap left."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import uvloop

from engine.base.errors import QuarantineError
from engine.data.flags import GapState
from engine.data.instrument import Instrument
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.writer.rows.quarantine import Quarantine
from engine.writer.sinks.postgres.quarantine.desk import QuarantineDesk, Retried
from tests.engine.writer.bench import Bench, all_delivered, run
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.stores import execute, select
from tests.waiting import until

pytestmark = pytest.mark.fault("N05")
_ROOT = Path(__file__).parents[5]
_GAPS = "SELECT from_seq, to_seq, missing, state FROM gaps ORDER BY from_seq"
_ONCE = "SELECT count(*), count(DISTINCT trade_id) FROM trade"


@pytest.fixture
def bench(layout: Layout, slots: Slots) -> Iterator[Bench]:
    del slots
    bench = Bench(layout, TRADE, BOOK, GAP)
    yield bench
    bench.close()


@pytest.fixture
def refused(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    """Rows 10 to 12 and 20 of one stream are in quarantine, refused by a constraint."""
    execute(
        database_url, "ALTER TABLE trade ADD CONSTRAINT no CHECK (trade_id NOT IN (10, 11, 12, 20))"
    )
    rows = trades(40)
    rows["stream"] = 1
    bench.put(rows)
    delivery = bench.delivery(make_settings(database_url=database_url))
    run(delivery, all_delivered(delivery))
    assert delivery.refused_rows == {"trade": 4}


def at_desk(layout: Layout, url: str, body: Callable[[QuarantineDesk], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        desk = await QuarantineDesk.open(layout, url)
        try:
            return await body(desk)
        finally:
            await desk.close()

    return uvloop.run(main())


async def retry_all(desk: QuarantineDesk) -> Retried:
    return await desk.retry([kept.row for kept in await desk.rows()])


async def waiting(desk: QuarantineDesk) -> list[int]:
    return [kept.row.seq for kept in await desk.rows() if kept.state is GapState.OPEN]


def test_a_file_that_cannot_be_read_stops_no_writer_and_is_named_at_the_desk(
    bench: Bench, layout: Layout, database_url: str, make_settings: MakeSettings,
    trades: MakeTrades, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Of another owner, or on a failing disk; root can read all but a directory."""
    path = layout.quarantine_dir / "trade-2026-01-01.jsonl"
    path.mkdir(parents=True)
    bench.put(trades(40))
    delivery = bench.delivery(make_settings(database_url=database_url))
    run(delivery, all_delivered(delivery))
    assert select(database_url, _ONCE) == [(40, 40)]
    assert str(path) in caplog.text
    with pytest.raises(QuarantineError, match=path.name):
        at_desk(layout, database_url, waiting)


@pytest.mark.usefixtures("refused")
def test_what_is_tried_again_is_stored_once_and_its_gaps_are_repaired(
    layout: Layout, database_url: str
) -> None:
    assert select(database_url, _GAPS) == [(10, 12, 3, "open"), (20, 20, 1, "open")]
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    done = at_desk(layout, database_url, retry_all)
    assert [row.seq for row in done.stored] == [10, 11, 12, 20]
    assert not done.refused
    assert not at_desk(layout, database_url, retry_all).stored, "there is nothing left to store"
    assert select(database_url, _ONCE) == [(40, 40)]
    assert select(database_url, _GAPS) == [(10, 12, 3, "repaired"), (20, 20, 1, "repaired")]
    price = "SELECT price::text, quantity::text FROM trades WHERE trade_id = 11"
    assert select(database_url, price) == [("81000.11", "0.012")]


@pytest.mark.usefixtures("refused")
def test_what_is_still_refused_stays(layout: Layout, database_url: str) -> None:
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id <> 11)")
    done = at_desk(layout, database_url, retry_all)
    assert [row.seq for row in done.stored] == [10, 12, 20]
    ((row, error),) = done.refused
    assert row.seq == 11
    assert error.startswith("23514")
    assert select(database_url, _GAPS) == [(10, 12, 1, "open"), (20, 20, 1, "repaired")]
    assert at_desk(layout, database_url, waiting) == [11]


@pytest.mark.usefixtures("refused")
def test_a_table_that_refuses_all_of_them_keeps_all_of_them(
    layout: Layout, database_url: str
) -> None:
    done = at_desk(layout, database_url, retry_all)
    assert not done.stored
    assert len(done.refused) == 4
    assert select(database_url, _ONCE) == [(36, 36)]
    assert {row[3] for row in select(database_url, _GAPS)} == {"open"}


@pytest.mark.usefixtures("refused")
def test_what_is_dropped_stays_missing(layout: Layout, database_url: str) -> None:
    async def drop_some(desk: QuarantineDesk) -> int:
        rows = [kept.row for kept in await desk.rows()]
        return await desk.drop(rows[2:])

    assert at_desk(layout, database_url, drop_some) == 2
    assert select(database_url, _GAPS) == [(10, 12, 3, "open"), (20, 20, 1, "unrecoverable")]
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    assert len(at_desk(layout, database_url, retry_all).stored) == 2, "dropped is dropped"
    assert select(database_url, _GAPS) == [
        (10, 12, 1, "unrecoverable"),
        (20, 20, 1, "unrecoverable"),
    ]
    assert at_desk(layout, database_url, drop_some) == 0


@pytest.mark.usefixtures("refused")
def test_two_who_try_at_once_store_each_row_once(layout: Layout, database_url: str) -> None:
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")

    async def both() -> list[Retried]:
        desks = [await QuarantineDesk.open(layout, database_url) for _ in range(3)]
        found = await asyncio.gather(*(retry_all(desk) for desk in desks))
        for desk in desks:
            await desk.close()
        return found

    assert sum(len(done.stored) for done in uvloop.run(both())) == 4
    assert select(database_url, _ONCE) == [(40, 40)]
    assert {row[3] for row in select(database_url, _GAPS)} == {"repaired"}


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from engine.data.layout import open_layout
from engine.writer.sinks.postgres.quarantine import table as quarantine_table
from engine.writer.sinks.postgres.quarantine.desk import QuarantineDesk

settle = quarantine_table.settle
async def settle_and_die(*arguments):
    await settle(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
async def main(state_dir, shm_dir, url, when):
    if when == "before":
        quarantine_table.settle = settle_and_die
    desk = await QuarantineDesk.open(open_layout(Path(state_dir), Path(shm_dir)), url)
    await desk.retry([kept.row for kept in await desk.rows()])
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(("when", "left"), [("before", 4), ("after", 0)])
def test_killed_at_its_commit_a_retry_is_done_or_not_begun(
    layout: Layout, database_url: str, when: str, left: int
) -> None:
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            _KILLED,
            layout.state_dir,
            layout.shm_dir.parent,
            database_url,
            when,
        ],
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        check=False,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(at_desk(layout, database_url, waiting)) == left
    assert len(at_desk(layout, database_url, retry_all).stored) == left
    assert select(database_url, _ONCE) == [(40, 40)]
    assert {row[3] for row in select(database_url, _GAPS)} == {"repaired"}


def test_a_row_of_nobodys_slot_is_stored_once_the_stream_is_known(
    bench: Bench, layout: Layout, slots: Slots, database_url: str,
    make_settings: MakeSettings, trades: MakeTrades,
) -> None:  # fmt: skip
    rows = trades(4)
    rows["stream"][2] = len(slots)
    bench.put(rows)
    delivery = bench.delivery(make_settings(database_url=database_url))
    run(delivery, all_delivered(delivery))
    assert "stream table" in at_desk(layout, database_url, retry_all).refused[0][1]
    entry = slots.assign(StreamKey("acme", "NEW", StreamKind.TRADES))
    slots.describe(entry.slot, Instrument("acme", "NEW", 2, 3))
    assert len(at_desk(layout, database_url, retry_all).stored) == 1
    assert select(database_url, "SELECT symbol FROM trades WHERE trade_id = 2") == [("NEW",)]
    assert [row[3] for row in select(database_url, _GAPS)] == ["repaired"]


def test_a_price_that_is_no_number_is_never_stored(
    bench: Bench, layout: Layout, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    rows = trades(4)
    rows["price"][1], rows["qty"][2] = np.nan, -np.inf
    bench.put(rows)
    delivery = bench.delivery(make_settings(database_url=database_url))
    run(delivery, all_delivered(delivery))
    done = at_desk(layout, database_url, retry_all)
    assert len(done.refused) == 2
    assert not done.stored


def _as_the_version_before_wrote_it(layout: Layout) -> None:
    """Its lines did not name a gap."""
    for path in layout.quarantine_dir.glob("*.jsonl"):
        lines = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        for line in lines:
            del line["detected"]
        path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in [*lines, *lines]))


@pytest.mark.usefixtures("refused")
def test_rows_of_the_version_before_are_declared_and_can_be_stored(
    layout: Layout, bench: Bench, database_url: str, make_settings: MakeSettings
) -> None:
    """In no gap, in no table, and twice in the file, as a crash left them."""
    _as_the_version_before_wrote_it(layout)
    execute(database_url, "TRUNCATE gap, quarantined_row")
    (layout.quarantine_dir / "trade-2026-11-28.jsonl").touch()
    delivery = bench.delivery(make_settings(database_url=database_url))

    async def connected() -> None:
        await until(lambda: delivery.trouble.state == "up")

    run(delivery, connected)
    assert delivery.sink.set_aside == {"trade": 4}
    assert select(database_url, _GAPS) == [(10, 12, 3, "open"), (20, 20, 1, "open")]
    assert len(at_desk(layout, database_url, waiting)) == 4, "and not once more"
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    assert len(at_desk(layout, database_url, retry_all).stored) == 4
    assert select(database_url, _ONCE) == [(40, 40)]


@pytest.mark.usefixtures("refused")
def test_a_row_of_the_version_before_that_was_stored_after_all_is_left_alone(
    layout: Layout, database_url: str
) -> None:
    """Its writer died between file and commit, and the row was taken at the second attempt."""
    execute(database_url, "ALTER TABLE trade DROP CONSTRAINT no")
    at_desk(layout, database_url, retry_all)
    _as_the_version_before_wrote_it(layout)
    execute(database_url, "TRUNCATE gap, quarantined_row")
    execute(database_url, "DELETE FROM trade WHERE trade_id = 11")
    assert at_desk(layout, database_url, waiting) == [11]
    assert select(database_url, _GAPS) == [(11, 11, 1, "open")]


@pytest.mark.usefixtures("refused")
def test_lines_that_are_no_rows_are_nobodys_trouble(layout: Layout, database_url: str) -> None:
    (path,) = layout.quarantine_dir.glob("*.jsonl")
    whole = path.read_bytes()
    bad = whole.replace(b'"trade_id":10', b'"trade_id":"ten"').splitlines()[0]
    path.write_bytes(b'\xff\n{"table":1}\n[]\n' + whole.replace(b'"trade"', b'"t"') + whole[:-20])
    assert at_desk(layout, database_url, waiting) == [10, 11, 12]
    path.write_bytes(bad + b"\n" + whole[len(bad) + 1 :])
    done = at_desk(layout, database_url, retry_all)
    assert "its line is damaged" in [error for _, error in done.refused]


@pytest.mark.usefixtures("refused")
def test_half_a_line_spoils_only_itself(
    layout: Layout, bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    """A crash or a full disk leaves one; the next row begins on a line of its own."""
    (path,) = layout.quarantine_dir.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"table":"trade","ring":')
    rows = trades(8, first_id=100)
    rows["price"][3] = np.nan
    bench.put(rows)
    delivery = bench.delivery(make_settings(database_url=database_url))
    run(delivery, all_delivered(delivery))
    seqs = [row.seq for row in Quarantine(layout.quarantine_dir).read()]
    assert seqs == [10, 11, 12, 20, 43]


def test_another_instance_in_the_same_database_is_left_alone(
    refused: None, layout: Layout, database_url: str, tmp_path: Path
) -> None:
    del refused
    other = open_layout(tmp_path / "other", tmp_path / "shm")
    assert at_desk(other, database_url, waiting) == []
    assert len(at_desk(layout, database_url, waiting)) == 4
