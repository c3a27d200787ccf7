"""The dashboard *Is it healthy?*: lights, processes, streams, rows not stored, room on disks."""

from typing import Final

from deploy.grafana.panels import Board, Panel, PromQl, Variable
from engine.messages.judgement import ROOM_DAYS
from engine.messages.settings import HealthSettings

INSTANCE: Final = Variable(
    "instance", "engine", PromQl("label_values(fts_engine_uptime_seconds, instance)"), is_many=True
)
VENUE: Final = Variable(
    "venue", "venue", PromQl("label_values(fts_engine_streams, exchange)"), is_many=True
)
KIND: Final = Variable(
    "kind", "kind of stream", PromQl("label_values(fts_engine_streams, kind)"), is_many=True
)
HERE: Final = 'instance=~"$instance"'
STREAMS: Final = f'{HERE}, exchange=~"$venue", kind=~"$kind"'
_LIGHTS: Final = ((0, "green", "green"), (1, "yellow", "yellow"), (2, "red", "red"))
_WORKS: Final = ((0, "down", "red"), (1, "up", "green"))
_DAY_S: Final = 86_400.0


def lag_limits_s() -> tuple[float, float]:
    """Where the runtime's light turns yellow and red for a late event loop."""
    yellow_ms, red_ms = HealthSettings().loop_lag_ms
    return yellow_ms / 1e3, red_ms / 1e3


_NOW = (
    Panel(
        "Lights", [PromQl(f"max by (part) (fts_control_health_level{{{HERE}}})", "{{part}}")],
        "As fts health says them. Redis is best effort: its red light weighs as a yellow one.",
        look="stat", limits=(1, 2), words=_LIGHTS, height=5,
    ),
    Panel(
        "Processes", [PromQl(f"fts_engine_process_up{{{HERE}}}", "{{process}}")],
        "1 while it runs and is ready, the private servers included.",
        look="stat", words=_WORKS, height=5,
    ),
    Panel(
        "Alerts", [PromQl('count(ALERTS{alertname=~"Fintickstreams.*", alertstate="firing"})'
                          " or vector(0)", "firing")],
        "What fires now; deploy/RUNBOOK.md says what to do.",
        look="stat", limits=(1, 1), width=4, height=5,
    ),
    Panel(
        "Sinks", [PromQl(f"fts_writer_sink_up{{{HERE}}}", "{{sink}}")],
        "Whether journal, databases and Redis take what they get.",
        look="stat", words=_WORKS, width=10, height=5,
    ),
    Panel(
        "In quarantine", [PromQl(f"sum(fts_writer_quarantine_rows{{{HERE}}})", "rows")],
        "Rows that the database refused and that wait: fts quarantine list.",
        look="stat", limits=(1, 1), width=5, height=5,
    ),
    Panel(
        "Up for", [PromQl(f"fts_engine_uptime_seconds{{{HERE}}}", "{{instance}}")],
        "Since the engine's start.", unit="s", look="stat", width=5, height=5,
    ),
)  # fmt: skip

_COURSE = (
    Panel(
        "Streams by state", [PromQl(
            f"sum by (state) (fts_engine_streams{{{STREAMS}}})", "{{state}}")],
        "Stale, backoff and failed deliver nothing.",
    ),
    Panel(
        "Rows not stored", [
            PromQl(f"sum(increase(fts_writer_dropped_rows_total{{{HERE}}}[$__rate_interval]))",
                   "dropped: no ring had room"),
            PromQl(f"sum(increase(fts_writer_quarantined_rows_total{{{HERE}}}[$__rate_interval]))",
                   "quarantined: refused by the database"),
            PromQl(f"sum(increase(fts_writer_lost_rows_total{{{HERE}}}[$__rate_interval]))",
                   "lost after their receipt"),
        ],
        "Each is declared in gaps.", limits=(1, 1),
    ),
    Panel(
        "Deaths", [PromQl(
            f"increase(fts_engine_process_restarts_total{{{HERE}}}[$__rate_interval])",
            "{{process}}")],
        "Processes that died and were started again.",
    ),
    Panel(
        "Sockets opened again", [PromQl(
            f'sum by (exchange) (increase(fts_shards_reconnects_total{{{HERE}, exchange=~"$venue"}}'
            "[$__rate_interval]))", "{{exchange}}")],
        "Planned ones cost no row.",
    ),
    Panel(
        "Event loops, latest of a hundred", [PromQl(
            "histogram_quantile(0.99, sum by (le, process) "
            f"(rate(fts_engine_process_loop_lag_seconds_bucket{{{HERE}}}[$__rate_interval])))",
            "{{process}}")],
        "How late they were. The light turns yellow and red by the middle one of five looks.",
        unit="s", limits=lag_limits_s(),
    ),
    Panel(
        "Memory", [PromQl(f"fts_engine_process_memory_bytes{{{HERE}}}", "{{process}}")],
        "Resident, shared memory included.", unit="bytes",
    ),
    Panel(
        "Open files", [PromQl(f"fts_engine_process_open_files{{{HERE}}}", "{{process}}")],
        "The light is yellow at 80 % of what ulimit -n allows.",
    ),
    Panel(
        "Budgets of the venues", [PromQl(
            f'fts_engine_limiter_used_units{{{HERE}, exchange=~"$venue"}}'
            f' / fts_engine_limiter_budget_units{{{HERE}, exchange=~"$venue"}}',
            "{{exchange}} {{pool}}")],
        "Of 80 % of what the venue allows.", unit="percentunit", limits=(0.9, 1.0),
    ),
    Panel(
        "Told to wait", [PromQl(
            f'fts_engine_limiter_blocked_seconds{{{HERE}, exchange=~"$venue"}}',
            "{{exchange}} {{pool}}")],
        "By a 429, 418, 403 or 451 of the venue.", unit="s", limits=(1, 60),
    ),
    Panel(
        "Upkeep: since the last success", [PromQl(
            f"time() - fts_upkeep_task_last_success_timestamp_seconds{{{HERE}}}",
            "{{database}} {{task}}")],
        "Some run once a day.", unit="s",
    ),
    Panel(
        "Upkeep: fails", [PromQl(f"fts_upkeep_task_failing{{{HERE}}}", "{{database}} {{task}}")],
        "1 when its last try ended with an error.", limits=(1, 2),
    ),
    Panel(
        "Disk full in", [PromQl(f"fts_storage_until_full_seconds{{{HERE}}}", "{{database}}")],
        "At the pace of the last day, less what retention drops; unknown in the first hour.",
        unit="s", limits=(ROOM_DAYS[0] * _DAY_S, ROOM_DAYS[1] * _DAY_S),
    ),
)  # fmt: skip

BOARD: Final = Board(
    "fintickstreams-healthy",
    "Is it healthy?",
    "Lights, processes, streams, and what could not be stored. docs/prometheus.md",
    (INSTANCE, VENUE, KIND),
    (*_NOW, *_COURSE),
)
