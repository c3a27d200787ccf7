"""The same event once: what comes again within a while is counted, and that is said after it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from engine.base.clock import monotonic_s
from engine.process.lines.forms import LoggedEvent

_REMEMBERED: Final = 512
"""So many different events; of more the oldest is said to its end early."""


@dataclass(slots=True)
class _Repeat:
    last: LoggedEvent
    since_s: float
    count: int = 0


class Repeats:
    """What was said within `fold_s`. Equal is what reads alike to the last figure: two streams, or
    two counts, are two events. With 0 everything is said.
    """

    def __init__(self, fold_s: float, clock_s: Callable[[], float] = monotonic_s) -> None:
        self.fold_s = fold_s
        self._clock_s = clock_s
        self._said: dict[tuple[str, str, str, str], _Repeat] = {}

    def is_new(self, said: LoggedEvent) -> bool:
        """Whether it is to be said; else it has been counted. Call `ended` before."""
        if not self.fold_s:
            return True
        key = said.level, said.event, said.stream, said.text
        if (known := self._said.get(key)) is not None:
            known.last = said
            known.count += 1
            return False
        self._said[key] = _Repeat(said, self._clock_s())
        return True

    @property
    def due_s(self) -> float | None:
        """In how many seconds a count is to be said; None where there is none."""
        since_s = next((each.since_s for each in self._said.values() if each.count), None)
        return None if since_s is None else max(0.0, since_s + self.fold_s - self._clock_s())

    def ended(self, *, all_of_them: bool = False) -> Iterator[LoggedEvent]:
        """Forget what was said so long ago; yield what is to be said of its repeats."""
        now_s = self._clock_s()
        # They stand in the order in which they were said first.
        for key, each in list(self._said.items()):
            is_over = now_s - each.since_s >= self.fold_s
            if not (is_over or all_of_them or len(self._said) > _REMEMBERED):
                return
            self._said.pop(key, None)
            if each.count:
                times = "once more" if each.count == 1 else f"{each.count:,} times more"
                text = f"{each.last.text} … {times} in {now_s - each.since_s:.0f} s"
                fields = {**each.last.fields, "repeats": each.count}
                yield replace(each.last, text=text, fields=fields)
