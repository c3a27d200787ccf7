"""What a death leaves of a process's metrics, and that nothing in the directory fails a scrape."""

import logging
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKind
from engine.messages.streams import StreamCounts
from engine.process import metric_files
from engine.process.metrics import Growth, ProcessMetrics, RequestMetrics, ShardMetrics
from tests.engine.process.metric_rig import life, scrape

pytestmark = pytest.mark.fault("V09")
COUNTS = StreamCounts(frame_count=5, row_count=7, gap_count=1, missing_count=2)
ROWS = 'fts_shards_rows_total{exchange="binance_linear",kind="Trades"}'
SOCKETS = 'fts_shards_connections{exchange="binance_linear"}'
CPU = 'fts_engine_process_cpu_seconds_total{process="shard-0"}'
LAG = 'fts_engine_process_loop_lag_seconds_count{process="shard-0"}'


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = open_layout(tmp_path / "state", tmp_path)
    metric_files.begin(layout)
    return layout


def live(layout: Layout, process: str = "shard-0") -> None:
    """A life in which seven rows came over three sockets."""
    with life(layout, process):
        ShardMetrics().feed("binance_linear", {StreamKind.TRADES: COUNTS}, {"schema": 1}, 0, 3)
        ProcessMetrics(process).feed(1.5, 0.002)


def files(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.metrics_dir.iterdir())


def test_counts_go_on_from_life_to_life(layout: Layout) -> None:
    for lives in range(1, 4):
        live(layout)
        metric_files.child_ended(layout, "shard-0")
        found = scrape(layout)
        assert (found[ROWS], found[CPU], found[LAG]) == (7 * lives, 1.5 * lives, lives)


def test_gauges_are_of_the_living_and_add_up(layout: Layout) -> None:
    live(layout, "shard-0")
    live(layout, "shard-1")
    assert scrape(layout)[SOCKETS] == 6
    metric_files.child_ended(layout, "shard-0")
    assert scrape(layout)[SOCKETS] == 3
    metric_files.child_ended(layout, "shard-1")
    assert SOCKETS not in scrape(layout)
    live(layout, "shard-0")
    assert scrape(layout)[SOCKETS] == 3


def test_nothing_accumulates_over_many_deaths(layout: Layout) -> None:
    for _ in range(50):
        live(layout)
        metric_files.child_ended(layout, "shard-0")
    live(layout)
    assert files(layout) == [
        "counter_shard-0.db", "gauge_livesum_shard-0.db", "histogram_shard-0.db",
    ]  # fmt: skip
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in layout.metrics_dir.iterdir())
    assert layout.metrics_dir.stat().st_mode & 0o777 == 0o700


def test_a_new_engine_counts_anew_and_leaves_nothing(layout: Layout) -> None:
    ring = layout.ring_path("shard-0.trade")
    ring.touch()
    live(layout)
    metric_files.begin(layout)
    assert scrape(layout) == {}
    live(layout)
    metric_files.end(layout)
    assert not layout.metrics_dir.exists()
    assert ring.exists(), "rows that wait in rings are none of its business"
    ring.unlink()
    metric_files.begin(layout)
    metric_files.end(layout)
    assert not layout.shm_dir.exists()


def test_two_engines_of_one_machine_do_not_mix(layout: Layout, tmp_path: Path) -> None:
    other = open_layout(tmp_path / "other", tmp_path)
    assert other.shm_dir.parent == layout.shm_dir.parent
    metric_files.begin(other)
    live(layout)
    assert scrape(other) == {}
    live(other)
    live(other)
    assert (scrape(layout)[ROWS], scrape(other)[ROWS]) == (7, 14)
    metric_files.end(other)
    assert scrape(layout)[ROWS] == 7


def test_a_process_without_an_engine_counts_for_itself(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "state", tmp_path)
    live(layout)
    assert not layout.shm_dir.exists()
    assert scrape(layout) == {}


