"""What is fed comes out: true histograms, sinks by their state, series known from birth."""

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from engine.data.layout import Layout, open_layout
from engine.messages.upkeep import DatabaseReport, TaskReport, UpkeepStatus
from engine.messages.writer import LatencyHistogram, SinkStatus, WriterStatus
from engine.process import metric_files
from engine.process.metrics import LATENCY_EDGES_S, LatencyBuckets, UpkeepMetrics, WriterMetrics
from engine.writer.sources.latency import Latency
from tests.engine.process.metric_rig import life, scrape
from tests.told import telling

NAME = "fts_writer_latency_seconds"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    tmp_path = tmp_path_factory.mktemp("engine")
    return open_layout(tmp_path / "state", tmp_path)


@pytest.fixture
def writer(layout: Layout) -> Iterator[WriterMetrics]:
    metric_files.begin(layout)
    with life(layout, "writer"):
        yield WriterMetrics()


def writer_status(**changes: Any) -> WriterStatus:
    status = WriterStatus(
        rings=[], received_rows={},
        sinks=[
            SinkStatus("database", "up", rows={"trade": 3}, backlog_rows=7),
            SinkStatus("redis", "off"),
        ],
        journal_bytes=4096, latency={}, rss_bytes=0, cpu_s=0.0,
    )  # fmt: skip
    return telling(status, **changes)


def test_edges_are_round_and_end_fine_buckets() -> None:
    assert [f"{edge:g}" for edge in LATENCY_EDGES_S.values()][:7] == [
        "1e-05", "2e-05", "4e-05", "0.0001", "0.0002", "0.0004", "0.001",
    ]  # fmt: skip
    assert list(LATENCY_EDGES_S.values())[-1] == 100.0
    for step, edge_s in LATENCY_EDGES_S.items():
        true_edge_s = 10 ** (step / 10) / 1e6
        assert true_edge_s <= edge_s * (1 + 1e-12)
        assert edge_s / true_edge_s < 1.006, "and never far above it"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(0, 3 * 10**8), min_size=1, max_size=50), max_size=4))
def test_histograms_are_monotone_and_true(layout: Layout, batches: list[list[int]]) -> None:
    metric_files.begin(layout)
    latency, ages_us = Latency(), np.array([age for batch in batches for age in batch])
    with life(layout, "writer"):
        buckets = LatencyBuckets(NAME, "Test", {"sink": "database"})
        for batch in batches:
            latency.add_ns(np.array(batch) * 1000)
            buckets.feed(latency.histogram())
        found = scrape(layout)
    counts = [
        found[f'{NAME}_bucket{{le="{edge}",sink="database"}}'] for edge in LATENCY_EDGES_S.values()
    ]
    assert counts == sorted(counts)
    for edge_s, count in zip(LATENCY_EDGES_S.values(), counts, strict=True):
        assert count <= np.count_nonzero(ages_us <= edge_s * 1e6), "never flattering"
        assert count >= np.count_nonzero(ages_us < edge_s * 1e6 * 0.994 - 1)
    total = found[f'{NAME}_bucket{{le="+Inf",sink="database"}}']
    assert total == found[f'{NAME}_count{{sink="database"}}'] == len(ages_us)
    sum_us = float(np.maximum(ages_us, 1).sum()) if batches else 0.0
    assert found[f'{NAME}_sum{{sink="database"}}'] == pytest.approx(sum_us / 1e6)


def test_every_series_of_rows_is_known_before_its_first_row(
    layout: Layout, writer: WriterMetrics
) -> None:
    """Else the first quarantined row would be no increase."""
    writer.feed(writer_status())
    found = scrape(layout)
    assert found['fts_writer_stored_rows_total{kind="trade"}'] == 3
    assert found['fts_writer_quarantined_rows_total{kind="liquidation"}'] == 0
    assert found["fts_writer_lost_rows_total"] == 0


def test_sinks_say_whether_they_work(layout: Layout, writer: WriterMetrics) -> None:
    def up(**changes: Any) -> dict[str, float]:
        writer.feed(writer_status(**changes))
        return {
            sink: found
            for sink in ("journal", "database", "redis")
            if (found := scrape(layout).get(f'fts_writer_sink_up{{sink="{sink}"}}')) is not None
        }

    assert up() == {"journal": 1, "database": 1}, "what is switched off is no trouble"
    assert up(database_state="down", redis_state="up", journal_error="no space left") == {
        "journal": 0, "database": 0, "redis": 1,
    }  # fmt: skip


def test_latencies_are_by_sink_and_the_venues_own_apart(
    layout: Layout, writer: WriterMetrics
) -> None:
    counts = [0] * 90
    counts[32] = 5  # 1.6 to 2 ms
    stages = ("receipt", "journal", "database", "redis")
    writer.feed(writer_status(latency={each: LatencyHistogram(counts, 9e3) for each in stages}))
    found = scrape(layout)
    for name, labels in (
        ("fts_writer_receipt_latency_seconds", ""),
        (NAME, ',sink="journal"'), (NAME, ',sink="database"'), (NAME, ',sink="redis"'),
    ):  # fmt: skip
        assert found[f'{name}_bucket{{le="0.002"{labels}}}'] == 5
        assert found[f'{name}_bucket{{le="0.001"{labels}}}'] == 0


def test_a_task_that_fails_says_so_until_it_does_not(layout: Layout) -> None:
    metric_files.begin(layout)
    failing = 'fts_upkeep_task_failing{database="database",task="retention"}'
    with life(layout, "upkeep"):
        metrics, task = UpkeepMetrics(), TaskReport("retention", error="disk", next_ns=2 * 10**9)
        for error, value in (("disk", 1), ("", 0)):
            task.error = error
            metrics.feed(UpkeepStatus([DatabaseReport("database", tasks=[task])]))
            assert scrape(layout)[failing] == value
        assert scrape(layout)[failing.replace("failing", "next_timestamp_seconds")] == 2
