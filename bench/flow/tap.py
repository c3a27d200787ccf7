"""A reader of the rings, as anybody may write one: rows as soon as they are published, by numpy.

    .venv/bin/python -m bench.flow.tap STATE_DIR [KIND …]

Says `ready`, reads until its standard input ends, and says how old the rows were, in ms after the
time of the venue's event: when the shard had them from the socket, and when this process had them.
It reads without disturbing anybody; rows that were overwritten before it came are counted.
"""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.flow.percentiles import percentiles_ms
from engine.base.clock import wall_ns
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import KINDS
from engine.data.layout import open_layout
from engine.data.ring import RingTap
from engine.data.segment import attach_segment

_PAUSE_S: Final = 0.0005
_ROWS_A_POLL: Final = 1 << 16


def taps(state_dir: Path, kinds: Sequence[Kind]) -> list[RingTap]:
    """One on each ring of these kinds, from its newest row on."""
    folder = open_layout(state_dir).shm_dir
    found = []
    for kind in kinds:
        for path in sorted(folder.glob(f"*.{kind.name}.ring")):
            tap = RingTap(memoryview(attach_segment(path, writable=False).memory), kind)
            tap.cursor = tap.head
            found.append(tap)
    return found


class Ages:
    """How old rows were."""

    def __init__(self) -> None:
        self.count = 0
        self._ring: list[npt.NDArray[np.int64]] = []
        self._tap: list[npt.NDArray[np.int64]] = []
        self._from_ring: list[npt.NDArray[np.int64]] = []

    def add(self, rows: RecordArray, now_ns: int) -> None:
        """Rows that have just been read."""
        self.count += len(rows)
        self._ring.append(rows["ts_recv"] - rows["ts_event"])
        self._tap.append(now_ns - rows["ts_event"])
        self._from_ring.append(now_ns - rows["ts_recv"])

    def by_stage(self) -> dict[str, dict[str, float]]:
        """Percentiles at the shard, here, and of the way between."""
        return {
            "ring": percentiles_ms(self._ring),
            "tap": percentiles_ms(self._tap),
            "ring to tap": percentiles_ms(self._from_ring),
        }


def main(arguments: Sequence[str]) -> None:
    """Read until nobody wants to know any more."""
    state_dir, names = Path(arguments[0]), arguments[1:] or ["trade", "book"]
    found, ages, over = taps(state_dir, [KINDS[name] for name in names]), Ages(), []
    Thread(target=lambda: over.append(sys.stdin.read()), daemon=True).start()
    print("ready", flush=True)
    while not over:
        is_idle = True
        for tap in found:
            if len(rows := tap.poll(_ROWS_A_POLL)):
                ages.add(rows, wall_ns())
                is_idle = False
        if is_idle:
            time.sleep(_PAUSE_S)
    lapped = sum(tap.lapped_count for tap in found)
    print(json.dumps({"rows": ages.count, "missed": lapped, "stages": ages.by_stage()}))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(sys.argv[1:])
