"""What is traded and how it is counted: sizes in the base currency, and versions of instruments
that come to know what a release before did not.
"""

import random
import re
from collections.abc import Callable, Iterator
from decimal import Context, Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import SourceKey
from engine.data.slots import Slots
from engine.database.session import WRITER, open_session
from engine.messages.listings import InstrumentEvent, StoreListing
from engine.start.migrations import load_migrations, migrate, sql_dir
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.listing_store import store_listing
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.conftest import MakeSettings, MakeTrades, claim
from tests.stores import execute, select

MARKETS = {
    "SPOT": ("1", SizeUnit.BASE), "CONTRACT": ("0.0010", SizeUnit.BASE),
    "INVERSE": ("100", SizeUnit.QUOTE), "UNKNOWN": ("1", SizeUnit.UNKNOWN),
    "SIZELESS": ("", SizeUnit.BASE),
}  # fmt: skip
EXACT = Context(prec=400)
VIEWS = ("trades", "book_levels", "quotes", "open_interest_points", "liquidations")

Fill = Callable[[], None]
Store = Callable[[RecordArray], None]


def described(symbol: str, **changes: Any) -> Instrument:
    """As a release that knows markets says it."""
    facts: dict[str, Any] = {
        "price_decimals": 2, "qty_decimals": 3, "tick_size": "0.01", "status": "on",
        "state": InstrumentState.TRADING, "kind": InstrumentKind.PERPETUAL, "venue_kind": "PERP",
        "settle": "USDT", "contract_unit": SizeUnit.BASE, "listed_ns": 1_600_000_000_123_456_789,
        **changes,
    }  # fmt: skip
    return Instrument("acme", symbol, **facts)


def before(symbol: str, **changes: Any) -> Instrument:
    """As a release before 0.2 said it."""
    return Instrument("acme", symbol, 2, 3, tick_size="0.01", status="on", **changes)


def list_now(url: str, *instruments: Instrument, gone: str = "", loaded_ns: int = 1) -> int:
    """What the writer does with a listing; how many versions it added."""
    events = [InstrumentEvent("acme", gone, "delisted")] if gone else []

    async def main() -> int:
        connection = await open_session(url, WRITER)
        try:
            listing = StoreListing("acme", list(instruments), events, loaded_ns)
            return await store_listing(connection, listing)
        finally:
            await connection.close()

    return uvloop.run(main())


@pytest.fixture
def store(database_url: str, make_settings: MakeSettings, slots: Slots) -> Store:
    """One commit, by a writer that is new at every call."""
    stored = 0

    def store(rows: RecordArray) -> None:
        async def main() -> None:
            nonlocal stored
            sink = PostgresSink(make_settings(database_url=database_url), slots)
            await sink.open({})
            key = SourceKey("shard-0.trade", 1)
            assert await claim(sink, key.ring, 1, 0) == stored
            taken = await sink.take(Batch([Slice.whole(key, TRADE, stored, rows)]), durable=False)
            assert not taken.refused
            stored += len(rows)
            await sink.close()

        uvloop.run(main())

    return store


@pytest.fixture
def fill(database_url: str) -> Fill:
    """Rows of every kind that has quantities, of every market: small, large, without a price."""

    def fill() -> None:
        list_now(
            database_url,
            *(
                described(symbol, contract_size=size, contract_unit=unit)
                for symbol, (size, unit) in MARKETS.items()
            ),
        )
        execute(
            database_url,
            "INSERT INTO stream (instrument_id, kind, transport)"
            " SELECT instrument_id, 'Trades', 'Ws' FROM instrument",
            *(
                f"SELECT make_day('{table}', '2026-11-22')"
                for table in ("trade", "book", "quote", "open_interest", "liquidation")
            ),
            *(
                f"INSERT INTO {table} SELECT '2026-11-22 12:00+00', 0, 0, stream_id, 0, {values}"
                " FROM stream"
                for price, qty in numbers()
                for table, values in (
                    ("trade", f"'B', {price}, {qty}, 0, 1"),
                    ("book", f"'b', {price}, {qty}, 1, 0"),
                    ("quote", f"1, {price}, {qty}, {price}, {qty}"),
                    ("open_interest", f"{qty}"),
                    ("liquidation", f"'S', {price}, 0, {qty}, 0"),
                )
            ),
        )

    return fill


