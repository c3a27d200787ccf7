"""The writer's last words."""

import asyncio
import os
from pathlib import Path
from typing import cast

import msgspec
import pytest
import uvloop

from engine.messages.pipes import Drain, FromChild, ToChild
from engine.messages.settings import RingSettings
from engine.messages.totals import WriterTotals
from engine.messages.writer import WriterStatus
from engine.process.pipe import Pipe
from engine.writer.main import EXIT_UNDELIVERED, Writer
from tests.engine.writer.conftest import MakeSettings
from tests.engine.writer.test_start import RING, leave_a_row_behind


class Supervisor:
    """The other end of the writer's pipe: it has the writer drained, and reads slowly."""

    def __init__(self) -> None:
        self.totals = WriterTotals()

    def send(self, message: FromChild) -> None:
        if isinstance(message, WriterStatus):
            self.totals.update(message)

    async def receive(self) -> ToChild | None:
        return Drain(deadline_s=0.05)

    async def flush(self) -> None:
        await asyncio.sleep(0.05)


@pytest.mark.fault("N29")
def test_what_is_left_behind_is_not_told_as_delivered(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    """A status that was due while the last one was on its way told of no rings any more: their
    rows had all "passed a cursor and were not counted"."""
    settings = make_settings(
        database_url=f"postgresql://u@/d?host={tmp_path}", status_interval_s=0.001
    )
    leave_a_row_behind(settings.paths.layout())
    supervisor = Supervisor()

    async def main() -> int:
        doorbell_fd = os.eventfd(0, os.EFD_NONBLOCK)
        given = msgspec.structs.replace(
            settings, doorbell_fd=doorbell_fd, rings=[RingSettings(RING, "trade", 64)]
        )
        code = await Writer(given, cast("Pipe[ToChild]", supervisor)).run()
        os.close(doorbell_fd)
        return code

    assert uvloop.run(main()) == EXIT_UNDELIVERED
    moves = supervisor.totals.report.moves["trade"]
    assert (moves.moved, moves.waiting) == (0, 1)
