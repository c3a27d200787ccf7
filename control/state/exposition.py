"""What `/metrics` shows: the files of all processes merged (`engine.process.metric_files`), and
what only the supervisor and the health lights know, from the last status. No name comes from both.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from control.state.backend import Backend
from control.state.health import Health
from control.state.storage_metrics import storage_metrics
from engine.data.layout import Layout
from engine.messages.status import EngineStatus
from engine.process import metric_files
from engine.process.release import version

MEDIA_TYPES = (CONTENT_TYPE_PLAIN_0_0_4, CONTENT_TYPE_LATEST)
"""What is answered, unless the client negotiates another version of them."""
_LEVEL = {"green": 0, "yellow": 1, "red": 2}


class Exposition:
    """Everything, at one moment; a `Collector` in the library's words."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from _merged(self._backend.layout)
        yield from _lights(self._backend.health)
        yield from _facts(self._backend.layout)
        status = self._backend.status
        if status is not None:
            yield from _processes(status, self._backend.health)
            yield from _streams(status)
            yield from _limiters(status)
            yield from storage_metrics(status.upkeep)

    def encode(self, accept: str | None) -> tuple[bytes, str]:
        """In the format that the client prefers, and the name of that format."""
        return encode(self, accept)


def encode(collector: Collector, accept: str | None) -> tuple[bytes, str]:
    """What a collector has, in the format that the client prefers, and the name of that format."""
    encoder, media_type = _choose(accept or "")
    return encoder(collector), media_type


def _choose(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # the library compares a version that is no number with one that is
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4


def _merged(layout: Layout) -> Iterator[Metric]:
    files, bad_count = metric_files.readable(layout)
    yield from MultiProcessCollector.merge(files)
    yield GaugeMetricFamily(
        "fts_control_unreadable_metric_files", "Files of metrics that are left out", bad_count
    )


def _facts(layout: Layout) -> Iterator[Metric]:
    yield _gauge(
        "fts_engine_build_info", "1, with what runs as labels", ["version"], [([version()], 1.0)]
    )
    room = GaugeMetricFamily("fts_engine_disk_free_bytes", "Free where journal and log are")
    with contextlib.suppress(OSError):  # then it is not known
        found = os.statvfs(layout.state_dir)
        room.add_metric([], found.f_bavail * found.f_frsize)
    yield room


def _lights(health: Health) -> Iterator[Metric]:
    levels = GaugeMetricFamily(
        "fts_control_health_level", "0 green, 1 yellow, 2 red", labels=["part"]
    )
    for name, light in health.lights().items():
        levels.add_metric([name], _LEVEL[light.status])
    yield levels
    yield GaugeMetricFamily(
        "fts_control_flush_delay_seconds", "Age of the rows being stored", health.flush_delay_s
    )


def _processes(status: EngineStatus, health: Health) -> Iterator[Metric]:
    children = [*status.children, *status.servers]
    yield GaugeMetricFamily("fts_engine_uptime_seconds", "Since its start", status.uptime_s)
    yield _gauge(
        "fts_engine_process_up", "1 while it runs and is ready", ["process"],
        (([child.name], float(child.state == "up")) for child in children),
    )  # fmt: skip
    yield _counter(
        "fts_engine_upgrades_total", "Replacements of all processes, by how they ended", "state",
        {state: status.upgrades.get(state, 0) for state in ("done", "failed")},
    )  # fmt: skip
    yield _counter(
        "fts_engine_process_restarts_total", "Deaths survived", "process",
        {child.name: child.restart_count for child in children},
    )  # fmt: skip
    for name, text, attribute in (
        ("fts_engine_process_memory_bytes", "Resident memory", "rss_bytes"),
        ("fts_engine_process_open_files", "Open file handles", "open_files"),
    ):
        yield _gauge(
            name, text, ["process"],
            (([each.name], getattr(each, attribute)) for each in health.processes if each.pid),
        )  # fmt: skip


def _streams(status: EngineStatus) -> Iterator[Metric]:
    states = Counter((each.venue, each.kind, each.state.value) for each in status.streams)
    yield _gauge(
        "fts_engine_streams", "Streams by state", ["exchange", "kind", "state"], states.items()
    )
    yield _counter(
        "fts_writer_dropped_rows_total", "Rows that no ring had room for", "kind",
        status.writer.dropped_rows,
    )  # fmt: skip


def _limiters(status: EngineStatus) -> Iterator[Metric]:
    for name, text, attribute in (
        ("fts_engine_limiter_used_units", "Of a budget, used in its window", "used"),
        ("fts_engine_limiter_budget_units", "Budget of a window", "budget"),
        (
            "fts_engine_limiter_waiting_requests",
            "Requests that wait for their turn",
            "waiting_count",
        ),
        ("fts_engine_limiter_blocked_seconds", "Told to wait by the exchange", "blocked_s"),
    ):
        yield _gauge(
            name, text, ["exchange", "pool"],
            (([each.venue, each.pool], getattr(each, attribute)) for each in status.limiters),
        )  # fmt: skip


def _gauge(
    name: str, text: str, labels: list[str], samples: Iterable[tuple[Iterable[str], float]]
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for texts, value in samples:
        family.add_metric(list(texts), value)
    return family


def _counter(name: str, text: str, label: str, totals: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for label_text, total in totals.items():
        family.add_metric([label_text], total)
    return family
