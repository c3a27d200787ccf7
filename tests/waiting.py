"""Wait for what another task, thread or process brings about, and say what did not come."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from engine.base.clock import monotonic_s

_T = TypeVar("_T")

_LOOK_EVERY_S = 0.01
_LOOK_EVERY_S_MAX = 0.1
_REST = 4.0
"""Times that a look took: it may count the rows of a database, or start a program, and what is
waited for needs the same CPUs.
"""
_PATIENCE_S = 60.0
"""Only a test that fails waits so long."""


async def until(
    condition: Callable[[], _T],
    what: str = "what never came",
    timeout_s: float = _PATIENCE_S,
    doing: Callable[[], object] = lambda: None,
) -> _T:
    """What `condition` returns once it is true. Calls `doing` between two looks."""
    ends_s = monotonic_s() + timeout_s
    looked_s = monotonic_s()
    while not (found := condition()):
        assert monotonic_s() < ends_s, f"waited {timeout_s:g} s for {what}"
        await asyncio.sleep(_rest_s(looked_s))
        doing()
        looked_s = monotonic_s()
    return found


def wait_for(
    condition: Callable[[], _T],
    what: str | Callable[[], str] = "what never came",
    timeout_s: float = _PATIENCE_S,
) -> _T:
    """The same where no event loop runs. `what` may be asked for when it did not come."""
    ends_s = monotonic_s() + timeout_s
    looked_s = monotonic_s()
    while not (found := condition()):
        if monotonic_s() >= ends_s:
            raise AssertionError(f"waited {timeout_s:g} s for {what() if callable(what) else what}")
        time.sleep(_rest_s(looked_s))
        looked_s = monotonic_s()
    return found


def _rest_s(looked_s: float) -> float:
    """Until the next look, after one that began then."""
    took_s = monotonic_s() - looked_s
    return min(max(_REST * took_s, _LOOK_EVERY_S), _LOOK_EVERY_S_MAX)
