"""Bars against a model: whatever the order of commits, late rows and runs, and whatever dies."""

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.base.clock import DAY_NS
from engine.base.errors import EngineError
from engine.database.bars import MinuteBar, minute_bars
from engine.servers.postgres import PrivatePostgres
from engine.upkeep.task import Place, StoppingError
from engine.upkeep.tasks.bars.task import Bars, bars_are_made
from engine.upkeep.tasks.retention import Retention
from tests.conftest import Databases
from tests.engine.upkeep.bars_rig import (
    MINUTE_NS,
    START_NS,
    Trade,
    are_aggregates,
    bars,
    begin,
    catch_up,
    model,
    store,
)
from tests.engine.upkeep.database_rig import TODAY, days_of, make_days, partition_name, place_in
from tests.waiting import wait_for

S_NS = 1_000_000_000
DAYS = range(TODAY - 3, TODAY + 1)
_streams = itertools.count(1, 10)


@pytest.fixture
def url(database_url: str) -> str:
    """A database with room for trades of some days."""
    with place_in(database_url) as place:
        if place.layout == "partitions":
            make_days(place, "trade", *DAYS)
        else:  # chunks, for which two open transactions would wait
            store(place.session, [Trade(day * DAY_NS, 1, 1) for day in DAYS], marked=False)
            place.session.execute("DELETE FROM trade")
    return database_url


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A writer's."""
    with psycopg.connect(url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def place(url: str) -> Iterator[Place]:
    """An upkeep's, with bars on, and a writer that knows it."""
    with place_in(url, bars=True) as opened:
        begin(opened)
        yield opened


def is_as_modelled(
    connection: psycopg.Connection[Any], trades: list[Trade], suffix: str = ""
) -> bool:
    """Both sizes. `_now`: what readers see."""
    streams = sorted({trade.stream_id for trade in trades})
    for name, width_ns in (("bar_1s", S_NS), ("bar_1m", MINUTE_NS)):
        assert bars(connection, name + suffix, streams) == model(trades, width_ns), name
    return True


def some_trades(count: int = 200, *, start_ns: int = START_NS, step_ns: int = S_NS) -> list[Trade]:
    """Of two streams, ids counting up."""
    return [
        Trade(start_ns + n * step_ns, 1 + n % 2, n, 100 + n * 7 % 31, 1 + n % 5, "BS"[n % 3 == 0])
        for n in range(count)
    ]


trades_of = st.builds(
    Trade,
    st.integers(-3 * MINUTE_NS, 3 * MINUTE_NS).map(lambda ns: START_NS + ns)
    # Many of one time, as venues have them: a millisecond, or the last nanosecond of a minute.
    | st.sampled_from([START_NS, START_NS + 1_000_000, START_NS - 1, START_NS + 999]),
    st.integers(0, 2),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**63 - 1) | st.integers(1, 9),
    st.integers(0, 2**63 - 1) | st.integers(1, 9),
    st.sampled_from("BS-"),
    st.sampled_from([0, 0, 1, -5]),
)
some = st.lists(trades_of, min_size=1, max_size=8)
steps = st.lists(
    st.tuples(st.sampled_from(["store", "begin", "roll back"]), some)
    | st.tuples(st.sampled_from(["run", "stop in the middle", "commit one"]), st.just([])),
    max_size=12,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps)
def test_bars_are_those_of_the_trades_whatever_the_order_of_commits_and_runs(
    url: str, connection: psycopg.Connection[Any], place: Place, script: list[Any]
) -> None:
    first = next(_streams)
    writers = Writers(url, connection)
    for step, found in script:
        if step == "run":
            catch_up(place)
        elif step == "stop in the middle":
            stops_after(place, 1)
        else:
            trades = [trade._replace(stream_id=first + trade.stream_id) for trade in found]
            writers.do(step, trades)
        assert are_aggregates(connection) or writers.see_all("_now")
    writers.do("commit all")
    catch_up(place)
    assert writers.see_all("_now")
    assert writers.see_all("")
    assert connection.execute("SELECT count(*) FROM bar_todo").fetchone() == (0,)


