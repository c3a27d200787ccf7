"""A database is lost with all backups; what a lake and the journal have fills the next one."""

import datetime as dt
import shutil
from pathlib import Path

from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.database.session import IMPORT, session
from engine.upkeep.lake.export import Wish, export_day
from engine.upkeep.lake.importing import import_lake
from engine.upkeep.lake.place import LakePlace
from tests.engine.writer.conftest import START_NS, MakeTrades
from tests.engine.writer.loss_rig import deliver, receive
from tests.stores import select

DAY = dt.datetime.fromtimestamp(START_NS // 10**9, dt.UTC).date()
ROWS = 300


def test_rows_that_both_have_are_there_once(
    layout: Layout,
    slots: Slots,
    database_url: str,
    other_database_url: str,
    trades: MakeTrades,
    tmp_path: Path,
) -> None:
    """The journal keeps its open segment, whose rows the lost database had and the lake has."""
    del slots
    receive(layout, trades(ROWS), ring_stays=False)
    kept, lake = tmp_path / "kept", LakePlace(str(tmp_path / "lake"))
    shutil.copytree(layout.journal_dir, kept)
    deliver(layout, database_url)
    with session(database_url, IMPORT) as connection, lake.alone():
        exported = list(export_day(connection, lake, DAY, Wish(["trade"])))
    assert sum(each.group.rows for each in exported) >= ROWS
    shutil.rmtree(layout.journal_dir)
    kept.rename(layout.journal_dir)
    receive(layout, trades(50, first_id=ROWS), ring_stays=False)
    assert deliver(layout, other_database_url).missed_rows.total() == 0
    with session(other_database_url, IMPORT) as connection:
        list(import_lake(connection, lake))
    stored = select(other_database_url, "SELECT trade_id FROM trade ORDER BY 1")
    assert stored == [(number,) for number in range(ROWS + 50)]
