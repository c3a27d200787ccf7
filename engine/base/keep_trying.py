"""Work that depends on somebody else, tried again until it is done.

Two rules that every such loop needs. The delay starts over when *work was done*, never when a
connection was opened: a server that lets everybody in and then refuses everything would else be
asked many times a second. And what is wrong is said once: the same words again, numbers aside, are
counted and said with their count after a while.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.errors import EngineError

_Result = TypeVar("_Result")

_SAID_AGAIN_AFTER_S: Final = 300.0
_REMEMBERED_TEXTS: Final = 64
_NUMBERS: Final = re.compile(r"\d+")


class Trouble:
    """Why one piece of work does not get done, and for how long: one verdict that log, status and
    light all read. `text` is empty while work gets done.
    """

    def __init__(
        self,
        what: str,
        consequence: str,
        backoff: Backoff,
        log: logging.Logger,
        clock_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self.what = what
        self._consequence = consequence
        self._backoff = backoff
        self._log = log
        self._clock_s = clock_s
        self.text = ""
        self.since_s = 0.0
        """Since when nothing has been done (monotonic), while `text` says why."""
        self.has_worked = False
        self._failures = 0
        self._was_said = False
        self._said: dict[str, tuple[float, int]] = {}
        """By shape of the text: when it was said, and how often it was met since."""

    @property
    def state(self) -> str:
        """`down` while work does not get done, `connecting` before any was, else `up`."""
        if self.text:
            return "down"
        return "up" if self.has_worked else "connecting"

    def met(self, error: Exception | str) -> float:
        """Note a failure; return how many seconds to wait before the next try."""
        now_s = self._clock_s()
        if not self.text:
            self.since_s, self._failures = now_s, 0
        self._failures += 1
        self.text = _first_line(error)
        self._say(now_s)
        return self._backoff.next_s()

    def over(self) -> None:
        """Work was done."""
        self._backoff.reset()
        self.has_worked = True
        if not self.text:
            return
        if self._was_said:
            seconds = self._clock_s() - self.since_s
            tries = f"{self._failures} failed tries" if self._failures > 1 else "one failed try"
            fields = {"what": self.what, "failures": self._failures, "seconds": round(seconds, 1)}
            self._log.info(
                "%s: works again, after %s in %.1f s", self.what, tries, seconds,
                extra={"fields": fields},
            )  # fmt: skip
        self.text, self._was_said = "", False

    def _say(self, now_s: float) -> None:
        shape = _NUMBERS.sub("#", self.text)
        said_s, unsaid = self._said.pop(shape, (-_SAID_AGAIN_AFTER_S, 0))
        if now_s - said_s < _SAID_AGAIN_AFTER_S:
            self._said[shape] = said_s, unsaid + 1
            return
        again = f" (and {unsaid} times before, unsaid)" if unsaid else ""
        fields = {"what": self.what, "reason": self.text, "failures": self._failures}
        self._log.warning(
            "%s: %s%s; %s", self.what, self.text, again, self._consequence,
            extra={"fields": fields},
        )  # fmt: skip
        self._was_said = True
        self._said[shape] = now_s, 0
        if len(self._said) > _REMEMBERED_TEXTS:
            del self._said[next(iter(self._said))]


async def keep_trying(
    work: Callable[[], Awaitable[_Result]],
    trouble: Trouble,
    cured_by_time: tuple[type[Exception], ...] = (EngineError,),
) -> _Result:
    """Return what `work` returns, however often it has to be tried.

    Work that goes on for ever says `trouble.over()` itself, each time it has got something done.
    Raises what is not `cured_by_time`, and every EngineError that is not retriable.
    """
    while True:
        try:
            result = await work()
        except cured_by_time as error:
            if isinstance(error, EngineError) and not error.retriable:
                raise
            delay_s = trouble.met(error)
        else:
            trouble.over()
            return result
        await asyncio.sleep(delay_s)


def _first_line(error: Exception | str) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
