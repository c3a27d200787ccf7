"""How old rows may become, and which days are over that age.

A day goes when its last moment is older than what its table is kept for: never a part of a day, and
never a row that is younger.
"""

from engine.base.clock import DAY_NS
from engine.messages.upkeep import KeptFor, age_ns

__all__ = ["age_ns", "first_kept_day_ns", "is_over"]


def is_over(end_ns: int | None, kept_for: KeptFor, now_ns: int) -> bool:
    """Whether all that came before `end_ns` is older than `kept_for`. None: it never ends."""
    return end_ns is not None and end_ns <= now_ns - age_ns(kept_for)


def first_kept_day_ns(kept_for: KeptFor, now_ns: int) -> int:
    """Start of the oldest day that has a moment within `kept_for`, ns since 1970."""
    return (now_ns - age_ns(kept_for)) // DAY_NS * DAY_NS
