"""Out of one database, into another: equal row by row, whatever was killed or damaged between."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from engine.database.locks import IMPORTS
from engine.database.session import EXPORT, IMPORT, session
from engine.upkeep.lake import export as exporting
from engine.upkeep.lake import parts
from engine.upkeep.lake.export import TABLES, Wish, export_day
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.raw import LakeError
from tests.conftest import Databases
from tests.engine.full_disk import full_at
from tests.engine.upkeep.lake.lake_rig import (
    FIRST,
    LAST,
    ODD_SYMBOL,
    add_rows,
    bring_back,
    contents,
    export,
    fill,
    problems,
)
from tests.stores import execute, select
from tests.waiting import wait_for


@pytest.fixture
def make_migrated(databases: Databases) -> Iterator[Callable[[], str]]:
    """Databases with our tables and nothing in them."""
    names: list[str] = []

    def make() -> str:
        names.append(databases.make(databases.template()))
        return databases.url(names[-1])

    yield make
    for name in names:
        databases.drop(name)


@pytest.fixture
def filled(make_migrated: Callable[[], str]) -> str:
    """A database with rows of every kind on two days of three."""
    url = make_migrated()
    fill(url)
    return url


def test_rows_come_back_as_they_were(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path
) -> None:
    done = export(filled, tmp_path)
    assert {each.group.kind for each in done} == {*TABLES, "coverage", "instrument"}
    assert {each.group.date for each in done} == {FIRST, LAST}  # nothing of the empty day
    assert {each.group.venue for each in done} == {"acme", "other one", None}
    assert {each.outcome for each in done} == {"written"}
    assert problems(tmp_path) == []

    other = make_migrated()
    # It knows another BTC of version 1, which its own rows keep.
    execute(
        other,
        "INSERT INTO instrument VALUES"
        " (901, 'acme', 'ETH', 1, '', '', 1, 1, 0.1, 0.1, 1, 1, 1, '', now())",
        "INSERT INTO stream VALUES (11, 901, 'Trades', 'Ws')",
        "SELECT setval('stream_stream_id_seq', 50)",
    )
    bring_back(other, tmp_path)
    assert contents(other) == contents(filled)
    assert all(not each.added for each in bring_back(other, tmp_path))
    assert contents(other) == contents(filled)


_MARKET = (
    "UPDATE instrument SET instrument_kind = 'perpetual', venue_kind = 'SWAP',"
    " instrument_state = 'trading',"
    " settle = 'BTC', contract_unit = 'quote', listed_at = '2020-01-01Z'"
    " WHERE instrument_id IN (1, 2)"
)
_BASE = (
    "SELECT i.version, i.contract_unit, sum(t.base_quantity), count(*) FROM trades AS t"
    " JOIN stream USING (stream_id) JOIN instrument AS i USING (instrument_id)"
    " WHERE i.venue = 'acme' AND i.symbol = 'BTC' GROUP BY 1, 2 ORDER BY 1"
)


def test_rows_come_back_with_what_their_contracts_are(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path
) -> None:
    execute(filled, _MARKET)
    expected = select(filled, _BASE)
    assert {unit for _, unit, _, _ in expected} == {"quote"}
    export(filled, tmp_path)
    versions = "SELECT * FROM instrument WHERE symbol = 'BTC' ORDER BY venue, version"
    other = make_migrated()
    bring_back(other, tmp_path)
    assert select(other, _BASE) == expected
    facts = [row[1:] for row in select(filled, versions)]
    assert [row[1:] for row in select(other, versions)] == facts
    (path,) = tmp_path.glob(f"kind=instrument/venue=acme/date={LAST}/*.parquet")
    market = pq.read_table(path, partitioning=None).to_pylist()[0]
    assert market["instrument_kind"] == "perpetual" and market["contract_unit"] == "quote"
    assert market["listed_at"].year == 2020 and market["delivery_at"] is None


def test_versions_that_differ_in_their_contracts_alone_are_two(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path
) -> None:
    """One that does not know gets to know; one that knows otherwise stays."""
    export(filled, tmp_path / "before")
    execute(filled, _MARKET)
    export(filled, tmp_path / "now")
    other = make_migrated()
    bring_back(other, tmp_path / "before")
    assert contents(other) == contents(filled)
    count = "SELECT count(*) FROM instrument"
    execute(other, "UPDATE instrument SET contract_unit = 'base' WHERE price_decimals = 2")
    before = select(other, count)
    bring_back(other, tmp_path / "now")
    units = (
        "SELECT price_decimals, contract_unit FROM instrument"
        " WHERE venue = 'acme' AND symbol = 'BTC' ORDER BY 1, 2"
    )
    assert select(other, units) == [(2, "base"), (2, "quote"), (5, "quote")]
    assert select(other, count)[0][0] == before[0][0] + 1
    added = select(other, "SELECT count(*) FROM trades WHERE symbol = 'BTC'")
    bring_back(other, tmp_path / "now")
    assert select(other, "SELECT count(*) FROM trades WHERE symbol = 'BTC'") == added


def test_rows_that_came_back_are_found_by_symbol_and_have_bars_to_be_made(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path
) -> None:
    export(filled, tmp_path)
    other = make_migrated()
    # The writer had its first session: spans say where rows are, minutes whose bars are to be made.
    execute(other, "SELECT begin_row_spans()", "UPDATE bar_state SET is_marked = true")
    bring_back(other, tmp_path)
    asked = f"FROM trades('acme', 'BTC', '{FIRST}', '{LAST}')"
    expected = select(
        filled,
        "SELECT count(*), sum(quantity) FROM trades WHERE venue = 'acme' AND symbol = 'BTC'"
        f" AND time >= '{FIRST}' AND time < '{LAST}'",
    )
    assert select(other, f"SELECT count(*), sum(quantity) {asked}") == expected
    assert expected[0][0] > 0
    minutes = "SELECT DISTINCT date_trunc('minute', time) AS minute FROM trade ORDER BY 1"
    assert select(other, "SELECT DISTINCT minute FROM bar_todo ORDER BY 1") == select(
        filled, minutes
    )
    marks = select(other, "SELECT count(*) FROM bar_todo")
    bring_back(other, tmp_path)
    assert select(other, "SELECT count(*) FROM bar_todo") == marks, "nothing came"


def test_an_export_that_is_repeated_leaves_alone_what_is_there(filled: str, tmp_path: Path) -> None:
    export(filled, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert {each.outcome for each in export(filled, tmp_path)} == {"there"}
    add_rows(filled, "trade", LAST, 30, first=9_001)
    changed = [each.group for each in export(filled, tmp_path) if each.outcome == "written"]
    assert {(group.kind, group.date) for group in changed} == {("trade", LAST)}
    assert {path for path, at in files.items() if path.stat().st_mtime_ns != at} == {
        tmp_path / part.file for group in changed for part in group.parts
    }
    assert problems(tmp_path) == []


def test_rows_are_sorted_by_symbol_time_and_id_also_across_files(
    filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PART_ROWS", 250)
    export(filled, tmp_path)
    folder = tmp_path / f"kind=trade/venue=acme/date={FIRST}"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"part-{n:05}.parquet" for n in range(len(names))]
    assert len(names) > 1
    rows = pa.concat_tables(pq.read_table(folder / name) for name in names)
    keys = list(
        zip(
            rows.column("symbol").to_pylist(), rows.column("time").cast(pa.int64()).to_pylist(),
            rows.column("trade_id_hi").to_pylist(), rows.column("trade_id").to_pylist(),
            strict=True,
        )
    )  # fmt: skip
    assert keys == sorted(keys)
    assert {key[0] for key in keys} == {"BTC", ODD_SYMBOL}


def test_a_database_that_has_some_of_the_rows_gets_the_others(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path
) -> None:
    export(filled, tmp_path)
    other = make_migrated()
    bring_back(other, tmp_path)
    for table in TABLES:
        execute(other, f"DELETE FROM {table} WHERE ts_recv % 3 = 0")
    add_rows(other, "trade", FIRST, 5, first=50_001)  # its own
    own = select(other, "SELECT * FROM trade WHERE ts_recv > 1795132800000000000 + 50000000350007")
    bring_back(other, tmp_path)
    assert len(own) == 5
    execute(other, "DELETE FROM trade WHERE ts_recv > 1795132800000000000 + 50000000350007")
    assert contents(other) == contents(filled)


@pytest.mark.parametrize("flipped_at", [0.3, 0.99])
def test_a_flipped_bit_is_found_and_not_imported(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path, flipped_at: float
) -> None:
    export(filled, tmp_path)
    [file] = (tmp_path / f"kind=trade/venue=acme/date={LAST}").iterdir()
    body = bytearray(file.read_bytes())
    body[int(len(body) * flipped_at)] ^= 16
    file.write_bytes(body)
    [problem] = problems(tmp_path)
    assert str(file.relative_to(tmp_path)) in problem
    assert "SHA-256" in problem
    other = make_migrated()
    with pytest.raises(LakeError, match="nothing of trade of acme on 2026-11-22 was imported"):
        bring_back(other, tmp_path)


def test_a_file_that_was_written_wrong_is_found_by_what_is_in_it(
    filled: str, tmp_path: Path
) -> None:
    """A digest says that a file is as it was written; only the rows say that it was right."""
    export(filled, tmp_path)
    name = f"kind=quote/venue=acme/date={FIRST}/part-00000.parquet"
    table = pq.read_table(tmp_path / name, partitioning=None)
    pq.write_table(table.slice(1), tmp_path / name)
    manifest = tmp_path / f"_manifest/kind=quote/venue=acme/date={FIRST}.json"
    said = json.loads(manifest.read_text())
    said["parts"][0]["sha256"] = parts.file_digest(tmp_path / name)
    manifest.write_text(json.dumps(said))
    [problem] = problems(tmp_path)
    assert f"{name}: rows {table.num_rows - 1}, and not {table.num_rows}, checksum" in problem


def test_what_is_gone_and_what_does_not_belong_is_found(filled: str, tmp_path: Path) -> None:
    export(filled, tmp_path)
    gone = tmp_path / f"kind=book/venue=acme/date={FIRST}/part-00000.parquet"
    gone.rename(gone.with_name("part-00007.parquet"))
    assert problems(tmp_path) == [
        f"kind=book/venue=acme/date={FIRST}/part-00000.parquet: it is gone",
        f"kind=book/venue=acme/date={FIRST}/part-00007.parquet: no manifest names it; the next"
        " export of its day replaces it",
    ]
    assert "written" in {each.outcome for each in export(filled, tmp_path)}
    assert problems(tmp_path) == []
    with pytest.raises(LakeError, match="is no lake"):
        problems(tmp_path / "kind=book")


def test_a_lake_keeps_what_the_database_has_dropped(filled: str, tmp_path: Path) -> None:
    export(filled, tmp_path)
    execute(filled, "DELETE FROM trade WHERE trade_id % 2 = 0", "TRUNCATE book")
    done = {(each.group.kind, each.group.venue): each for each in export(filled, tmp_path)}
    assert ("book", "acme") not in done
    assert done["trade", "acme"].outcome == "there"  # what is left is in the lake
    assert done["trade", "acme"].group.rows > sum(one.rows for one in done["trade", "acme"].sums)
    assert problems(tmp_path) == []


def test_what_the_database_has_dropped_stays_when_more_has_come(
    filled: str, tmp_path: Path
) -> None:
    """A running day of which hours go while others come."""
    export(filled, tmp_path)
    before = export(filled, tmp_path, Wish(["trade"]))[0].group
    execute(filled, f"DELETE FROM trade WHERE time < timestamptz '{FIRST} 00:02:00+00'")
    add_rows(filled, "trade", FIRST, 1000, first=10_001)
    done = export(filled, tmp_path, Wish(["trade"]))[0]
    assert done.outcome == "added"
    assert done.group.rows > before.rows
    [old, _] = done.group.parts
    assert [old] == before.parts
    assert problems(tmp_path) == []
    execute(filled, "UPDATE gap SET to_ts = to_ts + 1")  # which is no other gap
    gaps = export(filled, tmp_path, Wish(["gap"]))
    assert {each.outcome for each in gaps if each.group.kind == "gap"} == {"written"}


def test_a_file_that_is_gone_is_written_again_from_a_database_that_has_it_all(
    filled: str, tmp_path: Path
) -> None:
    """Also where the rows were about to be dropped."""
    wish = Wish(["trade"], is_archive=True)
    [done, *_] = export(filled, tmp_path, wish)
    (tmp_path / done.group.parts[0].file).unlink()
    assert len(problems(tmp_path)) == 1
    assert export(filled, tmp_path, Wish(["trade"]))[0].outcome == "written"
    assert problems(tmp_path) == []


def test_a_choice_of_symbols_does_not_replace_a_whole_lake(filled: str, tmp_path: Path) -> None:
    [done, *_] = export(filled, tmp_path / "one", Wish(["trade"], symbols=[ODD_SYMBOL]))
    assert done.group.symbols == [ODD_SYMBOL]
    rows = pq.read_table(tmp_path / "one" / done.group.parts[0].file, partitioning=None)
    assert set(rows.column("symbol").to_pylist()) == {ODD_SYMBOL}
    export(filled, tmp_path / "all", Wish(["trade"]))
    with pytest.raises(LakeError, match="choose another directory"):
        export(filled, tmp_path / "all", Wish(["trade"], symbols=["BTC"]))


def test_a_day_that_is_not_over_is_marked_and_exported_again(filled: str, tmp_path: Path) -> None:
    noon = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    wish = Wish(["trade"], now_ns=lambda: int(noon.timestamp()) * 10**9)
    assert {each.group.date: each.group.day_is_over for each in export(filled, tmp_path, wish)} == {
        FIRST: True, LAST: False,
    }  # fmt: skip
    assert {each.group.day_is_over for each in export(filled, tmp_path, Wish(["trade"]))} == {True}


def test_a_day_is_read_in_one_moment(filled: str, tmp_path: Path) -> None:
    """Rows and gaps that are stored between two tables are in neither file."""
    before = {table: len(select(filled, f"SELECT FROM {table}")) for table in TABLES}
    with session(filled, EXPORT) as connection, (place := LakePlace(str(tmp_path))).alone():
        days = export_day(connection, place, LAST, Wish())
        done = [next(days)]
        for table in TABLES:
            add_rows(filled, table, LAST, 10, first=70_001)
        done += days
    rows = dict.fromkeys(TABLES, 0)
    for each in done:
        if each.group.kind in TABLES:
            rows[each.group.kind] += each.group.rows
    assert {table: 2 * count for table, count in rows.items()} == before
    assert problems(tmp_path) == []


def test_two_that_write_into_a_lake_do_not_meet(filled: str, tmp_path: Path) -> None:
    with LakePlace(str(tmp_path)).alone(), pytest.raises(LakeError, match="somebody else writes"):
        export(filled, tmp_path)
    export(filled, tmp_path)
    with session(filled, IMPORT) as first:
        first.execute("SELECT pg_advisory_lock(%s)", (IMPORTS,))
        with pytest.raises(LakeError, match="another import"):
            bring_back(filled, tmp_path)


@pytest.mark.parametrize("size_bytes", [0, 2000, 8000])
def test_a_disk_that_is_full_is_told_and_leaves_a_lake_as_it_was(
    filled: str, tmp_path: Path, size_bytes: int
) -> None:
    wish = Wish(("trade",))
    with session(filled, EXPORT) as connection:
        place = LakePlace(str(tmp_path))
        with place.alone():
            with full_at(size_bytes), pytest.raises(LakeError, match=str(tmp_path)):
                list(export_day(connection, place, FIRST, wish))
            assert [name for name in place.names("") if not name.endswith(".lock")] == []
            list(export_day(connection, place, FIRST, wish))
    assert problems(tmp_path) == []


def kill_in_the_middle(what: str, url: str, folder: Path, calls: int) -> None:
    """Begin, wait until so many batches are on their way, and end the process by force."""
    arguments = ["-P", "-m", "tests.engine.upkeep.lake.killed", what, url, str(folder), str(calls)]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])},
    )  # fmt: skip
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    alive = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'fts-import%'"
    here = f"{alive} AND datname = current_database()"
    wait_for(lambda: not select(url, here), "the server did not see it die")


@pytest.mark.whole
@pytest.mark.parametrize(("calls", "whole_groups"), [(2, 0), (60, 8)])
def test_an_export_that_was_killed_goes_on(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path, calls: int, whole_groups: int
) -> None:
    kill_in_the_middle("export", filled, tmp_path, calls)
    half = [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert len(half) == 1
    if whole_groups:
        assert problems(tmp_path) == []  # what is there is whole
    done = [each.outcome for each in export(filled, tmp_path)]
    assert done.count("there") >= whole_groups
    assert "written" in done
    assert problems(tmp_path) == []
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    other = make_migrated()
    bring_back(other, tmp_path)
    assert contents(other) == contents(filled)


@pytest.mark.whole
@pytest.mark.parametrize("calls", [1, 60])
def test_an_import_that_was_killed_goes_on(
    filled: str, make_migrated: Callable[[], str], tmp_path: Path, calls: int
) -> None:
    export(filled, tmp_path)
    other = make_migrated()
    kill_in_the_middle("import", other, tmp_path, calls)
    stored = sum(len(select(other, f"SELECT FROM {table}")) for table in TABLES)
    added = bring_back(other, tmp_path)
    assert stored + sum(each.added for each in added if each.group.kind in TABLES) == sum(
        len(select(filled, f"SELECT FROM {table}")) for table in TABLES
    )
    assert contents(other) == contents(filled)


def test_a_lake_may_be_elsewhere(
    filled: str,
    make_migrated: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anything that pyarrow has a file system for; here one that is not known to be a directory."""

    def from_uri(address: str) -> tuple[fs.FileSystem, str]:
        return fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), address.split("//")[1]

    known = vars(fs) | {"FileSystem": SimpleNamespace(from_uri=from_uri)}
    monkeypatch.setattr("engine.upkeep.lake.place.fs", SimpleNamespace(**known))
    assert {each.outcome for each in export(filled, "far://bucket/ticks")} == {"written"}
    assert {each.outcome for each in export(filled, "far://bucket/ticks")} == {"there"}
    assert problems("far://bucket/ticks") == []
    assert problems(tmp_path / "bucket/ticks") == []
    other = make_migrated()
    bring_back(other, "far://bucket/ticks")
    assert contents(other) == contents(filled)


def test_days_without_rows_are_no_files(make_migrated: Callable[[], str], tmp_path: Path) -> None:
    url = make_migrated()
    assert export(url, tmp_path) == []
    with session(url, EXPORT) as connection:
        assert exporting.days_of(connection, Wish(), None, None) == []
