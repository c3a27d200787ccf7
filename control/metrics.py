"""Prometheus text from the last status. Labels come from closed sets (exchange, kind, state, shard,
process, reason), never from symbols.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from control.health import Health
from engine.status import EngineStatus, StreamReport

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LEVEL = {"green": 0, "yellow": 1, "red": 2}

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


def render(status: EngineStatus | None, health: Health) -> str:
    """The whole exposition."""
    lines: list[str] = []
    parts: list[Iterable[str]] = [_health(health)]
    if status is not None:
        parts += [_streams(status), _shards(status), _writer(status), _limiters(status)]
    lines.extend(itertools.chain.from_iterable(parts))
    return "\n".join(lines) + "\n"


def _health(health: Health) -> Iterator[str]:
    lights = health.lights()
    yield from _metric(
        "fts_control_health_level", "gauge", "0 green, 1 yellow, 2 red",
        [((("part", name),), _LEVEL[light.status]) for name, light in lights.items()],
    )  # fmt: skip
    yield from _metric(
        "fts_control_flush_delay_seconds", "gauge", "Age of the rows being stored",
        [((), health.flush_delay_s)],
    )  # fmt: skip
    for name, kind, text, attribute in (
        ("fts_engine_process_memory_bytes", "gauge", "Resident memory", "rss_bytes"),
        ("fts_engine_process_open_files", "gauge", "Open file handles", "open_files"),
        ("fts_engine_process_restarts_total", "counter", "Deaths survived", "restart_count"),
    ):
        samples = [
            ((("process", each.name),), float(getattr(each, attribute)))
            for each in health.processes
        ]
        yield from _metric(name, kind, text, samples)


def _streams(status: EngineStatus) -> Iterator[str]:
    states: Counter[Labels] = Counter()
    for each in status.streams:
        states[(*_kind_labels(each), ("state", each.state.value))] += 1
    yield from _metric("fts_engine_streams", "gauge", "Streams by state", list(states.items()))
    for name, text, attribute in (
        ("fts_shards_frames_total", "Frames received", "frame_count"),
        ("fts_shards_rows_total", "Rows received", "row_count"),
        ("fts_shards_gaps_total", "Gaps declared", "gap_count"),
        ("fts_shards_missing_rows_total", "Rows declared missing", "missing_count"),
        ("fts_shards_duplicate_rows_total", "Rows refused as repeated", "duplicate_count"),
    ):
        totals: Counter[Labels] = Counter()
        for each in status.streams:
            totals[_kind_labels(each)] += getattr(each, attribute)
        yield from _metric(name, "counter", text, list(totals.items()))


def _shards(status: EngineStatus) -> Iterator[str]:
    for name, kind, text, attribute, scale in (
        ("fts_shards_connections", "gauge", "Open sockets", "connection_count", 1.0),
        ("fts_shards_reconnects_total", "counter", "Sockets opened again", "reconnect_count", 1.0),
        ("fts_shards_loop_lag_seconds", "gauge", "Event-loop lag", "loop_lag_ms", 1e-3),
        ("fts_shards_cpu_seconds_total", "counter", "CPU time", "cpu_s", 1.0),
    ):
        samples = [
            ((("shard", str(each.shard)),), getattr(each, attribute) * scale)
            for each in status.shards
        ]
        yield from _metric(name, kind, text, samples)
    malformed = [
        ((("shard", str(each.shard)), ("reason", reason)), float(count))
        for each in status.shards
        for reason, count in each.malformed_by_reason.items()
    ]
    yield from _metric(
        "fts_shards_malformed_frames_total", "counter", "Frames of no use", malformed
    )


def _writer(status: EngineStatus) -> Iterator[str]:
    writer = status.writer
    for name, text, rows in (
        ("stored", "Rows in the database", writer.stored_rows),
        ("published", "Rows in Redis", writer.published_rows),
        ("dropped", "Rows that no ring had room for", writer.dropped_rows),
        ("overrun", "Rows that Redis was too slow for", writer.overrun_rows),
        ("quarantined", "Rows that the database refuses", writer.quarantined_rows),
    ):
        yield from _metric(f"fts_writer_{name}_rows_total", "counter", text, _by_kind(rows))
    for name, text, value in (
        ("fts_writer_backlog_rows", "Rows that wait for the database", writer.backlog_rows),
        ("fts_writer_journal_bytes", "Size of the journal", writer.journal_bytes),
        ("fts_writer_memory_bytes", "Resident memory", writer.rss_bytes),
    ):
        yield from _metric(name, "gauge", text, [((), float(value))])
    up = [
        ((("sink", "database"),), float(writer.database_state == "up")),
        ((("sink", "redis"),), float(writer.redis_state == "up")),
    ]
    yield from _metric("fts_writer_sink_up", "gauge", "1 when the sink works", up)
    latency = [
        ((("sink", sink), ("percentile", name)), value / 1e6)
        for sink, figures in writer.latency_us.items()
        for name, value in figures.items()
    ]
    yield from _metric(
        "fts_writer_latency_seconds", "gauge", "From received to delivered, since start", latency
    )


def _limiters(status: EngineStatus) -> Iterator[str]:
    for name, text, attribute in (
        ("fts_engine_limiter_used_units", "Of a budget, used in its window", "used"),
        ("fts_engine_limiter_budget_units", "Budget of a window", "budget"),
        ("fts_engine_limiter_blocked_seconds", "Told to wait by the exchange", "blocked_s"),
    ):
        samples = [
            ((("exchange", each.venue), ("pool", each.pool)), float(getattr(each, attribute)))
            for each in status.limiters
        ]
        yield from _metric(name, "gauge", text, samples)


def _kind_labels(stream: StreamReport) -> Labels:
    return ("exchange", stream.venue), ("kind", stream.kind)


def _by_kind(rows: Mapping[str, int]) -> list[Sample]:
    return [((("kind", kind),), float(count)) for kind, count in rows.items()]


def _metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    samples = list(samples)
    if not samples:
        return
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inner = ",".join(f'{label}="{_escaped(each)}"' for label, each in labels)
        number = f"{int(value)}" if value == int(value) else f"{value:.9g}"
        yield f"{name}{{{inner}}} {number}" if inner else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
