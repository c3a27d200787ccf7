"""A table that refuses everything for a while is no fault of any row's, and of no other table's."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from engine.base.errors import TableRefusesError
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.layout import Layout
from engine.data.slots import Slots
from engine.writer.sinks.postgres.waits import TableWaits
from tests.engine.writer.bench import Bench, run
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.stores import execute, select
from tests.waiting import until

_REFUSE_WITH = """
    CREATE TABLE refusal (state text, share int);
    INSERT INTO refusal VALUES ('00000', 1);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (SELECT state FROM refusal) <> '00000'
            AND NEW.trade_id %% (SELECT share FROM refusal) = 0
        THEN
            RAISE EXCEPTION 'not now' USING ERRCODE = (SELECT state FROM refusal);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON trade FOR EACH ROW EXECUTE FUNCTION refuse();
""".replace("%%", "%")
_STATES_OF_A_TABLE = {
    "0A000": _REFUSE_WITH,
    "TS103": _REFUSE_WITH,
    "23514": "ALTER TABLE trade ADD CONSTRAINT no CHECK (price < 0) NOT VALID",
    "P0001": _REFUSE_WITH,
    "22003": _REFUSE_WITH,
    "42501": _REFUSE_WITH,
}


@pytest.fixture
def bench(layout: Layout, slots: Slots) -> Iterator[Bench]:
    del slots
    bench = Bench(layout, TRADE, BOOK, GAP)
    yield bench
    bench.close()


def _begin(url: str, state: str) -> None:
    execute(url, _STATES_OF_A_TABLE[state])
    if _STATES_OF_A_TABLE[state] is _REFUSE_WITH:
        execute(url, f"UPDATE refusal SET state = '{state}'")


def _end(url: str, state: str) -> None:
    if _STATES_OF_A_TABLE[state] is _REFUSE_WITH:
        execute(url, "UPDATE refusal SET state = '00000'")
    else:
        execute(url, "ALTER TABLE trade DROP CONSTRAINT no")


@pytest.mark.fault("N02")
@pytest.mark.parametrize("state", _STATES_OF_A_TABLE)
def test_its_rows_wait_and_other_tables_go_on(
    bench: Bench,
    layout: Layout,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
    books: MakeTrades,
    state: str,
) -> None:
    """Flushes as small as real ones: no brake that counts rows would ever pull."""
    _begin(database_url, state)
    delivery = bench.delivery(make_settings(database_url=database_url, flush_interval_s=0.01))

    async def body() -> None:
        for number in range(6):
            bench.put(trades(40, first_id=40 * number))
            bench.put(books(10))
            await asyncio.sleep(0.05)
        await until(lambda: delivery.rows["book"] == 240)
        assert delivery.sink.waits.text.startswith(f"table trade refuses every row: {state}: ")
        assert delivery.trouble.state == "up"
        assert delivery.rows["trade"] == 0
        await asyncio.to_thread(_end, database_url, state)  # it waits for our locks
        await until(lambda: delivery.backlog_rows == 0)
        assert delivery.sink.waits.text == ""

    run(delivery, body)
    assert not delivery.refused_rows
    assert not layout.quarantine_dir.exists()
    found = select(database_url, "SELECT count(*), count(DISTINCT trade_id) FROM trade")
    assert found == [(240, 240)]


@pytest.mark.fault("N02")
def test_a_poison_row_alone_waits_for_a_neighbour_and_holds_up_no_other_table(
    bench: Bench,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
    books: MakeTrades,
) -> None:
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id <> 7)")
    delivery = bench.delivery(make_settings(database_url=database_url, flush_interval_s=0.01))

    async def body() -> None:
        bench.put(trades(1, first_id=7))
        await until(lambda: "23514" in delivery.sink.waits.text)
        bench.put(books(10))
        await until(lambda: delivery.rows["book"] == 40)
        assert not delivery.refused_rows, "nobody knows yet whether it is the row"
        bench.put(trades(1, first_id=8))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.refused_rows == {"trade": 1}
    assert delivery.sink.waits.text == ""
    assert select(database_url, "SELECT trade_id FROM trade") == [(8,)]


@pytest.mark.fault("N02")
def test_few_good_rows_among_many_bad_ones_are_found(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    """The bad ones come first, and are more than are tried one by one."""
    execute(database_url, "ALTER TABLE trade ADD CHECK (trade_id >= 360)")
    delivery = bench.delivery(make_settings(database_url=database_url, flush_interval_s=0.01))

    async def body() -> None:
        bench.put(trades(400))
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"trade": 40}
    assert delivery.refused_rows == {"trade": 360}


@pytest.mark.fault("N02")
def test_rows_that_a_frozen_chunk_refuses_are_set_aside_when_it_stays_frozen(
    bench: Bench,
    database_url: str,
    make_settings: MakeSettings,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A late row for an archived day must not keep the newer ones out for ever."""
    execute(database_url, _REFUSE_WITH)
    execute(database_url, "UPDATE refusal SET state = '0A000', share = 50")
    delivery = bench.delivery(make_settings(database_url=database_url, flush_interval_s=0.01))

    async def body() -> None:
        bench.put(trades(100))
        await until(lambda: "0A000" in delivery.sink.waits.text)
        await asyncio.sleep(0.3)
        assert not delivery.refused_rows, "it may be over soon"
        monkeypatch.setattr("engine.writer.sinks.postgres.waits._PATIENCE_S", 0.0)
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"trade": 98}
    assert delivery.refused_rows == {"trade": 2}


@pytest.mark.fault("N02")
def test_a_refusing_gap_table_loses_no_declaration(
    bench: Bench, database_url: str, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    """A row cannot be set aside while nobody can be told: it waits."""
    execute(database_url, "ALTER TABLE gap ADD CONSTRAINT no CHECK (missing < -1) NOT VALID")
    delivery = bench.delivery(make_settings(database_url=database_url, flush_interval_s=0.01))
    rows = trades(10)
    rows["price"][3] = np.nan

    async def body() -> None:
        bench.put(rows)
        await until(lambda: delivery.trouble.state == "down" or bool(delivery.refused_rows))
        assert not delivery.rows
        await asyncio.to_thread(execute, database_url, "ALTER TABLE gap DROP CONSTRAINT no")
        await until(lambda: delivery.backlog_rows == 0)

    run(delivery, body)
    assert delivery.rows == {"trade": 9}
    assert select(database_url, "SELECT from_seq, to_seq, missing FROM gap") == [(3, 3, 1)]


def test_it_is_asked_again_at_a_growing_pace_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 1000.0
    waits = TableWaits(lambda: now_s)
    tries = 0
    while now_s < 1120.0:
        if not waits.waits("trade"):
            tries += 1
            waits.refused(TableRefusesError("trade", "0A000: frozen"))
        now_s += 0.05
    assert 120 / 5 <= tries <= 120 / 2.5 + 10
    assert caplog.text.count("0A000: frozen") == 1
    assert not waits.waits("book")
    assert waits.text == "table trade refuses every row: 0A000: frozen"
    waits.taken({"trade", "book"})
    assert waits.text == ""
    assert not waits.impatient
