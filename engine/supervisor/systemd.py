"""What systemd is told of an engine: ready, alive, how it is, that it stops (sd_notify(3)).

Without the variable `NOTIFY_SOCKET` nothing is said to anybody. "Alive" is said by the supervisor's
own tick: a loop that stands still is silent, and systemd starts it anew.
"""

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

from engine.base.clock import monotonic_s
from engine.messages.status import EngineStatus
from engine.messages.streams import StreamState

_log = logging.getLogger(__name__)

_WORDS_MAX: Final = 400
_ALIVE_SHARE: Final = 0.25
"""Of the silence after which systemd ends us."""


class Systemd:
    """Never waits and never fails: what cannot be said now is said with the next status."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._address = _address(env.get("NOTIFY_SOCKET", ""))
        self._alive_every_s = _alive_every_s(env)
        self._alive_s = 0.0
        self._told: dict[str, str] = {}
        self._is_deaf = False

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._address)

    def tell(self, status: EngineStatus) -> None:
        """Say what is new in `status`, and that the caller is alive."""
        if not self.listens:
            return
        lines = {"STATUS": _words(status)}
        if status.phase == "running":
            lines["READY"] = "1"
        elif status.phase in ("draining", "stopped"):
            lines["STOPPING"] = "1"
        news = {name: text for name, text in lines.items() if self._told.get(name) != text}
        now_s = monotonic_s()
        is_due = self._alive_every_s is not None and now_s - self._alive_s >= self._alive_every_s
        said = {**news, "WATCHDOG": "1"} if is_due else news
        if said and self._send("\n".join(f"{name}={text}" for name, text in said.items())):
            self._told.update(news)
            self._alive_s = now_s if is_due else self._alive_s

    def _send(self, text: str) -> bool:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as link:
                link.sendto(text.encode(), self._address)
        except BlockingIOError:  # it has not read the last ones yet
            return False
        except OSError as error:
            if not self._is_deaf:
                _log.warning(f"systemd does not hear how this engine is: {error.strerror}")
            self._is_deaf = True
            return False
        self._is_deaf = False
        return True


def _address(name: str) -> str:
    """For `sendto`. An `@` begins a name that no file has; other sockets are not spoken to."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _alive_every_s(env: Mapping[str, str]) -> float | None:
    """None where nobody waits for a sign of life, or for that of another process."""
    limit_us, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or (pid and pid != str(os.getpid())):
        return None
    return int(limit_us) / 1e6 * _ALIVE_SHARE


def _words(status: EngineStatus) -> str:
    """One line, for `systemctl status`."""
    live = sum(stream.state is StreamState.LIVE for stream in status.streams)
    said = f"{status.phase}, {status.status}: {live} of {len(status.streams)} streams live"
    reason = " ".join(status.reason.split())
    return (f"{said}; {reason}" if reason else said)[:_WORDS_MAX]
