"""The proof of a run without end: it fails when it should, and takes no room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.proof.ledger_check import LedgerCheck
from control.proof.verdict import Verdict
from shards.simulator.core import ledger_sums
from shards.simulator.core.ledger import QUOTE, TRADE, Ledger
from shards.simulator.core.ledger_sums import SummedRows, SumsKey
from tests.control.proof.test_ledger_check import VENUES, connection, deltas, trades

pytestmark = pytest.mark.fault("N46")
__all__ = ["connection"]

Check = Callable[[], dict[str, Verdict]]
FINE = Verdict(sent=100, stored=100)


@pytest.fixture
def check(tmp_path: Path, connection: Any, database_url: str) -> Check:
    directory = tmp_path / "ledger"
    ledger = Ledger(directory, VENUES, [("binance_linear", "BTCUSDT")], in_sums=True)
    ledger.trades(trades(60))
    ledger.trades(trades(35, first_id=61))
    ledger.withheld(trades(5, first_id=96))
    ledger.book(deltas(10))
    ledger.close()
    return lambda: LedgerCheck(directory, database_url).verdicts


def test_what_is_all_there_is_proven(check: Check) -> None:
    verdicts = check()
    assert verdicts["trade"] == FINE
    assert verdicts["delta"] == Verdict(sent=10, stored=10)
    assert verdicts["whole"] == verdicts["quote"] == Verdict()


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ("DELETE FROM trade WHERE trade_id = 7", Verdict(100, 99, missing=1)),
        ("DELETE FROM trade", Verdict(100, 0, missing=100)),
        ("INSERT INTO trade SELECT * FROM trade WHERE trade_id = 7", Verdict(100, 100, 1)),
        ("UPDATE trade SET price = price + 1 WHERE trade_id = 7", Verdict(100, 100, altered=1)),
        ("UPDATE trade SET qty = qty * 2 WHERE trade_id = 7", Verdict(100, 100, altered=1)),
        ("UPDATE trade SET side = 'S' WHERE trade_id = 7", Verdict(100, 100, altered=1)),
        ("UPDATE trade SET trade_id = 700 WHERE trade_id = 7", Verdict(100, 100, altered=1)),
    ],
)
def test_one_row_that_is_not_as_it_was_sent_shows(
    check: Check, connection: Any, statement: str, verdict: Verdict
) -> None:
    connection.execute(statement)
    assert check()["trade"] == verdict
    assert check()["delta"] == Verdict(sent=10, stored=10)


@pytest.mark.parametrize(
    ("declared", "found"), [((2,), 2), ((5,), 3), ((-1,), 3), ((1, 1), 2), ((), 0)]
)
def test_missing_rows_are_declared_by_their_number(
    check: Check, connection: Any, declared: tuple[int, ...], found: int
) -> None:
    connection.execute("DELETE FROM trade WHERE trade_id BETWEEN 7 AND 9")
    for place, missing in enumerate(declared):
        connection.execute(
            "INSERT INTO gap VALUES (now(), 0, %s, 1, 1, 3, 7, 9, 0, 0, %s)",
            (place + 1, missing),
        )
    assert check()["trade"] == Verdict(100, 97, missing=3 - found, declared_missing=found)


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2**62), st.integers(0, 2**62),
              st.integers(0, 2**50), st.sampled_from([2, 8]), st.sampled_from(list(b"BS"))),
    max_size=40,
)  # fmt: skip


@settings(deadline=None)
@given(ROWS, st.integers(1, 7))
def test_sums_are_exact_however_large_and_wherever_they_are_cut(
    values: list[tuple[int, ...]], size: int
) -> None:
    rows = np.zeros(len(values), TRADE)
    names = ("symbol", "trade_id", "price_mantissa", "qty_mantissa", "price_decimals", "side")
    for name, column in zip(names, zip(*values, strict=True), strict=False):
        rows[name] = column
    totals: dict[SumsKey, Any] = {}
    summed = SummedRows("trade", TRADE, totals)
    for start in range(0, len(rows), size):
        summed.append(rows[start : start + size])
        if start % 3 == 0:
            summed.flush()
    summed.close()
    expected: dict[SumsKey, list[int]] = {}
    for symbol, number, price, qty, decimals, side in values:
        sums = expected.setdefault(SumsKey("trade", symbol, decimals, 0), [0] * 5)
        for place, each in enumerate((1, number, price, qty, int(side == ord("B")))):
            sums[place] += each
    assert {key: sums.tolist() for key, sums in totals.items()} == expected


def test_a_run_without_end_takes_no_room(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, VENUES, [("binance_linear", "BTCUSDT")], in_sums=True)
    for first_id in range(1, 400_000, 4_000):
        ledger.trades(trades(4_000, first_id))
        ledger.book(deltas(100))
        ledger.snapshot(deltas(100))
        ledger.quote(tuple([0] * len(QUOTE.fields or ())))
        pending = sum(getattr(file, "_pending", 0) for file in ledger._files.values())
        assert pending <= 4 * ledger_sums._CHUNK_BYTES
    ledger.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000
