"""The simulated venues of a run, each in a process of its own, on schedule and with a ledger."""

import json
import subprocess
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, NamedTuple

from bench.flow.setups import Setup
from control.cli.commands.demo import demo_streams
from control.proof.simulator import SimulatorError, SimulatorProcess
from engine.data.names import StreamKey
from engine.messages.settings import VenueSettings
from shards.venues import VENUES

_IDLE_SPEED: Final = 0.05
"""Of books that nobody listens to."""
_FASTEST: Final = 100.0
_FIRST_RATE_MAX: Final = 5_000
"""Trades a second of a simulator at the start: who has a thousand symbols cannot send as many as
each of ten has.
"""


class MarketLook(NamedTuple):
    """All simulators at one moment."""

    sent_rows: int
    """That somebody got, so far."""
    sent_levels: int
    """Those of books among them."""
    late_s: float
    """How far the latest is behind its schedule."""
    unread_bytes: int
    """Of what was sent: in their buffers and in the kernel's."""


class Market:
    """All simulators of one run."""

    def __init__(self, setup: Setup, directory: Path) -> None:
        """Start them. Raises SimulatorError."""
        self._setup = setup
        self._step_rows = 0.0
        """Levels a second that the books of one simulator make at speed 1; 0 while unknown."""
        self.certificate = _certificate(directory) if setup.tls else None
        tls = [] if self.certificate is None else ["--certificate", str(self.certificate)]
        self.simulators: dict[str, SimulatorProcess] = {}
        self.ledgers: dict[str, Path] = {}
        for venue in setup.venues:
            ledger = self.ledgers[venue] = directory / f"ledger-{venue}"
            self.simulators[venue] = SimulatorProcess(
                ["--port", "0", "--venues", venue, "--symbols", str(setup.symbols),
                 "--rate", str(min(100 * setup.symbols, _FIRST_RATE_MAX)), "--on-schedule",
                 "--ledger", str(ledger), "--ledger-in-sums", *tls]
            )  # fmt: skip

    def streams(self) -> list[StreamKey]:
        """What an engine is to collect."""
        keys = [key for venue in self.ledgers for key in demo_streams(self._setup.symbols, venue)]
        return [key for key in keys if key.kind in self._setup.kinds]

    def venues(self) -> dict[str, VenueSettings]:
        """Where each venue is; those that are not simulated are nowhere, so that nobody real is
        asked what it lists.
        """
        found: dict[str, VenueSettings] = {}
        for simulator in self.simulators.values():
            found |= simulator.venues()
        at = f"127.0.0.1:{next(iter(self.simulators.values())).port}/nowhere"
        nowhere = VenueSettings(rest_url=f"http://{at}", ws_url=f"ws://{at}")
        return dict.fromkeys(VENUES, nowhere) | found

    def pids(self) -> list[int]:
        """Of the simulators."""
        return [simulator.pid for simulator in self.simulators.values()]

    def look(self) -> MarketLook:
        """How far it is."""
        statuses = [simulator.status() for simulator in self.simulators.values()]
        unread = sum(simulator.unread_bytes() for simulator in self.simulators.values())
        return MarketLook(
            sum(sum(each["sent"].values()) for each in statuses),
            sum(each["sent"]["book"] for each in statuses),
            max(each["late_ms"] for each in statuses) / 1e3,
            unread + sum(each["buffered_bytes"] for each in statuses),
        )

    def set_rate(self, rows_per_s: float) -> float:
        """Have so many rows happen each second from now on; returns how many there will be: books
        cannot move as fast as anybody likes.
        """
        each = rows_per_s / len(self.simulators)
        trades, levels = each * self._setup.trade_part, each * (1 - self._setup.trade_part)
        speed = _IDLE_SPEED
        if levels:
            assert self._step_rows, "learn what a step of the books has first"
            speed = min(_FASTEST, levels / self._step_rows)
            levels = speed * self._step_rows
        self._tell("/simulator/rate", {"trades_per_s": trades, "book_speed": speed})
        return (trades + levels) * len(self.simulators)

    def learn(self, levels: int, seconds: float) -> None:
        """What the books of all simulators made at speed 1."""
        self._step_rows = levels / seconds / len(self.simulators)

    def pause(self, timeout_s: float) -> None:
        """Nothing happens any more; what was sent is on its way and in the ledgers."""
        for simulator in self.simulators.values():
            simulator.pause(timeout_s)

    def resume(self) -> None:
        """Go on."""
        self._tell("/simulator/resume", {})

    def stop(self) -> None:
        """End them."""
        for simulator in self.simulators.values():
            simulator.stop()

    def _tell(self, path: str, body: dict[str, float]) -> None:
        for venue, simulator in self.simulators.items():
            connection = HTTPConnection("127.0.0.1", simulator.port, timeout=60)
            try:
                connection.request("POST", path, json.dumps(body))
                answer = connection.getresponse()
                said = answer.read()
            except (OSError, HTTPException) as error:
                raise SimulatorError(
                    f"the simulator of {venue} does not answer: {error}"
                ) from error
            finally:
                connection.close()
            if answer.status != 200:
                raise SimulatorError(f"the simulator of {venue} refuses {body}: {said!r}")


def _certificate(directory: Path) -> Path:
    """One that nobody has signed, with its key: who is to trust it is told so."""
    file = directory / "certificate.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
        "subjectAltName=IP:127.0.0.1", "-keyout", str(file), "-out", f"{file}.crt",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    with file.open("ab") as whole:
        whole.write(Path(f"{file}.crt").read_bytes())
    return file
