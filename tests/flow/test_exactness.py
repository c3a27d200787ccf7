"""What the venue sent is what the database and Redis hold: row by row, digit by digit."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import redis

from shards.simulator.core.ledger import Rows, read_ledger
from tests.flow.rig import Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.timeout(180)]
MakeRig = Callable[..., Rig]
CAPTURES = Path(__file__).parents[3] / "shared" / "captures" / "binance_linear"


def digits(mantissa: int, decimals: int) -> Decimal:
    """The number the venue wrote, every digit of it (`81234.50` equals `81234.5`)."""
    return Decimal(int(mantissa)).scaleb(-int(decimals))


def test_every_row_is_stored_as_it_was_sent(make_rig: MakeRig, redis_url: str) -> None:
    rig = make_rig(
        redis_url=redis_url, rate="3000", symbols=2, settings="[redis]\nstream_maxlen = 1000000\n"
    )
    rig.start()
    rig.until_more_rows(12_000)
    rig.until_every_stream_delivers()
    rig.quiet()
    published = published_trades(redis_url)
    verdict = rig.stop()
    assert_equation(verdict)
    assert verdict.stored == verdict.sent, "nothing was cut, so nothing may be missing"
    ledger = read_ledger(rig.ledger_dir)
    sent = sent_trades(ledger.trade, ledger.symbols)
    assert stored_trades(rig) == sent
    assert {key: sorted(rows) for key, rows in published.items()} == {
        key: sorted(row[:4] for row in rows) for key, rows in sent.items()
    }
    assert stored_levels(rig) == sent_levels(ledger.book, ledger.symbols)


def sent_trades(
    rows: Rows, symbols: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[tuple[int, str, Decimal, Decimal, int]]]:
    found = defaultdict(list)
    for row in rows:
        found[symbols[row["symbol"]]].append(
            (
                int(row["trade_id"]),
                "buy" if row["side"] == ord("B") else "sell",
                digits(row["price_mantissa"], row["price_decimals"]),
                digits(row["qty_mantissa"], row["qty_decimals"]),
                int(row["ts_event"]) // 1000,
            )
        )
    return {key: sorted(rows) for key, rows in found.items()}


def stored_trades(rig: Rig) -> dict[tuple[str, str], list[tuple[int, str, Decimal, Decimal, int]]]:
    found = defaultdict(list)
    for venue, symbol, *row in rig.query(
        "SELECT venue, symbol, trade_id::bigint, side, price, quantity,"
        " (extract(epoch FROM time) * 1000000)::bigint FROM trades"
    ):
        found[venue, symbol].append(tuple(row))
    return {key: sorted(rows) for key, rows in found.items()}


def published_trades(url: str) -> dict[tuple[str, str], list[tuple[int, str, Decimal, Decimal]]]:
    """All trades in Redis under the documented keys `fts:trades:<venue>:<symbol>`."""
    found = defaultdict(list)
    with redis.Redis.from_url(url) as client:
        for key in client.keys("fts:trades:*"):
            _, _, venue, symbol = key.decode().split(":")
            for _, fields in client.xrange(key):
                for event in json.loads(fields[b"events"], parse_float=Decimal, parse_int=Decimal):
                    row = (int(event["id"]), event["side"], event["price"], event["qty"])
                    found[venue, symbol].append(row)
    return dict(found)


def sent_levels(
    rows: Rows, symbols: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[tuple[int, int, str | None, Decimal | None, Decimal | None]]]:
    found = defaultdict(list)
    for row in rows:
        marker = row["side"] == ord("-")
        found[symbols[row["symbol"]]].append(
            (
                int(row["seq"]),
                int(row["prev_seq"]),
                {"b": "bid", "a": "ask"}.get(chr(row["side"])),
                None if marker else digits(row["price_mantissa"], row["price_decimals"]),
                None if marker else digits(row["qty_mantissa"], row["qty_decimals"]),
            )
        )
    return {key: sorted(rows, key=str) for key, rows in found.items()}


def stored_levels(
    rig: Rig,
) -> dict[tuple[str, str], list[tuple[int, int, str | None, Decimal | None, Decimal | None]]]:
    """All levels but those of REST snapshots, which were fetched and not sent."""
    found = defaultdict(list)
    for venue, symbol, *row in rig.query(
        "SELECT venue, symbol, seq, prev_seq, side,"
        " CASE WHEN side IS NOT NULL THEN price END,"
        " CASE WHEN side IS NOT NULL THEN quantity END FROM book_levels"
        " WHERE NOT (venue = 'binance_linear' AND is_snapshot)"
    ):
        found[venue, symbol].append(tuple(row))
    return {key: sorted(rows, key=str) for key, rows in found.items()}


def test_books_rebuilt_from_sql_alone_are_whole(make_rig: MakeRig) -> None:
    """Snapshot and deltas in the order of their sequence give a book that is never crossed, and
    every delta's `prev_seq` is the `seq` of the one before.
    """
    rig = make_rig(rate="500", symbols=1)
    rig.start()
    rig.until_more_rows(4_000)
    assert_equation(rig.finish())
    rows = rig.query(
        "SELECT seq, prev_seq, side, price, quantity, is_snapshot, first_in_event, last_in_event"
        " FROM book_levels WHERE venue = 'binance_linear' ORDER BY recv_time, seq, is_snapshot DESC"
    )
    book: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "ask": {}}
    snapshots = events = 0
    snapshot_seq = last_seq = -1
    for seq, _, side, price, quantity, is_snapshot, _, _ in rows:
        if is_snapshot:
            if seq != snapshot_seq:
                snapshots += 1
                book = {"bid": {}, "ask": {}}
            snapshot_seq = seq
        if side is None or (not is_snapshot and seq < snapshot_seq):
            continue
        if quantity == 0:
            book[side].pop(price, None)
        else:
            book[side][price] = quantity
    chain = sorted({(seq, prev) for seq, prev, _, _, _, snapshot, _, _ in rows if not snapshot})
    for seq, prev_seq in chain:
        assert last_seq in (-1, prev_seq)
        last_seq = seq
        events += 1
    assert snapshots == 1
    assert events > 10
    assert len(book["bid"]) > 100
    assert max(book["bid"]) < min(book["ask"])


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="the recorded sessions are not beside this tree")
def test_recorded_session_is_stored_exactly(make_rig: MakeRig) -> None:
    symbols = ["SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT"]
    rig = make_rig(
        simulator=("--replay", str(CAPTURES), "--speed", "20"),
        streams=[("binance_linear", symbol) for symbol in symbols],
    )
    rig.start()
    trades, levels = recorded()
    rig.until(lambda: rig.query(COUNTS) == [(len(trades), len(levels))], "the whole session")
    verdict = rig.stop()
    assert_equation(verdict)
    assert verdict.stored == verdict.sent == len(trades) + len(levels)
    stored = rig.query("SELECT symbol, trade_id::bigint, price, quantity, side FROM trades")
    assert sorted(stored) == sorted(trades)
    stored = rig.query(
        "SELECT symbol, seq, prev_seq, side, price, quantity FROM book_levels WHERE NOT is_snapshot"
    )
    assert sorted(stored, key=str) == sorted(levels, key=str)
    assert rig.query("SELECT count(DISTINCT symbol) FROM book_levels WHERE is_snapshot") == [(4,)]


COUNTS = """
    SELECT (SELECT count(*) FROM trade), (SELECT count(*) FROM book WHERE flags & 1 = 0)
