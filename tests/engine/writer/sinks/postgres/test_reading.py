"""Reading by symbol: the functions of SQL say what a scan of everything would say, in whatever
order rows came and whoever died in between.
"""

import itertools
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest

from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, QUOTE
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from tests.engine.writer.sinks.postgres.reading_rig import (
    DAYS,
    MIDNIGHT_NS,
    RARE,
    SECOND_NS,
    Fill,
    Store,
    chunks,
    day,
    read,
    time_of,
    touched,
    trades_of_days,
)
from tests.stores import execute, select

WINDOWS = ((0.1, 3.9), (2.47, 2.52), (3.47, 3.52))


def test_trades_of_a_symbol_are_those_of_the_view(fill: Fill, database_url: str) -> None:
    fill()
    windows = [(0, DAYS), (0.47, 0.53), (1.49, 2.51), (3.48, 3.49), (-5, 0), (2.5, 99)]
    for (since, until), slot in itertools.product(
        [(day(first), day(last)) for first, last in windows], (0, RARE)
    ):
        for view in ("trades", "trades_f"):
            of_function, looked = read(
                database_url,
                f"SELECT * FROM {view}('acme', %s, %s, %s) ORDER BY time",
                f"S{slot}", since, until,
            )  # fmt: skip
            of_view = select(
                database_url,
                f"SELECT * FROM {view} WHERE symbol = %s AND time >= %s AND time < %s"
                " ORDER BY time",
                (f"S{slot}", since, until),
            )
            assert of_function == of_view
            assert touched(looked, database_url) <= chunks(database_url, since, until)


def test_times_that_bound_nothing_give_no_rows(fill: Fill, database_url: str) -> None:
    """NULL and reversed ones, whether the symbol is rare or busy; infinity bounds, too."""
    fill()
    select(database_url, "SELECT forget_row_spans('trade', %s)", (day(2),))
    call = "SELECT count(*) FROM trades('acme', %s, %s, %s)"
    for slot in (0, RARE):
        symbol = f"S{slot}"
        for since, until in (
            (None, day(9)), (day(0), None), (None, None), (day(3), day(1)), (day(3.5), day(3.5)),
            ("infinity", "-infinity"), ("infinity", "infinity"), ("-infinity", "-infinity"),
        ):  # fmt: skip
            assert select(database_url, call, (symbol, since, until)) == [(0,)], (since, until)
        every = select(database_url, "SELECT count(*) FROM trades WHERE symbol = %s", (symbol,))
        assert select(database_url, call, (symbol, "-infinity", "infinity")) == every


def test_trades_of_a_rare_symbol_are_found_without_reading_the_others(
    fill: Fill, database_url: str
) -> None:
    fill()
    rows, looked = read(
        database_url, "SELECT time FROM trades('acme', %s, %s, %s)", f"S{RARE}", day(3), day(4)
    )
    assert len(rows) == 5
    (newest,) = chunks(database_url, day(3.5), day(3.52))
    assert looked[newest] <= 2 * len(rows)


def test_the_newest_trade_is_found_in_one_look(fill: Fill, database_url: str) -> None:
    fill()
    for slot in (0, 1, 2, RARE):
        rows, looked = read(
            database_url,
            "SELECT trade_id, price, symbol FROM newest_trades('acme', %s)",
            f"S{slot}",
        )
        want = select(
            database_url,
            "SELECT trade_id, price, symbol FROM trades WHERE symbol = %s"
            " ORDER BY time DESC LIMIT 1",
            (f"S{slot}",),
        )
        assert rows == want
        assert sum(looked[name] for name in touched(looked, database_url)) <= (
            4 if slot == RARE else 60
        )
    assert select(database_url, "SELECT * FROM newest_trades('acme', 'S77')") == []


