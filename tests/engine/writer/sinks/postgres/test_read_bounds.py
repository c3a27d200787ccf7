"""Reading by symbol looks at no day, a partition or a chunk, outside of its bounds."""

from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest

from engine.data.flags import GapReason, GapState, Side
from engine.data.kind import RecordArray
from engine.data.kinds import GAP, KINDS, QUOTE
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from tests.engine.writer.conftest import STREAM_COUNT
from tests.engine.writer.sinks.postgres.reading_rig import (
    DAY_NS,
    DAYS,
    MIDNIGHT_NS,
    RARE,
    SECOND_NS,
    Fill,
    Store,
    chunks,
    close_days,
    day,
    read,
    touched,
    trades_of_days,
)
from tests.engine.writer.sinks.postgres.test_reading import book_rows
from tests.stores import execute

DAY_TABLES = [kind.name for kind in KINDS.values() if kind.columns and kind is not GAP]
"""Those of which each day is a partition or chunk."""
BOUNDS = ((day(1.3), day(1.6)), (day(1.48), day(2.47)), (day(3.4), day(3.51)))
"""In a closed day, over midnight, and in the newest day."""
BUSY_BOUNDS = (day(1.48), day(1.52)), (day(3.49), day(3.53))
"""Where rows of S0 are nearly everywhere, so that the query itself reads them."""
CALM_GAPS = 40


@pytest.fixture
def fill_quotes(store: Store, database_url: str, slots: Slots) -> Fill:
    """Four days of quotes, of a busy symbol and a rare one."""

    def fill() -> RecordArray:
        of_slot = {
            number: slots.assign(StreamKey("acme", f"S{number}", StreamKind.TICKER)).slot
            for number in range(STREAM_COUNT)
        }
        made = trades_of_days()
        rows = np.zeros(len(made), QUOTE.dtype)
        rows["stream"] = [of_slot[number] for number in made["stream"].tolist()]
        for name in ("ts_event", "ts_recv"):
            rows[name] = made[name]
        rows["seq"] = made["trade_id"]
        rows["bid"], rows["ask"] = made["price"], made["price"] + 0.25
        rows["bid_qty"] = rows["ask_qty"] = 1
        store(*np.array_split(rows, 20))
        close_days(database_url, "quote")
        return rows

    return fill


@pytest.fixture
def fill_gaps(fill: Fill, store: Store, database_url: str) -> Fill:
    """Gaps of four days and times that were listened to, of S3 and many other streams."""

    def fill_all() -> RecordArray:
        fill()
        rows = np.zeros(CALM_GAPS, GAP.dtype)
        rows["stream"] = RARE
        rows["reason"], rows["state"] = GapReason.SEQUENCE, GapState.UNRECOVERABLE
        rows["from_ts"] = MIDNIGHT_NS + np.arange(CALM_GAPS) * (DAYS * DAY_NS // CALM_GAPS)
        rows["to_ts"] = rows["from_ts"] + SECOND_NS
        rows["ts_event"] = rows["ts_recv"] = rows["to_ts"] + SECOND_NS
        rows["missing"] = 1
        store(rows)
        execute(
            database_url,
            "INSERT INTO gap"
            " SELECT (jsonb_populate_record(g, jsonb_build_object('stream_id', 1000 + n))).*"
            " FROM gap AS g, generate_series(1, 300) AS n",
            'INSERT INTO coverage (stream_id, slot, ring, epoch, carrier, started, ended, "end")'
            " SELECT stream_id, 0, '', 1, 1, from_ts - 40000000000, from_ts + 40000000000, 2"
            " FROM gap",
            "ANALYZE gap, coverage",
        )
        return rows

    return fill_all


def plan_of(url: str, query: str, *values: Any, settings: str = "") -> list[dict[str, Any]]:
    """The nodes of its plan, after it ran."""
    with psycopg.connect(url) as connection:
        connection.execute(settings.encode())
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {query}".encode()
        ((answer,),) = connection.execute(explain, values).fetchall()
    return nodes(answer[0]["Plan"])


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(each for child in plan.get("Plans", ()) for each in nodes(child))]


def scanned(plan: list[dict[str, Any]]) -> set[str]:
    """Relations that were looked at."""
    return {
        node["Relation Name"] for node in plan if "Relation Name" in node and node["Actual Loops"]
    }


def days_looked_at(looked: dict[str, int], url: str) -> set[str]:
    """Of whatever table."""
    return {name for table in DAY_TABLES for name in touched(looked, url, table)}