"""
Trade = tuple[str, int, Decimal, Decimal, str]
Level = tuple[str, int, int, str | None, Decimal, Decimal]


def recorded() -> tuple[list[Trade], list[Level]]:
    """The session's rows, read with nothing of ours."""
    trades: list[Trade] = []
    levels: list[Level] = []
    for line in (CAPTURES / "BINANCE_FUTURES.ws.1.0").read_text().splitlines()[1:]:
        data = json.loads(line.partition(": ")[2])["data"]
        if data["e"] == "aggTrade":
            side = "sell" if data["m"] else "buy"
            row = (data["s"], data["a"], Decimal(data["p"]), Decimal(data["q"]), side)
            trades.append(row)
        elif data["e"] == "depthUpdate":
            key = (data["s"], data["u"], data["pu"])
            sides = [("bid", level) for level in data["b"]] + [("ask", lvl) for lvl in data["a"]]
            levels += [(*key, side, Decimal(price), Decimal(qty)) for side, (price, qty) in sides]
            if not sides:
                levels.append((*key, None, Decimal(0), Decimal(0)))
    return trades, levels


def test_ledger_rows_are_distinct(make_rig: MakeRig) -> None:
    """The oracle itself: no trade id twice in a symbol, so a stored count cannot hide a loss."""
    rig = make_rig(rate="2000", symbols=1)
    rig.start()
    rig.until_more_rows(2_000)
    rig.finish()
    trade = read_ledger(rig.ledger_dir).trade
    keys = np.unique(trade[["symbol", "ts_event", "trade_id"]])
    assert len(keys) == len(trade)