def numbers() -> Iterator[tuple[int, int]]:
    """Mantissas of prices and quantities."""
    yield from ((0, 1), (3, 0), (1, 2**63 - 1), (2**63 - 1, 1), (700, 300_000))
    chance = random.Random(19)
    for _ in range(40):
        yield tuple(chance.randrange(1, 10 ** chance.randrange(1, 18)) for _ in range(2))  # type: ignore[misc]


def is_base_quantity(
    found: Decimal | None, symbol: str, price: Decimal | None, qty: Decimal
) -> bool:
    """By what docs/markets.md says: exact, or rounded to the nearest at 24 decimals or more."""
    size, unit = MARKETS[symbol]
    if not size or unit is SizeUnit.UNKNOWN or (unit is SizeUnit.QUOTE and not price):
        return found is None
    if found is None:
        return False
    with localcontext(EXACT):
        if unit is SizeUnit.BASE:
            return found == qty * Decimal(size)
        assert price is not None
        exponent = found.as_tuple().exponent
        assert isinstance(exponent, int)
        error = abs(found * price - qty * Decimal(size))
        return exponent <= -24 and 2 * error <= price.scaleb(exponent)


def test_a_base_quantity_is_exact_or_rounded_as_the_page_says(
    fill: Fill, database_url: str
) -> None:
    fill()
    found = [
        row
        for columns in (
            "price, quantity, base_quantity FROM trades",
            "price, quantity, base_quantity FROM book_levels",
            "bid, bid_quantity, bid_base_quantity FROM quotes WHERE bid IS NOT NULL",
            "ask, ask_quantity, ask_base_quantity FROM quotes WHERE ask IS NOT NULL",
            "NULL, quantity, base_quantity FROM open_interest_points",
            "price, quantity, base_quantity FROM liquidations",
        )
        for row in select(database_url, f"SELECT symbol, {columns}")
    ]
    assert len(found) == (6 * 45 - 2) * len(MARKETS)
    for symbol, price, quantity, base_quantity in found:
        assert is_base_quantity(base_quantity, symbol, price, quantity), (symbol, price, quantity)


def test_an_inverse_contract_is_written_as_one_expects(fill: Fill, database_url: str) -> None:
    fill()
    query = (
        "SELECT base_quantity::text FROM trades WHERE price = 7 AND quantity = 300 AND symbol = %s"
    )
    assert [select(database_url, query, (symbol,))[0][0] for symbol in MARKETS] == [
        "300.000", "0.3000000", "4285.714285714285714285714286", None, None,
    ]  # fmt: skip


def test_in_double_precision_it_is_the_nearest(fill: Fill, database_url: str) -> None:
    fill()
    for view in VIEWS:
        names = (
            ["bid_base_quantity", "ask_base_quantity"] if view == "quotes" else ["base_quantity"]
        )
        for name in names:
            exact, near = (
                select(
                    database_url,
                    f"SELECT {name} FROM {of} ORDER BY stream_id, {quantity}, {name}, time",
                )
                for quantity in [name.replace("base_", "")]
                for of in (view, f"{view}_f")
            )
            assert any(value is not None for (value,) in exact)
            assert near == [(None if each is None else float(each),) for (each,) in exact], view


