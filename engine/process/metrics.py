"""Every metric object, once. Made by the process that feeds it, after
`engine.process.metric_files.claim`.

Names are `fts_<room>_<noun>_<unit>[_total]`. Labels come from closed sets (exchange, kind, reason,
sink, process, route, method, status), never from symbols.

Nothing here is called per row or frame: shards and writer hand over the integers they keep anyway,
a few times a second, and what these have grown by is added.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.utils import INF, floatToGoString

from engine.data.kinds import KINDS
from engine.data.names import StreamKind
from engine.messages.streams import StreamCounts
from engine.messages.upkeep import UpkeepStatus
from engine.messages.writer import LIVE, LIVE_TITLES, LatencyHistogram, RingStatus, WriterStatus
from engine.process.metric_files import GAUGE_MODE

_WORD: Final = re.compile(r"[A-Z][a-z]*")
_STEPS: Final = {0: 1, 3: 2, 6: 4}
"""Of the ten buckets to a decade, those that end at 1, 2 (1.995) and 4 (3.981): rounded up, so
that what is counted below an edge is below it.
"""
LATENCY_EDGES_S: Final = {
    step: _STEPS[step % 10] * 10.0 ** (step // 10 - 6)
    for step in range(10, 81)
    if step % 10 in _STEPS
}
"""Upper edges from 10 µs to 100 s, by the number of fine buckets below them."""
_REQUEST_EDGES_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
_WRITE_EDGES_S: Final = (0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0)
_BATCH_EDGES_ROWS: Final = (1, 10, 100, 1_000, 10_000, 100_000)
_LAG_EDGES_S: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0)


class Growth:
    """A counter fed from a total that only grows while this process lives."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...] = ()) -> None:
        self._counter = Counter(name, text, labels, registry=None)
        self._seen: dict[tuple[str, ...], float] = {}

    def feed(self, total: float, *labels: str) -> None:
        """Add what the total has grown by since the last time. A first 0 makes the series known."""
        seen = self._seen.get(labels)
        if seen is None or total > seen:
            child = self._counter.labels(*labels) if labels else self._counter
            child.inc(total - (seen or 0))
            self._seen[labels] = total


class Buckets:
    """A histogram that is added to in sums: the library's own takes single observations, and writes
    each to the file of this process.

    It is made of the same values as the library's, so the library merges and shows it.
    """

    def __init__(
        self, name: str, text: str, labels: Mapping[str, str], edges: Iterable[float]
    ) -> None:
        def value(suffix: str, names: tuple[str, ...], texts: tuple[str, ...]) -> Any:
            return values.ValueClass("histogram", name, name + suffix, names, texts, text)

        names, texts = tuple(labels), tuple(labels.values())
        self._sum = value("_sum", names, texts)
        self._buckets = [
            value("_bucket", (*names, "le"), (*texts, floatToGoString(edge)))
            for edge in (*edges, INF)
        ]

    def add(self, counts: Iterable[int], total: float) -> None:
        """So many observations for each edge and beyond the last, and what they are together."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class LatencyBuckets:
    """A histogram fed from totals by fine bucket."""

    def __init__(self, name: str, text: str, labels: Mapping[str, str]) -> None:
        self._buckets = Buckets(name, text, labels, LATENCY_EDGES_S.values())
        self._seen = LatencyHistogram([])

    def feed(self, now: LatencyHistogram) -> None:
        """Add what the histogram has grown by since the last time."""
        before, self._seen = self._seen, now
        bounds = [0, *LATENCY_EDGES_S, None]
        growth = [sum(now.counts[a:b]) - sum(before.counts[a:b]) for a, b in pairwise(bounds)]
        self._buckets.add(growth, (now.sum_us - before.sum_us) / 1e6)


class Observations:
    """A histogram of single observations, which are written when somebody says so."""

    def __init__(
        self, name: str, text: str, labels: Mapping[str, str], edges: Sequence[float]
    ) -> None:
        self._buckets = Buckets(name, text, labels, edges)
        self._edges = edges
        self._begin()

    def observe(self, amount: float) -> None:
        """Count one. What equals an edge is below it."""
        self._counts[bisect_left(self._edges, amount)] += 1
        self._total += amount

    def write(self) -> None:
        """Show what was counted since the last time."""
        self._buckets.add(self._counts, self._total)
        self._begin()

    def _begin(self) -> None:
        self._counts = [0] * (len(self._edges) + 1)
        self._total = 0.0


class ProcessMetrics:
    """What every process says of itself."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._cpu = Growth(
            "fts_engine_process_cpu_seconds_total", "CPU time, user and system", ("process",)
        )
        self._lag = Histogram(
            "fts_engine_process_loop_lag_seconds",
            "How late the event loop was, looked at a few times a second",
            ("process",),
            buckets=_LAG_EDGES_S,
            registry=None,
        )

    def feed(self, cpu_s: float, loop_lag_s: float) -> None:
        """One look at the event loop."""
        self._cpu.feed(cpu_s, self._process)
        self._lag.labels(self._process).observe(loop_lag_s)