@pytest.mark.parametrize("seed", range(2))
def test_the_newest_rows_are_right_with_late_rows_restarts_and_new_versions(
    store: Store, database_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    rows = trades_of_days(600)
    rows["ts_event"] = MIDNIGHT_NS + np.arange(600) * 40 * SECOND_NS
    late = [chance.randrange(600) for _ in range(60)]
    rows["ts_event"][late] -= [chance.randrange(3600) * SECOND_NS for _ in late]
    rows["price"][400:] += 0.125  # more decimals than the version has: a stream of its own
    for part in np.array_split(rows, 6):
        store(*np.array_split(part, chance.randrange(1, 9)))
        for view in ("trades", "trades_f"):
            newest = select(
                database_url,
                f"SELECT symbol, time, price FROM {view} ORDER BY time DESC, trade_id DESC",
            )
            want = {symbol: (time, price) for symbol, time, price in reversed(newest)}
            got = select(database_url, f"SELECT symbol, time, price FROM newest_{view}('acme')")
            assert {symbol: (time, price) for symbol, time, price in got} == want
            for symbol, (time, price) in want.items():
                call = f"SELECT time, price FROM newest_{view}('acme', %s)"
                assert select(database_url, call, (symbol,)) == [(time, price)]


def test_what_was_stored_before_there_were_spans_is_found(store: Store, database_url: str) -> None:
    """By a version before, or by hand."""
    rows = trades_of_days(800)
    store(rows[:400])
    execute(database_url, "DELETE FROM row_span", "DELETE FROM row_span_begin")
    answers = [_answers(database_url)]
    store(rows[400:])
    answers.append(_answers(database_url))
    assert answers[0] != answers[1]
    assert answers[1] == _truth(database_url)
    begin = "SELECT min(spans_from), max(spans_from) FROM row_span_begin WHERE kind = 'trade'"
    ((first, last),) = select(database_url, begin)
    assert first == last
    assert (
        first
        == select(
            database_url, "SELECT time + interval '1 microsecond' FROM trade WHERE trade_id = 399"
        )[0][0]
    )


def test_spans_of_closed_days_can_go(fill: Fill, database_url: str) -> None:
    fill()
    before = _answers(database_url)
    assert before == _truth(database_url)
    ((forgotten,),) = select(database_url, "SELECT forget_row_spans('trade', %s)", (day(3),))
    assert forgotten > 0
    assert _answers(database_url) == before
    assert select(database_url, "SELECT forget_row_spans('trade', %s)", (day(3),)) == [(0,)]


def test_rows_that_others_store_are_found_once_they_say_so(fill: Fill, database_url: str) -> None:
    fill()
    execute(
        database_url,
        "INSERT INTO trade SELECT time + interval '1 hour', time_sub_us, ts_recv, stream_id, flags,"
        " side, price, qty, trade_id_hi, trade_id + 100000 FROM trade"
        " WHERE time < (SELECT max(time) FROM trade) - interval '2 hours'",
    )
    select(database_url, "SELECT note_row_spans('trade', '-infinity', 'infinity')")
    assert _answers(database_url) == _truth(database_url)
    select(database_url, "SELECT forget_row_spans('trade', 'infinity', false)")
    assert _answers(database_url) == _truth(database_url)


def _answers(url: str) -> list[Any]:
    found: list[Any] = [select(url, "SELECT time, symbol FROM newest_trades() ORDER BY symbol")]
    for slot in range(4):
        call = "SELECT count(*), min(time), max(time) FROM trades('acme', %s, %s, %s)"
        for since, until in WINDOWS:
            found += select(url, call, (f"S{slot}", day(since), day(until)))
    return found


def _truth(url: str) -> list[Any]:
    query = "SELECT max(time), symbol FROM trades GROUP BY symbol ORDER BY symbol"
    found: list[Any] = [select(url, query)]
    for slot in range(4):
        query = (
            "SELECT count(*), min(time), max(time) FROM trades"
            " WHERE symbol = %s AND time >= %s AND time < %s"
        )
        for since, until in WINDOWS:
            found += select(url, query, (f"S{slot}", day(since), day(until)))
    return found


def test_bars_are_exact_also_where_an_instrument_gets_a_new_version(
    store: Store, database_url: str
) -> None:
    rows = trades_of_days(300)
    rows["ts_event"] = MIDNIGHT_NS + np.arange(300) // 2 * 7 * SECOND_NS
    rows["stream"] = 1
    rows["qty"][:100] *= 1_000_000_000  # a product above 2^63
    rows["price"][151:] += 0.125
    store(rows)
    got = select(
        database_url, "SELECT * FROM bars_raw('acme', 'S1', %s, %s, '1m')", (day(0), day(1))
    )
    assert got == _bars(
        select(
            database_url,
            "SELECT date_trunc('minute', time), price, quantity, side FROM trades"
            " ORDER BY time, trade_id",
        )
    )
    assert len(got) == 18


def _bars(trades: Sequence[tuple[datetime, Decimal, Decimal, str]]) -> list[tuple[Any, ...]]:
    minutes: dict[datetime, list[tuple[Decimal, Decimal, str]]] = {}
    for minute, *trade in trades:
        minutes.setdefault(minute, []).append(tuple(trade))  # type: ignore[arg-type]
    return [
        (
            minute, of[0][0], max(p for p, _, _ in of), min(p for p, _, _ in of), of[-1][0],
            sum(q for _, q, _ in of), sum(p * q for p, q, _ in of),
            sum(q for _, q, side in of if side == "buy"), len(of),
        )
        for minute, of in minutes.items()
    ]  # fmt: skip


def test_numbers_in_double_precision_are_the_nearest(store: Store, database_url: str) -> None:
    rows = trades_of_days(2000)
    rows["price"] = np.random.default_rng(3).integers(1, 10**9, 2000) / 1e6
    store(rows)
    execute(  # no venue has said more digits than a double has
        database_url,
        "UPDATE trade SET price = price + 4611686018427387905, qty = -price - trade_id"
        " WHERE trade_id % 3 = 0",
    )
    found = select(
        database_url,
        "SELECT e.price, f.price, e.quantity, f.quantity FROM trades AS e"
        " JOIN trades_f AS f USING (trade_id)",
    )
    assert len(found) == 2000
    assert all(float(p) == pf and float(q) == qf for p, pf, q, qf in found)
    assert {type(value) for row in found for value in row} == {Decimal, float}


def test_every_view_has_one_in_double_precision(database_url: str) -> None:
    """With the same columns; only exact numbers become doubles."""
    columns = (
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position),"
        " array_agg(data_type::text ORDER BY ordinal_position) FROM information_schema.columns"
        " WHERE table_schema = 'public' GROUP BY 1"
    )
    views = {name: (names, types) for name, names, types in select(database_url, columns)}
    for view in ("trades", "book_levels", "quotes", "funding_rates", "open_interest_points",
                 "liquidations", "gaps"):  # fmt: skip
        names, types = views[view]
        assert views[f"{view}_f"] == (
            names, ["double precision" if each == "numeric" else each for each in types]
        )  # fmt: skip


