"""What does a row cost as rate, streams, depth and shards grow, and what do so many cores, machines
and databases carry? Parts are measured, and a run that they were not fitted to is predicted.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.flow.setups import DATABASE
from bench.scale.checking import OFF_MAX, TOGETHER, measured_us, misses, predicted_us
from bench.scale.load import Load
from bench.scale.measuring import disk_bytes_per_s, possible, samples
from bench.scale.model import Parts, Sample, Site, best
from bench.scale.points import FITTED, PREDICTED, Series
from bench.scale.tables import (
    arithmetic_table,
    comparison,
    fit_lines,
    load_text,
    other_parts,
    parts_table,
    sites_table,
)

TYPICAL: Final = Load(trades_per_s=1e5, symbols=100)
"""What one figure stands for, so that runs can be compared."""


class Whole:
    """What is measured once for all questions."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.seconds = 4.0 if quick else 8.0
        self._has_begun = False

    @cached_property
    def samples(self) -> list[Sample]:
        """At every load that is fitted."""
        assert not self._has_begun, "what is fitted could not be measured"
        self._has_begun = True
        return [
            sample
            for series in FITTED
            for sample in samples(series, self.seconds, quick=self.quick)
        ]

    @cached_property
    def parts(self) -> Parts:
        """Of this machine."""
        return Parts.fitted(self.samples)

    @cached_property
    def disk_bytes_per_s(self) -> float:
        """Of this machine."""
        return disk_bytes_per_s()


@pytest.fixture(scope="session")
def whole(quick: bool) -> Whole:
    """This machine."""
    if os.environ.get(DATABASE):
        pytest.skip(f"{DATABASE} names a server whose CPU time nobody knows")
    return Whole(quick=quick)


def test_parts(benchmark: BenchmarkFixture, figure: Callable[[float], None], whole: Whole) -> None:
    """In the order that they are needed: this measures what the others reckon with."""
    parts = whole.parts
    figure(sum(parts.cpu(TYPICAL).values()) / TYPICAL.rows_per_s)
    benchmark.extra_info.update(
        parts=asdict(parts),
        disk_bytes_per_s=round(whole.disk_bytes_per_s),
        samples=[asdict(sample) for sample in whole.samples],
        lines=[
            f"a row of {load_text(TYPICAL)} costs so much by the parts:",
            *fit_lines(parts, whole.samples),
            *parts_table(parts),
            *other_parts(parts, whole.disk_bytes_per_s),
        ],
    )


@pytest.mark.parametrize("series", PREDICTED, ids=lambda series: series.setup.name)
def test_predicted(
    benchmark: BenchmarkFixture, figure: Callable[[float], None], whole: Whole, series: Series
) -> None:
    if not series.chosen(quick=whole.quick):
        pytest.skip("not with --quick")
    if not possible(series.setup):
        pytest.skip(f"{series.setup.name} needs more CPUs")
    parts = whole.parts
    found = list(samples(series, whole.seconds, quick=whole.quick))
    assert found, f"{series.setup.name}: no rate was held, so nothing can be compared"
    measured, predicted = measured_us(found), predicted_us(parts, found)
    lines = [f"{load_text(found[-1].load)}:", *comparison(predicted, measured)]
    off = misses(predicted, measured)
    figure(measured[TOGETHER] / 1e6)
    benchmark.extra_info.update(
        load=asdict(found[-1].load), measured_us=measured, predicted_us=predicted, lines=lines
    )
    assert not off, "\n".join(
        [
            f"off by more than {OFF_MAX:.0%}: {', '.join(off)}",
            *lines,
            *fit_lines(parts, whole.samples),
        ]
    )


def test_carried(
    benchmark: BenchmarkFixture, figure: Callable[[float], None], whole: Whole
) -> None:
    disk = whole.disk_bytes_per_s
    found = best(whole.parts, TYPICAL, Site(8, disk))
    figure(1 / found.rows_per_s)
    benchmark.extra_info.update(
        rows_per_s=found.rows_per_s,
        wall=found.wall,
        uses=dict(found.uses),
        lines=[*arithmetic_table(whole.parts, TYPICAL), *sites_table(whole.parts, disk)],
    )
