"""The proof of what cannot be read must fail when it should: fewer rows declared, or more."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from control.proof.ledger_unreadable import check_unreadable
from control.proof.verdict import Verdict, total
from shards.simulator.core.ledger import Ledger, read_ledger

MS = 1_795_000_000_000
NS = 1_000_000
SCHEMA = """
    CREATE TABLE instrument (instrument_id int, venue text, symbol text);
    INSERT INTO instrument VALUES (1, 'binance_linear', 'BTCUSDT'), (2, 'hyperliquid_perp', 'BTC');
    CREATE TABLE stream (stream_id int, instrument_id int, kind text, transport text);
    INSERT INTO stream VALUES (1, 1, 'Trades', 'Ws'), (2, 2, 'FundingOpenInterest', 'HttpPoll');
    CREATE TABLE stream_registry (venue text, symbol text, kind text, transport text);
    CREATE TABLE gap (stream_id int, reason int, from_seq int8, to_seq int8, from_ts int8,
        to_ts int8, missing int8);
"""
Check = Callable[[], dict[str, Verdict]]


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        yield connection


@pytest.fixture
def check(tmp_path: Path, connection: psycopg.Connection[Any]) -> Check:
    ledger = Ledger(
        tmp_path, ("binance_linear", "hyperliquid_perp"),
        [("binance_linear", "BTCUSDT"), ("hyperliquid_perp", "BTC")],
    )  # fmt: skip
    ledger.unreadable(0, 0, "trade", (MS, 101), 1)
    ledger.unreadable(1, 1, "funding", (MS, 0), 2, rest=1)
    ledger.close()

    def compare() -> dict[str, Verdict]:
        found = check_unreadable(read_ledger(tmp_path), connection)
        return {name: total(streams.values()) for name, streams in found.items()}

    return compare


def gap(connection: Any, stream: int, seq: int, missing: int, reason: int = 12) -> None:
    connection.execute(
        "INSERT INTO gap VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (stream, reason, seq, seq, (MS - 1) * NS, (MS + 1) * NS, missing),
    )


@pytest.mark.fault("N03")
def test_each_is_missing_until_a_gap_of_its_stream_declares_it(
    check: Check, connection: Any
) -> None:
    assert check() == {"unreadable": Verdict(sent=3, missing=3)}
    gap(connection, 1, 102, 1)
    assert check()["unreadable"].missing == 3, "another id"
    connection.execute("DELETE FROM gap")
    gap(connection, 1, 101, 1)
    gap(connection, 2, 0, 2)
    assert check() == {"unreadable": Verdict(sent=3, declared_missing=3)}
    gap(connection, 2, 0, 2)
    assert check()["unreadable"].altered == 2, "declared twice"


@pytest.mark.fault("N03")
def test_a_ledger_without_any_says_nothing(tmp_path: Path, connection: Any) -> None:
    Ledger(tmp_path, ("binance_linear",), []).close()
    assert check_unreadable(read_ledger(tmp_path), connection) == {}