class ShardMetrics:
    """What a shard received, by exchange."""

    def __init__(self) -> None:
        self._streams = [
            (name, Growth(f"fts_shards_{noun}_total", text, ("exchange", "kind")))
            for name, noun, text in (
                ("frame_count", "frames", "Frames received"),
                ("row_count", "rows", "Rows received"),
                ("gap_count", "gaps", "Gaps declared"),
                ("missing_count", "missing_rows", "Rows declared missing"),
                ("duplicate_count", "duplicate_rows", "Rows refused as repeated"),
                ("refused_count", "refused_rows", "Rows refused as unreadable"),
            )
        ]
        self._malformed = Growth(
            "fts_shards_malformed_frames_total", "Frames of no use", ("exchange", "reason")
        )
        self._reconnects = Growth(
            "fts_shards_reconnects_total", "Sockets opened again", ("exchange",)
        )
        self._connections = _gauge("fts_shards_connections", "Open sockets", "exchange")
        self._tries = {
            what: Growth(f"fts_shards_{noun}_total", text, ("exchange",))
            for what, noun, text in (
                ("connects", "connect_attempts", "Tries to open a socket"),
                ("subscribes", "subscribe_attempts", "Topics that were asked for"),
            )
        }
        self._lag = Histogram(
            "fts_shards_lag_seconds",
            "From the venue's event to its reception, of the newest rows of some streams",
            ("exchange",),
            buckets=_LAG_EDGES_S,
            registry=None,
        )

    def feed(
        self,
        exchange: str,
        counts_by_kind: Mapping[StreamKind, StreamCounts],
        malformed_by_reason: Mapping[str, int],
        reconnect_count: int,
        connection_count: int,
    ) -> None:
        """Totals of one exchange, since this process was born."""
        for kind, counts in counts_by_kind.items():
            for name, growth in self._streams:
                growth.feed(getattr(counts, name), exchange, kind)
        for reason, count in malformed_by_reason.items():
            self._malformed.feed(count, exchange, reason)
        self._reconnects.feed(reconnect_count, exchange)
        self._connections.labels(exchange).set(connection_count)

    def feed_sockets(
        self, exchange: str, tries: Mapping[str, int], lags_s: Iterable[float]
    ) -> None:
        """Totals of what was tried at one exchange, and a sample of how late its rows are."""
        for what, growth in self._tries.items():
            growth.feed(tries.get(what, 0), exchange)
        for lag_s in lags_s:
            self._lag.labels(exchange).observe(lag_s)


_ROWS: Final = {
    (True, "rows"): ("stored", "Rows in the database"),
    (False, "rows"): ("published", f"Rows in {LIVE_TITLES}"),
    (False, "missed_rows"): ("overrun", f"Rows that {LIVE_TITLES} was too slow for, or refused"),
    (True, "refused_rows"): ("quarantined", "Rows that the database refuses"),
    (True, "withheld_rows"): ("skipped", "Rows that a knob keeps from the database"),
    (False, "withheld_rows"): ("unpublished", f"Rows that a knob keeps from {LIVE_TITLES}"),
}
"""Of the database or of live sinks together, by count: name and text of the metric."""
_STATES: Final = {
    "stored": "rows", "skipped": "withheld_rows", "quarantined": "refused_rows",
    "lost": "missed_rows", "elsewhere": "elsewhere_rows",
}  # fmt: skip


