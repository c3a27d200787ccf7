"""Scrapes an engine the whole time, as Prometheus would, only forty times a second, and judges."""

import threading
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

from engine.data.layout import open_layout
from engine.process import instance
from tests.engine.process.metric_rig import samples

UNREADABLE = "fts_control_unreadable_metric_files"


def scrape(state_dir: Path) -> dict[str, float]:
    """One scrape of the engine on this state directory; every one must be answered and parse."""
    note = instance.read_note(open_layout(state_dir))
    assert note is not None, "no engine runs"
    connection = HTTPConnection(urlsplit(note.control_url).netloc, timeout=30)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return samples(text)
    finally:
        connection.close()


def counters(found: dict[str, float]) -> dict[str, float]:
    """Those samples that must never go back, histograms' among them."""
    ends = ("_total", "_bucket", "_count", "_sum")
    return {name: value for name, value in found.items() if name.partition("{")[0].endswith(ends)}


def assert_no_step_back(before: dict[str, float], after: dict[str, float]) -> None:
    """Every counter is still there, and not less."""
    now = counters(after)
    back = {n: (v, now.get(n)) for n, v in counters(before).items() if now.get(n, -1.0) < v}
    assert back == {}


def assert_buckets_rise(found: dict[str, float]) -> None:
    """Within a histogram, which shows its buckets from the first to the last."""
    last_labels, last = "", 0.0
    for name, value in found.items():
        family, _, labels = name.partition("_bucket{")
        if not labels:
            continue
        kind = family + labels.partition('le="')[0] + labels.partition('le="')[2].partition('"')[2]
        assert kind != last_labels or value >= last, name
        last_labels, last = kind, value


class Scraper:
    """A context in which scraping goes on; leaving it raises what was wrong with any scrape, but
    for those of whom control died while it answered: `cut` counts them.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: Exception | AssertionError | None = None
        self.count = self.cut = 0

    def __enter__(self) -> "Scraper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        before: dict[str, float] = {}
        try:
            while not self._over.wait(0.025):
                try:
                    found = scrape(self._state_dir)
                except (ConnectionResetError, IncompleteRead):
                    self.cut += 1
                    continue
                assert_no_step_back(before, found)
                assert_buckets_rise(found)
                before = found
                self.count += 1
        except (AssertionError, OSError, ValueError) as error:
            self._error = error
