"""The engine of the first hour: started, asked and ended as the page says."""

import os
import shutil
import signal
import sys
from pathlib import Path

import psutil
from psycopg.conninfo import conninfo_to_dict

from control.proof.simulator import SimulatorProcess
from engine.data.layout import open_layout
from engine.process import instance
from engine.process.instance import EngineNote
from engine.servers.postgres import client_program
from tests.flow.processes import ROOT, Fts
from tests.flow.rig import remove_shared_memory
from tests.pages import blocks

FIRST_HOUR = "docs/first-hour.md"
_SCRIPTS = {
    "fts": f'exec {sys.executable} -P -m control.cli.main "$@"',
    "curl": f'exec {shutil.which("curl")} -sS --fail-with-body "$@"',
}
"""What the pages' commands are here."""


class Hour:
    """One engine, started and ended as the first hour's page says, and who asks it."""

    def __init__(self, parent: Path) -> None:
        self._simulator = SimulatorProcess(["--port", "0", "--rate", "300", "--symbols", "3"])
        self.parent = parent
        self._engine: Fts | None = None
        self.state_dir = parent / "state"
        self.environment = {"FTS_STATE_DIR": str(self.state_dir)}
        (parent / "bin").mkdir()
        for name, script in _SCRIPTS.items():
            program = parent / "bin" / name
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)

    def up(self, configuration: str) -> None:
        """`fts up` until every stream is live."""
        config = self.parent / "with_addresses.toml"
        addresses = "".join(
            f"[venues.{name}]\nrest_url = '{venue.rest_url}'\nws_url = '{venue.ws_url}'\n"
            for name, venue in self._simulator.venues().items()
        )
        config.write_text(configuration + addresses, encoding="utf-8")
        self._engine = Fts("up", "--config", str(config), "--port", "0", **self.environment)
        self._engine.wait_for("control is ready")
        self._engine.wait_for("green (")

    def shell_environment(self, *, is_ours: bool) -> dict[str, str]:
        """With our commands first on the path, then PostgreSQL's own, which know the database by
        its address or, as libpq has it, by parts of that.
        """
        psql = client_program()
        assert psql is not None
        folders = [str(self.parent / "bin"), str(psql.parent), os.environ["PATH"]]
        shared = {**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)}
        if is_ours:
            return shared | self.environment
        parts = conninfo_to_dict(self.note.database)
        here = {"PGHOST": str(parts["host"]), "PGUSER": str(parts["user"])}
        return shared | here | {"FTS_DATABASE_URL": self.note.database}

    def must_run(self) -> None:
        """Where the first hour was not gone through, begin at its end."""
        if self._engine is None:
            self.up("".join(block.text for block in blocks(FIRST_HOUR, "toml")))

    @property
    def note(self) -> EngineNote:
        """Where it answers, and its private servers do."""
        note = instance.read_note(open_layout(self.state_dir))
        assert note is not None
        return note

    def end(self) -> None:
        """Ctrl-C: all that was received is stored or declared."""
        assert self._engine is not None
        self._engine.signal(signal.SIGINT)
        code, output = self._engine.end()
        assert code == 0, output + self._engine.log
        self._engine = None

    def close(self) -> None:
        """End what still runs."""
        if self._engine is not None:
            below = self._engine.descendants()
            self._engine.kill()
            psutil.wait_procs(below, timeout=60)
        self._simulator.stop()
        remove_shared_memory(self.state_dir)
        shutil.rmtree(self.parent)
