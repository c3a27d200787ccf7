"""What each process holds, looked at every few seconds, and what the engine has put on disks."""

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.soak.world import World
from engine.base.clock import monotonic_s
from engine.process.lines.outlets import ROTATE_BYTES

_KIB: Final = 1024
_METRICS: Final = {
    "received": "fts_shards_rows_total",
    "stored": "fts_writer_stored_rows_total",
    "missing": "fts_shards_missing_rows_total",
    "backlog": "fts_writer_backlog_rows",
    "ring_fill": "fts_writer_ring_fill_ratio",
}
"""Summed over their labels."""
_LINE: Final = b"2000-01-01 00:00:00.000 INFO    soak: " + b"." * 961 + b"\n"


class Held(msgspec.Struct):
    """What a process holds at a moment."""

    name: str
    pid: int
    rss: int
    """Bytes; pages of rings and metrics that it shares with others are in it."""
    own: int
    """Bytes of memory that are of no file and nobody else's (RssAnon)."""
    pss: int
    fds: int
    threads: int
    lag_ms: float = 0.0
    """Of its event loop, as the engine says."""


class Sample(msgspec.Struct):
    """One look at everything. Bytes, rows, seconds since the start."""

    at_s: float
    processes: list[Held]
    shm: int
    journal: int
    log: int
    metrics: dict[str, float]
    """Empty while nobody answers."""


class Sampler:
    """A thread that looks every `every_s`; `samples`, and `samples.jsonl`, have all it saw."""

    def __init__(
        self,
        world: World,
        every_s: float,
        *,
        log_bytes_per_s: float,
        then: Callable[[Sample], None] = lambda _: None,
    ) -> None:
        self.samples: list[Sample] = []
        self.began_s = monotonic_s()
        self.unanswered = 0
        """Looks at which control did not answer."""
        self._world, self._every_s, self._then = world, every_s, then
        self._log_bytes = int(log_bytes_per_s * every_s)
        self._file = world.directory / "samples.jsonl"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin, in the background."""
        self._file.unlink(missing_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """No more looks."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with self._file.open("ab") as file:
            while not self._over.wait(self._every_s):
                sample = self.look()
                self.samples.append(sample)
                file.write(msgspec.json.encode(sample) + b"\n")
                file.flush()
                self._talk()
                self._then(sample)

    def look(self) -> Sample:
        """One look."""
        lags = self._lags()
        metrics = self.read_metrics()
        self.unanswered += not metrics
        held = [found for name, pid in self._world.processes()
                if (found := _held(name, pid, lags.get(pid, 0.0))) is not None]  # fmt: skip
        layout = self._world.layout
        return Sample(
            round(monotonic_s() - self.began_s, 2),
            held,
            _size(layout.shm_dir.rglob("*")),
            _size(path for path in layout.journal_dir.rglob("*") if path.name != "ballast"),
            _size(layout.state_dir.glob("fts.log*")),
            metrics,
        )

    def _lags(self) -> dict[int, float]:
        try:
            told: dict[str, Any] = json.loads(self._world.ask("/health/runtime", self._every_s))
        except (OSError, ValueError):
            return {}
        return {each["pid"]: each["loop_lag_ms"] for each in told.get("processes", [])}

    def read_metrics(self) -> dict[str, float]:
        """Sums over labels; empty while nobody answers."""
        try:
            found = self._world.metrics()
        except (OSError, ValueError):
            return {}
        return {
            name: sum(v for key, v in found.items() if key.partition("{")[0] == metric)
            for name, metric in _METRICS.items()
        }

    def _talk(self) -> None:
        """Fill the log as one more process of the engine would, so that it is put aside often."""
        count = min(self._log_bytes, ROTATE_BYTES) // len(_LINE)
        with self._world.layout.log_file.open("ab", buffering=0) as log:
            log.write(_LINE * count)


def _held(name: str, pid: int, lag_ms: float) -> Held | None:
    """None for a process that has just ended."""
    at = Path(f"/proc/{pid}")
    try:
        status = _numbers(at / "status")
        pss = _numbers(at / "smaps_rollup").get("Pss", 0)
        fds = sum(1 for _ in (at / "fd").iterdir())
    except OSError:
        return None
    if "VmRSS" not in status:
        return None
    rss, own = (status[key] * _KIB for key in ("VmRSS", "RssAnon"))
    return Held(name, pid, rss, own, pss * _KIB, fds, status["Threads"], lag_ms)


def _numbers(path: Path) -> dict[str, int]:
    """Lines as `VmRSS:    1234 kB` of a file of the kernel."""
    pairs = (line.partition(":") for line in path.read_text().splitlines())
    words = ((name, text.split()) for name, _, text in pairs)
    return {name: int(found[0]) for name, found in words if found and found[0].isdigit()}


def _size(paths: Iterable[Path]) -> int:
    """Bytes on disk or in memory; files that go meanwhile count nothing."""
    return sum(map(_blocks, paths))


def _blocks(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_blocks * 512
