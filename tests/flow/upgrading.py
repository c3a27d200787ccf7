"""`/upgrade` of a running engine, for tests."""

from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.data.layout import open_layout
from engine.process import instance
from tests.flow.rig import Rig
from tests.waiting import wait_for

_PATIENCE_S = 180.0


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
