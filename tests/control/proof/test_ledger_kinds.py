"""The proof for quotes, funding, open interest and liquidations must fail when it should.

The views are stood in for by tables of their names, so that every row can be planted.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from control.proof.ledger_kinds import check_kinds
from control.proof.verdict import Verdict, total
from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, SETTLED, Ledger, read_ledger

VENUES = ("binance_linear", "hyperliquid_perp")
SYMBOLS = [("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC")]
START_NS = 1_795_000_000_000_000_000
NEXT_NS = 1_795_017_600_000_000_000
BOTH = BID_PRESENT | ASK_PRESENT

SCHEMA = """
    CREATE TABLE instrument (instrument_id int, venue text, symbol text);
    INSERT INTO instrument VALUES
        (1, 'binance_linear', 'BTCUSDT'), (2, 'hyperliquid_perp', 'BTC');
    CREATE TABLE stream (stream_id int, instrument_id int, kind text, transport text);
    INSERT INTO stream VALUES
        (1, 1, 'Ticker', 'Ws'), (2, 1, 'Funding', 'Ws'), (3, 1, 'Funding', 'HttpPoll'),
        (4, 1, 'OpenInterest', 'HttpPoll'), (5, 1, 'Liquidations', 'Ws'),
        (6, 2, 'FundingOpenInterest', 'Ws'), (7, 2, 'FundingOpenInterest', 'HttpPoll');
    CREATE TABLE stream_registry (venue text, symbol text, kind text, transport text);
    CREATE TABLE gap (stream_id int, from_seq int8, to_seq int8, from_ts int8, to_ts int8);
    CREATE TABLE quotes (stream_id int, time timestamptz, seq int8, bid numeric,
        bid_quantity numeric, ask numeric, ask_quantity numeric,
        recv_time timestamptz DEFAULT clock_timestamp());
    CREATE TABLE funding_rates (stream_id int, time timestamptz, rate numeric, mark_price numeric,
        index_price numeric, next_funding_time timestamptz, recv_time timestamptz,
        funding_interval interval, settled boolean DEFAULT false);
    CREATE TABLE open_interest_points (stream_id int, time timestamptz, quantity numeric,
        recv_time timestamptz DEFAULT clock_timestamp());
    CREATE TABLE liquidations (stream_id int, time timestamptz, side text, price numeric,
        average_price numeric, quantity numeric, filled_quantity numeric,
        recv_time timestamptz DEFAULT clock_timestamp());
"""
AT = "timestamptz 'epoch' + (1795000000 + n) * interval '1 second'"
ROWS = f"""
    INSERT INTO quotes SELECT 1, {AT}, n, 81234.40, CASE WHEN n > 0 THEN 1.200 END, 81234.60, 0.8
        FROM generate_series(0, 4) n;
    UPDATE quotes SET bid = NULL WHERE bid_quantity IS NULL;
    INSERT INTO funding_rates SELECT s, {AT}, -0.0001 + n * 0.00000001, 81235.1, 81240.22,
        CASE WHEN s < 6 THEN timestamptz 'epoch' + 1795017600 * interval '1 second' END,
        {AT} + interval '40 ms', CASE WHEN s < 6 THEN interval '4 h' ELSE interval '1 h' END
        FROM generate_series(0, 4) n, unnest(ARRAY[2, 3, 6, 7]) s;
    INSERT INTO open_interest_points SELECT s, {AT}, 31000.123 + n
        FROM generate_series(0, 4) n, unnest(ARRAY[4, 6, 7]) s;
    INSERT INTO liquidations SELECT 5, {AT}, 'sell', 80900, 80950.1, 0.014, 0.010
        FROM generate_series(0, 4) n;
