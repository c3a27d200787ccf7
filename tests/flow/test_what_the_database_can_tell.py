"""Every query of docs/what-the-database-can-tell.md, against data whose truth is known: the ledger
of the simulator.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest

from shards.simulator.core.ledger import LedgerRows, Rows, read_ledger
from tests.flow.processes import ROOT
from tests.flow.rig import Rig

pytestmark = [pytest.mark.flow, pytest.mark.timeout(240)]

PAGE = ROOT / "docs" / "what-the-database-can-tell.md"
Answers = list[tuple[Any, ...]]
SIDES = {ord("b"): "bid", ord("a"): "ask"}


def queries() -> dict[str, str]:
    """The statements of the page, by the comment in front of each."""
    blocks = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    named = {}
    for block in blocks:
        for statement in filter(str.strip, block.split(";\n")):
            name = re.match(r"\s*-- (.*)\n", statement)
            assert name is not None, statement
            named[name[1]] = statement
    return named


class Truth:
    """What the simulator says."""

    def __init__(self, rig: Rig) -> None:
        self.ledger: LedgerRows = read_ledger(rig.ledger_dir)
        self.binance = self.ledger.symbols.index(("binance_linear", "BTCUSDT"))
        self.hyperliquid = self.ledger.symbols.index(("hyperliquid_perp", "BTC"))

    def rows(self, name: str, number: int) -> Rows:
        rows: Rows = getattr(self.ledger, name)
        chosen: Rows = rows[rows["symbol"] == number]
        return chosen

    def book(self) -> dict[tuple[str, Decimal], Decimal]:
        """The book of Binance after the last change it pushed: its changes on the last whole one
        that it served. (What it would serve now may have changed since.)
        """
        whole, changes = self.rows("snapshot", self.binance), self.rows("book", self.binance)
        first_seq = whole["seq"].max()
        book = {}
        for row in (*whole[whole["seq"] == first_seq], *changes[changes["seq"] > first_seq]):
            if int(row["side"]) in SIDES:
                book[SIDES[int(row["side"])], _number(row, "price")] = _number(row, "qty")
        return {level: quantity for level, quantity in book.items() if quantity}

    def whole_book(self) -> dict[tuple[str, Decimal], Decimal]:
        """The book that Hyperliquid pushed last."""
        rows = self.rows("book", self.hyperliquid)
        return {
            (SIDES[int(row["side"])], _number(row, "price")): _number(row, "qty")
            for row in rows[rows["seq"] == rows["seq"].max()]
        }


def _number(row: Any, name: str) -> Decimal:
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{name}_decimals"]))


def tells_what_is_known(answers: Answers, truth: Truth) -> None:
    assert {answer for answer, *_ in answers} == {"complete", "missing", "not collected"}
    lost = [row for row in answers if row[0] == "missing"]
    assert 3 in [missing for *_, reason, missing in lost if reason == "sequence"]
    parts = sorted((begin, end) for _, begin, end, *_ in answers)
    assert all(b <= c for (_, b), (c, _) in pairwise(parts) if b != c)
    assert parts[0][0] < parts[-1][1]


def tells_of_polls(answers: Answers, truth: Truth) -> None:
    assert "complete" in {answer for answer, *_ in answers}


def are_usable(answers: Answers, truth: Truth) -> None:
    assert answers
    withheld = truth.rows("withheld", truth.binance)["ts_event"]
    assert len(withheld) == 3
    for started, ended in answers:
        assert started < ended
        begin, end = (round(at.timestamp() * 1e6) * 1000 for at in (started, ended))
        assert not np.any((withheld >= begin) & (withheld < end))


def tells_how_it_ended(answers: Answers, truth: Truth) -> None:
    ends = [how for _, _, how, _ in answers]
    assert ends[-1] == "stopped", ends
    assert "reconnect" in ends
    assert len({connection for *_, connection in answers}) == len(ends)


def counts_what_is_missing(answers: Answers, truth: Truth) -> None:
    found = {(reason, state): missing for reason, state, _, missing in answers}
    assert found["sequence", "unrecoverable"] == 3
    assert found["reconnect", "unprovable"] is None
    assert {state for _, state in found} <= {"unrecoverable", "unprovable"}


def are_trades_in_order(answers: Answers, truth: Truth) -> None:
    ids = [trade_id for _, trade_id, *_ in answers]
    sent = truth.rows("trade", truth.binance)
    assert ids == sorted(ids)
    stored = sent[np.isin(sent["trade_id"], ids)]
    assert ids == stored["trade_id"].tolist()
    assert len(ids) > 100


def are_simultaneous(answers: Answers, truth: Truth) -> None:
    sent: defaultdict[int, Decimal] = defaultdict(Decimal)
    for row in truth.rows("trade", truth.hyperliquid):
        sent[int(row["ts_event"])] += _number(row, "qty")
    stored = {round(time.timestamp() * 1e3) * 1_000_000: quantity for time, quantity, *_ in answers}
    assert stored.items() <= sent.items()
    assert len(stored) > 20


def are_changes_in_order(answers: Answers, truth: Truth) -> None:
    seqs = [seq for _, seq, *_ in answers]
    assert seqs == sorted(seqs)
    flagged = [seq for _, seq, _, _, after_gap, *_ in answers if after_gap]
    chain = {seq: prev_seq for _, seq, prev_seq, is_snapshot, *_ in answers if not is_snapshot}
    holes = [(last, seq) for last, seq in pairwise(chain) if chain[seq] != last]
    assert holes
    assert all(any(last < each <= seq for each in flagged) for last, seq in holes)


def is_the_book(answers: Answers, truth: Truth) -> None:
    assert {(side, price): quantity for side, price, quantity in answers} == truth.book()
    bids = [price for side, price, _ in answers if side == "bid"]
    assert bids == sorted(bids, reverse=True)


def is_the_whole_book(answers: Answers, truth: Truth) -> None:
    assert {(side, price): quantity for side, price, quantity in answers} == truth.whole_book()


def is_newest(answers: Answers, truth: Truth) -> None:
    newest = {(venue, symbol): at for venue, symbol, at, *_ in answers}
    assert len(newest) == len(answers)
    for number, name in ((truth.binance, "BTCUSDT"), (truth.hyperliquid, "BTC")):
        (at,) = [at for (_, symbol), at in newest.items() if symbol == name]
        assert (
            round(at.timestamp() * 1e3) * 1_000_000 == truth.rows("trade", number)["ts_event"].max()
        )


def are_bars(answers: Answers, truth: Truth) -> None:
    count = len(truth.rows("trade", truth.binance))
    assert sum(trades for *_, trades in answers) <= count
    assert sum(trades for *_, trades in answers) > 100
    assert all(low <= opened <= high and low <= close <= high
               for _, opened, high, low, close, *_ in answers)  # fmt: skip


def are_spreads(answers: Answers, truth: Truth) -> None:
    assert len(answers) > 10
    assert all(spread == ask - bid and 2 * mid == ask + bid
               for _, bid, ask, spread, mid, _ in answers)  # fmt: skip


def are_gaps(answers: Answers, truth: Truth) -> None:
    assert 3 in [missing for reason, missing, *_ in answers if reason == "sequence"]


TRUE: dict[str, Callable[[Answers, Truth], None]] = {
    "what is known of a stream": tells_what_is_known,
    "polled streams are asked for by their transport": tells_of_polls,
    "which intervals may be used": are_usable,
    "when the stream was listened to, and how that ended": tells_how_it_ended,
    "what is missing, by reason": counts_what_is_missing,
    "trades of Binance, in order": are_trades_in_order,
    "trades of Hyperliquid: those of one time are simultaneous": are_simultaneous,
    "the changes of a book, in the order in which they apply": are_changes_in_order,
    "the book at a time": is_the_book,
    "whole books are pushed: the same function": is_the_whole_book,
    "trades of one symbol": are_trades_in_order,
    "the newest trade of every symbol": is_newest,
    "bars from trades": are_bars,
    "what the spread was": are_spreads,
    "what is missing of one symbol": are_gaps,
}


@pytest.mark.fault("N43")
@pytest.mark.fault("N44")
def test_every_query_of_the_page_tells_the_truth(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(
        all_kinds=True, rate="400", symbols=1, settings="[venues.binance_linear.poll_interval_s]\n"
        "OpenInterest = 1\nFunding = 1\n[venues.hyperliquid_perp.poll_interval_s]\n"
        "FundingOpenInterest = 1",
    )  # fmt: skip
    rig.start()
    rig.until_every_stream_delivers()
    rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", count=3)
    rig.until_more_rows(300)
    for venue in ("binance_linear", "hyperliquid_perp"):
        rig.fault(fault="disconnect", venue=venue)
    rig.until(
        lambda: rig.query(
            "SELECT count(*) > 1 AND bool_or(how_ended = 'listening')"
            " FROM coverage_intervals WHERE symbol = 'BTCUSDT' AND kind = 'L2Book'"
        ) == [(True,)], "a book after the cut",
    )  # fmt: skip
    rig.until_more_rows(500)
    rig.finish()
    truth, found = Truth(rig), queries()
    assert found.keys() == TRUE.keys()
    with psycopg.connect(rig.database_url) as connection:
        for name, statement in found.items():
            TRUE[name](connection.execute(statement.encode()).fetchall(), truth)
