"""The scaling model: what was put in comes out, and the first wall is the one that is nearest."""

from dataclasses import replace

import pytest

from bench.scale.checking import LARGE, OFF_MAX, TOGETHER, measured_us, misses, predicted_us
from bench.scale.load import BURST_S, Load
from bench.scale.measuring import by_process
from bench.scale.model import FULL, PUBLISH, TERMS, Pace, Parts, Sample, Site, best, most, uses
from bench.scale.points import FITTED, PREDICTED
from bench.scale.tables import (
    arithmetic_table,
    comparison,
    examples,
    parts_table,
    rounded,
    sites_table,
)

TRUTH = Parts(
    {
        "shard": {
            "shard": 20e3, "stream": 40.0, "burst": 8.0, "apart": 6.0, "trade": 1.4, "level": 0.4,
        },
        "writer": {
            "database": 30e3, "trade": 0.6, "level": 0.5, PUBLISH: 400.0, "live burst": 10.0,
            "live trade": 0.4, "live level": 0.3,
        },
        "postgres": {"database": 15e3, "trade": 1.3, "level": 1.2},
        "valkey": {PUBLISH: 40.0, "live burst": 5.0, "live trade": 0.2, "live level": 0.1},
        "others": {"engine": 25e3, "stream": 15.0},
    },
    {"trade": 150.0, "level": 140.0},
    Pace(round_s=0.002, bursts=2.5),
)  # fmt: skip
LOADS = [
    *(Load(trades_per_s=rate) for rate in (2e3, 2e4, 1e5)),
    *(Load(trades_per_s=rate, redis=False) for rate in (5e3, 1e5)),
    *(Load(levels_per_s=rate) for rate in (1e4, 1e5)),
    *(Load(levels_per_s=rate, redis=False) for rate in (1e4, 1e5)),
    *(Load(trades_per_s=rate, symbols=100) for rate in (2e3, 4e4)),
    Load(trades_per_s=1e4, symbols=1000, venues=2),
    *(Load(trades_per_s=rate, symbols=50, shards=2) for rate in (5e3, 4e4)),
]
UNSEEN = Load(trades_per_s=2e4, levels_per_s=5e4, symbols=60, shards=3, databases=2)
WIDE = Site(cpus=64, disk_bytes_per_s=4e9)


def samples(noise: float = 0.0) -> list[Sample]:
    """The truth at every load, by turns too high and too low by a part."""
    return [
        Sample(
            load,
            {role: cpu * (1 + noise * (-1) ** number) for role, cpu in TRUTH.cpu(load).items()},
            TRUTH.wal_bytes_per_s(load),
            publishes_per_s=TRUTH.pace.publishes_per_s(load),
        )
        for number, load in enumerate(LOADS)
    ]


def test_what_is_true_is_found() -> None:
    found = Parts.fitted(samples())
    for role, terms in TERMS.items():
        for term in terms:
            assert found.cpu_us[role][term] == pytest.approx(TRUTH.cpu_us[role][term], rel=1e-3)
    assert found.wal_bytes == pytest.approx(TRUTH.wal_bytes)
    assert found.pace.round_s == pytest.approx(TRUTH.pace.round_s)
    assert found.pace.bursts == pytest.approx(TRUTH.pace.bursts)


def test_a_load_that_nobody_has_measured_is_predicted() -> None:
    found = Parts.fitted(samples(noise=0.04)).cpu(UNSEEN)
    for role, cpu in TRUTH.cpu(UNSEEN).items():
        assert found[role] == pytest.approx(cpu, rel=0.15), role


def test_nothing_costs_less_than_nothing() -> None:
    """Where noise says that more streams cost less, they cost nothing."""
    cheaper = [
        replace(each, cpu={**each.cpu, "others": 0.03 - 1e-6 * each.load.streams})
        for each in samples()
    ]
    costs = Parts.fitted(cheaper).cpu_us["others"]
    assert costs["stream"] == 0.0
    assert costs["engine"] == pytest.approx(30e3, rel=0.05)


def test_what_was_not_there_costs_nothing() -> None:
    found = Parts.fitted([each for each in samples() if not each.load.redis])
    assert set(found.cpu_us["valkey"].values()) == {0.0}
    assert found.cpu(LOADS[3])["valkey"] == 0.0