def test_a_query_on_a_function_is_planned_with_its_bounds(fill: Fill, database_url: str) -> None:
    """The function is inlined: what is said of its rows is part of the plan."""
    fill()
    query = "SELECT max(price) FROM trades('acme', 'S0', %s, %s) WHERE side = 'buy'"
    ours = chunks(database_url, day(0), day(DAYS))
    for since, until in BUSY_BOUNDS:
        plan = plan_of(database_url, query, since, until)
        assert scanned(plan) & ours == chunks(database_url, since, until)


def test_a_query_on_spreads_is_planned_with_their_bounds(
    fill_quotes: Fill, database_url: str
) -> None:
    fill_quotes()
    query = "SELECT max(spread) FROM spread('acme', 'S0', %s, %s) WHERE bid > 5"
    ours = chunks(database_url, day(0), day(DAYS), "quote")
    for since, until in BUSY_BOUNDS:
        plan = plan_of(database_url, query, since, until)
        assert scanned(plan) & ours == chunks(database_url, since, until, "quote")


@pytest.mark.parametrize("view", ["trades", "trades_f"])
def test_no_worker_is_started_for_the_rows_of_a_rare_symbol(
    fill: Fill, database_url: str, view: str
) -> None:
    """To start them takes many times as long as to read the rows."""
    fill()
    always = (
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;"
        "SET min_parallel_table_scan_size = 0"
    )
    query = f"SELECT * FROM {view}('acme', %s, %s, %s)"
    for slot, needs_them in ((0, True), (RARE, False)):
        plan = plan_of(database_url, query, f"S{slot}", *BUSY_BOUNDS[1], settings=always)
        gathers = [node for node in plan if node["Node Type"].startswith("Gather")]
        assert gathers
        assert any(node["Actual Loops"] for node in gathers) == needs_them


def test_no_day_outside_of_the_bounds_is_looked_at(fill: Fill, database_url: str) -> None:
    fill()
    for call in (
        "bars_raw('acme', 'S1', %s, %s, '1 hour')",
        "bars_raw('acme', 'S1', %s, %s)",
        "trades('acme', 'S3', %s, %s)",
    ):
        for since, until in BOUNDS:
            rows, looked = read(database_url, f"SELECT * FROM {call}", since, until)
            assert rows
            assert days_looked_at(looked, database_url) == chunks(database_url, since, until)


def test_a_spread_looks_at_no_day_outside_of_its_bounds(
    fill_quotes: Fill, database_url: str
) -> None:
    """Of a busy symbol, and of a rare one, of which the newest day is not scanned."""
    fill_quotes()
    for symbol, (since, until) in ((s, b) for s in ("S0", f"S{RARE}") for b in BOUNDS):
        call = f"SELECT * FROM spread('acme', '{symbol}', %s, %s)"
        rows, looked = read(database_url, call, since, until)
        assert rows
        inside = chunks(database_url, since, until, "quote")
        assert days_looked_at(looked, database_url) == inside
    rows, looked = read(database_url, call, since, until)
    assert sum(looked[name] for name in inside) <= 2 * len(rows)


@pytest.mark.parametrize("call", [
    "gaps_in('acme', 'S3', %s, %s)", "gaps_in('acme', 'S3', %s, %s, 'Trades')",
    "complete('acme', 'S3', 'Trades', %s, %s)", "completeness('acme', 'S3', 'Trades', %s, %s)",
])  # fmt: skip
def test_what_is_missing_is_known_without_a_look_at_rows_or_at_other_streams(
    fill_gaps: Fill, database_url: str, call: str
) -> None:
    """Gaps and intervals have no days. Those of one stream are found by its id."""
    fill_gaps()
    for since, until in BOUNDS:
        rows, looked = read(database_url, f"SELECT * FROM {call}", since, until)
        assert rows
        assert days_looked_at(looked, database_url) == set()
        times_read = 2  # by usable intervals, and by what is lost
        for table in ("gap", "coverage"):
            assert looked.get(table, 0) <= times_read * CALM_GAPS, table


def test_a_book_looks_at_no_day_before_its_snapshot_and_none_after(
    store: Store, database_url: str
) -> None:
    levels = [(int(Side.BID), 8_000_000, 1)]
    events = [(hour * 3600, hour % 24 == 3, False, levels) for hour in range(24 * DAYS)]
    store(book_rows(events))
    rows, looked = read(database_url, "SELECT * FROM book_at('acme', 'S0', %s)", day(2.5))
    assert rows == [("bid", Decimal("80000.00"), Decimal("0.001"))]
    assert touched(looked, database_url, "book") == chunks(database_url, day(2.1), day(2.5), "book")
