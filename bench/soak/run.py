"""One soak from start to verdict: the plan, the minute's line, the end of the market, the proof."""

import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bench.soak.faults import FAULTS, Planned, plan, possible
from bench.soak.history import Account, History
from bench.soak.sampling import Sample, Sampler
from bench.soak.trend import Trend, trends
from bench.soak.world import World, live_streams
from control.proof.ledger_check import LedgerCheck
from control.proof.verdict import Verdict
from engine.base.clock import monotonic_s

_LOOK_S: Final = 0.5
_STABLE_LOOKS: Final = 12
_SETTLE_S_MAX: Final = 300.0
_RECOVERY_S_MAX: Final = 300.0
_LOG_ROUNDS: Final = 8
"""How often the log is put aside in a run, however long: three more often than files are kept."""
_LOG_BYTES: Final = 64 << 20
_OLD_DAYS: Final = 24
_OLD_ROWS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    run_s: float
    rate: float
    """Rows a second, trades and books."""
    faults: int
    seed: int
    symbols: int
    sample_s: float
    directory: Path
    in_sums: bool


@dataclass(slots=True)
class Done:
    """A fault, what it did, and how long after its end all streams delivered again."""

    at_s: float
    name: str
    did: str
    recovered_s: float | None
    """None: not within the patience, or before the next fault."""


