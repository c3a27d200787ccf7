"""The tasks, each a module and a line in `TASKS`; what must be done with a day before it is dropped
is a line in `BEFORE_DROP`.

Imports `engine.upkeep.task` and below. Never knows of the process it runs in.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from engine.upkeep.task import Task
from engine.upkeep.tasks.day_index import DayIndex
from engine.upkeep.tasks.days_ahead import DaysAhead
from engine.upkeep.tasks.retention import BeforeDrop, Retention
from engine.upkeep.tasks.sizes import Sizes
from engine.upkeep.tasks.venue_retention import VenueRetention

BEFORE_DROP: Final[tuple[BeforeDrop, ...]] = ()
"""All of them must agree, and are asked in this order."""

TASKS: Final[tuple[Callable[[], Task], ...]] = (
    DaysAhead,
    Sizes,
    partial(Retention, BEFORE_DROP),
    DayIndex,
    partial(VenueRetention, BEFORE_DROP),
)
"""Made once for each database, and run in this order when several are due."""
