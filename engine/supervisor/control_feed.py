"""What the control process is told: the status, and answers each behind one that shows the effect.
Systemd hears the same status.

A status is only sent when the last one is on its way. A control process that stands still gets
none, instead of a queue of them that fills our memory; its answers wait, and go when it ends.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from engine.base.clock import monotonic_s
from engine.messages.control import CommandResult, SystemStatus
from engine.messages.status import EngineStatus
from engine.process.child_keeper import ChildKeeper
from engine.supervisor.systemd import Systemd

_ANSWER_INTERVAL_S: Final = 0.01
"""Commands are answered in bundles, each behind one status: a flood of them costs little."""


class ControlFeed:
    """Use it inside one event loop."""

    def __init__(self, control: ChildKeeper, status: Callable[[], EngineStatus]) -> None:
        self._control = control
        self._status = status
        self._systemd = Systemd()
        self._answers: list[CommandResult] = []
        self._answered_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def tell_status(self) -> bool:
        """Send the status now; False when the control process has not taken the last one yet."""
        takes = self._control.ready.is_set() and not self._control.unsent_bytes
        if takes or self._systemd.listens:
            status = self._status()
            self._systemd.tell(status)
            if takes:
                self._control.send(SystemStatus(msgspec.Raw(msgspec.json.encode(status))))
        return takes

    def answer(self, result: CommandResult) -> None:
        """Answer soon, so that whoever reads after it sees what it wrote."""
        self._answers.append(result)
        if self._timer is None:
            self._send_later(max(self._answered_s + _ANSWER_INTERVAL_S - monotonic_s(), 0.0))

    @property
    def is_idle(self) -> bool:
        """Whether no answer waits to be sent."""
        return not self._answers

    def control_ended(self) -> None:
        """Nobody waits for these answers: the next control process counts its requests anew."""
        self._answers.clear()

    def _send_later(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._send_answers)

    def _send_answers(self) -> None:
        self._timer = None
        if not self._answers:
            return
        if not self.tell_status():
            self._send_later(_ANSWER_INTERVAL_S)
            return
        self._answered_s = monotonic_s()
        answers, self._answers = self._answers, []
        for result in answers:
            self._control.send(result)