def book_rows(
    events: Sequence[tuple[int, bool, bool, Sequence[tuple[int, int, int]]]],
) -> RecordArray:
    """Of (second, is snapshot, after gap, levels)."""
    rows = np.zeros(sum(len(levels) for *_, levels in events), BOOK.dtype)
    place = 0
    for seq, (at, is_snapshot, after_gap, levels) in enumerate(events):
        for side, price, qty in levels:
            row = rows[place]
            row["stream"], row["side"] = 4, side
            row["price"], row["qty"] = price / 100, qty / 1000
            row["seq"], row["prev_seq"] = seq, seq - 1
            row["ts_event"] = row["ts_recv"] = MIDNIGHT_NS + at * SECOND_NS
            row["flags"] = Flag.SNAPSHOT * is_snapshot | Flag.AFTER_GAP * after_gap
            place += 1
    return rows


@pytest.mark.parametrize("apart_s", [1, 5000])
def test_a_book_is_that_of_its_last_snapshot_and_the_changes_since(
    store: Store, database_url: str, apart_s: int
) -> None:
    """With many snapshots and few, with their spans, without some, and without all."""
    chance = random.Random(apart_s)
    events = []
    for number in range(400):
        levels = [
            (side, 8_000_000 + chance.randrange(20), chance.randrange(4))
            for side in (Side.BID, Side.ASK)
        ]
        is_snapshot = number % (3 if apart_s == 1 else 90) == 2
        events.append((number * apart_s, is_snapshot, number == 150, levels))
    store(*np.array_split(book_rows(events), 30))
    asked = [0, 5, 6, 60, 149, 150, 151, 200, 399]

    def books() -> list[Any]:
        at = [time_of(MIDNIGHT_NS + number * apart_s * SECOND_NS) for number in asked]
        return [
            select(database_url, "SELECT * FROM book_at('acme', 'S0', %s)", (each,)) for each in at
        ]

    want = [_book(events, number) for number in asked]
    assert any(want)
    assert books() == want
    select(database_url, "SELECT forget_row_spans('book_snapshot', %s)", (day(1),))
    assert books() == want
    execute(database_url, "DELETE FROM row_span", "DELETE FROM row_span_begin")
    assert books() == want


def _book(events: Sequence[tuple[int, bool, bool, Any]], until: int) -> list[tuple[Any, ...]]:
    book: dict[tuple[int, int], int] = {}
    is_known = False
    for _, is_snapshot, after_gap, levels in events[: until + 1]:
        if is_snapshot:
            book.clear()
        is_known = is_snapshot or (is_known and not after_gap)
        book.update({(side, price): qty for side, price, qty in levels})
    if not is_known:
        return []
    found = sorted(
        (side == Side.ASK, price if side == Side.ASK else -price, qty)
        for (side, price), qty in book.items() if qty
    )  # fmt: skip
    return [
        ("ask" if ask else "bid", Decimal(abs(price)) / 100, Decimal(qty) / 1000)
        for ask, price, qty in found
    ]


@pytest.mark.parametrize("is_snapshot", [False, True])
def test_the_book_of_the_end_of_time_is_the_newest(
    store: Store, database_url: str, is_snapshot: bool
) -> None:
    """Also where nothing says where snapshots are, and where there are none."""
    store(book_rows([(3, is_snapshot, False, [(int(Side.BID), 8_000_000, 1)])]))
    execute(database_url, "DELETE FROM row_span", "DELETE FROM row_span_begin")
    options = "-c statement_timeout=20s"
    with psycopg.connect(database_url, options=options) as connection:
        for at, count in (("infinity", is_snapshot), (day(1e6), is_snapshot), ("-infinity", 0),
                          (None, 0)):  # fmt: skip
            found = connection.execute(b"SELECT count(*) FROM book_at('acme', 'S0', %s)", (at,))
            assert found.fetchall() == [(count,)], at


