"""Wait for what another task, thread or process brings about, and say what did not come."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from engine.base.clock import monotonic_s

_T = TypeVar("_T")

_LOOK_EVERY_S = 0.01
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
    while not (found := condition()):
        assert monotonic_s() < ends_s, f"waited {timeout_s:g} s for {what}"
        await asyncio.sleep(_LOOK_EVERY_S)
        doing()
    return found


def wait_for(
    condition: Callable[[], _T], what: str = "what never came", timeout_s: float = _PATIENCE_S
) -> _T:
    """The same where no event loop runs."""
    ends_s = monotonic_s() + timeout_s
    while not (found := condition()):
        assert monotonic_s() < ends_s, f"waited {timeout_s:g} s for {what}"
        time.sleep(_LOOK_EVERY_S)
    return found
