"""Encoded rows go through a real COPY and come back as the numbers they were."""

import numpy as np
import psycopg
import pytest

from engine.data.flags import Flag
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import BOOK, FUNDING, GAP, KINDS, TRADE
from engine.writer.rows.copy import COPY_HEADER, COPY_TRAILER, CopyEncoder, StreamLookup
from engine.writer.rows.exact import mantissas
from tests.engine.writer.conftest import MakeTrades


@pytest.fixture
def lookup() -> StreamLookup:
    lookup = StreamLookup()
    for slot in range(8):
        lookup.set(slot, 100 + slot, price_decimals=2 + slot % 3, qty_decimals=3)
    return lookup


def _round_trip(
    url: str, spec: Kind, rows: RecordArray, lookup: StreamLookup
) -> list[tuple[object, ...]]:
    """COPY `rows` into an unpartitioned copy of the table and read it in order of arrival."""
    encoder = CopyEncoder(spec, 5000)
    columns = ", ".join(c.name for c in spec.columns)
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE TEMP TABLE t (LIKE {spec.name})".encode())
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY t ({columns}) FROM STDIN (FORMAT binary)".encode()) as copy,
        ):
            copy.write(COPY_HEADER)
            for start in range(0, len(rows), encoder.capacity):
                copy.write(encoder.encode(rows[start : start + encoder.capacity], lookup))
            copy.write(COPY_TRAILER)
        selected = ", ".join(
            "(extract(epoch FROM time) * 1000000)::bigint" if c.transform == "time_us"
            else "ascii(side::text)" if c.pg_type == "char" else c.name
            for c in spec.columns
        )  # fmt: skip
        return connection.execute(f"SELECT {selected} FROM t ORDER BY ctid".encode()).fetchall()