@dataclass(slots=True)
class Outcome:
    """All that a soak has found."""

    verdict: Verdict = field(default_factory=Verdict)
    equation: dict[str, Any] = field(default_factory=dict)
    """The engine's own, of all rows that reached a socket."""
    exit_code: int = -1
    history: Account = field(default_factory=Account)
    done: list[Done] = field(default_factory=list)
    trends: list[Trend] = field(default_factory=list)
    gaps: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost silently, stored twice, or changed."""
        return self.verdict.sent > 0 and self.verdict.is_equal and not self.problems


class Stopped(Exception):
    """Ctrl-C, SIGTERM, or an engine that has ended."""


class Soak:
    """`run` does all of it. The first Ctrl-C ends the market early and proves what there is."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.outcome = Outcome()
        self.world = World(
            options.directory, symbols=options.symbols, seed=options.seed, in_sums=options.in_sums
        )
        self.sampler = Sampler(
            self.world, options.sample_s,
            log_bytes_per_s=_LOG_ROUNDS * _LOG_BYTES / options.run_s, then=self._tell_minute,
        )  # fmt: skip
        every_s = options.run_s / (_OLD_DAYS + 4)
        self.history = History(self.world, rows=_OLD_ROWS, every_s=every_s)
        self._planned: list[Planned] = []
        self._next_line_s = 0.0

    def run(self) -> Outcome:
        """Raises RuntimeError where it could not even begin."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        try:
            self.world.open(self.options.rate / 2)
            self._go_on()
            self._prove()
        finally:
            self.world.close()
        return self.outcome

    def _go_on(self) -> None:
        run_s = self.options.run_s
        self._planned = plan(self.options.seed, self.options.faults, run_s, possible(self.world))
        self.sampler.began_s = began_s = monotonic_s()
        self.sampler.start()
        self.history.start()
        faults = ", ".join(f"{each.at_s:.0f} s {each.name}" for each in self._planned)
        self._say(f"{self.world.stream_count} streams deliver; faults: {faults}")
        try:
            self._fit_rate()
            for each in self._planned:
                self._wait_until(began_s + each.at_s)
                self._do(each)
            self._wait_until(began_s + run_s)
        except Stopped:
            self._say("stopped: the market ends, then the proof; once more ends it at once")
        finally:
            self.history.stop()

    def _fit_rate(self) -> None:
        """Trades fill up what the books leave of the rate."""
        time.sleep(min(10.0, self.options.run_s / 10))
        sent, began_s = self._sent(), monotonic_s()
        time.sleep(min(20.0, self.options.run_s / 10))
        books = (self._sent()["book"] - sent["book"]) / (monotonic_s() - began_s)
        trades = max(self.options.rate - books, self.options.rate / 10)
        self.world.tell_simulator("/simulator/rate", trades_per_s=trades)
        self._say(f"books: {books:,.0f} rows/s; trades: {trades:,.0f}")

    def _sent(self) -> dict[str, int]:
        sent: dict[str, int] = self.world.simulator.status()["sent"]
        return sent

    def _do(self, planned: Planned) -> None:
        at_s = monotonic_s() - self.sampler.began_s
        try:
            did = FAULTS[planned.name](self.world)
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - a fault that cannot be done ends no soak
            did = f"could not be done: {error!r}"
            self.outcome.problems.append(f"{planned.name} {did}")
        ended_s = monotonic_s()
        done = Done(round(at_s, 1), planned.name, did, None)
        self.outcome.done.append(done)
        if self._recovers(ended_s):
            done.recovered_s = round(monotonic_s() - ended_s, 1)
        self._say(f"{planned.name}: {did}; all streams deliver after {done.recovered_s} s")

    def _recovers(self, ended_s: float) -> bool:
        """Wait until rows are stored and every stream is live, for three looks in a row."""
        looks, before = 0, -1.0
        while monotonic_s() < ended_s + _RECOVERY_S_MAX:
            stored = self._counted().get("stored", -1.0)
            fine = stored > before >= 0 and live_streams(self.world) == self.world.stream_count
            looks, before = looks + 1 if fine else 0, stored
            if looks == 3:
                return True
            time.sleep(_LOOK_S)
        return False

    def _wait_until(self, moment_s: float) -> None:
        """Raises Stopped when the engine has ended by itself."""
        while (left_s := moment_s - monotonic_s()) > 0:
            if self.world.engine_ended:
                self.outcome.problems.append("fts up ended by itself")
                raise Stopped
            time.sleep(min(1.0, left_s))

    def _counted(self) -> dict[str, float]:
        return self.sampler.read_metrics()

    def _prove(self) -> None:
        """The market ends, the engine ends, then database and lake are compared with what was sent
        and put in.
        """
        self._settle()
        self.sampler.stop()
        samples = self.sampler.samples
        warm_up_s = min(600.0, self.options.run_s / 10)
        faults_s = [each.at_s for each in self.outcome.done]
        self.outcome.trends = list(trends(samples, warm_up_s, faults_s))
        self.outcome.exit_code, summary = self.world.end_engine()
        self.outcome.equation = summary.get("equation", {})
        if not self.outcome.equation.get("holds"):
            self.outcome.problems.append("the engine's own equation does not hold")
        if self.outcome.exit_code:
            self.outcome.problems.append(f"fts up ended with {self.outcome.exit_code}")
        self._say("the engine has ended; comparing")
        self.outcome.history = self.history.settle()
        if not self.outcome.history.holds:
            self.outcome.problems.append(f"old days: {asdict(self.outcome.history)}")
        self.world.simulator.pause(60.0)
        check = LedgerCheck(self.world.ledger_dir, self.world.database_url)
        self.outcome.verdict, self.outcome.gaps = check.total, check.gaps

    def _settle(self) -> None:
        """Pause the market, and wait until what it sent has been stored."""
        self.world.simulator.pause(60.0)
        seen: list[object] = []
        ends_s = monotonic_s() + _SETTLE_S_MAX
        while monotonic_s() < ends_s:
            found = self._counted()
            waits = found.get("backlog", 1) or self.world.simulator.unread_bytes()
            seen = [] if waits else [*seen, (found["received"], found["stored"])][-_STABLE_LOOKS:]
            if len(seen) == _STABLE_LOOKS and len(set(seen)) == 1:
                return
            time.sleep(_LOOK_S)
        self.outcome.problems.append("rows went on coming after the market's end")

    def _tell_minute(self, sample: Sample) -> None:
        if sample.at_s >= self._next_line_s:
            self._next_line_s = sample.at_s - sample.at_s % 60 + 60
            self._say(_line(sample))

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int(monotonic_s() - self.sampler.began_s), 60)
        print(f"{minutes:4d}:{seconds:02d}  {text}", file=sys.stderr, flush=True)


def _line(sample: Sample) -> str:
    held = ", ".join(f"{each.name} {each.own >> 20}" for each in sample.processes)
    if not sample.metrics:
        return f"control does not answer; own MiB: {held}"
    rows = {name: int(value) for name, value in sample.metrics.items()}
    return (
        f"received {rows['received']:,}, stored {rows['stored']:,}, waiting {rows['backlog']:,},"
        f" declared {rows['missing']:,}; own MiB: {held}"
    )


def _stop(number: int, _: FrameType | None) -> None:
    """Once in order; the next one as always."""
    again = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    signal.signal(number, again)
    raise Stopped