def test_functions_by_symbol_return_it_too(fill: Fill, database_url: str) -> None:
    fill()
    bounds = ("acme", "INVERSE", "2026-11-22Z", "2026-11-23Z")
    for view in (each + suffix for each in VIEWS for suffix in ("", "_f")):
        of_view = select(database_url, f"SELECT v::text FROM {view} v WHERE symbol = 'INVERSE'")
        of_call = select(database_url, f"SELECT v::text FROM {view}(%s, %s, %s, %s) v", bounds)
        assert sorted(of_call) == sorted(of_view), view
        newest = select(database_url, f"SELECT v::text FROM newest_{view}('acme', 'INVERSE') v")
        assert len(newest) == 1 and newest[0] in of_view


def test_what_the_page_says_in_sql_works(fill: Fill, database_url: str) -> None:
    fill()
    page = Path(__file__).parents[5] / "docs" / "markets.md"
    (block,) = re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)
    statements = [each for each in block.split(";") if each.strip()]
    assert len(statements) == 6
    for statement in statements:
        select(database_url, statement.replace("%", "%%"))


def test_bars_of_inverse_contracts_say_money_exactly_and_coins_between_two_bounds(
    database_url: str,
) -> None:
    """As docs/markets.md says."""
    list_now(database_url, described("INVERSE", contract_size="10", contract_unit=SizeUnit.QUOTE))
    execute(
        database_url,
        "INSERT INTO stream (instrument_id, kind, transport)"
        " SELECT instrument_id, 'Trades', 'Ws' FROM instrument",
        "SELECT make_day('trade', '2026-11-22')",
        *(
            "INSERT INTO trade SELECT '2026-11-22 12:00:01+00', 0, 0, stream_id, 0, 'B',"
            f" {price}, {contracts}, 0, {number} FROM stream"
            for number, (price, contracts) in enumerate(((900_000, 300), (910_000, 700)))
        ),
    )
    ((money, coins, least, most),) = select(
        database_url,
        "SELECT b.volume * 10, t.coins, b.volume * 10 / b.high, b.volume * 10 / b.low"
        " FROM bars('acme', 'INVERSE', '2026-11-22Z', '2026-11-23Z') b,"
        " (SELECT sum(base_quantity) AS coins FROM trades) t",
    )
    prices = select(database_url, "SELECT price, quantity FROM trades")
    assert money == 10 * sum(quantity for _, quantity in prices)
    assert coins == pytest.approx(10 * sum(quantity / price for price, quantity in prices))
    assert least < coins < most


# -- versions ----------------------------------------------------------------------------------


def versions(url: str, symbol: str) -> list[tuple[Any, ...]]:
    return select(
        url,
        "SELECT version, contract_size::text, contract_unit,"
        " instrument_kind, instrument_state FROM instrument"
        " WHERE symbol = %s ORDER BY 1",
        (symbol,),
    )


def test_facts_of_the_market_are_stored_as_they_were_said(database_url: str) -> None:
    list_now(database_url, described("A", delivery_ns=1_800_000_000_000_000_000), described("B"))
    query = (
        "SELECT instrument_kind, venue_kind, instrument_state,"
        " status, settle, contract_unit, listed_at::text,"
        " delivery_at::text FROM instrument ORDER BY symbol"
    )
    common = ("perpetual", "PERP", "trading", "on", "USDT", "base", "2020-09-13 12:26:40.123456+00")
    assert select(database_url, query) == [
        (*common, "2027-01-15 08:00:00+00"), (*common, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"contract_size": "10"}, {"contract_unit": SizeUnit.QUOTE}, {"settle": "USDC"},
        {"kind": InstrumentKind.FUTURE}, {"venue_kind": "X"}, {"state": InstrumentState.HALTED},
        {"listed_ns": 5000},
    ],
)  # fmt: skip
def test_each_fact_that_changes_is_a_version(database_url: str, changes: dict[str, Any]) -> None:
    assert list_now(database_url, described("A")) == 1
    assert list_now(database_url, described("A", **changes)) == 1
    assert list_now(database_url, described("A", **changes)) == 0
    assert list_now(database_url, described("A")) == 1


