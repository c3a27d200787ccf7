"""The proof of the demo must fail when it should: losses, doubles and changes are planted here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from control.proof.ledger_check import LedgerCheck
from control.proof.verdict import Verdict
from engine.start.migrations import migrate
from shards.simulator.core.ledger import BOOK, TRADE, Ledger

VENUES = ("binance_linear", "hyperliquid_perp")


def trades(count: int, first_id: int = 1) -> np.ndarray[Any, np.dtype[np.void]]:
    rows = np.zeros(count, TRADE)
    rows["trade_id"] = np.arange(first_id, first_id + count)
    rows["price_mantissa"] = 8_123_450
    rows["price_decimals"] = 2
    rows["qty_mantissa"] = 15
    rows["qty_decimals"] = 3
    rows["side"] = ord("B")
    return rows


def deltas(count: int) -> np.ndarray[Any, np.dtype[np.void]]:
    rows = np.zeros(count, BOOK)
    rows["seq"] = np.arange(count) // 2
    rows["price_mantissa"] = 100 + np.arange(count)
    rows["price_decimals"], rows["qty_decimals"] = 2, 3
    rows["side"] = ord("b")
    return rows


@pytest.fixture
def ledger_dir(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "ledger", VENUES, [("binance_linear", "BTCUSDT")])
    ledger.trades(trades(100))
    ledger.book(deltas(10))
    ledger.close()
    return tmp_path / "ledger"


@pytest.fixture
def connection(database_url: str) -> Any:
    migrate(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals,"
            " qty_decimals, price_unit, qty_unit, status)"
            " VALUES ('binance_linear', 'BTCUSDT', 1, '', '', 2, 3, 0.01, 0.001, '')"
        )
        connection.execute(
            "INSERT INTO stream (instrument_id, kind, transport)"
            " VALUES (1, 'Trades', 'Ws'), (1, 'L2Book', 'Ws')"
        )
        partitioned = (
            "SELECT relname FROM pg_class WHERE relname IN ('trade', 'book') AND relkind = 'p'"
        )
        for (table,) in connection.execute(partitioned).fetchall():
            connection.execute(f"CREATE TABLE {table}_all PARTITION OF {table} DEFAULT")
        connection.execute(
            "INSERT INTO trade SELECT now(), 0, 1, 1, 0, 'B', 8123450, 15, 0, id"
            " FROM generate_series(1, 100) id"
        )
        connection.execute(
            "INSERT INTO book SELECT now(), 0, 1, 2, 0, 'b', 100 + n, 0, n / 2, 0"
            " FROM generate_series(0, 9) n"
        )
        yield connection


Check = Callable[[], dict[str, Verdict]]


@pytest.fixture
def check(ledger_dir: Path, connection: Any, database_url: str) -> Check:
    return lambda: LedgerCheck(ledger_dir, database_url).verdicts


def test_equal_contents_pass(check: Check) -> None:
    verdicts = check()
    assert verdicts["trade"] == Verdict(sent=100, stored=100)
    assert verdicts["delta"] == Verdict(sent=10, stored=10)


@pytest.mark.parametrize("lost", [0, 1])
def test_versions_with_other_decimals_are_one_stream(
    check: Check, connection: Any, lost: int
) -> None:
    """The sums agree, and where they do not, the rows that are there still do."""
    connection.execute(
        "INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals,"
        " qty_decimals, price_unit, qty_unit, status)"
        " VALUES ('binance_linear', 'BTCUSDT', 2, '', '', 4, 3, 0.0001, 0.001, '')"
    )
    connection.execute(
        "INSERT INTO stream (instrument_id, kind, transport)"
        " VALUES (2, 'Trades', 'Ws'), (2, 'L2Book', 'Ws')"
    )
    connection.execute(
        "UPDATE trade SET stream_id = 3, price = price * 100 WHERE trade_id BETWEEN 40 AND 60"
    )
    connection.execute("UPDATE book SET stream_id = 4, price = price * 100 WHERE seq > 2")
    connection.execute("DELETE FROM trade WHERE trade_id <= %s", (lost,))
    connection.execute("DELETE FROM book WHERE price = 100 AND %s", (bool(lost),))
    verdicts = check()
    for name, sent in (("trade", 100), ("delta", 10)):
        assert verdicts[name] == Verdict(sent=sent, stored=sent - lost, missing=lost)


def test_a_lost_trade_is_missing_until_a_gap_declares_it(check: Check, connection: Any) -> None:
    connection.execute("DELETE FROM trade WHERE trade_id BETWEEN 40 AND 49")
    assert check()["trade"] == Verdict(sent=100, stored=90, missing=10)
    connection.execute(
        "INSERT INTO gap VALUES (now(), 0, 1, 1, 1, 3, 40, 44, 0, 0, 5),"
        " (now(), 0, 1, 2, 1, 3, 45, 49, 0, 0, 5)"
    )
    assert check()["trade"] == Verdict(sent=100, stored=90, missing=5, declared_missing=5)


def test_a_doubled_row_is_a_duplicate(check: Check, connection: Any) -> None:
    connection.execute("INSERT INTO trade SELECT * FROM trade WHERE trade_id = 7")
    assert check()["trade"] == Verdict(sent=100, stored=100, duplicates=1)


def test_a_loss_that_a_double_hides_is_found(check: Check, connection: Any) -> None:
    """Counts agree; sums do not."""
    connection.execute("UPDATE trade SET trade_id = 8 WHERE trade_id = 7")
    assert check()["trade"] == Verdict(sent=100, stored=99, duplicates=1, missing=1)


def test_a_changed_digit_is_found(check: Check, connection: Any) -> None:
    connection.execute("UPDATE trade SET price = price + 1 WHERE trade_id = 7")
    assert check()["trade"] == Verdict(sent=100, stored=99, missing=1, altered=1)
    connection.execute("UPDATE book SET side = 'a' WHERE price = 103")
    assert check()["delta"].altered == 1
    connection.execute("UPDATE book SET qty = 1 WHERE price = 104")
    assert check()["delta"].altered == 2


def test_a_stream_that_stored_nothing_is_all_missing(check: Check, connection: Any) -> None:
    connection.execute("TRUNCATE trade")
    connection.execute("DELETE FROM stream WHERE kind = 'Trades'")
    assert check()["trade"] == Verdict(sent=100, missing=100)


def test_a_whole_book_that_says_what_changes_have_said_is_not_owed(
    tmp_path: Path, connection: Any, database_url: str
) -> None:
    """A topic that is subscribed anew begins with one; any other tells what nobody else does."""
    here = "bybit_linear", "BTCUSDT"
    connection.execute("UPDATE instrument SET venue = 'bybit_linear'")
    ledger = Ledger(tmp_path / "pushed", here[:1], [here])
    ledger.book(deltas(10))
    for seq in (4, 9):
        whole = deltas(6)
        whole["snapshot"], whole["seq"] = 1, seq
        ledger.book(whole)
    ledger.close()
    verdicts = LedgerCheck(tmp_path / "pushed", database_url).verdicts
    assert verdicts["delta"] == Verdict(sent=10, stored=10)
    assert verdicts["whole"] == Verdict(sent=6, missing=6)


def test_each_venue_answers_for_its_own_rows_and_gaps(
    tmp_path: Path, connection: Any, database_url: str
) -> None:
    symbols = [("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC")]
    ledger = Ledger(tmp_path / "two", VENUES, symbols)
    ledger.trades(trades(100))
    others = trades(3, first_id=7)
    others["symbol"] = 1
    ledger.trades(others)
    ledger.close()
    connection.execute(
        "INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals,"
        " qty_decimals, price_unit, qty_unit, status)"
        " VALUES ('hyperliquid_perp', 'BTC', 1, '', '', 2, 3, 0.01, 0.001, '')"
    )
    connection.execute(
        "INSERT INTO stream (instrument_id, kind, transport)"
        " VALUES (2, 'Trades', 'Ws'), (2, 'FundingOpenInterest', 'Ws')"
    )
    connection.execute("INSERT INTO trade SELECT now(), 0, 1, 3, 0, 'B', 8123450, 15, 0, 7")
    connection.execute(
        "INSERT INTO gap VALUES (now(), 0, 1, 3, 1, 3, 8, 8, 0, 0, 1),"
        " (now(), 0, 1, 4, 1, 3, 0, 0, 0, 0, -1)"
    )
    check = LedgerCheck(tmp_path / "two", database_url)
    assert check.by_venue["hyperliquid_perp"]["trade"] == Verdict(
        sent=3, stored=1, missing=1, declared_missing=1
    )
    assert check.by_venue["binance_linear"]["trade"] == Verdict(sent=100, stored=100)
    assert check.verdicts["trade"] == Verdict(sent=103, stored=101, missing=1, declared_missing=1)
    assert check.gaps == {"hyperliquid_perp": {"trade": 1, "funding": 1, "open_interest": 1}}
    unequal = {each.row_class: each.to_json() for each in check.unequal}
    assert unequal.pop("trade") == {
        "venue": "hyperliquid_perp", "symbol": "BTC", "transport": "Ws", "class": "trade",
        "sent": 3, "stored": 1, "duplicates": 0, "missing": 1, "declared_missing": 1, "altered": 0,
    }  # fmt: skip
    assert unequal.keys() == {"delta"}, "rows that nobody sent"
