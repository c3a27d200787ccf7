"""Every venue at once, with every kind that each offers, through what may happen at any of them:
the equation holds, and what broke is declared by each. What only one has is in a file of its own.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

import pytest
from msgspec.structs import replace

from control.cli.commands.demo import demo_streams
from engine.data.names import CARRIES, StreamKey, StreamKind, Transport
from shards import venues as decoders
from shards.feeds.books import SnapshotBook
from shards.feeds.feed import Feed
from shards.feeds.pushed.timed import UnchainedBook
from shards.feeds.trades import ContiguousTrades
from shards.simulator.core.encoder import Encoder
from shards.simulator.core.ledger import UNREADABLE_KINDS, read_ledger
from shards.simulator.venues import ENCODERS, USUAL
from shards.simulator.venues.bybit.trades import uuid_text
from tests.fault.ledger_books import Book, LedgerBook
from tests.flow.rig import GAPS_OF_SOCKETS, SHARD, Rig, assert_equation

pytestmark = [pytest.mark.flow, pytest.mark.whole, pytest.mark.timeout(300)]
MakeRig = Callable[..., Rig]
ENCODER: Mapping[str, Encoder] = {each.name: each for each in (make() for make in ENCODERS)}
VENUES = tuple(ENCODER)
SYMBOL = {name: each.grids(1)[0].symbol for name, each in ENCODER.items()}
OTHERS = (
    ("kraken_futures", "PI_XBTUSD"), ("okx", "XRP-USD_UM_XPERP-310404"),
    ("coinbase", "BIP-20DEC30-CDE"), ("binance_inverse", "BTCUSD_301227"),
)  # fmt: skip
"""Contracts of another sort than the first symbol of their venue."""
IN_ANY_SCRIPT = (("binance_spot", "币安人生USDT"), ("hyperliquid_builder", "xyz:币安"))
"""Listed only when the market is open."""
MARKETS = (*SYMBOL.items(), *OTHERS, *IN_ANY_SCRIPT)
SYMBOLS = 4
"""Of each venue, so that `OTHERS` are among them."""
OFFERED = demo_streams(SYMBOLS, ",".join(VENUES), all_kinds=True)
KEYS = [
    key
    for key in OFFERED
    if (key.venue, key.symbol) in MARKETS
    and (key.symbol, key.kind) != ("BTC-USD", StreamKind.FUNDING_OPEN_INTEREST)  # no contract
] + [
    replace(key, symbol=symbol)
    for venue, symbol in IN_ANY_SCRIPT
    for key in OFFERED
    if (key.venue, key.symbol) == (venue, SYMBOL[venue])
]


def feed_of(venue: str, kind: StreamKind) -> type[Feed]:
    """What proves a venue's rows of a kind whole."""
    return decoders.VENUES[venue].channels[kind, Transport.WS].feed


NUMBERED_TRADES = frozenset(
    name for name in VENUES if issubclass(feed_of(name, StreamKind.TRADES), ContiguousTrades)
)
"""Venues whose ids of trades show a hole."""
CHAINED_BOOKS = frozenset(
    name
    for name in VENUES
    if not issubclass(feed_of(name, StreamKind.L2_BOOK), (SnapshotBook, UnchainedBook))
)
"""Venues whose numbers of changes, or checksums, show a hole in a book."""
LATE_LIQUIDATIONS = """
    SELECT count(*) FROM liquidation WHERE ts_recv > (SELECT max(ts_recv) FROM gap)
"""


def start(
    make_rig: MakeRig, venues: Collection[str] = VENUES, venue_settings: str = "stale_after_s = 8"
) -> Rig:
    """With silence noticed soon: a ticker of which a change could not be read says nothing until it
    is subscribed anew.
    """
    rig = make_rig(
        keys=[key for key in KEYS if key.venue in venues], venues=",".join(venues),
        settings=often(venues), venue_settings=venue_settings, symbols=SYMBOLS, rate="750",
        simulator=("--liquidations-per-minute", "600"),
    )  # fmt: skip
    for venue, symbol in IN_ANY_SCRIPT:
        rig.tell("/simulator/instruments", venue=venue, action="list", symbol=symbol)
    rig.start()
    return rig


def often(venues: Collection[str]) -> str:
    """Settings that have all that is polled of these venues polled each second."""
    polled = {
        (key.venue, key.kind)
        for key in KEYS
        if key.venue in venues and key.transport is Transport.HTTP_POLL
    }
    return "\n".join(
        f"[venues.{venue}.poll_interval_s]\n"
        + "\n".join(sorted(f"{kind} = 1" for name, kind in polled if name == venue))
        for venue in sorted({venue for venue, _ in polled})
    )


