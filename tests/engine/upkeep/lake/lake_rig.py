"""A database with rows of every kind on two days, and how to compare two databases row by row."""

import datetime as dt
from pathlib import Path
from typing import Any

from engine.data.kinds import KINDS
from engine.database.session import IMPORT, session
from engine.upkeep.lake.export import TABLES, Exported, Wish, export_day
from engine.upkeep.lake.importing import Imported, import_lake
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.verify import check
from tests.stores import execute, select

FIRST, EMPTY, LAST = (dt.date(2026, 11, day) for day in (20, 21, 22))
DAYS = (FIRST, EMPTY, LAST)
ODD_SYMBOL = "币安=A/B人 %生"

_INSTRUMENTS = f"""
    INSERT INTO instrument VALUES
        (1, 'acme', 'BTC', 1, 'BTC', 'USD', 2, 3, 0.01, 0.001, 0.10, 0.001, 1, 'on', '2026-01-01'),
        (2, 'acme', 'BTC', 2, 'BTC', 'USD', 5, 0, 0.00001, 1, 0.1, NULL, 1, 'on', '2026-11-20'),
        (3, 'acme', '{ODD_SYMBOL}', 1, '', '', 0, 15, 1, 1e-15, NULL, NULL, NULL, '', '2026-01-01'),
        (4, 'other one', 'BTC', 1, 'BTC', 'USD', 15, 0, 1e-15, 1, 1, 1, 1, 'live', '2026-01-01')
"""
_STREAMS = """
    INSERT INTO stream VALUES
        (11, 1, 'Trades', 'Ws'), (12, 2, 'Trades', 'Ws'), (13, 3, 'Trades', 'Ws'),
        (14, 4, 'Trades', 'HttpPoll'), (15, 4, 'L2Book', 'Ws'), (16, 1, 'L2Book', 'Ws')
"""
_SIDES = {"trade": "BS", "book": "ba-", "liquidation": "BS"}


def fill(url: str, rows_a_day: int = 700) -> None:
    """Instruments with versions, and rows of every kind on `FIRST` and `LAST`."""
    for table in TABLES:
        for day in (FIRST, LAST):
            execute(url, f"SELECT make_day('{table}', '{day}')")
    rows = [_insert(table, day, rows_a_day, 1) for table in TABLES for day in (FIRST, LAST)]
    execute(url, _INSTRUMENTS, _STREAMS, *rows, *_coverage())


def add_rows(url: str, table: str, day: dt.date, count: int, first: int = 1) -> None:
    """Rows numbered from `first`."""
    execute(url, _insert(table, day, count, first))


def _insert(table: str, day: dt.date, count: int, first: int) -> str:
    """Numbers of all sizes and signs, 0 among them."""
    values = []
    for column in KINDS[table].columns:
        name = column.name
        if name == "time":
            value = f"timestamptz '{day} 00:00:00+00' + n % 86400 * interval '1.000001 second'"
        elif name == "time_sub_us":
            value = "n % 1000"
        elif name == "ts_recv":
            value = "1795132800000000000 + n * 1000000007::int8"
        elif name == "stream_id":
            strangers = "0, " if table == "gap" else ""
            value = f"(ARRAY[{strangers}11, 12, 13, 14, 15, 16])[1 + n % {7 if strangers else 6}]"
        elif name == "side":
            sides = _SIDES[table]
            value = f"substr('{sides}', 1 + n % {len(sides)}, 1)::\"char\""
        elif column.pg_type == "int8":
            value = (
                "CASE n % 5 WHEN 0 THEN 0 WHEN 1 THEN n WHEN 2 THEN 9223372036854775807"
                f" - n WHEN 3 THEN -n ELSE n * {len(name) * 1_000_003}::int8 END"
            )
        else:
            value = "n % 120"
        values.append(value)
    names = ", ".join(column.name for column in KINDS[table].columns)
    return (
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values)}"
        f" FROM generate_series({first}::int, {first + count - 1}) AS n"
    )


def _coverage() -> tuple[str, ...]:
    """Intervals that ended, that last for days, and that nobody has ended."""
    day = int(dt.datetime(2026, 11, 20, tzinfo=dt.UTC).timestamp()) * 10**9
    hour = 3_600 * 10**9
    return (
        f"""INSERT INTO coverage
        (stream_id, slot, ring, epoch, carrier, started, ended, "end", since)
        VALUES (11, 1, 'a/0.coverage', 5, 6, {day + hour}, {day + 2 * hour}, 2, NULL),
            (11, 1, 'a/0.coverage', 5, 7, {day + 2 * hour + 5}, {day + 50 * hour}, 1, {day + hour}),
            (14, 2, 'a/0.coverage', 5, 8, {day + 3 * hour}, NULL, NULL, NULL)""",
        f"INSERT INTO coverage_carrier VALUES ('a/0.coverage', 5, 8, {day + 60 * hour})",
    )


def export(url: str, folder: Path | str, wish: Wish | None = None) -> list[Exported]:
    """All three days."""
    with session(url, IMPORT) as connection:
        place = LakePlace(str(folder))
        with place.alone():
            return [
                each for day in DAYS for each in export_day(connection, place, day, wish or Wish())
            ]


def bring_back(url: str, folder: Path | str) -> list[Imported]:
    """Import all of a lake."""
    with session(url, IMPORT) as connection:
        return list(import_lake(connection, LakePlace(str(folder))))


def problems(folder: Path | str) -> list[str]:
    """What a verification finds."""
    return list(check(LakePlace(str(folder))))


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, with what its stream is in place of its id, in order."""
    found = {}
    for table in TABLES:
        names = ", ".join(
            f"t.{column.name}" for column in KINDS[table].columns if column.name != "stream_id"
        )
        found[table] = select(url, f"SELECT {_STREAM}, {names} FROM {table} AS t {_JOIN}")
    found["coverage"] = select(
        url,
        f'SELECT {_STREAM}, t.slot, t.ring, t.epoch, t.carrier, t.started, t.ended, t."end",'
        f" t.since, k.heard FROM coverage AS t {_JOIN}"
        " LEFT JOIN coverage_carrier AS k USING (ring, epoch, carrier)",
    )
    return {table: sorted(rows, key=repr) for table, rows in found.items()}


_STREAM = (
    "i.venue, i.symbol, i.version, i.base, i.price_decimals, i.qty_decimals, i.price_unit,"
    " i.qty_unit, i.tick_size, i.lot_size, i.contract_size, i.status, i.valid_from, s.kind,"
    " s.transport"
)
_JOIN = "LEFT JOIN stream AS s USING (stream_id) LEFT JOIN instrument AS i USING (instrument_id)"