def test_a_fact_that_is_known_no_more_is_a_version_where_others_are(database_url: str) -> None:
    doubtful = described("A", contract_unit=SizeUnit.UNKNOWN)
    steps = [described("A"), doubtful, doubtful, before("A"), described("A")]
    assert [list_now(database_url, each) for each in steps] == [1, 1, 0, 0, 0]
    assert [row[2] for row in versions(database_url, "A")] == ["base", "base"]


def test_a_delivery_that_becomes_known_is_filled_in_and_one_that_moves_is_a_version(
    database_url: str,
) -> None:
    known, later = (described("A", delivery_ns=each * 10**18) for each in (2, 3))
    added = [
        list_now(database_url, each) for each in (described("A"), known, later, described("A"))
    ]
    assert added == [1, 0, 1, 1]


def test_what_was_not_known_is_filled_in_and_nothing_is_stored_twice(
    store: Store, database_url: str, slots: Slots, trades: MakeTrades
) -> None:
    """Rows of before, a listing that knows more, the stream table behind it and then with it."""
    store(trades(8))
    rows = (
        "SELECT time, symbol, price::text, quantity::text, stream_id FROM trades ORDER BY trade_id"
    )
    stored = select(database_url, rows)
    streams = select(database_url, "SELECT * FROM stream ORDER BY 1")
    assert select(database_url, "SELECT count(base_quantity) FROM trades") == [(0,)]

    assert list_now(database_url, described("S0")) == 0
    assert versions(database_url, "S0") == [(1, "1", "base", "perpetual", "trading")]
    store(trades(8, first_id=8))  # the stream table says what the release before said
    slots.describe(0, described("S0"))
    slots.describe(1, described("S1"))  # here the stream table is ahead of the listing
    store(trades(8, first_id=16))
    for symbol in ("S0", "S1"):
        assert list_now(database_url, described(symbol)) == 0
        assert versions(database_url, symbol) == [(1, "1", "base", "perpetual", "trading")]

    assert select(database_url, "SELECT * FROM stream ORDER BY 1") == streams
    assert select(database_url, rows)[: len(stored)] == stored
    counts = "SELECT symbol, count(*), count(base_quantity) FROM trades GROUP BY 1 ORDER BY 1"
    assert select(database_url, counts) == [
        ("S0", 6, 6), ("S1", 6, 6), ("S2", 6, 0), ("S3", 6, 0),
    ]  # fmt: skip


def test_what_was_known_is_never_filled_in(database_url: str) -> None:
    """Not even by somebody who may call the function."""
    list_now(database_url, described("A"))
    execute(
        database_url,
        "SELECT fill_unknown_facts(instrument_id, 'spot', 'X', 'halted', 'EUR', 'quote', now(),"
        " '2030-01-01Z') FROM instrument",
    )
    query = (
        "SELECT instrument_kind, venue_kind, instrument_state,"
        " settle, contract_unit, listed_at::date::text,"
        " delivery_at::date::text FROM instrument"
    )
    assert select(database_url, query) == [
        ("perpetual", "PERP", "trading", "USDT", "base", "2020-09-13", "2030-01-01")
    ]


def test_history_stays_as_little_known_as_it_was(
    store: Store, database_url: str, slots: Slots, trades: MakeTrades
) -> None:
    list_now(database_url, before("S0"))
    list_now(database_url, before("S0", contract_size="10"))
    assert list_now(database_url, described("S0")) == 1
    slots.describe(0, described("S0"))
    store(trades(1))
    assert versions(database_url, "S0") == [
        (1, "1", "", "", ""), (2, "10", "", "", ""), (3, "1", "base", "perpetual", "trading"),
    ]  # fmt: skip
    assert select(database_url, "SELECT base_quantity FROM trades") == [(Decimal("0.001"),)]


