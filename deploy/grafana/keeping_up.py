"""The dashboard *Does it keep up?*: rows in and out, what waits, how late they are."""

from typing import Final

from deploy.grafana.healthy import HERE, INSTANCE, KIND, STREAMS, VENUE, lag_limits_s
from deploy.grafana.panels import Board, Panel, PromQl
from engine.messages.settings import HealthSettings
from engine.messages.writer import DatabaseThresholds

_LATE: Final = DatabaseThresholds()
_CPU: Final = HealthSettings().cpu_percent


def _quantile(fraction: str, histogram: str, labels: str) -> str:
    rate = f"rate({histogram}_bucket{{{HERE}}}[$__rate_interval])"
    return f"histogram_quantile({fraction}, sum by ({labels}) ({rate}))"


_ROWS = (
    Panel(
        "Rows received", [PromQl(
            f"sum by (exchange, kind) (rate(fts_shards_rows_total{{{STREAMS}}}[$__rate_interval]))",
            "{{exchange}} {{kind}}")],
        "A second, by venue and kind of stream.", unit="rowsps",
    ),
    Panel(
        "Frames received", [PromQl(
            f"sum by (exchange) (rate(fts_shards_frames_total{{{STREAMS}}}[$__rate_interval]))",
            "{{exchange}}")],
        "Messages of the venues a second; one may hold many rows.", unit="ops",
    ),
    Panel(
        "Rows stored", [PromQl(
            f"sum by (kind) (rate(fts_writer_stored_rows_total{{{HERE}}}[$__rate_interval]))",
            "{{kind}}")],
        "A second, in the database. Below what is received, rows wait.", unit="rowsps",
    ),
    Panel(
        "Rows published", [PromQl(
            f"sum by (kind) (rate(fts_writer_published_rows_total{{{HERE}}}[$__rate_interval]))",
            "{{kind}}")],
        "A second, in Redis.", unit="rowsps",
    ),
)  # fmt: skip

_WAITING = (
    Panel(
        "Age of the rows being stored", [PromQl(
            f"fts_control_flush_delay_seconds{{{HERE}}}", "{{instance}}")],
        "The database's light turns yellow and red by it.", unit="s", limits=_LATE.flush_delay_s,
    ),
    Panel(
        "Rows that wait", [PromQl(f"fts_writer_database_backlog_rows{{{HERE}}}", "{{sink}}")],
        "For each database; the journal keeps them meanwhile.", limits=_LATE.backlog_rows,
    ),
    Panel(
        "Journal", [PromQl(f"fts_writer_journal_bytes{{{HERE}}}", "{{instance}}")],
        "It grows while a database is away.", unit="bytes",
    ),
    Panel(
        "Redis", [
            PromQl(f"fts_writer_redis_bytes{{{HERE}}}", "taken"),
            PromQl(f"fts_writer_redis_budget_bytes{{{HERE}}}", "allowed"),
        ],
        "What the streams take there, and may.", unit="bytes",
    ),
)  # fmt: skip

_LATENCY = (
    Panel(
        "From reception to delivery", [
            PromQl(_quantile("0.5", "fts_writer_latency_seconds", "le, sink"), "{{sink}} median"),
            PromQl(_quantile("0.99", "fts_writer_latency_seconds", "le, sink"), "{{sink}} 99 %"),
        ],
        "Until the row is committed, journalled or published.", unit="s",
    ),
    Panel(
        "From the venue to us", [
            PromQl(_quantile("0.5", "fts_writer_receipt_latency_seconds", "le"), "median"),
            PromQl(_quantile("0.99", "fts_writer_receipt_latency_seconds", "le"), "99 %"),
        ],
        "By two clocks: theirs and ours.", unit="s",
    ),
    Panel(
        "CPU", [PromQl(
            f"rate(fts_engine_process_cpu_seconds_total{{{HERE}}}[$__rate_interval])",
            "{{process}}")],
        "Of one CPU. A shard that needs all of it is late.",
        unit="percentunit", limits=(_CPU[0] / 100, _CPU[1] / 100),
    ),
    Panel(
        "Event loops, latest of a hundred", [PromQl(
            _quantile("0.99", "fts_engine_process_loop_lag_seconds", "le, process"),
            "{{process}}")],
        "How late they were.", unit="s", limits=lag_limits_s(),
    ),
    Panel(
        "Answers of the control port", [PromQl(
            _quantile("0.99", "fts_control_request_duration_seconds", "le, route"), "{{route}}")],
        "To the first byte, 99 % of them.", unit="s",
    ),
    Panel(
        "Tables", [PromQl(f"fts_storage_table_bytes{{{HERE}}}", "{{database}} {{table}}")],
        "On disk, with indexes.", unit="bytes",
    ),
)  # fmt: skip

BOARD: Final = Board(
    "fintickstreams-keeping-up",
    "Does it keep up?",
    "Rows in and out, what waits, and how late it is. docs/prometheus.md",
    (INSTANCE, VENUE, KIND),
    (*_ROWS, *_WAITING, *_LATENCY),
)
