"""How old rows may become, and which days are over that age.

A day goes when its last moment is older than what its table is kept for: never a part of a day, and
never a row that is younger.
"""

from typing import Final

from engine.base.clock import DAY_NS
from engine.messages.upkeep import KeptFor

_UNIT_NS: Final = {"h": 3_600_000_000_000, "d": DAY_NS, "w": 7 * DAY_NS}


def age_ns(kept_for: KeptFor) -> int:
    """`36h`, `14d`, `8w` in ns."""
    return int(kept_for[:-1]) * _UNIT_NS[kept_for[-1]]


def is_over(end_ns: int | None, kept_for: KeptFor, now_ns: int) -> bool:
    """Whether all that came before `end_ns` is older than `kept_for`. None: it never ends."""
    return end_ns is not None and end_ns <= now_ns - age_ns(kept_for)


def first_kept_day_ns(kept_for: KeptFor, now_ns: int) -> int:
    """Start of the oldest day that has a moment within `kept_for`, ns since 1970."""
    return (now_ns - age_ns(kept_for)) // DAY_NS * DAY_NS
