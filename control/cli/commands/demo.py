"""`fts demo`: the whole engine against the bundled venue simulator, with proof at the end."""

import argparse
import asyncio
import contextlib
import logging
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from control.cli.ending import Ending
from control.cli.exits import Exit
from control.cli.ground import Ground, ServiceOptions
from control.cli.options import add_service, example_streams, load
from control.cli.service import Look, Outcome, interruptible, run_service
from control.cli.stores.which import psql_command
from control.cli.terminal.proof_table import proof_lines, unequal_lines
from control.cli.terminal.summary import engine_summary, latency_lines, received_text
from control.proof.ledger_check import LedgerCheck
from control.proof.simulator import SimulatorProcess
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import ConfigError
from engine.data.layout import usable
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.settings import VenueSettings
from engine.messages.status import EngineStatus
from engine.messages.writer import LIVE_TITLES
from engine.start.config import LoadedConfig
from shards.simulator.settings import parse_rate
from shards.simulator.venues import USUAL, chosen
from shards.venues import VENUES
from shards.venues.kit import capabilities

_log = logging.getLogger(__name__)

_EPILOG = f"""\
examples:
  fts demo                                  until Ctrl-C, with a live view; then the proof
  fts demo --for 15 --rate 20000 --json     a proof: exit code 0 only if nothing is missing
  fts demo --for 15 --rate max              how fast is this machine?
  fts demo --all-kinds --symbols 2          quotes, funding, open interest, liquidations as well
  fts demo --venues all --symbols 2         every venue there is
  fts demo --venues all --enforce-limits    what is used of the venues' limits; above is refused

While it runs, the database and the {LIVE_TITLES} keys printed at start hold live data. \
The demo has a state
directory of its own and empties it at every start; what a run stored stays until the next one, and
`fts psql` reads it. A run without end is proven by counts and sums, which take no room; with
--all-kinds its ledger grows by a few MB an hour.
"""