def test_spreads_are_exact_and_null_where_a_side_is_empty(
    store: Store, database_url: str, slots: Slots
) -> None:
    slot = slots.assign(StreamKey("acme", "S0", StreamKind.TICKER)).slot
    rows = np.zeros(3, QUOTE.dtype)
    rows["stream"] = slot
    rows["ts_event"] = rows["ts_recv"] = MIDNIGHT_NS + np.arange(3) * SECOND_NS
    rows["seq"] = range(3)
    rows["bid"], rows["ask"] = [99.5, 0, 100], [100.5, 101, 100.25]
    rows["bid_qty"], rows["ask_qty"] = 1, 1
    store(rows)
    found = select(
        database_url,
        "SELECT time, bid, ask, spread, mid, spread_bps FROM spread('acme', 'S0', %s, %s)",
        (day(0), day(1)),
    )
    assert [row[1:4] for row in found] == [
        (Decimal("99.5"), Decimal("100.5"), Decimal("1")), (None, Decimal(101), None),
        (Decimal(100), Decimal("100.25"), Decimal("0.25")),
    ]  # fmt: skip
    assert [row[4] for row in found] == [Decimal(100), None, Decimal("100.125")]
    assert [row[5] for row in found] == [100.0, None, pytest.approx(24.9687890)]
    (newest,) = select(database_url, "SELECT bid, ask FROM newest_quotes_f('acme', 'S0')")
    assert newest == (100.0, 100.25)


def test_gaps_of_a_time_are_those_that_reach_into_it(store: Store, database_url: str) -> None:
    store(trades_of_days(20))
    rows = np.zeros(3, GAP.dtype)
    rows["reason"], rows["state"] = GapReason.SEQUENCE, GapState.UNRECOVERABLE
    rows["ts_event"] = rows["ts_recv"] = MIDNIGHT_NS
    rows["from_ts"] = MIDNIGHT_NS + np.array([10, 20, 30]) * SECOND_NS
    rows["to_ts"] = rows["from_ts"] + 5 * SECOND_NS
    rows["missing"] = [1, 2, 3]
    store(rows)
    call = "SELECT missing FROM gaps_in('acme', 'S0', %s, %s)"

    def missing(since_s: int, until_s: int) -> list[int]:
        at = [day(0) + timedelta(seconds=each) for each in (since_s, until_s)]
        return [count for (count,) in select(database_url, call, at)]

    assert missing(0, 60) == [1, 2, 3]
    assert missing(12, 31) == [1, 2, 3]
    assert missing(16, 30) == [2]
    assert missing(16, 20) == []
    of_kind = "SELECT count(*) FROM gaps_in('acme', 'S0', %s, %s, %s)"
    assert select(database_url, of_kind, (day(0), day(1), "Trades")) == [(3,)]
    assert select(database_url, of_kind, (day(0), day(1), "L2Book")) == [(0,)]
    assert select(database_url, "SELECT count(*) FROM gaps_in('acme', 'S1', %s, %s)",
                  (day(0), day(1))) == [(0,)]  # fmt: skip


def test_complete_is_completeness(store: Store, database_url: str) -> None:
    store(trades_of_days(20))
    call = "SELECT * FROM {}('acme', 'S0', 'Trades', %s, %s)"
    found = [
        select(database_url, call.format(name), (day(0), day(1)))
        for name in ("complete", "completeness")
    ]
    assert found[0] == found[1] == [("not collected", day(0), day(1), None, None)]


def test_the_functions_work_from_any_search_path(fill: Fill, database_url: str) -> None:
    fill()
    with psycopg.connect(database_url) as connection:
        connection.execute("SET search_path = pg_catalog")
        for call in (
            "trades('acme', 'S3', 'yesterday', 'now')",
            "trades_f('acme', 'S0', 'yesterday', 'now')",
            "newest_trades('acme', 'S3')", "newest_book_levels()", "book_at('acme', 'S0', 'now')",
            "bars_raw('acme', 'S0', 'yesterday', 'now')",
            "spread('acme', 'S0', 'yesterday', 'now')",
            "gaps_in('acme', 'S0', 'yesterday', 'now')",
            "complete('acme', 'S0', 'Trades', 'yesterday', 'now')",
        ):  # fmt: skip
            connection.execute(f"SELECT * FROM public.{call}".encode())
        assert connection.execute(b"SHOW search_path").fetchall() == [("pg_catalog",)]
