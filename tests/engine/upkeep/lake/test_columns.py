"""What a table can say, a file says, and gives back: every kind, without a database."""

import datetime as dt
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.flags import Flag, GapReason, Side
from engine.data.kind import Kind
from engine.data.kinds import BOOK, FUNDING, GAP, KINDS, QUOTE, TRADE
from engine.upkeep.lake import decimals
from engine.upkeep.lake.checksum import row_sum
from engine.upkeep.lake.raw import LakeError, RawRows, raw_dtype, without
from engine.upkeep.lake.schema import arrow_schema, to_batch, to_rows
from engine.upkeep.lake.streams import LakeStream, Meanings
from tests.toys.kind import SETTLEMENT

TABLES = [*(kind for kind in KINDS.values() if kind.columns), SETTLEMENT]
AT = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)


def stream(stream_id: int, symbol: str, price: int, qty: int) -> LakeStream:
    return LakeStream(
        stream_id, "acme", symbol, 1, "Trades", "Ws", "", "", price, qty, None, None, None, "", AT
    )


STREAMS = [stream(7, "B", 2, 3), stream(3, "A", 15, 0), stream(9, "B", 0, 15)]
MEANINGS = Meanings(STREAMS)


def rows_of(kind: Kind, count: int = 400, seed: int = 1) -> RawRows:
    """Any numbers that the columns hold, the smallest and the largest among them."""
    random = np.random.default_rng(seed)
    rows = np.zeros(count, raw_dtype(kind))
    for name in rows.dtype.names or ():
        bounds = np.iinfo(rows.dtype[name])
        rows[name] = random.integers(bounds.min, bounds.max, count, rows.dtype[name], endpoint=True)
        rows[name][::5] = 0
        rows[name][1:3] = bounds.min, bounds.max
    rows["time"] = random.integers(0, 8 * 10**14, count)
    rows["time_sub_us"] = random.integers(0, 1000, count)
    rows["stream_id"] = random.choice([3, 7, 9, 0], count)  # 0 is nobody's
    if "missing" in (rows.dtype.names or ()):
        rows["missing"][5:50] = -1
    return rows


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.name)
def test_a_file_gives_back_what_the_table_said(kind: Kind) -> None:
    rows = rows_of(kind)
    batch = to_batch(rows, kind, MEANINGS)
    batch.validate(full=True)
    assert batch.schema.equals(arrow_schema(kind))
    assert np.array_equal(to_rows(batch, kind, MEANINGS), rows)
    assert np.array_equal(to_rows(batch.slice(100, 50), kind, MEANINGS), rows[100:150])


def test_readers_see_names_and_numbers_and_null_where_there_is_none() -> None:
    trade = np.zeros(1, raw_dtype(TRADE))
    trade["time"], trade["time_sub_us"], trade["stream_id"] = 1_500_000, 7, 7
    trade["price"], trade["qty"], trade["side"] = -12345, 1, Side.SELL
    batch = to_batch(trade, TRADE, MEANINGS)
    assert batch.column("time").cast(pa.int64()).to_pylist() == [946_684_801_500_000_007]
    assert batch.drop_columns(["time", "recv_time"]).to_pylist() == [{
        "symbol": "B", "transport": "Ws", "flags": 0, "side": "sell", "price": Decimal("-123.45"),
        "quantity": Decimal("0.001"), "trade_id_hi": 0, "trade_id": 0, "stream_id": 7,
    }]  # fmt: skip
    level = np.zeros(2, raw_dtype(BOOK))
    level["side"] = Side.NONE, Side.BID  # an event without levels; a level at 0
    assert to_batch(level, BOOK, MEANINGS).column("price").is_null().to_pylist() == [True, False]
    quote = np.zeros(1, raw_dtype(QUOTE))
    assert to_batch(quote, QUOTE, MEANINGS).column("ask").to_pylist() == [None]
    rate = np.zeros(2, raw_dtype(FUNDING))
    rate["flags"] = int(Flag.NO_RATE), 0
    assert to_batch(rate, FUNDING, MEANINGS).column("rate").is_null().to_pylist() == [True, False]
    gap = np.zeros(2, raw_dtype(GAP))
    gap["reason"], gap["missing"], gap["stream_id"] = (GapReason.RECONNECT, 99), (-1, 3), (0, 3)
    said = to_batch(gap, GAP, MEANINGS)
    assert said.column("reason").to_pylist() == ["reconnect", "99"]
    assert said.column("missing").to_pylist() == [None, 3]
    assert said.column("symbol").to_pylist() == [None, "A"]
    assert said.column("kind_of_stream").to_pylist() == [None, "Trades"]


def test_a_time_without_nanoseconds_is_refused() -> None:
    rows = np.zeros(1, raw_dtype(TRADE))
    rows["time"] = np.iinfo(np.int64).max  # infinity
    with pytest.raises(LakeError, match="table trade has a time"):
        to_batch(rows, TRADE, MEANINGS)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=50), st.integers(0, 15))
def test_numbers_of_128_bits_are_exact(mantissas: list[int], digits: int) -> None:
    values = np.array(mantissas, np.int64)
    shift = np.full(len(values), digits, np.int64)
    halves = decimals.scaled(values, shift)
    known = pa.Array.from_buffers(
        pa.decimal128(38, 0), len(values), [None, pa.py_buffer(halves)]
    ).to_pylist()
    assert [int(number) for number in known] == [each * 10**digits for each in mantissas]
    assert np.array_equal(decimals.unscaled(halves, shift), values)


def test_a_number_with_more_digits_than_its_instrument_is_refused() -> None:
    halves = decimals.scaled(np.array([15], np.int64), np.array([0], np.int64))
    with pytest.raises(ValueError, match="more digits"):
        decimals.unscaled(halves, np.array([1], np.int64))


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.name)
def test_the_checksum_sees_every_value_and_no_order(kind: Kind) -> None:
    rows = rows_of(kind)
    seeds = MEANINGS.seeds(MEANINGS.places(rows["stream_id"]))
    known = row_sum(rows, kind, seeds)
    order = np.random.default_rng(2).permutation(len(rows))
    assert row_sum(rows[order], kind, seeds[order]) == known
    for name in rows.dtype.names or ():
        if name == "stream_id":
            continue
        changed = rows.copy()
        changed[name][7] ^= 1
        assert row_sum(changed, kind, seeds) != known, name
        for one, other in pairwise(np.unique(rows[name], return_index=True)[1][:40].tolist()):
            swapped = rows.copy()
            swapped[name][[one, other]] = rows[name][[other, one]]
            assert row_sum(swapped, kind, seeds) != known, f"{name} of two rows changed places"


def test_rows_are_told_from_equal_ones_by_all_they_say() -> None:
    rows = rows_of(TRADE, 20)
    rows[3] = rows[4]
    others = [rows[4:8].copy(), rows[10:12].copy()]
    others[0]["price"][1] += 1
    left = np.flatnonzero(without(rows, others)).tolist()
    assert left in ([0, 1, 2, 3, 5, 8, 9, *range(12, 20)], [0, 1, 2, 4, 5, 8, 9, *range(12, 20)])
