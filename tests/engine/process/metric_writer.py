"""Counts as fast as it can, from before its files exist, until somebody kills it."""

import itertools
import sys
from pathlib import Path

from engine.data.layout import open_layout
from engine.data.names import StreamKind
from engine.messages.streams import StreamCounts
from engine.process import metric_files
from engine.process.metrics import ProcessMetrics, ShardMetrics


def main() -> None:
    layout = open_layout(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write("born\n")
    sys.stdout.flush()
    metric_files.claim(layout, "shard-0")
    shard, process = ShardMetrics(), ProcessMetrics("shard-0")
    for total in itertools.count(1):
        # A new series now and then: files grow while they are read.
        exchange = f"exchange_{'abcdefgh'[total // 50 % 8]}"
        counts = {kind: StreamCounts(total, total) for kind in StreamKind}
        shard.feed(exchange, counts, {"schema": total}, total, 1)
        process.feed(total / 1e3, 0.001)


if __name__ == "__main__":
    main()