def test_without_room_a_process_runs_without_metrics(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    live(layout, "writer")
    (layout.metrics_dir / "counter_shard-0.db").mkdir()  # its file cannot be made
    with caplog.at_level(logging.WARNING):
        live(layout, "shard-0")
    assert "runs without metrics" in caplog.text
    assert scrape(layout)[ROWS] == 7


GARBAGE = {
    "empty": b"",
    "short": b"\x40",
    "noise": bytes(range(256)) * 16,
    "endless": struct.pack("=ii", 1 << 30, 0),
    "negative": struct.pack("=ii", -8, 0),
    "circle": struct.pack("=iii", 64, 0, -12) + bytes(52),
    "foreign": struct.pack("=iii", 40, 0, 12) + b'["up","up",{' + bytes(16),
    "bucket": struct.pack("=iii", 76, 0, 44)
    + b'["fts_a_b","fts_a_b_bucket",{"le":"wide"},""]'[:44].ljust(48)
    + bytes(16),
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
def test_a_damaged_file_is_left_out_and_replaced_by_its_owner(
    layout: Layout, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    live(layout, "shard-0")
    live(layout, "shard-1")
    (layout.metrics_dir / "counter_shard-0.db").write_bytes(body)
    assert metric_files.readable(layout)[1] == 1
    assert (scrape(layout)[ROWS], scrape(layout)[LAG]) == (7, 1)
    with caplog.at_level(logging.WARNING):
        live(layout, "shard-0")
    assert "counter_shard-0.db was damaged" in caplog.text
    assert metric_files.readable(layout)[1] == 0
    assert (scrape(layout)[ROWS], scrape(layout)[LAG]) == (14, 2)


def test_files_that_nobody_of_ours_made_are_left_out(layout: Layout) -> None:
    live(layout)
    for name in ("counter.db", "gauge_1.db", "summary_shard-0.db", "gauge_all_shard-0.db", "x.db"):
        (layout.metrics_dir / name).write_bytes(bytes(64))
    assert metric_files.readable(layout)[1] == 5
    assert scrape(layout)[ROWS] == 7


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(cut=1056, damage=[(0, b"\x08")])  # ends within an entry, where the next would be written
@given(
    cut=st.integers(0, 4096),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=4),
)
@pytest.mark.whole
def test_no_damage_fails_a_scrape_or_a_birth(
    tmp_path_factory: pytest.TempPathFactory, cut: int, damage: list[tuple[int, bytes]]
) -> None:
    tmp_path = tmp_path_factory.mktemp("damage")
    layout = open_layout(tmp_path / "state", tmp_path)
    metric_files.begin(layout)
    live(layout)
    for path in layout.metrics_dir.iterdir():
        body = bytearray(path.read_bytes()[:cut])
        for place, octets in damage:
            body[place : place + len(octets)] = octets
        path.write_bytes(body)
    scrape(layout)
    live(layout)
    assert metric_files.readable(layout)[1] == 0
    assert LAG in scrape(layout)
    metric_files.end(layout)


def test_the_reserved_memory_is_enough(layout: Layout) -> None:
    """Every route with every method and outcome: more than there will ever be."""
    with life(layout, "control"):
        requests = RequestMetrics()
        for route in range(40):
            for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
                for status in (200, 404):
                    template = f"/streams/{{exchange}}/{{symbol}}/{{kind}}/{{transport}}/{route}"
                    requests.answered(template, method, status, 0.1)
    with life(layout, "shard-0"):
        shard = ShardMetrics()
        for venue in range(12):
            counts = dict.fromkeys(StreamKind, COUNTS)
            shard.feed(f"some_exchange_{venue}", counts, {"not_subscribed": 1}, 1, 1)
    for path in layout.metrics_dir.iterdir():
        assert path.stat().st_size == 1 << 17, path.name


def test_growth_makes_a_series_known_and_never_goes_back(layout: Layout) -> None:
    with life(layout, "writer"):
        rows = Growth("fts_test_rows_total", "Rows", ("kind",))
        seen = []
        for total in (0, 0, 5, 3, 8):
            rows.feed(total, "trade")
            seen.append(scrape(layout)['fts_test_rows_total{kind="trade"}'])
    assert seen == [0, 0, 5, 5, 8]