"""


@pytest.fixture
def ledger_dir(tmp_path: Path) -> Path:
    """Five rows of everything, a second apart."""
    ledger = Ledger(tmp_path / "ledger", VENUES, SYMBOLS)
    ledger.interval((0, 0, START_NS, 4 * 3600))
    ledger.interval((1, 1, 0, 3600))
    for n in range(5):
        at_ns = START_NS + n * 1_000_000_000
        bid = (8_123_440, 1200) if n else (0, 0)
        ledger.quote((0, 0, at_ns, n, *bid, 8_123_460, 800, 2, 3, BOTH if n else ASK_PRESENT, 0))
        for venue, next_ns in ((0, NEXT_NS), (1, 0)):
            for rest in (0, 1):
                # The same values with other decimals: rates with 8, prices with 8 and with 2.
                prices = (8_123_510, 8_124_022, 2) if venue else (8123510000000, 8124022000000, 8)
                ledger.funding((venue, venue, at_ns, -10_000 + n, 8, *prices, next_ns, rest))
        paid = (0, 0, at_ns, -10_000 + n, 8, 8_123_510, 0, 2, 0, SETTLED)
        ledger.funding(paid)
        for venue, rest in ((0, 1), (1, 0), (1, 1)):
            ledger.open_interest((venue, venue, at_ns, 31_000_123 + 1000 * n, 3, rest))
        ledger.liquidation((0, 0, at_ns, ord("S"), 8_090_000, 8_095_010, 2, 14, 10, 3))
    ledger.close()
    return tmp_path / "ledger"


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute(ROWS)
        yield connection


Check = Callable[[], dict[str, Verdict]]


@pytest.fixture
def check(ledger_dir: Path, connection: psycopg.Connection[Any]) -> Check:
    def compare() -> dict[str, Verdict]:
        found = check_kinds(read_ledger(ledger_dir), connection)
        return {name: total(streams.values()) for name, streams in found.items()}

    return compare


def test_equal_contents_pass(check: Check) -> None:
    assert check() == {
        "quote": Verdict(sent=5, stored=5),
        "funding": Verdict(sent=20, stored=20),
        "open_interest": Verdict(sent=15, stored=15),
        "liquidation": Verdict(sent=5, stored=5),
    }


def test_a_kind_without_a_view_is_left_out(check: Check, connection: Any) -> None:
    connection.execute("DROP TABLE liquidations, quotes")
    assert set(check()) == {"funding", "open_interest"}


def test_a_lost_row_is_missing_until_a_gap_declares_it(check: Check, connection: Any) -> None:
    connection.execute("DELETE FROM quotes WHERE seq IN (2, 3)")
    connection.execute("DELETE FROM funding_rates WHERE stream_id = 6 AND rate = -0.00009998")
    assert check()["quote"] == Verdict(sent=5, stored=3, missing=2)
    assert check()["funding"] == Verdict(sent=20, stored=19, missing=1)
    connection.execute("INSERT INTO gap VALUES (1, 2, 2, 0, 0)")
    at_ns = START_NS + 2_000_000_000
    connection.execute("INSERT INTO gap VALUES (6, 0, 0, %s, %s)", (at_ns - 10, at_ns + 10))
    assert check()["quote"] == Verdict(sent=5, stored=3, missing=1, declared_missing=1)
    assert check()["funding"] == Verdict(sent=20, stored=19, declared_missing=1)


@pytest.mark.parametrize("table", ["quotes", "funding_rates", "liquidations"])
def test_a_doubled_row_is_a_duplicate(check: Check, connection: Any, table: str) -> None:
    before = check()
    connection.execute(f"INSERT INTO {table} (SELECT * FROM {table} WHERE stream_id < 6 LIMIT 1)")
    after = {name: verdict for name, verdict in check().items() if verdict != before[name]}
    assert [verdict.duplicates for verdict in after.values()] == [1]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE quotes SET bid = bid + 0.01 WHERE seq = 1", "quote"),
        ("UPDATE quotes SET bid = 0, bid_quantity = 0 WHERE seq = 0", "quote"),
        ("UPDATE quotes SET time = time + interval '1 ms' WHERE seq = 1", "quote"),
        ("UPDATE funding_rates SET rate = 0 WHERE stream_id = 2 AND rate = -0.0001", "funding"),
        (
            "UPDATE funding_rates SET next_funding_time = NULL"
            " WHERE stream_id = 3 AND rate = -0.0001",
            "funding",
        ),
        ("UPDATE liquidations SET side = 'buy' WHERE ctid = '(0,1)'", "liquidation"),
        ("UPDATE liquidations SET filled_quantity = 0.014 WHERE ctid = '(0,1)'", "liquidation"),
        (
            "UPDATE open_interest_points SET quantity = 1 WHERE stream_id = 7"
            " AND quantity = 31000.123",
            "open_interest",
        ),
    ],
)
def test_a_changed_value_is_found(check: Check, connection: Any, change: str, kind: str) -> None:
    connection.execute(change)
    verdict = check()[kind]
    assert (verdict.missing, verdict.altered) == (1, 1)


def test_values_without_a_venue_time_are_known_by_their_numbers(
    check: Check, connection: Any
) -> None:
    """Received later, and polled twice while they stood: both are as they should be."""
    connection.execute(
        "UPDATE funding_rates SET time = time + interval '40 ms' WHERE stream_id > 5"
    )
    poll_again(connection, 7)
    assert check()["funding"] == Verdict(sent=20, stored=20)
    connection.execute(
        "INSERT INTO funding_rates SELECT * FROM funding_rates WHERE stream_id = 6 LIMIT 1"
    )
    assert check()["funding"].duplicates == 1


def poll_again(connection: Any, stream: int) -> None:
    """The same samples, received once more a second later."""
    connection.execute(
        "INSERT INTO funding_rates SELECT stream_id, time, rate, mark_price, index_price,"
        " next_funding_time, recv_time + interval '1 second', funding_interval"
        f" FROM funding_rates WHERE stream_id = {stream}"
    )


@pytest.mark.fault("N06")
def test_samples_of_one_venue_time_are_honest_and_one_stored_twice_is_not(
    check: Check, connection: Any
) -> None:
    poll_again(connection, 3)
    assert check()["funding"] == Verdict(sent=20, stored=20)
    connection.execute(
        "INSERT INTO funding_rates SELECT * FROM funding_rates WHERE stream_id = 3 LIMIT 1"
    )
    assert check()["funding"].duplicates == 1
    poll_again(connection, 2)
    assert check()["funding"].duplicates == 6, "what is pushed twice is stored once"


def test_what_was_served_counts_only_where_a_polled_stream_is(
    check: Check, connection: Any
) -> None:
    for table in ("funding_rates", "open_interest_points"):
        connection.execute(f"DELETE FROM {table} WHERE stream_id IN (3, 4, 7)")
    assert check()["funding"] == Verdict(sent=20, stored=10, missing=10)
    connection.execute("DELETE FROM stream WHERE transport = 'HttpPoll'")
    assert check()["funding"] == Verdict(sent=10, stored=10)
    assert check()["open_interest"] == Verdict(sent=5, stored=5)


def test_what_was_paid_is_owed_to_the_stream_that_asks_for_it_once(
    check: Check, connection: Any
) -> None:
    connection.execute("INSERT INTO stream VALUES (8, 1, 'SettledFunding', 'HttpPoll')")
    assert check()["funding"] == Verdict(sent=25, stored=20, missing=5)
    store = f"""
        INSERT INTO funding_rates (stream_id, time, rate, mark_price, recv_time, settled)
        SELECT 8, {AT}, -0.0001 + n * 0.00000001, 81235.1, clock_timestamp(), true
        FROM generate_series(0, %s) n
    """
    connection.execute(store, (4,))
    assert check()["funding"] == Verdict(sent=25, stored=25)
    connection.execute("UPDATE funding_rates SET settled = true WHERE stream_id = 2")
    assert check()["funding"].altered == 5, "what was pushed is no payment"
    connection.execute("UPDATE funding_rates SET settled = false")
    assert check()["funding"].altered >= 5, "what was paid says so"
    connection.execute("UPDATE funding_rates SET settled = stream_id = 8")
    connection.execute(store, (0,))
    assert check()["funding"].duplicates == 1, "asked for twice, it is stored once"


def test_a_pushed_kind_without_its_stream_is_all_missing(check: Check, connection: Any) -> None:
    connection.execute("TRUNCATE quotes")
    connection.execute("DELETE FROM stream WHERE kind = 'Ticker'")
    assert check()["quote"] == Verdict(sent=5, missing=5)


INTERVAL = "UPDATE funding_rates SET funding_interval = {} WHERE stream_id = {}"


@pytest.mark.parametrize(
    ("value", "stream", "wrong"),
    [("interval '8 h'", 2, 5), ("NULL", 6, 5), ("interval '8 h'", 7, 5), ("NULL", 3, 3)],
)
def test_an_interval_the_venue_did_not_say_is_found(
    check: Check, connection: Any, value: str, stream: int, wrong: int
) -> None:
    """One that is missing may have been on its way for two seconds."""
    connection.execute(INTERVAL.format(value, stream))
    assert check()["funding"] == Verdict(sent=20, stored=20, altered=wrong)


def test_an_interval_is_unknown_until_the_venue_says_it_and_then_outlives_its_change_shortly(
    ledger_dir: Path, check: Check, connection: Any
) -> None:
    (ledger_dir / "interval.bin").unlink()
    ledger = Ledger(ledger_dir, VENUES, SYMBOLS)
    ledger.interval((1, 1, 0, 3600))
    ledger.close()
    assert check()["funding"].altered == 10, "guessed: nobody had said it"
    connection.execute(INTERVAL.format("NULL", "ANY(ARRAY[2, 3])"))
    assert check()["funding"].altered == 0
    ledger = Ledger(ledger_dir, VENUES, SYMBOLS)
    ledger.interval((0, 0, START_NS - 200_000_000_000, 8 * 3600))
    ledger.interval((0, 0, START_NS - 118_000_000_000, 4 * 3600))
    ledger.close()
    connection.execute(INTERVAL.format("interval '8 h'", "ANY(ARRAY[2, 3])"))
    assert check()["funding"].altered == 6, "three of five rows came when all must have asked again"