class WriterMetrics:
    """What the writer delivered, by record kind, and how fast."""

    def __init__(self) -> None:
        self._rows = {
            which: Growth(f"fts_writer_{name}_rows_total", text, ("kind",))
            for which, (name, text) in _ROWS.items()
        }
        self._inexact = Growth(
            "fts_writer_inexact_rows_total", "Rows whose numbers had to be rounded"
        )
        self._lost = Growth(
            "fts_writer_lost_rows_total", "Rows that neither journal nor database has"
        )
        self._quarantine = _gauge(
            "fts_writer_quarantine_rows", "Rows that are in quarantine now", "kind"
        )
        self._backlog = _gauge("fts_writer_backlog_rows", "Rows that wait for the database")
        self._states = Growth(
            "fts_writer_database_rows_total",
            "Rows that one database is done with, and how",
            ("sink", "state"),
        )
        self._waiting = _gauge(
            "fts_writer_database_backlog_rows", "Rows that wait for one database", "sink"
        )
        self._journal = _gauge("fts_writer_journal_bytes", "Size of the journal")
        self._fill = _gauge(
            "fts_writer_ring_fill_ratio", "How full the fullest ring is of rows on no disk", "kind"
        )
        self._fill_max = _gauge(
            "fts_writer_ring_fill_max_ratio", "The most of that since the writer began", "kind"
        )
        self._fullest: dict[str, float] = {}
        self._memory = {
            name: (
                _gauge(f"fts_writer_{name}_bytes", f"What the streams in {title} take"),
                _gauge(f"fts_writer_{name}_budget_bytes", f"What the streams in {title} may take"),
            )
            for name, title, _ in LIVE
        }
        self._up = _gauge("fts_writer_sink_up", "1 when the sink works", "sink")
        self._latencies: dict[str, LatencyBuckets] = {}

    def feed(self, status: WriterStatus) -> None:
        """Totals since this process was born."""
        for (is_database, count), growth in self._rows.items():
            rows = status.database_rows(count) if is_database else status.live_rows(count)
            for kind in KINDS:
                growth.feed(rows.get(kind, 0), kind)
        self._feed_databases(status)
        self._journal.set(status.journal_bytes)
        self._feed_rings(status.rings)
        for each in status.live:
            if each.state != "off":
                used, budget = self._memory[each.name]
                used.set(each.used_bytes)
                budget.set(each.budget_bytes)
        self._up.labels("journal").set(not status.journal_error)
        for each in status.sinks:
            if each.state != "off":
                self._up.labels(each.name).set(each.state == "up")
        for stage, histogram in status.latency.items():
            if stage not in self._latencies:
                self._latencies[stage] = _latency_of(stage)
            self._latencies[stage].feed(histogram)

    def _feed_rings(self, rings: Iterable[RingStatus]) -> None:
        fills: dict[str, float] = {}
        for ring in rings:
            fill = (ring.head_seq - ring.journal_seq) / max(ring.capacity, 1)
            fills[ring.kind] = max(fills.get(ring.kind, 0.0), min(fill, 1.0))
        for kind, fill in fills.items():
            self._fullest[kind] = max(self._fullest.get(kind, 0.0), fill)
            self._fill.labels(kind).set(fill)
            self._fill_max.labels(kind).set(self._fullest[kind])

    def _feed_databases(self, status: WriterStatus) -> None:
        """All of them together, and each."""
        databases, set_aside = status.databases, status.database_rows("set_aside_rows")
        self._inexact.feed(sum(each.inexact_rows for each in databases))
        self._lost.feed(status.database_rows("missed_rows").total())
        for kind in KINDS:
            self._quarantine.labels(kind).set(set_aside[kind])
        self._backlog.set(max(each.backlog_rows for each in databases))
        for each in [each for each in databases if each.state != "off"]:
            self._waiting.labels(each.name).set(each.backlog_rows)
            for state, count in _STATES.items():
                self._states.feed(sum(getattr(each, count).values()), each.name, state)


