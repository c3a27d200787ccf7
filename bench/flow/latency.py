"""How late rows are at each stage at one rate: by readers that anybody could write, and the server.

Every latency counts from the moment at which the row was due: the simulators keep a schedule, so
that a row that waited because something was held up, whoever it was, is as late as it was.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.flow.committed import committed_ms
from bench.flow.rig import Rig
from bench.progress import say
from engine.base.clock import wall_ns
from engine.data.names import StreamKind

_ROOT: Final = Path(__file__).resolve().parents[2]
_WARM_S: Final = 1.0
_KEYS: Final = {StreamKind.TRADES: "trades", StreamKind.L2_BOOK: "book"}


class Reader:
    """A reader in a process of its own, which says what it saw when it is told to end."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.end()
            raise RuntimeError(f"{module} did not start (see above)")

    def end(self) -> dict[str, Any]:
        """What it saw."""
        said, _ = self._process.communicate()
        return dict(json.loads(said)) if said else {}


def latency(rig: Rig, rows_per_s: float, seconds: float) -> dict[str, Any]:
    """Rows that each stage saw in so many seconds at a rate, and percentiles of their ages in ms:
    `ring` (the shard has it), `tap` (another process has it), `redis` (a subscriber of one symbol
    has it), `committed`.
    """
    say(f"  {rig.setup.name}: latencies at {rows_per_s:,.0f} rows/s for {seconds:.0f} s")
    rows_per_s = rig.wake(rows_per_s)
    time.sleep(_WARM_S)
    with _readers(rig) as readers:
        begin_ns = wall_ns()
        time.sleep(seconds)
        end_ns = wall_ns()
        seen = [reader.end() for reader in readers]
    rig.settle()
    stages: dict[str, dict[str, float]] = {}
    for each in seen:
        stages |= {stage: found for stage, found in each.get("stages", {}).items() if found}
    for table in rig.setup.tables:
        rows = round(rows_per_s * seconds)
        _, found = committed_ms(rig.url, table, begin_ns, end_ns, rows)
        name = "committed" if len(rig.setup.tables) == 1 else f"committed {table}"
        stages |= {name: found} if found else {}
    return {
        "rows_per_s": round(rows_per_s, 1),
        "tap_rows": seen[0].get("rows", 0),
        "tap_missed": seen[0].get("missed", 0),
        "stages": stages,
    }


@contextmanager
def _readers(rig: Rig) -> Iterator[list[Reader]]:
    """The tap, and where there is Redis its subscriber; they end with the block."""
    readers: list[Reader] = []
    try:
        readers.append(Reader("bench.flow.tap", str(rig.engine.state_dir), *rig.setup.tables))
        if rig.setup.redis:
            key = rig.market.streams()[0]
            stream = f"fts:{_KEYS[key.kind]}:{key.venue}:{key.symbol}"
            readers.append(Reader("bench.flow.subscriber", rig.engine.note.redis, stream))
        yield readers
    finally:
        for reader in readers:
            reader.end()
