"""`/metrics`: complete, in the format that was asked for, no label that a stranger could choose."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import parser
from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as open_parser

from engine.base.errors import StoreUnavailableError
from engine.data.layout import Layout, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.messages.streams import StreamCounts
from engine.messages.upkeep import DatabaseReport, TableSize, TaskReport, UpkeepStatus
from engine.messages.writer import LatencyHistogram, RingStatus
from engine.process import metric_files
from engine.process.metrics import (
    BatchMetrics,
    ProcessMetrics,
    ShardMetrics,
    UpkeepMetrics,
    WriterMetrics,
)
from tests.control.api.api_rig import DROP, Rig, run_with_rig
from tests.control.api.routes.test_streams import BTC, BTC_KEY
from tests.engine.process.metric_rig import life, samples
from tests.engine.process.test_metrics import writer_status
from tests.told import telling

ROOT = Path(__file__).parents[3]
PROMTOOL = shutil.which("promtool")
LABELS = {
    "exchange", "kind", "state", "reason", "sink", "process", "pool", "part", "route", "method",
    "status", "le", "database", "task", "table", "version",
}  # fmt: skip
NAME = re.compile(r"fts_(engine|shards|writer|control|upkeep|storage)(_[a-z]+)+")


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """Of an engine whose children have counted everything they can."""
    layout = open_layout(tmp_path / "state", tmp_path)
    metric_files.begin(layout)
    latency = {s: LatencyHistogram([1] * 90) for s in ("receipt", "journal", "database", "redis")}
    with life(layout, "writer"):
        metrics = WriterMetrics()
        for head_seq in (80, 40):  # of a ring that has room for a hundred
            rings = [RingStatus("shard-0.trade", "trade", head_seq, 10, 0, 0, 100)]
            status = writer_status(database_rows={"trade": 12}, latency=latency)
            metrics.feed(msgspec.structs.replace(status, rings=rings))
        ProcessMetrics("writer").feed(1.0, 0.0)
        batches = BatchMetrics("database")
        batches.took(500, 0.02, 1_700_000_000.0)
        batches.write()
        batches.failed(StoreUnavailableError("away"))
    with life(layout, "shard-0"):
        counts = {StreamKind.TRADES: StreamCounts(1, 1, 1, 1, 1, 1)}
        shard = ShardMetrics()
        shard.feed("binance_linear", counts, {"schema": 1}, 1, 1)
        for connects in (2, 5):
            shard.feed_sockets("binance_linear", {"connects": connects}, [0.02, 0.2])
        ProcessMetrics("shard-0").feed(1.0, 0.0)
    with life(layout, "upkeep"):
        tasks = [TaskReport("retention", failure_count=1, done_ns=1)]
        UpkeepMetrics().feed(UpkeepStatus([DatabaseReport("database", tasks=tasks)]))
    yield layout
    metric_files.end(layout)


def full(rig: Rig) -> Rig:
    """With everything the supervisor can say, and a symbol in it."""
    rig.supervisor.run(BTC_KEY)
    rig.supervisor.writer.dropped_rows = {"trade": 1}
    trade = TableSize("trade", 10, 900, 90.0, 450.0, 5.0, 80, 800, 10**9)
    rig.supervisor.upkeep = [DatabaseReport("database", "hypertables", [trade], [], 4500, 10.0)]
    rig.health._probed_s = -1e9
    rig.supervisor.tell()
    for process in rig.health.processes:
        process.pid, process.rss_bytes, process.open_files = 1, 1, 1
    return rig


def families(text: str, *, is_open: bool = False) -> list[Metric]:
    parse = open_parser if is_open else parser
    return list(parse.text_string_to_metric_families(text))


@pytest.mark.fault("V09")
def test_metrics_parse_whatever_is_known() -> None:
    async def scenario(rig: Rig) -> None:
        rig.backend.status = None
        text = (await rig.ask("GET", "/metrics")).text.decode()
        assert "fts_control_health_level" in text
        for phase in ("starting", "running", "draining"):
            rig.supervisor.phase = phase
            full(rig)
            text = (await rig.ask("GET", "/metrics")).text.decode()
            assert samples(text)['fts_engine_process_up{process="shard-0"}'] == 1

    run_with_rig(scenario)


def in_the_tables() -> set[str]:
    """What docs/metrics.md describes."""
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"`(fts_[a-z_]+)`", page))


def names_of(found: list[Metric]) -> set[str]:
    return {family.name + "_total" * (family.type == "counter") for family in found}


def test_names_and_labels_keep_to_the_rules(layout: Layout) -> None:
    async def scenario(rig: Rig) -> None:
        full(rig)
        await rig.ask("GET", "/streams/BinanceLinear/BTCUSDT/Trades/Ws")
        found = families(text := (await rig.ask("GET", "/metrics")).text.decode())
        names = [family.name for family in found]
        assert len(names) == len(set(names)), "each family comes once"
        for family in found:
            assert NAME.fullmatch(family.name)
            assert family.documentation
            for sample in family.samples:
                assert set(sample.labels) <= LABELS
        assert "BTC" not in text, "symbols are no labels"
        described = {name for name in in_the_tables() if not name.startswith("fts_stream_")}
        assert names_of(found) == described, "the tables of docs/metrics.md"

    with life(layout, "control"):
        run_with_rig(scenario, layout=layout)


def test_streams_that_are_refused_are_counted_by_reason(layout: Layout) -> None:
    async def scenario(rig: Rig) -> None:
        before = samples((await rig.ask("GET", "/metrics")).text.decode())
        for body in (BTC, BTC, BTC | {"symbol": "NONE"}, [BTC, BTC | {"symbol": "NONE"}]):
            await rig.ask("POST", "/streams", body)
        found = samples((await rig.ask("GET", "/metrics")).text.decode())
        name = "fts_control_refused_streams_total"
        counts = {
            reason: found[of] - before[of]
            for reason in ("stream_exists", "unknown_symbol", "unhealthy", "limit")
            if (of := f'{name}{{reason="{reason}"}}')
        }
        expected = {"stream_exists": 2, "unknown_symbol": 2, "unhealthy": 0, "limit": 0}
        assert counts == expected

    with life(layout, "control"):
        run_with_rig(scenario, layout=layout)


def test_batches_and_errors_are_told_by_sink(layout: Layout) -> None:
    async def scenario(rig: Rig) -> None:
        found = samples((await rig.ask("GET", "/metrics")).text.decode())
        assert found['fts_writer_batch_rows_bucket{le="1000.0",sink="database"}'] == 1
        assert found['fts_writer_batch_rows_bucket{le="100.0",sink="database"}'] == 0
        assert found['fts_writer_write_seconds_sum{sink="database"}'] == pytest.approx(0.02)
        assert found['fts_shards_connect_attempts_total{exchange="binance_linear"}'] == 5
        assert found['fts_shards_lag_seconds_count{exchange="binance_linear"}'] == 4
        assert found['fts_shards_lag_seconds_bucket{exchange="binance_linear",le="0.025"}'] == 2
        reason = 'fts_writer_errors_total{reason="store_unavailable",sink="database"}'
        assert found[reason] == 1
        assert found["fts_engine_disk_free_bytes"] > 0
        assert found['fts_writer_ring_fill_ratio{kind="trade"}'] == pytest.approx(0.3)
        assert found['fts_writer_ring_fill_max_ratio{kind="trade"}'] == pytest.approx(0.7)

    run_with_rig(scenario, layout=layout)


def test_single_streams_have_metrics_where_that_is_wanted() -> None:
    async def scenario(rig: Rig) -> None:
        for place, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
            rig.supervisor.run(key := StreamKey("binance_linear", symbol, StreamKind.TRADES))
            rig.supervisor.streams[key].row_count = 5 + place
        rig.supervisor.tell()
        off = await rig.ask("GET", "/metrics/streams")
        assert (off.status, "metrics.streams" in off.body["error"]) == (404, True)
        rig.serve(replace(rig.services, shows_streams=True))
        text = (await rig.ask("GET", "/metrics/streams?top=1")).text.decode()
        labels = '{exchange="binance_linear",kind="Trades",symbol="ETHUSDT",transport="Ws"}'
        assert samples(text)[f"fts_stream_rows_total{labels}"] == 6
        assert samples(text)[f"fts_stream_live{labels}"] == 1
        assert "BTCUSDT" not in text, "only the first"
        described = {name for name in in_the_tables() if name.startswith("fts_stream_")}
        assert names_of(families(text)) == described, "the table of docs/metrics.md"
        accept = {"accept": "application/openmetrics-text"}
        opened = await rig.ask("GET", "/metrics/streams", headers=accept)
        assert families(opened.text.decode(), is_open=True)
        assert (await rig.ask("GET", "/metrics/streams?top=1001")).status == 400
        rig.served = rig.app.metrics_only("/numbers")
        assert "ETHUSDT" in (await rig.ask("GET", "/numbers/streams")).text.decode()

    run_with_rig(scenario)


def test_changes_of_lights_are_counted(layout: Layout) -> None:
    async def scenario(rig: Rig) -> None:
        async def reds() -> float:
            found = samples((await rig.ask("GET", "/metrics")).text.decode())
            return found['fts_control_health_transitions_total{part="db",status="red"}']

        assert await reds() == 0
        for state in ("down", "down", "up", "down"):
            rig.supervisor.writer = telling(rig.supervisor.writer, database_state=state)
            rig.supervisor.tell()
        assert await reds() == 2

    with life(layout, "control"):
        run_with_rig(scenario, layout=layout)


def test_what_is_not_known_of_a_database_has_no_sample() -> None:
    async def scenario(rig: Rig) -> None:
        until = 'fts_storage_until_full_seconds{database="database"}'
        ratio = 'fts_storage_compression_ratio{database="database",table="trade"}'
        found = samples((await full(rig).ask("GET", "/metrics")).text.decode())
        assert (found[until], found[ratio]) == (864_000, 10)
        rig.supervisor.upkeep = [DatabaseReport("database", tables=[TableSize("trade")])]
        rig.supervisor.tell()
        found = samples((await rig.ask("GET", "/metrics")).text.decode())
        assert found['fts_storage_table_bytes{database="database",table="trade"}'] == 0
        assert not {until, ratio} & set(found)

    run_with_rig(scenario)


@pytest.mark.fault("V09")
@pytest.mark.parametrize("body", [b"", b"\x40\x00", bytes(range(256))])
def test_a_damaged_file_is_skipped_and_counted(layout: Layout, body: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        skipped = "fts_control_unreadable_metric_files"
        found = samples((await rig.ask("GET", "/metrics")).text.decode())
        assert found[skipped] == 0
        (layout.metrics_dir / "counter_shard-0.db").write_bytes(body)
        answer = await rig.ask("GET", "/metrics")
        found = samples(answer.text.decode())
        assert (answer.status, found[skipped]) == (200, 1)
        assert found['fts_writer_stored_rows_total{kind="trade"}'] == 12
        assert not any(name.startswith("fts_shards_rows_total") for name in found)

    run_with_rig(scenario, layout=layout)


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


def test_the_client_chooses_the_format(layout: Layout) -> None:
    async def scenario(rig: Rig) -> None:
        full(rig)
        for accept, media_type in (
            (DROP, "text/plain; version=0.0.4"),
            ("*/*", "text/plain; version=0.0.4"),
            ("text/html", "text/plain; version=0.0.4"),
            (PROMETHEUS, "application/openmetrics-text; version=1.0.0"),
        ):
            answer = await rig.ask("GET", "/metrics", headers={"accept": accept})
            assert answer.headers["content-type"].startswith(media_type)
            is_open = "openmetrics" in media_type
            found = families(answer.text.decode(), is_open=is_open)
            assert "fts_writer_stored_rows" in {family.name for family in found}

    run_with_rig(scenario, layout=layout)


@pytest.mark.fault("A07")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(["application/openmetrics-text", "text/plain"]),
    version=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    rest=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
def test_no_accept_header_is_a_fault(kind: str, version: str, rest: str) -> None:
    async def scenario(rig: Rig) -> None:
        headers = {"accept": f"{kind};version={version};{rest}"}
        answer = await rig.ask("GET", "/metrics", headers=headers)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(("text/plain", "application/openmetrics"))

    run_with_rig(scenario)


def test_requests_are_counted_by_route_and_outcome(layout: Layout) -> None:
    async def scenario(rig: Rig) -> None:
        for method, path in (
            ("GET", "/streams/count"), ("GET", "/streams/count"), ("POST", "/streams/count"),
            ("GET", "/streams/BinanceLinear/BTCUSDT/Trades/Ws"), ("GET", "/no/BTCUSDT"),
            ("GET", "/ui/BTCUSDT.js"), ("BREW", "/streams/count"),
        ):  # fmt: skip
            await rig.ask(method, path)
        await rig.ask("POST", "/streams", BTC)
        await rig.ask("GET", "/streams", headers={"host": "evil.example"})
        text = (await rig.ask("GET", "/metrics")).text.decode()
        assert "BTCUSDT" not in text
        prefix = "fts_control_requests_total"
        counted = {n: v for n, v in samples(text).items() if n.startswith(prefix)}
        stream = "/streams/{exchange}/{symbol}/{kind}/{transport}"
        assert counted == {
            prefix + f'{{method="{method}",route="{route}",status="{status}"}}': count
            for method, route, status, count in (
                ("GET", "/streams/count", "2xx", 2),
                ("POST", "/streams/count", "4xx", 1),
                ("GET", stream, "4xx", 1),
                ("GET", "/ui/{name}", "4xx", 1),
                ("POST", "/streams", "2xx", 1),
                ("other", "/streams/count", "4xx", 1),
                ("GET", "none", "4xx", 2),
            )
        }
        took = samples(text)['fts_control_request_duration_seconds_count{route="/streams/count"}']
        assert took == 4

    with life(layout, "control"):
        run_with_rig(scenario, layout=layout)


@pytest.mark.whole
@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: apt-get install prometheus)")
def test_promtool_has_nothing_to_say(layout: Layout) -> None:
    assert PROMTOOL is not None

    async def scenario(rig: Rig) -> bytes:
        rig.serve(replace(rig.services, shows_streams=True))
        await full(rig).ask("GET", "/streams")
        pages = [await rig.ask("GET", path) for path in ("/metrics", "/metrics/streams")]
        return b"".join(page.text for page in pages)

    with life(layout, "control"):
        text = run_with_rig(scenario, layout=layout)
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
