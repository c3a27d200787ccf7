"""The streams of one shard pass to the process that succeeds it, while both collect.

    waits     the successor has subscribed the stream and keeps what comes
    asked     what it has kept probably joins: the present process is asked to let go
    released  that has, and has told all that the heir must know; its rows are being journalled
    offered   the heir looks whether it can go on from there without a hole
    over      it does, and the present process drops the stream

What cannot go on goes back to the present process, and is asked for again. What does not run there
passes without a word of it, after a while: the hole it has anyhow is declared. Of two processes one
may die at any moment: this says who has a stream then.
"""

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.base.alarm import Alarm
from engine.base.clock import monotonic_s
from engine.messages.pipes import ToChild
from engine.messages.streams import (
    DropStreams,
    ExpectStreams,
    InheritStream,
    ReleaseStreams,
    StreamInherited,
    StreamReleased,
    StreamsJoined,
    StreamSpec,
    StreamStatus,
    TakeBackStreams,
)

_log = logging.getLogger(__name__)

_ASKED_AGAIN_S: Final = 1.0
_LOOK_S: Final = 0.5
_COLD_AFTER_S: Final = 60.0
"""What has not joined by then does not run, or there is no second place at the venue for it."""


class PassageStep(enum.Enum):
    """Where a stream is on its way."""

    WAITS = enum.auto()
    RELEASED = enum.auto()
    OFFERED = enum.auto()
    OVER = enum.auto()


@dataclass(slots=True)
class _Passage:
    """One stream."""

    heir: StreamSpec
    step: PassageStep = PassageStep.WAITS
    has_joined: bool = False
    asked_s: float = -1.0
    said: str | None = None
    last: StreamStatus | None = None


@dataclass(slots=True)
class Succession:
    """Of one shard. `to_old` and `to_new` send to the two processes; `sync` returns when all that
    is in the rings of the one or the other (`of_new`) is in the journal; `passed` is told of each
    stream that is the successor's now, with the last word of its predecessor.
    """

    to_old: Callable[[ToChild], None]
    to_new: Callable[[ToChild], None]
    sync: Callable[[bool], Awaitable[None]]
    passed: Callable[[StreamSpec, StreamStatus | None], bool]
    has_failed: Callable[[int], bool] = lambda _: False
    """Whether the stream of a slot cannot run: it joins nowhere."""
    cold_after_s: float = _COLD_AFTER_S
    _passages: dict[int, _Passage] = field(default_factory=dict)
    _alarm: Alarm = field(default_factory=Alarm)
    _began_s: float = 0.0
    _is_old_dead: bool = False
    _new_died: str = ""

    @property
    def total(self) -> int:
        """How many streams pass."""
        return len(self._passages)

    @property
    def over(self) -> int:
        """How many are the successor's."""
        return sum(each.step is PassageStep.OVER for each in self._passages.values())

    @property
    def new_died(self) -> str:
        """How the successor ended, if it has."""
        return self._new_died

    def begin(self, heirs: Mapping[int, StreamSpec]) -> None:
        """Have the successor expect these streams, by slot."""
        self._began_s = monotonic_s()
        self._passages = {slot: _Passage(heir) for slot, heir in heirs.items()}
        self.to_new(ExpectStreams(list(heirs.values())))

    async def run(self) -> None:
        """Return when the successor has every stream, or has died."""
        while not self._new_died and self.over < self.total:
            self._ask()
            await self._offer()
            await self._alarm.wait(_LOOK_S)

    def forget(self, slot: int) -> None:
        """Nobody wants the stream any more, or it begins anew: both processes were told so."""
        self._passages.pop(slot, None)
        self._alarm.ring()

    def take(self, message: StreamsJoined | StreamReleased | StreamInherited) -> None:
        """One of the two processes has said this."""
        match message:
            case StreamsJoined():
                for slot in message.slots:
                    if (passage := self._passages.get(slot)) is not None:
                        passage.has_joined = True
            case StreamReleased():
                self._released(message)
            case StreamInherited():
                self._inherited(message)
        self._alarm.ring()

    def _released(self, message: StreamReleased) -> None:
        passage = self._passages.get(message.slot)
        if passage is None:
            self.to_old(TakeBackStreams([message.slot]))
        elif passage.step is PassageStep.WAITS:
            passage.said, passage.last = message.said, message.status
            passage.step = PassageStep.RELEASED

    def _inherited(self, message: StreamInherited) -> None:
        passage = self._passages.get(message.slot)
        if passage is None or passage.step is not PassageStep.OFFERED:
            return
        if message.is_taken:
            passage.step = PassageStep.OVER
            if not self.passed(passage.heir, passage.last):
                self.forget(message.slot)
            if not self._is_old_dead:
                self.to_old(DropStreams([message.slot]))
        elif self._is_old_dead:
            passage.said, passage.step = None, PassageStep.RELEASED
        else:
            passage.step, passage.has_joined = PassageStep.WAITS, False
            passage.asked_s = monotonic_s()
            self.to_old(TakeBackStreams([message.slot]))

    def _ask(self) -> None:
        """Have the present process let go of what has joined."""
        now_s = monotonic_s()
        is_cold = now_s - self._began_s > self.cold_after_s
        due = [
            slot
            for slot, each in self._passages.items()
            if each.step is PassageStep.WAITS
            and (each.has_joined or is_cold or self.has_failed(slot))
            and now_s - each.asked_s >= _ASKED_AGAIN_S
        ]
        for slot in due:
            self._passages[slot].asked_s = now_s
        if due:
            self.to_old(ReleaseStreams(due, is_cold))

    async def _offer(self) -> None:
        """Give what was released to the heirs, once its rows are in the journal: what they go on
        with must come after them everywhere.
        """
        released = [each for each in self._passages.values() if each.step is PassageStep.RELEASED]
        if not released:
            return
        await self.sync(False)
        for each in released:
            if each.step is PassageStep.RELEASED and not self._new_died:
                each.step = PassageStep.OFFERED
                self.to_new(InheritStream(each.heir.slot, each.said))

    def old_died(self) -> None:
        """The present process is gone: its successor has everything from now on."""
        self._is_old_dead = True
        for each in self._passages.values():
            if each.step is PassageStep.WAITS:
                each.step = PassageStep.RELEASED
        self._alarm.ring()

    def died(self, reason: str) -> None:
        """The successor is gone."""
        self._new_died = reason
        self._alarm.ring()

    async def give_back(self) -> list[StreamSpec]:
        """The successor is gone: the present process takes back what was not offered. Returned is
        what it must begin anew from positions: what the successor had, or may have had.
        """
        back = [slot for slot, each in self._passages.items() if each.step is PassageStep.RELEASED]
        self.to_old(TakeBackStreams(back))
        lost = [
            each.heir
            for each in self._passages.values()
            if each.step in (PassageStep.OFFERED, PassageStep.OVER)
        ]
        self.to_old(DropStreams([heir.slot for heir in lost]))
        await self.sync(True)
        return lost
