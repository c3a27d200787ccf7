"""The proof asks for no row that came along on a topic, and for all that somebody wanted."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from control.proof.ledger_sources import LedgerSource
from control.proof.ledger_topics import WantedTopics
from engine.data.names import Transport
from shards.venues import VENUES
from tests.toys import venue as toy

SCHEMA = """
    CREATE TABLE instrument (instrument_id int, venue text, symbol text);
    INSERT INTO instrument VALUES (1, 'toy', 'T0-USD'), (2, 'gone', 'G');
    CREATE TABLE stream (stream_id int, instrument_id int, kind text, transport text);
    INSERT INTO stream VALUES (1, 1, 'Trades', 'Ws'), (2, 2, 'Trades', 'Ws');
    CREATE TABLE stream_registry (venue text, symbol text, kind text, transport text);
"""
WS, POLL = Transport.WS, Transport.HTTP_POLL


@pytest.fixture
def connection(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    """Trades of a venue whose quotes come on the same topic, and of one that nobody knows."""
    monkeypatch.setitem(VENUES, toy.NAME, toy.VENUE)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        yield connection


def test_quotes_that_come_with_trades_are_not_owed_until_they_are_wanted(
    connection: psycopg.Connection[Any],
) -> None:
    def is_left_out(kind: str, symbol: str = "T0-USD", transport: Transport = WS) -> bool:
        return WantedTopics(connection).has_not(kind, LedgerSource("toy", symbol, transport))

    assert is_left_out("quote")
    assert not is_left_out("trade"), "wanted"
    assert not is_left_out("book"), "nobody subscribed it: it should not have come"
    assert not is_left_out("quote", "T1-USD"), "no more than this"
    assert not is_left_out("quote", transport=POLL)
    assert not WantedTopics(connection).has_not("quote", LedgerSource("gone", "G", WS))
    connection.execute("INSERT INTO stream_registry VALUES ('toy', 'T0-USD', 'Ticker', 'Ws')")
    assert not is_left_out("quote"), "though no row of it was ever stored"