def test_the_first_wall_of_one_shard_is_the_shard() -> None:
    found = most(TRUTH, Load(trades_per_s=1e3, redis=False), WIDE)
    assert found.wall == "a shard"
    busy_s = 20e3 + 10 * 40.0 + 8.0 * found.load.bursts_per_s + 1.4 * found.rows_per_s
    assert busy_s / 1e6 == pytest.approx(FULL, rel=1e-3)


def test_more_shards_bring_the_writer_to_its_end_and_no_further() -> None:
    four, eight = (most(TRUTH, Load(trades_per_s=1e3, shards=n, databases=4), WIDE) for n in (4, 8))
    assert four.wall == eight.wall == "the writer"
    assert eight.rows_per_s == pytest.approx(four.rows_per_s, rel=1e-3)


def test_databases_remove_the_wall_of_a_session_and_not_that_of_the_writer() -> None:
    load = Load(trades_per_s=1e3, shards=4, redis=False)
    one, three = (most(TRUTH, replace(load, databases=n), WIDE) for n in (1, 3))
    assert one.wall == "a database's session"
    assert three.wall == "the writer"
    assert three.rows_per_s > 1.5 * one.rows_per_s


def test_engines_remove_the_wall_of_the_writer() -> None:
    load = Load(trades_per_s=1e3, shards=4)
    found = most(TRUTH, load.split(2), replace(WIDE, engines=2))
    assert found.rows_per_s == pytest.approx(2 * most(TRUTH, load, WIDE).rows_per_s, rel=0.05)


def test_few_cpus_are_the_wall_and_more_machines_carry_more() -> None:
    small = replace(WIDE, cpus=2)
    found = most(TRUTH, Load(trades_per_s=1e3), small)
    assert found.wall == "CPUs"
    assert sum(TRUTH.cpu_at_the_wall(found.load).values()) == pytest.approx(2 * FULL, rel=1e-3)
    assert sum(TRUTH.cpu(found.load).values()) > 2 * FULL, "rounds to Redis have given way"
    three = most(TRUTH, Load(trades_per_s=1e3), replace(small, machines=3))
    assert three.rows_per_s == pytest.approx(3 * found.rows_per_s)


def test_a_slow_disk_is_the_wall_until_databases_have_disks_of_their_own() -> None:
    slow = Site(cpus=64, disk_bytes_per_s=15e6)
    load = Load(trades_per_s=1e3, shards=2, databases=2, redis=False)
    shared = most(TRUTH, load, slow)
    assert shared.wall == "a disk"
    assert shared.rows_per_s == pytest.approx(FULL * 15e6 / 150, rel=1e-3)
    own = most(TRUTH, load, replace(slow, shared_disk=False))
    assert own.rows_per_s == pytest.approx(2 * shared.rows_per_s, rel=1e-3)


def test_what_is_carried_uses_no_more_than_there_is() -> None:
    for load in LOADS:
        found = most(TRUTH, load, Site(cpus=8, disk_bytes_per_s=4e8))
        used = uses(TRUTH, found.load, Site(cpus=8, disk_bytes_per_s=4e8))
        assert used == found.uses
        assert max(used.values()) == pytest.approx(1, rel=1e-3)
        assert max(used, key=lambda each: used[each]) == found.wall


def test_a_burst_is_counted_once_however_many_rows_it_has() -> None:
    few, many = (Load(trades_per_s=rate, symbols=10).bursts_per_s for rate in (10.0, 1e7))
    assert few == pytest.approx(10.0, rel=0.02)
    assert many == pytest.approx(10 / BURST_S, rel=1e-3)
    wide = Load(trades_per_s=1e4, symbols=1000, venues=2)
    assert Load(trades_per_s=1e4).bursts_per_s < wide.bursts_per_s < 1e4


def test_a_message_of_a_book_is_one_burst() -> None:
    load = Load(levels_per_s=2000.0, levels_per_message=20.0, symbols=100)
    assert load.bursts_per_s == pytest.approx(100.0, rel=0.01)
    assert replace(load, levels_per_message=1.0).bursts_per_s > 1800


def test_the_fewest_shards_that_do_are_taken() -> None:
    load, site = Load(trades_per_s=1e3, databases=4), replace(WIDE, cpus=16)
    found = best(TRUTH, load, site)
    assert found.wall == "the writer"
    fewer = most(TRUTH, replace(load, shards=found.load.shards - 1), site)
    assert fewer.wall == "a shard"
    assert fewer.rows_per_s < found.rows_per_s


def spans(*off: float) -> list[Sample]:
    """An unseen load measured some times, each time off by a part."""
    return [
        Sample(UNSEEN, {role: cpu * (1 + each) for role, cpu in TRUTH.cpu(UNSEEN).items()})
        for each in off
    ]


