"""What the engine used of the simulated venues' limits, as the simulator saw it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LimitsUsed"]


@dataclass(frozen=True, slots=True)
class LimitsUsed:
    """The simulator's ledger of limits."""

    by_venue: Mapping[str, Sequence[Mapping[str, Any]]]
    """A line for each limit: `used_max` within its window against `most`."""

    @property
    def exceeded(self) -> list[str]:
        """Which limits were exceeded, in words. Advice binds nobody."""
        return [
            f"{venue}: {_text(line)}"
            for venue, lines in self.by_venue.items()
            for line in lines
            if line["exceeded"] and line["then"] != "advises"
        ]

    def lines(self) -> Iterator[str]:
        """A line for each venue: of each limit the highest use and what is allowed; then what was
        exceeded.
        """
        width = max(map(len, self.by_venue), default=0)
        yield "used of the venues' limits at most, and what they allow:"
        for venue, lines in self.by_venue.items():
            yield f"  {venue:<{width}}  {', '.join(map(_text, lines))}"
        yield from (f"EXCEEDED: {text}" for text in self.exceeded)


def _text(line: Mapping[str, Any]) -> str:
    seconds = f" in {line['window_s']:g} s" if line["window_s"] else ""
    whose = "" if line["per"] == "address" else f" a {line['per']}"
    together = f" (all of {line['shared']})" if line["shared"] else ""
    return f"{line['limit']} {line['used_max']:,}/{line['most']:,}{seconds}{whose}{together}"
