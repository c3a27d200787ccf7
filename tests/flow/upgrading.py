"""`/upgrade` of a running engine, for tests."""

import shutil
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.data.layout import open_layout
from engine.process import instance
from tests.flow.rig import Rig
from tests.waiting import wait_for

_PATIENCE_S = 180.0


class Releases:
    """Environments of the same code side by side, and a link to the one that is to run, as they are
    where a package is installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._link = folder / "current"
        self.use("one")

    @property
    def program(self) -> list[str]:
        """The command that starts what the link leads to."""
        return [str(self._link / "bin" / "fts")]

    def use(self, name: str) -> str:
        """Have the link lead to the release of this name; returns its interpreter."""
        environment, python = self._folder / name, self._folder / name / "bin" / "python"
        if not environment.exists():
            here = Path(sys.prefix)
            python.parent.mkdir(parents=True)
            shutil.copy(here / "pyvenv.cfg", environment)
            (environment / "lib").symlink_to(here / "lib")
            python.symlink_to(sys.executable)
            command = python.with_name("fts")
            start = "from control.cli.main import main\nraise SystemExit(main())\n"
            command.write_text(f"#!{python}\n{start}")
            command.chmod(0o755)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(environment)
        return str(python)


def ask(rig: Rig, method: str) -> dict[str, Any]:
    """One call."""
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    connection = HTTPConnection(urlsplit(note.control_url).netloc, timeout=60)
    connection.request(method, "/upgrade")
    answer: dict[str, Any] = msgspec.json.decode(connection.getresponse().read())
    connection.close()
    return answer


def outcome(rig: Rig) -> dict[str, Any]:
    """The answer when the upgrade that goes on has ended."""

    def ended() -> dict[str, Any] | None:
        try:
            row = ask(rig, "GET")
        except (OSError, HTTPException):
            return None  # the process that answers is being replaced itself
        return row if row["state"] != "running" else None

    return wait_for(ended, "the end of an upgrade", _PATIENCE_S) or {}


def upgraded(rig: Rig) -> dict[str, Any]:
    """Upgrade, and wait for the end."""
    assert ask(rig, "POST")["state"] == "running"
    return outcome(rig)
