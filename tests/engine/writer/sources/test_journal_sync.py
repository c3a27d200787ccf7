"""A disk that fails every second is complained of once."""

import asyncio
import errno
import logging
import os
from collections.abc import Iterator

import pytest

from engine.data.layout import Layout
from engine.writer.sources.journal_sync import keep_synced
from tests.engine.writer.conftest import MakeTrades
from tests.engine.writer.ring_bench import Bench


@pytest.fixture
def bench(layout: Layout) -> Iterator[Bench]:
    bench = Bench(layout)
    yield bench
    bench.close()


@pytest.mark.fault("D01")
@pytest.mark.fault("N39")
def test_a_failing_disk_is_told_once_and_the_rows_go_on(
    bench: Bench,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_broken, tries = True, 0
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        nonlocal tries
        tries += 1
        if is_broken:
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    async def rounds(count: int) -> None:
        until = tries + count
        while tries < until:
            bench.put(trades(8))
            await asyncio.sleep(0.002)

    async def main() -> None:
        nonlocal is_broken
        task = asyncio.create_task(keep_synced(bench.sources, 0.001))
        await rounds(20)
        is_broken = False
        await rounds(20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with caplog.at_level(logging.INFO, "engine"):
        asyncio.run(main())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("journal: shard-0.trade: fdatasync: Input/output error")
    assert "works again" in told[1]
    assert bench.trades.journal_error == ""
    assert bench.trades.journal_seq == bench.trades.head_seq