_ADVICE = (
    "A run without end is proven by counts and sums alone: run with --for SECONDS to have every row"
    " compared."
)
_PLAIN = ((StreamKind.TRADES, Transport.WS), (StreamKind.L2_BOOK, Transport.WS))
_STABLE_LOOKS = 6
_LOOK_S = 0.2
_SETTLE_S_MAX = 60.0
_SETTLE_HURRIED_S_MAX = 20.0
"""After Ctrl-C. It takes a second or two where nothing waits; once more ends it at once."""


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts demo`."""
    parser = commands.add_parser(
        "demo",
        help="try it: the same engine against a simulated venue, no network needed",
        description="Runs the engine against the bundled simulator and checks what was stored.",
        epilog=_EPILOG,
    )
    add_service(parser)
    parser.add_argument(
        "--rate",
        type=_rate,
        default="2000",
        metavar="N|max",
        help="trades a second over all instruments, books beside them (default: 2000)",
    )
    parser.add_argument(
        "--venues",
        type=_venues,
        default="",
        metavar="LIST|all",
        help=f"names with commas between them (default: {','.join(USUAL)})",
    )
    parser.add_argument(
        "--symbols",
        type=_count,
        default=5,
        metavar="N",
        help="instruments at each venue (default: 5)",
    )
    parser.add_argument(
        "--all-kinds",
        action="store_true",
        help="everything the venues offer, pushed and polled, not just trades and books",
    )
    parser.add_argument(
        "--enforce-limits",
        action="store_true",
        help="refuse what is above the venues' limits, and say what was used of each",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="same seed, same market")
    parser.set_defaults(run=run, port=0)  # a free one, whatever is configured


class Demo:
    """All instruments of a simulator of our own; a bounded run is compared with its ledger."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._rate, self._symbols, self._seed = options.rate, options.symbols, options.seed
        self._venues: str = options.venues
        self._all_kinds: bool = options.all_kinds
        self._limits: list[str] = ["--enforce-limits"] if options.enforce_limits else []
        self._simulator: SimulatorProcess | None = None
        self._ledger_dir: Path | None = None
        self._sent: dict[str, int] = {}
        self._settled_ns = 0

    def streams(self, loaded: LoadedConfig) -> list[StreamKey]:
        """Of the simulator, whatever is configured."""
        del loaded
        return demo_streams(self._symbols, self._venues, all_kinds=self._all_kinds)

    def prepare(self, ground: Ground, stack: contextlib.ExitStack) -> dict[str, VenueSettings]:
        """Start the simulator. The ledger of a run without end has sums in place of most rows: they
        would grow for ever.
        """
        if note := streams_note(ground.options.loaded):
            _log.warning(note)
        arguments = ["--port", "0", "--rate", self._rate, "--venues", self._venues]
        arguments += ["--symbols", str(self._symbols), "--seed", str(self._seed), *self._limits]
        if "database" in ground.urls:
            self._ledger_dir = ground.layout.state_dir / "ledger"
            arguments += ["--ledger", str(self._ledger_dir)]
            arguments += ["--ledger-in-sums"] if ground.options.run_s is None else []
        self._simulator = SimulatorProcess(arguments)
        stack.callback(self._simulator.stop)
        overrides = self._simulator.venues()
        configured = ground.options.loaded.config.venues
        return {
            name: msgspec.structs.replace(
                configured.get(name, VenueSettings()), rest_url=at.rest_url, ws_url=at.ws_url
            )
            for name, at in overrides.items()
        }

    async def before_drain(self, look: Look, *, hurried: bool) -> None:
        """Stop the market, then wait until what it sent has arrived and is stored."""
        assert self._simulator is not None
        settle_s_max = _SETTLE_HURRIED_S_MAX if hurried else _SETTLE_S_MAX
        pause = asyncio.to_thread(self._simulator.pause, settle_s_max)
        self._sent = (await pause)["sent"]
        ends_s = monotonic_s() + settle_s_max
        before, stable, unread_s = 0, 0, monotonic_s()
        while stable < _STABLE_LOOKS and monotonic_s() < ends_s:
            await asyncio.sleep(_LOOK_S)
            now_s = monotonic_s()
            if await asyncio.to_thread(self._simulator.unread_bytes):
                unread_s = now_s
            status = look()
            # What is polled goes on coming; it is proven up to where the shards end.
            pushed = sum(each.row_count for each in status.streams if each.transport == "Ws")
            waits = any(database.backlog_rows for database in status.writer.databases)
            # A process that gets no CPU says nothing new, however much lies in its sockets.
            writer = status.writer
            said = [(writer.child, writer.taken_s), *((s.child, s.taken_s) for s in status.shards)]
            mute = any(at_s <= unread_s for child, at_s in said if child.state == "up")
            stable = 0 if waits or mute or pushed != before else stable + 1
            if pushed != before:
                before, self._settled_ns = pushed, wall_ns()

    def after_drain(self, ground: Ground, status: EngineStatus, delivered: bool) -> Outcome:
        """Compare with the ledger where there is one, else with the simulator's counters."""
        ending = Ending.of(status, delivered=delivered)
        summary = engine_summary(status, ending) | {"delivered": delivered}
        if self._ledger_dir is None:
            summary["sent"] = sum(self._sent.values())
            return Outcome(ending.exit_code, summary, short_text(summary, ending))
        if not sum(self._sent.values()):
            return Outcome(ending.exit_code, summary, "stopped before anything was sent")
        assert self._simulator is not None
        self._simulator.pause(_SETTLE_S_MAX)  # polls were answered, and noted, until the drain
        # A comparison holds up the loop and its signals: a second one ends it all the same.
        with interruptible(signal.SIGINT, signal.SIGTERM):
            check = LedgerCheck(self._ledger_dir, ground.urls["database"].reveal())
        found = check.total
        summary["ledger"] = check.verdicts
        summary |= {"ledger_by_venue": check.by_venue, "gaps_by_venue": check.gaps}
        summary["unequal"] = [each.to_json() for each in check.unequal]
        summary["rates"] = self._stored_rates(check, status)
        summary |= asdict(found) | {"rest_snapshot_rows": check.rest_snapshot_rows}
        limits = self._note_limits(summary)
        fine = found.sent > 0 and found.is_equal and not ending.problem
        fine = fine and not summary.get("limits_exceeded")
        summary["ok"] = fine
        summary["by_sums"] = ground.options.run_s is None
        read = f"read it with: {psql_command(ground.layout.state_dir)}"
        table = [*proof_lines(check.by_venue, check.gaps), *unequal_lines(check.unequal)]
        text = "\n".join([_proof_text(summary, status, ending), *table, *limits, read])
        return Outcome(Exit.OK if fine else Exit.FAILED, summary, text)

    def _note_limits(self, summary: dict[str, Any]) -> list[str]:
        """Put what was used of the venues' limits into the summary, and into words."""
        if not self._limits:
            return []
        assert self._simulator is not None
        used = self._simulator.limits()
        summary |= {"limits": used.by_venue, "limits_exceeded": used.exceeded}
        return list(used.lines())

    def _stored_rates(self, check: LedgerCheck, status: EngineStatus) -> dict[str, float | None]:
        """From the first row received to the last row committed, start and stop left out; nothing
        where no row was.
        """
        if not check.first_recv_ns:
            return dict.fromkeys(("seconds", "trades_per_s", "levels_per_s"))
        seconds = max(self._settled_ns - check.first_recv_ns, 1) / 1e9
        stored = status.writer.database.rows
        return {
            "seconds": round(seconds, 2),
            "trades_per_s": round(stored.get("trade", 0) / seconds),
            "levels_per_s": round(stored.get("book", 0) / seconds),
        }


def demo_streams(symbols: int, venues: str = "", *, all_kinds: bool = False) -> list[StreamKey]:
    """Trades and books, or everything, of a simulator's instruments, `symbols` at each venue."""
    encoders = [encoder() for encoder in chosen(venues)]
    names = [(each.name, grid.symbol) for each in encoders for grid in each.grids(symbols)]
    return [
        StreamKey(venue, symbol, kind, transport)
        for venue, symbol in names
        for kind, transport in (capabilities(VENUES[venue]) if all_kinds else _PLAIN)
    ]


def run(options: argparse.Namespace) -> int:
    """Run the demo; exit code 0 only if everything that was sent is where it should be."""
    loaded = _own_state_dir(load(options), options.state_dir is not None)
    rows_s = parse_rate(options.rate)
    service = ServiceOptions.of(options, loaded, fresh=True, rows_s=rows_s)
    return run_service(service, Demo(options))


def _own_state_dir(loaded: LoadedConfig, chosen: bool) -> LoadedConfig:
    """A demo empties its state directory, so it must never be given one with real data."""
    if not chosen:
        loaded = loaded.with_state_dir(loaded.state_dir / "demo")
    with usable(loaded.state_dir):
        marker = loaded.state_dir / "this-is-a-demo"
        if marker.exists():
            return loaded
        if loaded.state_dir.exists() and any(loaded.state_dir.iterdir()):
            raise ConfigError(
                f"{loaded.state_dir} is not empty and not a demo's; the demo empties its state"
                " directory, so give it one of its own with --state-dir"
            )
        loaded.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker.touch()
    return loaded


def streams_note(loaded: LoadedConfig) -> str:
    """What to say of streams in the configuration, which may not exist in the simulated market."""
    if loaded.config.streams == example_streams():
        return ""
    return (
        f"{loaded.source}: [[streams]] is for `fts up`; the demo collects the instruments of its"
        " simulator (--symbols, --all-kinds)"
    )


def short_text(summary: dict[str, Any], ending: Ending) -> str:
    """The last lines of a run that is not compared with a ledger, and why it was not."""
    advice = "Nothing was compared with the simulator's ledger: that takes a database."
    received = received_text(summary, ending)
    numbers = (
        f"sent {summary['sent']:,} rows, {received}, published {summary['published']:,},"
        f" gaps {summary['gaps']:,}"
    )
    return "\n".join([numbers, *ending.lines(), advice])


def _proof_text(summary: dict[str, Any], status: EngineStatus, ending: Ending) -> str:
    equation = (
        f"sent {summary['sent']:,} = stored {summary['stored']:,}"
        f" + declared missing {summary['declared_missing']:,}"
    )
    faults = ", ".join(f"{name} {summary[name]:,}" for name in ("duplicates", "missing", "altered"))
    lines = [
        f"{'PROVEN' if summary['ok'] else 'FAILED'}: {equation}; {faults}",
        ending.equation(),
        *ending.lines(),
        *([_ADVICE] if summary["by_sums"] and not summary["ok"] else []),
        f"{_rates_text(summary['rates'])}; published {summary['published']:,},"
        f" dropped {summary['dropped']:,}, overrun in {LIVE_TITLES} {summary['overrun']:,}",
        *latency_lines(status),
    ]
    return "\n".join(lines)


def _rates_text(rates: dict[str, Any]) -> str:
    if rates["seconds"] is None:
        return "stored nothing"
    return (
        f"stored {rates['trades_per_s']:,} trades/s and {rates['levels_per_s']:,} book levels/s"
        f" over {rates['seconds']:,} s"
    )


def _rate(text: str) -> str:
    try:
        parse_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _venues(text: str) -> str:
    try:
        chosen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of instruments (1-1000)")
    return int(text)
