"""The simulator as a child of the demo: started, asked, paused, and gone when the demo is."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from control.proof.limits_used import LimitsUsed
from engine.base import signals
from engine.base.errors import EngineError
from engine.messages.settings import VenueSettings
from engine.process.release import OURS

_STOP_TIMEOUT_S = 2.0
_TCP_SOCKETS = Path("/proc/net/tcp")
"""Sizes of their queues are in its column `tx_queue:rx_queue` (man 5 proc)."""


class SimulatorError(EngineError):
    """The simulator did not start, or does not answer."""


class SimulatorProcess:
    """A running simulator. It also leaves when its standard input ends, i.e. when we die."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start it and wait for its addresses. Raises SimulatorError."""
        with signals.held_back():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "shards.simulator", *arguments, "--exit-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=OURS.environment(),
                process_group=0,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            self._listening: dict[str, Any] = json.loads(line)
        except ValueError as error:
            self.stop()
            raise SimulatorError("the venue simulator did not start (see above)") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it is asked and told what no venue would be."""
        return int(self._listening["port"])

    def venues(self) -> dict[str, VenueSettings]:
        """Where each venue is."""
        return {
            name: VenueSettings(rest_url=urls["rest_url"], ws_url=urls["ws_url"])
            for name, urls in self._listening.items()
            if isinstance(urls, dict)
        }

    def status(self) -> dict[str, Any]:
        """What it has sent so far. Blocking; raises SimulatorError."""
        return self._ask("GET", "/simulator/status", timeout_s=5.0)

    def limits(self) -> LimitsUsed:
        """What its clients have used of each venue's limits. Blocking; raises SimulatorError."""
        return LimitsUsed(self._ask("GET", "/simulator/limits", timeout_s=30.0))

    def pause(self, timeout_s: float) -> dict[str, Any]:
        """Stop the market and return what was sent, all of it on its way. Blocking."""
        return self._ask("POST", "/simulator/pause", timeout_s)

    def unread_bytes(self) -> int:
        """What it wrote to sockets and their readers have not taken: it waits in the kernel."""
        ports = {urlsplit(venue.ws_url or "").port or 0 for venue in self.venues().values()}
        here = tuple(f":{port:04X}" for port in ports)
        unread = 0
        with _TCP_SOCKETS.open(encoding="ascii") as lines:
            next(lines)
            for line in lines:
                _, local, remote, _, queues, *_ = line.split()
                to_send, received = (int(size, 16) for size in queues.split(":"))
                unread += to_send * local.endswith(here) + received * remote.endswith(here)
        return unread

    def stop(self) -> None:
        """End it."""
        process = self._process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, method: str, path: str, timeout_s: float) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError) as error:
            raise SimulatorError(f"the venue simulator does not answer: {error}") from error
        finally:
            connection.close()
        return answer
