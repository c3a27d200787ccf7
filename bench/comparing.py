"""Whether something got slower: two runs side by side, beyond what the machine's mood explains.

Each cost is taken in yardsticks (`bench.yardstick`), which were measured beside it: a machine that
is slower as a whole slows both. A change counts where the least of all passes and their median
agree on it; of the two the smaller is said. So one disturbed pass changes nothing, and neither does
one in which only the yardstick was disturbed. Fewer passes are less sure, and so are those in which
the yardstick itself was not steady: more must have changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final

from bench.results import Cost

SLOWER_BY: Final = 0.20
"""From which change on something is slower, where nobody says otherwise."""
PASSES: Final = 5
"""Of which that is said; of fewer by the root of their part more, as the error of a mean is: of two
32 % in place of 20 %, of one 45 %.
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One benchmark, was and is."""

    name: str
    was: Cost | None
    now: Cost | None
    part: float
    """By how much it takes longer: 0.3 is 30 %; below 0 it takes less."""
    word: str
    """`same`, `SLOWER`, `faster`, `new`, `GONE`."""
    sure_from: float = 0.0
    """The change that these runs can tell from noise, where more than was asked about is less than
    that; else 0.
    """

    def line(self) -> str:
        """For eyes."""
        was = "-" if self.was is None else text_of(self.was.least)
        now = "-" if self.now is None else text_of(self.now.least)
        part = f"{self.part:+7.1%}" if self.was and self.now else " " * 7
        doubt = ""
        if self.sure_from:
            doubt = f" as far as can be told: only from {self.sure_from:+.0%} on"
        return f"{self.name:<52} {was:>12} -> {now:>12} {part}  {self.word}{doubt}".rstrip()


def compare(
    was: Mapping[str, Cost], now: Mapping[str, Cost], slower_by: float = SLOWER_BY
) -> list[Change]:
    """Every benchmark of either run, in the order of the first."""
    return [
        _change(name, was.get(name), now.get(name), slower_by)
        for name in dict.fromkeys([*was, *now])
    ]


def _change(name: str, was: Cost | None, now: Cost | None, slower_by: float) -> Change:
    if was is None or now is None:
        return Change(name, was, now, 0.0, "new" if was is None else "GONE")
    by_least = now.floor / was.floor - 1
    by_median = median(now.ratios) / median(was.ratios) - 1
    part = min(by_least, by_median, key=abs) if by_least * by_median > 0 else 0.0
    sure_from = slower_by * sqrt(PASSES / min(PASSES, len(was.seconds), len(now.seconds)))
    sure_from += max(unsteadiness(was), unsteadiness(now)) / 2
    # Faster is the same question with the two runs changed over.
    faster_by = 1 / (1 + sure_from) - 1
    word = "SLOWER" if part > sure_from else "faster" if part < faster_by else "same"
    is_in_doubt = slower_by < part <= sure_from
    return Change(name, was, now, part, word, sure_from if is_in_doubt else 0.0)


def unsteadiness(cost: Cost) -> float:
    """How much longer the yardstick usually took than at its best: the noise of the machine."""
    return median(cost.yardsticks) / min(cost.yardsticks) - 1


def text_of(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:,.3f} {unit}"
    return f"{seconds / 1e-9:,.1f} ns"