class Writers:
    """Transactions with trades, some of which take their time."""

    def __init__(self, url: str, connection: psycopg.Connection[Any]) -> None:
        self._url = url
        self._connection = connection
        self._open: list[tuple[psycopg.Connection[Any], list[Trade]]] = []
        self._stored: list[Trade] = []

    def do(self, step: str, trades: Sequence[Trade] = ()) -> None:
        """One step of the script."""
        if step == "begin":
            self._open.append((psycopg.connect(self._url), list(trades)))
            store(*self._open[-1])
        elif step.startswith("commit"):
            while self._open:
                other, late = self._open.pop(0)
                other.commit()
                other.close()
                self._stored += late
                if step == "commit one":
                    break
        else:
            with self._connection.transaction(force_rollback=step == "roll back"):
                store(self._connection, trades)
            self._stored += trades if step == "store" else []

    def see_all(self, suffix: str) -> bool:
        """Whether the bars are those of what is committed."""
        return not self._stored or is_as_modelled(self._connection, self._stored, suffix)


def stops_after(place: Place, pieces: int) -> None:
    """A run that the end of the engine interrupts."""
    left = iter(range(pieces))

    def pause() -> None:
        if next(left, None) is None:
            raise StoppingError("the engine ends")

    try:
        Bars().run(with_pause(place, pause))
    except StoppingError:
        return


def with_pause(place: Place, pause: Callable[[], None]) -> Place:
    return Place(place.session, place.seen, place.settings, place.report, pause, place.now_ns)


