"""Rates of the terminal view: steady traffic looks steady, however often somebody looks."""

import random

import pytest

from control.cli.terminal.live_view import plain_line
from control.cli.terminal.rates import Rates
from engine.messages.status import (
    ChildReport,
    EngineStatus,
    ShardReport,
    StreamReport,
    WriterReport,
)
from engine.messages.writer import SinkStatus


class Machine:
    """An engine with a steady market whose processes report twice a second, give or take."""

    def __init__(self, seed: int = 1, rows_per_s: int = 1000) -> None:
        self.now_s = 100.0
        self.rows_per_s = rows_per_s
        self._random = random.Random(seed)
        self._next_s = {"shard": 100.2, "writer": 100.3}
        self._started_s, self._rows_before = 100.0, 0
        child = ChildReport("writer", "up")
        self._shard = ShardReport(ChildReport("shard-0", "up"), 0)
        self._writer = WriterReport(child)
        self._stream = StreamReport(7, "binance_linear", "BTCUSDT", "Trades", 0)
        self.status = EngineStatus(
            "green", "", "running", "x", 1.0, [self._shard], self._writer, child, [self._stream]
        )

    def stand_still(self) -> None:
        """Nothing is traded any more; the processes go on reporting."""
        self.rows_per_s, self._rows_before = 0, self._stream.row_count

    def pass_time(self, seconds: float) -> None:
        ends_s = self.now_s + seconds
        while (at_s := min(self._next_s.values())) <= ends_s:
            name = min(self._next_s, key=lambda each: self._next_s[each])
            self._report(name, at_s)
            self._next_s[name] = at_s + self._random.uniform(0.4, 0.7)
        self.now_s = ends_s

    def _report(self, name: str, at_s: float) -> None:
        rows = self._rows_before + round((at_s - self._started_s) * self.rows_per_s)
        if name == "shard":
            self._shard.taken_s = at_s
            self._stream.row_count = self._stream.frame_count = rows
        else:
            self._writer.taken_s = at_s
            self._writer.sinks = [
                SinkStatus(name, rows={"trade": rows}) for name in ("database", "redis")
            ]


@pytest.mark.fault("N27")
@pytest.mark.parametrize("look_every_s", [0.05, 0.25, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_steady_market_has_a_steady_rate_at_every_look(seed: int, look_every_s: float) -> None:
    machine = Machine(seed)
    rates = Rates(lambda: machine.now_s)
    looks = []
    for _ in range(int(20 / look_every_s)):
        machine.pass_time(look_every_s)
        looks.append(rates.update(machine.status))
    settled = looks[int(2 / look_every_s) :]
    for name in ("rows", "frames", "rows 7", "stored", "published"):
        assert {round(look[name], -1) for look in settled} == {1000}, name


@pytest.mark.fault("N27")
def test_without_two_reports_there_is_no_rate() -> None:
    machine = Machine()
    rates = Rates(lambda: machine.now_s)
    assert rates.update(machine.status) == {}
    machine.pass_time(0.4)
    assert rates.update(machine.status) == {}
    line = plain_line(machine.status, rates.update(machine.status))
    assert "- frames/s, - rows/s in, - rows/s stored, - rows/s published" in line


@pytest.mark.fault("N27")
def test_a_market_that_stops_reads_zero_and_a_process_that_stops_has_no_rate() -> None:
    machine = Machine()
    rates = Rates(lambda: machine.now_s)
    for _ in range(20):
        machine.pass_time(0.4)
        rates.update(machine.status)
    machine.stand_still()
    for _ in range(20):
        machine.pass_time(0.4)
        shown = rates.update(machine.status)
    assert shown["rows"] == shown["stored"] == 0.0
    machine.now_s += 6.0
    assert rates.update(machine.status) == {}
