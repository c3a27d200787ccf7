"""Lives of processes that keep metrics, one after the other in this process, and a scrape."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import generate_latest, values
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from engine.data.layout import Layout
from engine.process import metric_files

_ENVIRONMENT = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def life(layout: Layout, process: str) -> Iterator[None]:
    """Be this process; afterwards, what it had mapped is let go, as by SIGKILL."""
    kind, directory = values.ValueClass, os.environ.get(_ENVIRONMENT)
    metric_files.claim(layout, process)
    try:
        yield
    finally:
        values.close_all_multiprocess_files()
        values.ValueClass = kind
        os.environ.pop(_ENVIRONMENT, None)
        if directory is not None:
            os.environ[_ENVIRONMENT] = directory


class _Merged:
    """What the control process would show of the files."""

    def __init__(self, layout: Layout) -> None:
        self.files, self.bad_count = metric_files.readable(layout)

    def collect(self) -> Iterator[Metric]:
        yield from MultiProcessCollector.merge(self.files)


def scrape(layout: Layout) -> dict[str, float]:
    """Every sample, by its name and labels as they are written."""
    return samples(generate_latest(_Merged(layout)).decode())


def samples(text: str) -> dict[str, float]:
    """An exposition's samples: `fts_x_y_total{kind="trade"}` to its value."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name + _labels(sample.labels)
            assert name not in found, f"{name} comes twice"
            found[name] = sample.value
    return found


def _labels(labels: dict[str, Any]) -> str:
    inner = ",".join(f'{name}="{text}"' for name, text in sorted(labels.items()))
    return f"{{{inner}}}" if inner else ""