def _expected(spec: Kind, rows: RecordArray, lookup: StreamLookup) -> list[tuple[object, ...]]:
    slots = rows["stream"].astype(int)
    all_exact = np.ones(len(rows), bool)
    columns: dict[str, list[object]] = {}
    for column in spec.columns:
        source = rows[column.source]
        match column.transform:
            case "stream":
                columns[column.name] = lookup.stream_id[slots].tolist()
            case "time_us":
                columns[column.name] = (source // 1000).tolist()
            case "sub_us":
                columns[column.name] = (source % 1000).tolist()
            case "price" | "qty" | "fixed":
                by_slot = (
                    lookup.price_decimals if column.transform == "price" else (lookup.qty_decimals)
                )
                decimals = column.decimals if column.transform == "fixed" else by_slot[slots]
                numbers, exact = mantissas(source, decimals)
                all_exact &= exact
                columns[column.name] = numbers.tolist()
            case _:
                columns[column.name] = source.tolist()
    if "flags" in columns:
        inexact = np.where(all_exact, 0, Flag.INEXACT)
        columns["flags"] = (rows["flags"] | inexact).tolist()
    return list(zip(*columns.values(), strict=True))


@pytest.mark.parametrize("kind", ["trade", "book"])
def test_rows_come_back_as_they_were(
    database_url: str, lookup: StreamLookup, trades: MakeTrades, books: MakeTrades, kind: str
) -> None:
    rows = trades(12_345) if kind == "trade" else books(3_000)
    spec = KINDS[kind]
    assert _round_trip(database_url, spec, rows, lookup) == _expected(spec, rows, lookup)


SLOW_KINDS = ["quote", "funding", "open_interest", "liquidation"]


@pytest.mark.parametrize("kind", SLOW_KINDS)
def test_rows_of_every_kind_come_back_as_they_were(
    database_url: str, lookup: StreamLookup, kind: str
) -> None:
    spec = KINDS[kind]
    random = np.random.default_rng(7)
    rows = np.zeros(3000, spec.dtype)
    for name in spec.dtype.names or ():
        match spec.dtype[name].kind:
            case "f":  # five to twelve decimals: some rows cannot be proven
                places = random.integers(0, 5, len(rows))
                rows[name] = [round(x, p) for x, p in zip(random.uniform(0, 1e5, len(rows)), places,
                                                          strict=True)]  # fmt: skip
            case "i":
                rows[name] = random.integers(0, 2**60, len(rows))
    rows["stream"] = random.integers(0, 8, len(rows))
    if "side" in (spec.dtype.names or ()):
        rows["side"] = random.choice([ord("B"), ord("S")], len(rows))
    assert _round_trip(database_url, spec, rows, lookup) == _expected(spec, rows, lookup)


def test_computed_numbers_keep_decimals_that_prices_do_not_have(lookup: StreamLookup) -> None:
    rows = np.zeros(5, FUNDING.dtype)
    rows["rate"] = [0.0001, -0.0000125, 1e-12, 1e-13, 0.0]
    rows["mark"] = [81235.12345678, 0.00000001, 44_999_999.12345, 1.0, 46_000_000.0]
    encoder = CopyEncoder(FUNDING, 8)
    encoder.encode(rows, lookup)
    assert encoder.inexact_count == 2, "a rate of 13 decimals, and a price beyond 45 million"
    assert encoder._rows["rate"][:3].tolist() == [100_000_000, -12_500_000, 1]
    assert encoder._rows["mark"][:2].tolist() == [8123512345678, 1]
    assert (encoder._rows["flags"][:5] & Flag.INEXACT).tolist() == [0, 0, 0, 32, 32]


def test_extreme_values_come_back_as_they_were(
    database_url: str, lookup: StreamLookup, trades: MakeTrades
) -> None:
    rows = trades(6)
    rows["ts_event"] = [1_230_768_000_000_000_001, 4_102_444_799_999_999_999, 1, -1, -999, 0]
    rows["trade_id"] = [-(2**63), 2**63 - 1, 0, 1, -1, 5]
    rows["trade_id_hi"] = [2**63 - 1, -(2**63), 0, 1, -1, 5]
    rows["price"] = [0.0, -37.63, 9.2e14, 1e-9, 0.30000000000000004, 123456789.12]
    rows["flags"] = [0, 1, 2, 4, 31, 16]
    assert _round_trip(database_url, TRADE, rows, lookup) == _expected(TRADE, rows, lookup)


def test_gaps_come_back_as_they_were(database_url: str, lookup: StreamLookup) -> None:
    rows = np.zeros(3, GAP.dtype)
    for name in ("ts_event", "ts_recv", "from_seq", "to_seq", "from_ts", "to_ts", "missing"):
        rows[name] = [10**18, 2**62, 7]
    rows["stream"], rows["reason"], rows["state"] = [1, 2, 3], [1, 2, 6], [1, 2, 4]
    assert _round_trip(database_url, GAP, rows, lookup) == _expected(GAP, rows, lookup)


def test_rounded_rows_are_flagged_and_counted(lookup: StreamLookup, trades: MakeTrades) -> None:
    rows = trades(5000)
    rows["qty"][17] = 0.30000000000000004
    rows["price"][17] = 0.30000000000000004
    rows["price"][4999] = 0.30000000000000004
    encoder = CopyEncoder(TRADE, 5000)
    encoder.encode(rows, lookup)
    assert encoder.inexact_count == 2


def test_an_empty_batch_is_an_empty_payload(lookup: StreamLookup) -> None:
    assert len(CopyEncoder(BOOK, 10).encode(np.zeros(0, BOOK.dtype), lookup)) == 0


def test_a_lookup_knows_what_it_does_not_know() -> None:
    lookup = StreamLookup()
    slots = np.array([0, 7, 10**6], np.uint32)
    assert lookup.resolved(slots).tolist() == [False, False, False]
    lookup.set(7, 1, 0, 0)
    assert lookup.resolved(slots).tolist() == [False, True, False]