class BatchMetrics:
    """What the writer hands to one sink, batch by batch. Some hundred a second may come, so they
    are counted here and shown by `write`.
    """

    def __init__(self, sink: str) -> None:
        self._sink = sink
        labels = {"sink": sink}
        text = "Rows that a sink took at once"
        self._rows = Observations("fts_writer_batch_rows", text, labels, _BATCH_EDGES_ROWS)
        text = "How long a sink took to take a batch"
        self._seconds = Observations("fts_writer_write_seconds", text, labels, _WRITE_EDGES_S)
        self._delivered_s = 0.0
        self._errors = Counter(
            "fts_writer_errors_total",
            "Tries that failed; each is followed by another one",
            ("sink", "reason"),
            registry=None,
        )
        self._delivered = _gauge(
            "fts_writer_last_delivery_timestamp_seconds",
            "When the sink took rows last, since 1970",
            "sink",
        ).labels(sink)

    def took(self, rows: int, seconds: float, now_s: float) -> None:
        """A batch was taken: by now (seconds since 1970), within so long."""
        self._rows.observe(rows)
        self._seconds.observe(seconds)
        self._delivered_s = now_s

    def write(self) -> None:
        """Show what was taken up to now."""
        self._rows.write()
        self._seconds.write()
        self._delivered.set(self._delivered_s)

    def failed(self, error: Exception) -> None:
        """A try failed. The reason is the kind of the error: `StoreFullError` is `store_full`."""
        words = _WORD.findall(type(error).__name__.removesuffix("Error"))
        self._errors.labels(self._sink, "_".join(words).lower()).inc()


class UpkeepMetrics:
    """How the tasks of the upkeep fare."""

    def __init__(self) -> None:
        labels = ("database", "task")
        self._done = _gauge(
            "fts_upkeep_task_last_success_timestamp_seconds",
            "When it last ended without an error, since 1970",
            *labels,
        )
        self._next = _gauge(
            "fts_upkeep_task_next_timestamp_seconds", "When it runs next, since 1970", *labels
        )
        self._failing = _gauge("fts_upkeep_task_failing", "1 when it could not, last", *labels)
        self._failures = Growth("fts_upkeep_task_failures_total", "Tries that failed", labels)

    def feed(self, status: UpkeepStatus) -> None:
        """Totals since this process was born."""
        for each in status.databases:
            for task in each.tasks:
                self._failures.feed(task.failure_count, each.database, task.task)
                self._failing.labels(each.database, task.task).set(bool(task.error))
                self._next.labels(each.database, task.task).set(task.next_ns / 1e9)
                if task.done_ns:
                    self._done.labels(each.database, task.task).set(task.done_ns / 1e9)


class HealthMetrics:
    """How often each light has changed."""

    def __init__(self, lights: Iterable[str]) -> None:
        self._changes = Counter(
            "fts_control_health_transitions_total",
            "Changes of a light, by what it became",
            ("part", "status"),
            registry=None,
        )
        for light in lights:
            for status in ("green", "yellow", "red"):
                self._changes.labels(light, status)

    def changed(self, light: str, status: str) -> None:
        """Count one."""
        self._changes.labels(light, status).inc()


class AdmissionMetrics:
    """Streams that somebody wanted and that were not begun, by the kind of the refusal."""

    def __init__(self) -> None:
        self._refused = Counter(
            "fts_control_refused_streams_total",
            "Streams that were asked for and not begun",
            ("reason",),
            registry=None,
        )
        for reason in ("unhealthy", "limit", "unknown_symbol", "not_offered", "stream_exists"):
            self._refused.labels(reason)  # known from the start, so that a first one is a rise

    def refused(self, reason: str) -> None:
        """Count one."""
        self._refused.labels(reason).inc()


class RequestMetrics:
    """Requests to the control port, up to the first byte of their answer."""

    def __init__(self) -> None:
        self._requests = Counter(
            "fts_control_requests_total",
            "Requests answered",
            ("route", "method", "status"),
            registry=None,
        )
        self._seconds = Histogram(
            "fts_control_request_duration_seconds",
            "From a request to the first byte of its answer",
            ("route",),
            buckets=_REQUEST_EDGES_S,
            registry=None,
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one."""
        self._requests.labels(route, method, f"{status // 100}xx").inc()
        self._seconds.labels(route).observe(seconds)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, multiprocess_mode=GAUGE_MODE, registry=None)


def _latency_of(stage: str) -> LatencyBuckets:
    if stage == "receipt":
        text = "From the venue's event to its reception, by two clocks"
        return LatencyBuckets("fts_writer_receipt_latency_seconds", text, {})
    text = "From reception to delivery, sampled"
    return LatencyBuckets("fts_writer_latency_seconds", text, {"sink": stage})