def test_a_minute_is_made_when_it_is_over_and_seen_before(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    trades = [Trade(START_NS + n * S_NS, 1, n) for n in range(90)]
    with place_in(url, now_ns=START_NS + 90 * S_NS, bars=True) as place:
        begin(place)
        if are_aggregates(connection):
            pytest.skip("TimescaleDB's end_offset is by the clock of its server")
        assert Bars().run(place) == ""
        store(connection, trades)
        assert Bars().run(place) == "made bars of new trades"
        assert Bars().run(place) == ""
    assert bars(connection, "bar_1m") == model(trades[:60], MINUTE_NS)
    assert is_as_modelled(connection, trades, "_now")


def test_switched_on_it_fills_in_what_was_there_and_takes_what_comes(
    connection: psycopg.Connection[Any], place: Place
) -> None:
    """Days with holes, interrupted again and again, while trades come for hours that are filled
    already and for those that are not."""
    before = some_trades(60, start_ns=START_NS - DAY_NS - 3 * MINUTE_NS, step_ns=47 * MINUTE_NS)
    place.session.execute("SELECT mark_bars(false)")
    store(connection, before)
    begin(place)
    stored = list(before)
    for number in range(8):
        stops_after(place, 5)
        late = some_trades(7, start_ns=START_NS - DAY_NS + number * S_NS, step_ns=199 * MINUTE_NS)
        late = [trade._replace(trade_id=1000 + number * 100 + trade.trade_id) for trade in late]
        store(connection, late)
        stored += late
    catch_up(place)
    assert is_as_modelled(connection, stored)
    assert is_as_modelled(connection, stored, "_now")


def test_what_was_stored_while_they_were_off_is_found(
    url: str, connection: psycopg.Connection[Any], place: Place
) -> None:
    stored = some_trades()
    store(connection, stored)
    catch_up(place)
    place.session.execute("SELECT mark_bars(false)")
    with place_in(url, bars=False) as off:
        Bars().run(off)
        more = [trade._replace(trade_id=500 + trade.trade_id) for trade in some_trades(150)]
        store(connection, more)
        assert connection.execute("SELECT count(*) FROM bar_todo").fetchone() == (0,)
    begin(place)
    catch_up(place)
    assert is_as_modelled(connection, [*stored, *more])


def marks_only(connection: psycopg.Connection[Any]) -> None:
    if are_aggregates(connection):
        pytest.skip("TimescaleDB's own business here")


@contextmanager
def held_up(
    connection: psycopg.Connection[Any], url: str
) -> Iterator[tuple[threading.Thread, list[BaseException]]]:
    """A run that waits in the middle of its transaction, marks deleted, bars half made."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with place_in(url, bars=True, lock_timeout="60s") as place:
                Bars().run(place)
        except (psycopg.Error, EngineError) as error:
            errors.append(error)

    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE bar_1m IN SHARE MODE")
        thread = threading.Thread(target=run)
        thread.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'fts-upkeep%'"
            " AND wait_event_type = 'Lock'"
        )
        wait_for(lambda: connection.execute(waiting.encode()).fetchone() == (1,))
        yield thread, errors
    thread.join()


def test_an_upkeep_that_dies_in_the_middle_leaves_nothing_half(
    url: str, connection: psycopg.Connection[Any], place: Place
) -> None:
    marks_only(connection)
    store(connection, some_trades())
    catch_up(place)
    late = [trade._replace(trade_id=trade.trade_id + 900, price=999) for trade in some_trades(130)]
    store(connection, late)
    with held_up(connection, url) as (thread, errors):
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'fts-upkeep%'"
            " AND wait_event_type = 'Lock'"
        )
        thread.join()
        assert errors
    assert is_as_modelled(connection, some_trades())
    assert is_as_modelled(connection, [*some_trades(), *late], "_now")
    catch_up(place)
    assert is_as_modelled(connection, [*some_trades(), *late])


def test_two_upkeeps_at_once_make_the_same_bars(
    url: str, connection: psycopg.Connection[Any], place: Place
) -> None:
    """Of two only one is let work (`Care`); this is what is true without that."""
    marks_only(connection)
    store(connection, some_trades())
    catch_up(place)
    late = [trade._replace(trade_id=trade.trade_id + 900, price=999) for trade in some_trades(130)]
    store(connection, late)
    later = [trade._replace(trade_id=trade.trade_id + 2000) for trade in late]
    with held_up(connection, url):
        place.session.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            Bars().run(place)
        store(connection, later)  # which the one that is held up does not see
    with place_in(url, bars=True) as again:
        catch_up(again)
    assert is_as_modelled(connection, [*some_trades(), *late, *later])


@pytest.mark.whole
def test_a_server_that_is_killed_in_the_middle_has_all_when_it_is_back(
    postgres: PrivatePostgres, url: str
) -> None:
    """The private server, on partitions."""
    trades = some_trades()
    with psycopg.connect(url, autocommit=True) as connection, place_in(url, bars=True) as place:
        begin(place)
        store(connection, trades)
        catch_up(place)
        late = [trade._replace(trade_id=trade.trade_id + 900, price=9) for trade in trades]
        store(connection, late)
        with pytest.raises(psycopg.OperationalError), held_up(connection, url) as (thread, errors):
            assert postgres.pid is not None
            os.kill(postgres.pid, signal.SIGKILL)
            thread.join()
        assert errors
    postgres.stop()
    postgres.start()
    with psycopg.connect(url, autocommit=True) as connection, place_in(url, bars=True) as place:
        assert is_as_modelled(connection, [*trades, *late], "_now")
        catch_up(place)
        assert is_as_modelled(connection, [*trades, *late])


def test_bars_outlive_their_trades(
    url: str, connection: psycopg.Connection[Any], timescale: Databases | None
) -> None:
    """Retention drops a day whose bars nobody had made yet; and a late row of it does no harm."""
    old = some_trades(500, start_ns=START_NS - 3 * DAY_NS, step_ns=97 * S_NS)
    new = some_trades(300)
    with place_in(url, bars=True, keep={"trade": "2d"}) as place:
        begin(place)
        store(connection, [*old, *new])
        if timescale is None:
            assert "dropped" in Retention((bars_are_made,)).run(place)
        else:
            catch_up(place)
            drop_old_chunks(connection)
        assert connection.execute("SELECT count(*) FROM trade").fetchone() == (300,)
        if place.layout == "partitions":
            assert TODAY - 3 not in days_of(place, "trade")
            make_days(place, "trade", TODAY - 3)
        store(connection, [old[0]._replace(trade_id=77)])
        catch_up(place)
    assert is_as_modelled(connection, [*old, *new])


def drop_old_chunks(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "SELECT drop_chunks('trade', older_than => timestamptz 'epoch' + %s * interval '1 day')",
        (TODAY - 2,),
    )


def test_bars_of_a_second_may_go_before_those_of_a_minute(
    url: str, connection: psycopg.Connection[Any]
) -> None:
    marks_only(connection)
    old = some_trades(100, start_ns=START_NS - 2 * DAY_NS)
    with place_in(url, bars=True, keep={"bar_1s": "1d"}) as place:
        begin(place)
        store(connection, old)
        catch_up(place)
        assert "bar_1s" in Retention((bars_are_made,)).run(place)
    assert bars(connection, "bar_1s") == []
    assert bars(connection, "bar_1m") == model(old, MINUTE_NS)


def test_off_nothing_happens(url: str, connection: psycopg.Connection[Any]) -> None:
    with place_in(url, bars=False) as place:
        store(connection, some_trades(5))
        assert Bars().run(place) == ""
        assert bars_are_made(place, "trade", 0, START_NS) == ""
    assert bars(connection, "bar_1m_now") == []


def register(connection: psycopg.Connection[Any], version: int, decimals: int) -> int:
    """A stream of trades of one symbol."""
    found = connection.execute(
        "WITH i AS (INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals,"
        " qty_decimals, price_unit, qty_unit, status) VALUES ('acme', 'BTC', %s, 'B', 'U', %s, 3,"
        " %s, 0.001, 'on') RETURNING instrument_id)"
        " INSERT INTO stream (instrument_id, kind, transport) SELECT instrument_id, 'Trades', 'Ws'"
        " FROM i RETURNING stream_id",
        (version, decimals, Decimal(1).scaleb(-decimals)),
    ).fetchone()
    assert found is not None
    return int(found[0])


def asked(connection: psycopg.Connection[Any], width: str, minutes: int = 10) -> list[Any]:
    return connection.execute(
        "SELECT * FROM bars('acme', 'BTC', timestamptz 'epoch' + %s * interval '1 day',"
        " timestamptz 'epoch' + %s * interval '1 day' + %s * interval '1 minute', %s::interval)",
        (TODAY, TODAY, minutes, width),
    ).fetchall()


@pytest.mark.parametrize(
    "width", ["250 milliseconds", "1 second", "1 minute", "5 minutes", "1 day"]
)
def test_bars_of_a_symbol_are_exact_before_and_after_they_are_made(
    connection: psycopg.Connection[Any], place: Place, width: str
) -> None:
    """From trades, while bars are not there, then from bars; over a change of decimals."""
    first, second = register(connection, 1, 2), register(connection, 2, 4)
    trades = [
        *(Trade(START_NS + n * S_NS // 3, first, n, 1000 + n, 5) for n in range(700)),
        *(Trade(START_NS + n * S_NS // 3, second, n, 100 * n, 7, "S") for n in range(700, 1500)),
    ]
    place.session.execute("SELECT mark_bars(false)")
    store(connection, trades)
    found = asked(connection, width)
    begin(place)
    catch_up(place)
    assert asked(connection, width) == found
    assert sum(bar[8] for bar in found) == 1500
    assert found[0][1:5] == (
        Decimal("10.00"), max(bar[2] for bar in found[:1]), min(bar[3] for bar in found[:1]),
        found[0][4],
    )  # fmt: skip
    assert found[-1][4] == Decimal("14.9900")
    assert sum(bar[5] for bar in found) == Decimal("0.005") * 700 + Decimal("0.007") * 800
    value = sum((Decimal(1000 + n) / 100 * 5 / 1000 for n in range(700)), Decimal(0))
    value += sum(Decimal(100 * n) / 10_000 * 7 / 1000 for n in range(700, 1500))
    assert sum(bar[6] for bar in found) == value
    assert sum(bar[7] for bar in found) == Decimal("0.005") * 700


def test_charts_have_their_bars_with_exact_prices(
    url: str, connection: psycopg.Connection[Any], place: Place
) -> None:
    stream_id = register(connection, 1, 2)
    store(
        connection,
        [
            Trade(START_NS, stream_id, 1, 1050, 5),
            Trade(START_NS + 2 * S_NS, stream_id, 2, 990, 7, "S"),
            Trade(START_NS + 61 * S_NS, stream_id, 3, 1000, 1),
        ],
    )
    begin(place)
    catch_up(place)
    first = START_NS // MINUTE_NS

    def asked_for(since: int, until: int) -> list[MinuteBar]:
        return asyncio.run(minute_bars(url, "acme", "BTC", since, until))

    assert asked_for(first - 1, first + 2) == [
        MinuteBar(first, "10.50", "10.50", "9.90", "9.90", 0.012, 0.005),
        MinuteBar(first + 1, "10.00", "10.00", "10.00", "10.00", 0.001, 0.001),
    ]
    assert [each.minute for each in asked_for(first + 1, first + 2)] == [first + 1]
    assert asyncio.run(minute_bars(url, "acme", "NONE", first, first + 2)) == []


@pytest.mark.parametrize("width", ["250 milliseconds", "1 second", "1 minute", "1 day"])
def test_the_version_that_traded_last_closes_the_bar(
    connection: psycopg.Connection[Any], place: Place, width: str
) -> None:
    """Whichever got its stream first: by an import, or when a venue goes back to what it had."""
    late, early = register(connection, 2, 4), register(connection, 1, 2)
    prices = [
        (early, 100),
        (late, 20_000),
        (early, 300),
        (late, 40_000),
        (late, 50_000),
        (early, 600),
    ]
    trades = [
        Trade(
            START_NS + minute * MINUTE_NS + 400 * S_NS // 1000 + n * S_NS // 1000,
            stream_id,
            n,
            price,
        )
        for minute, order in ((0, prices[:2]), (1, prices[2:4]), (2, prices[4:]))
        for n, (stream_id, price) in enumerate(order)
    ]
    place.session.execute("SELECT mark_bars(false)")
    store(connection, trades)
    found = asked(connection, width)
    begin(place)
    catch_up(place)
    want = [(1, 6)] if width == "1 day" else [(1, 2), (3, 4), (5, 6)]
    for bars_found in (found, asked(connection, width)):
        assert [(bar[1], bar[4]) for bar in bars_found] == want


def test_readable_views_have_the_decimals_of_the_instrument(
    connection: psycopg.Connection[Any], place: Place
) -> None:
    stream_id = register(connection, 1, 2)
    store(connection, [Trade(START_NS, stream_id, 1, 123456, 1500)])
    catch_up(place)
    for view in ("bars_1s", "bars_1m"):
        found = connection.execute(
            f"SELECT venue, symbol, open::text, close::text, volume::text, quote_volume::text,"
            f" buy_volume::text, trade_count FROM {view}".encode()
        ).fetchall()
        assert found == [("acme", "BTC", "1234.56", "1234.56", "1.500", "1851.84000", "1.500", 1)]


def test_readers_touch_no_day_that_they_do_not_ask_for(
    url: str, connection: psycopg.Connection[Any], place: Place
) -> None:
    """Of bars those of the day, of trades those of the minutes that wait."""
    marks_only(connection)
    for day in DAYS:
        store(connection, some_trades(100, start_ns=day * DAY_NS))
    catch_up(place)
    store(connection, some_trades(2, start_ns=START_NS + MINUTE_NS, step_ns=1))
    found = connection.execute(
        "EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM bar_1m_now WHERE stream_id = ANY ('{1,2}')"
        " AND time >= timestamptz 'epoch' + %s * interval '1 day'"
        " AND time < timestamptz 'epoch' + %s * interval '1 day'",
        (TODAY, TODAY + 1),
    ).fetchone()
    assert found is not None
    read = {name for name in relations_read(found[0][0]["Plan"]) if "_p" in name}
    assert read <= {partition_name("bar_1m", TODAY), partition_name("trade", TODAY)}
    assert read


def relations_read(node: dict[str, Any]) -> Iterator[str]:
    """Tables that a plan's nodes really read from."""
    if node["Actual Loops"] and "Relation Name" in node:
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from relations_read(child)