def test_a_prediction_is_held_against_the_middle_of_the_spans() -> None:
    found = spans(0.02, 0.9, -0.03)
    measured = measured_us(found)
    assert measured == measured_us(spans(0.02))
    assert misses(predicted_us(TRUTH, found), measured) == []


def test_what_is_off_by_more_than_may_be_is_named() -> None:
    """A large process by itself, a small one only as a part of all."""
    found = spans(0.0)
    measured = measured_us(found)
    large = [role for role, us in measured.items() if us >= LARGE * measured[TOGETHER]]
    small = [role for role in measured if role not in large]
    assert {"writer", TOGETHER} <= set(large)
    assert small
    for role in measured:
        for part in (1 - 1.05 * OFF_MAX, 1 + 1.05 * OFF_MAX):
            predicted = {**measured, role: measured[role] * part}
            assert misses(predicted, measured) == [role] * (role in large)
    assert misses({role: 1.3 * us for role, us in measured.items()}, measured) == large


def test_what_decides_and_watches_is_one_process_and_the_simulator_none() -> None:
    found = by_process({"shard": 0.5, "control": 0.02, "upkeep": 0.01, "simulator": 0.9})
    assert found == {
        "shard": 0.5, "writer": 0.0, "postgres": 0.0, "valkey": 0.0, "others": pytest.approx(0.03)
    }  # fmt: skip


def test_what_is_predicted_is_not_fitted() -> None:
    fitted = {(series.setup.symbols, series.setup.kinds) for series in FITTED}
    assert not any((series.setup.symbols, series.setup.kinds) in fitted for series in PREDICTED)
    for quick in (True, False):
        measured = [series for series in FITTED if series.chosen(quick=quick)]
        assert {series.setup.redis for series in measured} == {True, False}
        assert {series.setup.kinds for series in measured} >= {
            series.setup.kinds[:1] for series in PREDICTED
        }
        assert any(series.chosen(quick=quick) for series in PREDICTED)


def test_tables_have_the_parts_and_every_example() -> None:
    parts = parts_table(TRUTH)
    assert "| a shard | 20.0 | 40.00 |  | 8.00 | 6.00 | 1.40 | 0.40 |" in parts
    assert "| the writer, for Redis |  |  | 400.00 | 10.00 |  | 0.40 | 0.30 |" in parts
    sites = sites_table(TRUTH, 4e8)
    assert len(sites) == 2 + len(examples(4e8))
    (two_cores,) = [line for line in sites if line.startswith("| 2 cores, trades |")]
    assert "| CPUs |" in two_cores
    assert rounded(1_234_567) == 1_200_000


def test_what_was_measured_stands_beside_what_was_predicted() -> None:
    lines = comparison({"shard": 1.1, TOGETHER: 3.0}, {"shard": 1.0, TOGETHER: 4.0})
    assert [line.split() for line in lines[1:]] == [
        ["shard", "1.100", "1.000", "+10%"], [TOGETHER, "3.000", "4.000", "-25%"]
    ]  # fmt: skip


def test_rounds_to_redis_come_as_rows_do_until_they_follow_each_other() -> None:
    pace = Pace(round_s=0.002, bursts=1.0)
    assert pace.publishes_per_s(Load(trades_per_s=5.0)) == pytest.approx(5.0, rel=0.03)
    assert pace.publishes_per_s(Load(trades_per_s=1e6, symbols=1000)) == pytest.approx(
        500, rel=0.03
    )
    assert pace.publishes_per_s(Load(trades_per_s=1e4, redis=False)) == 0.0


def test_bursts_of_one_shard_are_never_apart() -> None:
    one, two, many = (Load(trades_per_s=1e5, shards=n).counts() for n in (1, 2, 100))
    assert one["apart"] == 0.0
    assert two["apart"] == pytest.approx(two["burst"] / 2)
    assert many["apart"] < many["burst"]


def test_the_arithmetic_is_told_term_by_term() -> None:
    load = Load(trades_per_s=1e4, symbols=10, redis=False)
    lines = arithmetic_table(TRUTH, load)
    assert "| postgres | 1 database x 15.0 ms + 10,000 trade x 1.30 µs | 0.03 |" in lines
    assert not any(PUBLISH in line for line in lines)
    assert lines[-1] == f"| together | | {sum(TRUTH.cpu(load).values()):.2f} |"