def test_a_contract_of_another_size_leaves_stored_rows_what_they_were(
    store: Store, database_url: str, slots: Slots, trades: MakeTrades
) -> None:
    contracts = [("1", SizeUnit.BASE), ("100", SizeUnit.BASE), ("100", SizeUnit.QUOTE)]
    for number, (size, unit) in enumerate(contracts):
        slots.describe(0, described("S0", contract_size=size, contract_unit=unit))
        store(trades(1, first_id=4 * number))
    query = (
        "SELECT version, base_quantity * CASE contract_unit WHEN 'quote' THEN price ELSE 1 END"
        " FROM trades JOIN stream USING (stream_id) JOIN instrument USING (instrument_id)"
        " ORDER BY 1"
    )
    assert [(version, round(each, 9)) for version, each in select(database_url, query)] == [
        (1, Decimal("0.001")), (2, Decimal("0.5")), (3, Decimal("0.9")),
    ]  # fmt: skip


def test_decimals_that_rows_need_keep_what_is_known_of_the_market(
    store: Store, database_url: str, trades: MakeTrades
) -> None:
    """Also where the stream table is of a release that did not know it."""
    store(trades(1))
    list_now(database_url, described("S0"))
    finer = trades(1, first_id=4)
    finer["price"] = 1.2345
    store(finer)
    known = ("1", "base", "perpetual", "trading")
    assert versions(database_url, "S0") == [(1, *known), (2, *known)]


@pytest.mark.parametrize(
    ("instrument", "state"),
    [
        (described("A"), "delisted"), (before("A"), "delisted"),
        (described("A", delivery_ns=10**18 + 10**9), "delisted"),
        (described("A", delivery_ns=10**18), "expired"),
        (described("A", state=InstrumentState.EXPIRED, delivery_ns=0), "expired"),
    ],
)  # fmt: skip
def test_what_is_gone_is_delisted_or_expired(
    database_url: str, instrument: Instrument, state: str
) -> None:
    list_now(database_url, instrument)
    for _ in range(2):
        list_now(database_url, gone="A", loaded_ns=10**18)
    found = select(
        database_url, "SELECT version, status, instrument_state FROM instrument ORDER BY 1"
    )
    assert found[1:] == [(2, "DELISTED", state)]


def test_a_database_of_before_is_brought_up_to_date(
    empty_database_url: str, tmp_path: Path
) -> None:
    url = empty_database_url
    migrations = load_migrations(sql_dir())
    place = next(n for n, m in enumerate(migrations) if m.file_name.endswith("_markets.sql"))
    for migration in migrations[:place]:
        (tmp_path / migration.file_name).write_text(migration.text)
    migrate(url, folder=tmp_path)
    execute(
        url,
        "INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals, qty_decimals,"
        " price_unit, qty_unit, tick_size, contract_size, status) VALUES"
        " ('acme', 'S0', 1, '', '', 2, 3, 0.01, 0.001, 0.01, 1, 'on'),"
        " ('acme', 'S1', 1, '', '', 2, 3, 0.01, 0.001, 0.01, 1, 'DELISTED')",
        "INSERT INTO stream (instrument_id, kind, transport) VALUES (1, 'Trades', 'Ws')",
        "SELECT make_day('trade', '2026-11-22')",
        "INSERT INTO trade SELECT '2026-11-22Z', 0, 0, 1, 0, 'B', n, 700, 0, n"
        " FROM generate_series(1, 100) AS n",
    )
    rows = "SELECT * FROM trades ORDER BY trade_id"
    stored = select(url, rows)
    assert migrate(url) == [each.file_name for each in migrations[place:]]
    assert select(url, rows) == [(*row, None) for row in stored]
    assert select(url, "SELECT instrument_state FROM instrument ORDER BY symbol") == [
        ("",),
        ("delisted",),
    ]
    assert list_now(url, described("S0")) == 0
    assert [row[-1] for row in select(url, rows)] == [row[6] for row in stored]