LOST_SOCKETS = """
    SELECT venue, count(DISTINCT connection) FROM coverage_intervals
    WHERE transport = 'Ws' AND how_ended = 'reconnect' GROUP BY 1
"""


@pytest.mark.fault("X01")
@pytest.mark.fault("X02")
def test_what_every_kind_misses_while_cut_off_is_declared(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    rig.until_every_stream_delivers()
    cut, times_us = Counter[str](), [now_us(rig)]
    for fault in ("disconnect", "close"):
        for venue in VENUES:
            cut[venue] += rig.fault(fault=fault, venue=venue)["sockets"]
        rig.until(lambda: Counter(dict(rig.query(LOST_SOCKETS))) >= cut, "the lost sockets")
        for _ in range(2):
            rig.until_every_stream_delivers()
            times_us.append(now_us(rig))
    rig.until(lambda: rig.query(LATE_LIQUIDATIONS)[0][0] > 3, "liquidations after the last cut")
    assert_equation(rig.finish())
    assert_each_kind_declared_a_cut(rig)
    assert_books_are_those_of_the_ledger(rig, times_us)


@pytest.mark.fault("K02")
def test_a_machine_that_was_suspended_goes_on_with_all_that_it_had(make_rig: MakeRig) -> None:
    """Its processes and its sockets, in which the venues' rows lie meanwhile."""
    rig = start(make_rig)
    rig.until_every_stream_delivers()
    assert rig.engine is not None
    before, times_us = [rig.engine.itself, *rig.engine.descendants()], [now_us(rig)]
    for each in before:
        each.suspend()
    time.sleep(_SUSPENDED_S)  # nothing is waited for: this is the fault
    for each in before:
        each.resume()
    for _ in range(2):
        rig.until_every_stream_delivers()
        times_us.append(now_us(rig))
    assert {*rig.engine.descendants()} == {*before[1:]}
    assert_equation(rig.finish())
    cut = {(venue, reason) for venue, _, _, reason in rig.query(GAPS_OF_SOCKETS)}
    assert cut == {("deribit", "reconnect")}, "which hangs up on who does not answer for 10 s"
    assert "no data for" not in rig.engine.log
    assert_books_are_those_of_the_ledger(rig, times_us)


_SUSPENDED_S: Final = 22
"""Longer than a single process, a stream or a socket may be silent."""


def assert_each_kind_declared_a_cut(rig: Rig) -> None:
    """Trades with ids are asked for again. A book or ticker of Bybit that begins where what is
    stored ended has missed nothing.
    """
    missed = {
        (key.venue, str(key.kind))
        for key in KEYS
        if key.transport is Transport.WS and key.kind is not StreamKind.TRADES
    }
    for venue in ("bybit_linear", "bybit_inverse", "bybit_spot"):
        missed -= {(venue, "L2Book"), (venue, "FundingOpenInterest")}
        missed |= {(venue, "Trades")}
    declared = {*rig.query("SELECT venue, kind FROM gaps WHERE reason = 'reconnect'")}
    assert missed <= declared


def now_us(rig: Rig) -> int:
    """The time, by the clock that the simulated venues have as well."""
    found = rig.query("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint")
    return int(found[0][0])


class Place(NamedTuple):
    """A book at a time."""

    venue: str
    symbol: str
    at_us: int


def assert_books_are_those_of_the_ledger(rig: Rig, times_us: list[int]) -> None:
    ledger = read_ledger(rig.ledger_dir)
    books = {market: LedgerBook(ledger, *market) for market in MARKETS}
    noted = {
        Place(*market, at_us): book.at(at_us * 1000)
        for market, book in books.items()
        for at_us in times_us
    }
    assert all(noted.values()), "there is a book everywhere"
    stored = stored_books(rig, list(noted))
    assert [at for at, book in noted.items() if stored.get(at) != book] == []


def stored_books(rig: Rig, places: list[Place]) -> dict[Place, Book]:
    """Books as SQL rebuilds them; none where it gives no row."""
    values = ", ".join(f"('{at.venue}', '{at.symbol}', {at.at_us})" for at in places)
    rows = rig.query(f"""
        SELECT w.venue, w.symbol, w.at_us, b.side, b.price, b.quantity
        FROM (VALUES {values}) AS w (venue, symbol, at_us) CROSS JOIN LATERAL
            book_at(w.venue, w.symbol, timestamptz 'epoch' + w.at_us * interval '1 microsecond') b
    """)
    books: dict[Place, Book] = {}
    for venue, symbol, at_us, side, price, quantity in rows:
        books.setdefault(Place(venue, symbol, at_us), {})[side, Decimal(price)] = Decimal(quantity)
    return books


EXPECTED = frozenset({"unreadable", "poll_missed"})
"""Reasons: a poll repeated for too long misses the next. Elsewhere a book may begin anew, merged
trades miss their ids, and a ticker say no more until it is asked for anew."""
Spoiled: TypeAlias = tuple[str, str, bool]
"""Venue, kind of row, and whether it is polled."""
UNREADABLE_ROWS = """
    SELECT venue, kind, transport, sum(missing)::int FROM gaps
    WHERE reason = 'unreadable' GROUP BY 1, 2, 3
"""
RENEWED = """
    SELECT DISTINCT venue FROM book_levels WHERE is_snapshot
    GROUP BY venue, stream_id HAVING count(DISTINCT recv_time) > 1
"""


@pytest.mark.fault("N03")
@pytest.mark.fault("N06")
def test_of_every_kind_what_cannot_be_read_is_declared_and_its_neighbours_are_stored(
    make_rig: MakeRig,
) -> None:
    rig = start(make_rig)
    places = spoilable()
    for (venue, kind, rest), symbol in places.items():
        count = 8 if kind in ("trade", "quote") else 3
        rig.fault(
            fault="unreadable", venue=venue, symbol=symbol, kind=kind, rest=rest, count=count
        )  # fmt: skip
    rig.until(lambda: all(each["unreadable_due"] == 0 for each in rig.hubs()), "all of them sent")
    rig.until(lambda: words(rig, RENEWED) == {*VENUES}, "books anew")
    assert_equation(rig.finish())
    sent, declared = unreadable_rows(rig), rig.query(UNREADABLE_ROWS)
    assert sent.keys() >= places.keys()
    for venue in VENUES:
        noted = sum(rows for (name, _, _), rows in sent.items() if name == venue)
        assert sum(row[3] for row in declared if row[0] == venue) == noted, venue
    assert {row[:3] for row in declared} >= {
        (key.venue, str(key.kind), str(key.transport)) for key in KEYS if spoiled_by(key)
    }
    others = {*rig.query("SELECT DISTINCT venue, reason FROM gaps")}
    assert {reason for venue, reason in others if venue in USUAL} <= EXPECTED
    assert {reason for _, reason in others} <= EXPECTED | {"resync", "sequence", "silence"}


def spoiled_by(key: StreamKey) -> set[Spoiled]:
    """What the simulator can make unreadable of what a stream brings: a message of two kinds by the
    first of them. What was paid it cannot.
    """
    kind, *_ = CARRIES[key.kind]
    if key.kind is StreamKind.SETTLED_FUNDING or kind not in ENCODER[key.venue].spoiled:
        return set()
    return {(key.venue, kind, key.transport is Transport.HTTP_POLL)}


def spoilable() -> dict[Spoiled, str]:
    """All of that, with a symbol that has it."""
    return {each: key.symbol for key in KEYS for each in spoiled_by(key)}


def unreadable_rows(rig: Rig) -> dict[Spoiled, int]:
    """How many rows were sent so that nobody can read them."""
    ledger = read_ledger(rig.ledger_dir)
    rows: Counter[Spoiled] = Counter()
    for row in ledger.unreadable:
        venue, _ = ledger.symbols[row["symbol"]]
        rows[venue, UNREADABLE_KINDS[row["kind"]], bool(row["rest"])] += int(row["rows"])
    return rows


def words(rig: Rig, query: str) -> set[str]:
    """What a query of one column gives."""
    return {word for (word,) in rig.query(query)}


BEGUN_ANEW = """
    SELECT DISTINCT g.venue, g.symbol FROM gaps g JOIN book_levels b USING (stream_id)
    WHERE g.kind = 'L2Book' AND g.reason = 'resync' AND b.is_snapshot AND b.recv_time >= g.detected
"""
HOLES = """
    SELECT venue, symbol, sum(missing)::int FROM gaps
    WHERE kind = 'Trades' AND reason = 'sequence' GROUP BY 1, 2
"""


@pytest.mark.fault("X14")
@pytest.mark.fault("X15")
def test_holes_in_trades_and_books_are_declared_and_the_books_begin_anew(
    make_rig: MakeRig,
) -> None:
    """Beside repeated trades, which are dropped, and before frames that are no data."""
    rig = start(make_rig)
    for venue, symbol in MARKETS:
        if venue in NUMBERED_TRADES:
            rig.fault(fault="gap", venue=venue, symbol=symbol, kind="trade", count=7)
        if venue in CHAINED_BOOKS:
            rig.fault(fault="gap", venue=venue, symbol=symbol, kind="book", count=20)
        rig.fault(fault="duplicate", venue=venue, symbol=symbol, count=5)
    books = {market for market in MARKETS if market[0] in CHAINED_BOOKS}
    trades = {market for market in MARKETS if market[0] in NUMBERED_TRADES}
    rig.until(lambda: {*rig.query(BEGUN_ANEW)} >= books, "books anew")
    rig.until(lambda: holes_in_trades(rig).keys() == trades, "holes in trades")
    for venue in VENUES:  # after them: a frame that nobody can read may explain a hole behind it
        rig.fault(fault="malformed", venue=venue)
    assert_equation(rig.finish())
    holes = holes_in_trades(rig)
    merged = {market: holes.pop(market) for market in trades if market[0] == "okx"}
    assert set(holes.values()) == {7}
    assert min(merged.values()) >= 7, "of merged trades every id is counted"


def holes_in_trades(rig: Rig) -> dict[tuple[str, str], int]:
    """How many trades ids have shown to be missing, by market."""
    return {(venue, symbol): missing for venue, symbol, missing in rig.query(HOLES)}


@pytest.mark.fault("X01")
def test_sockets_that_are_to_end_hand_over_without_a_gap(make_rig: MakeRig) -> None:
    """At the age that is planned, and announced by the venue. Kraken's have a test of their own."""
    venues = [name for name in VENUES if not name.startswith("kraken")]
    rig = start(make_rig, venues, "connection_lifetime_s = 5")
    assert rig.engine is not None
    for venue in venues:
        rig.engine.wait_for_count(f"{venue}: planned reconnect", 2)
    for venue in (name for name in venues if ENCODER[name].notice(0) is not None):
        rig.fault(fault="shutdown", venue=venue, seconds=20)
        rig.engine.wait_for_count(f"{venue}: the venue announced", 1)
    assert_equation(rig.finish())
    assert rig.query(GAPS_OF_SOCKETS) == []
    assert "disconnected" not in rig.engine.log


PAID = "SELECT venue, count(*) FROM funding_rates WHERE settled GROUP BY 1"


@pytest.mark.fault("S01")
def test_every_kind_goes_on_exactly_where_a_killed_shard_ended(make_rig: MakeRig) -> None:
    rig = start(make_rig)
    assert rig.engine is not None
    settled = {key.venue for key in KEYS if key.kind is StreamKind.SETTLED_FUNDING}
    rig.until(lambda: dict(rig.query(PAID)).keys() == settled, "what was paid before")
    paid = {*rig.query(PAID)}
    rig.until(lambda: rig.query("SELECT count(*) FROM liquidation")[0][0] > 5, "liquidations")
    delist_for_a_while(rig)
    rig.engine.child(SHARD).kill()
    rig.until_every_stream_delivers()
    rig.until(lambda: rig.query(LATE_LIQUIDATIONS)[0][0] > 3, "liquidations after the restart")
    assert_equation(rig.finish())
    assert {*rig.query(PAID)} == paid, "each payment once, whoever asked for it"
    assert_ids_of_bybit_are_whole(rig)


def delist_for_a_while(rig: Rig) -> None:
    """Have the first symbol of every venue fall silent, and trade again."""
    for venue, symbol in SYMBOL.items():
        rig.tell("/simulator/instruments", venue=venue, action="delist", symbol=symbol)
    (since_ns,) = rig.query("SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint")[0]
    others = f"""
        SELECT count(DISTINCT stream_id) FROM trade JOIN stream USING (stream_id)
        JOIN instrument i USING (instrument_id) WHERE ts_recv > {since_ns}
        AND (i.venue, i.symbol) IN {(*OTHERS, *IN_ANY_SCRIPT)}
    """
    wanted = len(OTHERS) + len(IN_ANY_SCRIPT)
    rig.until(lambda: rig.query(others) == [(wanted,)], "trades of the others")
    for venue, symbol in SYMBOL.items():
        rig.tell("/simulator/instruments", venue=venue, action="list", symbol=symbol)
    rig.until_every_stream_delivers()


def assert_ids_of_bybit_are_whole(rig: Rig) -> None:
    """The ledger has only the lower half of ids that are UUIDs."""
    ids = rig.query("""
        SELECT t.trade_id_hi, t.trade_id FROM trade t JOIN stream USING (stream_id)
        JOIN instrument i USING (instrument_id) WHERE i.venue IN ('bybit_linear', 'bybit_inverse')
    """)
    assert len(ids) > 100
    assert {upper for upper, _ in ids} == {upper_half(lower) for _, lower in ids}


def upper_half(lower: int) -> int:
    """The half of an id that the ledger does not have, as the database holds it."""
    whole = UUID(uuid_text(lower)).int >> 64
    return whole - (1 << 64) if whole >> 63 else whole
