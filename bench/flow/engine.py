"""`fts up` in processes of its own, asked only what anybody may ask it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from bench.flow.committed import SERVER_SETTING
from bench.flow.market import Market
from bench.flow.setups import Setup
from engine.data.layout import open_layout
from engine.data.names import CARRIES
from engine.process import instance

_ROOT: Final = Path(__file__).resolve().parents[2]
_START_S_MAX: Final = 180.0
_STOP_S_MAX: Final = 180.0
_LOOK_S: Final = 0.25
_RING_RECORDS: Final = 1 << 20
"""For rates at which what streams usually get would hold a fraction of a second."""


class EngineFailedError(Exception):
    """It did not start, or did not end in order."""


class Engine:
    """A running engine on a directory of its own."""

    def __init__(
        self, setup: Setup, market: Market, directory: Path, database_url: str | None,
        environment: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Start it; `wait_until_live` waits. Without a URL it brings a database of its own."""
        self.state_dir = directory / "state"
        self._log = directory / "log"
        config = directory / "fts.toml"
        config.write_text(_toml(setup, market), encoding="utf-8")
        self._stream_count = len(market.streams())
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("FTS_")}
        given = {} if database_url is None else {"FTS_DATABASE_URL": database_url}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "control.cli.main", "up", "--config", str(config),
                 "--port", "0", "--json", "--state-dir", str(self.state_dir),
                 *([] if setup.redis else ["--no-redis"])],
                cwd=_ROOT, env={**inherited, **given, **environment}, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, process_group=0,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of its supervisor."""
        return self._process.pid

    @property
    def note(self) -> instance.EngineNote:
        """Where it is."""
        note = instance.read_note(open_layout(self.state_dir))
        assert note is not None
        return note

    def wait_until_live(self) -> None:
        """Until every stream delivers. Raises EngineFailedError."""
        ends_s = time.monotonic() + _START_S_MAX  # noqa: TID251
        while time.monotonic() < ends_s:  # noqa: TID251
            if self._process.poll() is not None:
                raise EngineFailedError(f"the engine ended at its start:\n{self.log()}")
            if (
                self.state_dir / "engine.json"
            ).exists() and self.live_streams() == self._stream_count:
                return
            time.sleep(_LOOK_S)
        raise EngineFailedError(f"not every stream delivers:\n{self.log()}")

    @property
    def stream_count(self) -> int:
        """How many it is to collect."""
        return self._stream_count

    def live_streams(self) -> int:
        """How many deliver; 0 while it cannot be asked."""
        try:
            return int(self.metrics()["fts_engine_streams", "live"])
        except (OSError, HTTPException, EngineFailedError):
            return 0

    def metrics(self) -> Counter[tuple[str, str]]:
        """Sums over other labels, by name and the label `state`, else `sink` ("" without both)."""
        connection = HTTPConnection(urlsplit(self.note.control_url).netloc, timeout=30)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise EngineFailedError(text)
        found: Counter[tuple[str, str]] = Counter()
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                key = each.labels.get("state") or each.labels.get("sink", "")
                found[each.name, key] += each.value  # type: ignore[assignment]
        return found

    def stop(self) -> dict[str, Any]:
        """Have it drain and end; its own summary. Raises EngineFailedError."""
        self._process.send_signal(signal.SIGTERM)
        try:
            said, _ = self._process.communicate(timeout=_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise EngineFailedError(f"the engine did not end:\n{self.log()}") from None
        if self._process.returncode:
            raise EngineFailedError(f"exit code {self._process.returncode}:\n{self.log()}")
        return dict(json.loads(said.splitlines()[-1]))

    def kill(self) -> None:
        """End it in whatever way. Its children end with their pipes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _toml(setup: Setup, market: Market) -> str:
    kinds = sorted({kind for key in market.streams() for kind in CARRIES[key.kind]})
    parts = ["[database]", f"private_settings = {{ {SERVER_SETTING} = 'on' }}", "[shards]"]
    parts += [f"ring_records.{kind} = {_RING_RECORDS}" for kind in kinds]
    if setup.shards:
        cpus = sorted(os.sched_getaffinity(0))[-setup.shards :]
        parts += [f"cpus = {cpus}"]
    for name, venue in market.venues().items():
        parts += [
            f"[venues.{name}]",
            f"rest_url = '{venue.rest_url}'",
            f"ws_url = '{venue.ws_url}'",
        ]
    for key in market.streams():
        parts += ["[[streams]]", f"venue = '{key.venue}'", f"symbols = ['{key.symbol}']"]
        parts += [f"kinds = ['{key.kind}']", f"transport = '{key.transport}'"]
    return "\n".join(parts) + "\n"
