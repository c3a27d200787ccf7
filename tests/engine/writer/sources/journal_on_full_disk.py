"""Fills a journal against a file size limit, lifts it, goes on; prints where it was refused."""

import resource
import signal
import sys
from pathlib import Path

import numpy as np

from engine.base.errors import JournalError
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.writer.sources.journal import Journal


def rows(first_seq: int, count: int) -> RecordArray:
    records = np.zeros(count, TRADE.dtype)
    records["trade_id"] = np.arange(first_seq, first_seq + count)
    return records


def main() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    journal = Journal(Path(sys.argv[1]), TRADE, 5, 1 << 20)
    seq = 0
    try:
        while True:
            journal.append(seq, rows(seq, 10))
            seq += 10
    except JournalError:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    # Meanwhile the database took fifty rows straight from the ring.
    journal.append(seq + 50, rows(seq + 50, 10))
    journal.close()
    print(seq)  # noqa: T201 - the test reads it


main()
