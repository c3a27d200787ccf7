"""Simulators and an engine at work, and what is asked of them: whether a rate is held, what a row
costs, how late it is, and where every row has gone.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from bench.flow import processes
from bench.flow.database import own_database, row_bytes
from bench.flow.engine import Engine
from bench.flow.market import Market, MarketLook
from bench.flow.search import Plan, Probe, highest
from bench.flow.setups import DATABASE, Setup
from bench.progress import say
from control.proof.ledger_check import LedgerCheck
from control.proof.verdict import Verdict, total
from engine.base.clock import monotonic_s
from engine.data.layout import open_layout

_LOOK_S: Final = 0.5
_WARM_S: Final = 1.5
"""Until a new rate is in everything that is counted."""
_LAG_GROWS_S: Final = 0.6
_LAG_PART: Final = 0.02
"""A lag that grows by more than 0.6 s and 2 % of the time is one that has no end."""
_LAG_S_MAX: Final = 4.0
"""Nobody has to wait until all of a probe is over to know."""
_LATE_S_MAX: Final = 1.0
_SETTLE_S_MAX: Final = 240.0
_STABLE_LOOKS: Final = 6
_LEARN_S: Final = 3.0
_LOST: Final = (
    ("fts_shards_gaps_total", ""), ("fts_shards_refused_rows_total", ""),
    ("fts_writer_dropped_rows_total", ""), ("fts_writer_database_rows_total", "lost"),
    ("fts_writer_database_rows_total", "quarantined"),
)  # fmt: skip
_STORED: Final = ("fts_writer_database_rows_total", "stored")


@dataclass(frozen=True, slots=True)
class Look:
    """How far everybody is at one moment."""

    at_s: float
    market: MarketLook
    stored: int
    declared: int
    """Rows that are known to be lost, and gaps of which nobody knows how many they are."""
    backlog: int
    """Rows that wait in ring and journal."""

    @property
    def sent(self) -> int:
        """Rows that the simulators have sent."""
        return self.market.sent_rows

    @property
    def late_s(self) -> float:
        """How far they are behind their schedule."""
        return self.market.late_s


@dataclass(slots=True)
class Usage:
    """What a span of time took, by process."""

    seconds: float = 0.0
    rows: int = 0
    """Sent, and stored a moment later."""
    levels: int = 0
    """Those of books among them."""
    cpu_s: dict[str, float] = field(default_factory=dict)

    def per_row_us(self) -> dict[str, float]:
        """CPU time a row."""
        return {role: round(each / max(self.rows, 1) * 1e6, 4) for role, each in self.cpu_s.items()}


class Rig:
    """One engine from start to end."""

    def __init__(
        self, setup: Setup, market: Market, engine: Engine, plan: Plan, database_url: str | None
    ) -> None:
        self.setup, self.market, self.engine = setup, market, engine
        self.usage = Usage()
        """Of the last probe."""
        self._plan = plan
        self._url = database_url
        self._offset = 0

    @cached_property
    def url(self) -> str:
        """Of the database."""
        return self._url or self.engine.note.database

    @cached_property
    def search(self) -> list[Probe]:
        """The search for the highest rate that is held; its last probe is that of the rate."""
        return highest(self.probe, self._plan)

    def begin(self) -> None:
        """Learn how many levels the books have, and come to rest."""
        self.engine.wait_until_live()
        if self.setup.trade_part < 1:
            before, began_s = self.market.look().sent_levels, monotonic_s()
            time.sleep(_LEARN_S)
            made = self.market.look().sent_levels - before
            self.market.learn(made, monotonic_s() - began_s)
        self.settle()

    def look(self) -> Look:
        """Ask simulators and engine."""
        metrics, market = self.engine.metrics(), self.market.look()
        declared = int(sum(metrics[each] for each in _LOST))
        backlog = int(metrics["fts_writer_backlog_rows", ""])
        return Look(monotonic_s(), market, int(metrics[_STORED]), declared, backlog)

    def lag_s(self, look: Look, rows_per_s: float) -> float:
        """How much of a rate is under way, in its seconds."""
        return (look.sent - look.stored - self._offset) / rows_per_s + look.late_s

    def probe(self, rows_per_s: float, seconds: float) -> Probe:
        """Whether a rate is held: all of it sent, nothing declared, no lag that grows."""
        asked = rows_per_s
        rows_per_s = self.wake(asked)
        time.sleep(_WARM_S)
        looks = [self.look()]
        roles, before = self._cpu()
        while looks[-1].at_s - looks[0].at_s < seconds:
            time.sleep(_LOOK_S)
            looks.append(self.look())
            if self.lag_s(looks[-1], rows_per_s) > _LAG_S_MAX:
                break
        self._note_usage(looks, roles, before)
        probe = self._judged(looks, asked, rows_per_s)
        word = "held" if probe.held else probe.why
        say(f"  {self.setup.name}: {asked:10,.0f} rows/s for {probe.seconds:4.0f} s: {word}")
        if not probe.held:
            self.settle()
        return probe

    def _judged(self, looks: Sequence[Look], asked: float, rows_per_s: float) -> Probe:
        first, last = looks[0], looks[-1]
        seconds = last.at_s - first.at_s
        lags_s = [self.lag_s(look, rows_per_s) for look in looks]
        third = max(1, len(lags_s) // 3)
        grown_s = median(lags_s[-third:]) - median(lags_s[:third])
        why = ""
        if last.declared > first.declared:
            why = "rows were declared lost"
        elif last.late_s > _LATE_S_MAX or rows_per_s < 0.99 * asked:
            why = "the simulators cannot send so fast"
        elif grown_s > max(_LAG_GROWS_S, _LAG_PART * seconds) or lags_s[-1] > _LAG_S_MAX:
            why = f"the lag grows ({grown_s:+.1f} s)"
        stored_per_s = (last.stored - first.stored) / max(seconds, 1e-9)
        return Probe(asked, round(seconds, 1), not why, why, stored_per_s, round(grown_s, 3))

    def _cpu(self) -> tuple[dict[str, list[psutil.Process]], dict[str, float]]:
        roles = processes.by_role(self.engine.pid, {"simulator": self.market.pids()})
        return roles, processes.cpu_s(roles)

    def _note_usage(
        self,
        looks: Sequence[Look],
        roles: dict[str, list[psutil.Process]],
        before: dict[str, float],
    ) -> None:
        after, first, last = processes.cpu_s(roles), looks[0], looks[-1]
        self.usage = Usage(
            last.at_s - first.at_s,
            last.sent - first.sent,
            last.market.sent_levels - first.market.sent_levels,
            {role: after[role] - before.get(role, 0.0) for role in after},
        )

    def rows_per_message(self) -> float:
        """Of all that came so far."""
        metrics = self.engine.metrics()
        frames = metrics["fts_shards_frames_total", ""]
        return metrics["fts_shards_rows_total", ""] / max(frames, 1)

    def pss_mb(self) -> dict[str, float]:
        """Memory now, by process."""
        return processes.pss_mb(self._cpu()[0])

    def settle(self) -> None:
        """Stop the market, and wait until all that was sent is stored or declared."""
        self.market.pause(_SETTLE_S_MAX)
        ends_s, stored = monotonic_s() + _SETTLE_S_MAX, [-1]
        while len(stored) < _STABLE_LOOKS or len(set(stored[-_STABLE_LOOKS:])) > 1:
            if monotonic_s() > ends_s:
                raise TimeoutError(f"the engine does not come to rest:\n{self.engine.log()}")
            time.sleep(_LOOK_S / 2)
            metrics = self.engine.metrics()
            waits = metrics["fts_writer_backlog_rows", ""] or self.market.look().unread_bytes
            stored = [-1] if waits else [*stored, int(metrics[_STORED])]
        look = self.look()
        self._offset = look.sent - look.stored

    def wake(self, rows_per_s: float) -> float:
        """Let the market go on; returns the rate that it can have."""
        possible = self.market.set_rate(rows_per_s)
        self.market.resume()
        return possible

    def equation(self, patience_s: float = 30.0) -> Verdict:
        """Where every row of every simulator has gone, by its ledger and the database. A process
        that gets no CPU looks as if it had nothing to do, so what is missing is looked for again.
        """
        self.settle()
        ends_s = monotonic_s() + patience_s
        while not (found := self._compared()).is_equal and monotonic_s() < ends_s:
            time.sleep(_LOOK_S)
        return found

    def _compared(self) -> Verdict:
        found: list[Verdict] = []
        for venue, ledger in self.market.ledgers.items():
            check = LedgerCheck(ledger, self.url)
            found += check.by_venue.get(venue, {}).values()
        return total(found)

    def row_bytes(self) -> dict[str, float]:
        """What a row takes in the database, by table."""
        return {table: row_bytes(self.url, table) for table in self.setup.tables}


@contextmanager
def running(setup: Setup, plan: Plan) -> Iterator[Rig]:
    """A rig on a directory of its own, which is gone afterwards. An engine that does not end in
    order, with every row accounted for, raises EngineFailedError.
    """
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="fts-bench-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o711)  # the private server may have an account of its own
        market = Market(setup, directory)
        stack.callback(market.stop)
        given = os.environ.get(DATABASE)
        url = stack.enter_context(own_database(given)) if given else None
        say(f"  {setup.name}: an engine starts")
        trusted = {"SSL_CERT_FILE": str(market.certificate)} if market.certificate else {}
        engine = Engine(setup, market, directory, url, trusted)
        stack.callback(_remove_rings, engine.state_dir)
        stack.callback(engine.kill)
        rig = Rig(setup, market, engine, plan, url)
        rig.begin()
        yield rig
        engine.stop()


def _remove_rings(state_dir: Path) -> None:
    """What a killed engine leaves in shared memory, as it should."""
    if state_dir.exists():
        shutil.rmtree(open_layout(state_dir).shm_dir, ignore_errors=True)
