"""The tasks, each a module and a line in `TASKS`; what must be done with a day before it is dropped
is a line in `BEFORE_DROP`.

Imports `engine.upkeep.task` and below. Never knows of the process it runs in.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from engine.upkeep.archive import is_archived
from engine.upkeep.task import Task
from engine.upkeep.tasks.bars.task import Bars, bars_are_made
from engine.upkeep.tasks.chunk_retention import ChunkRetention
from engine.upkeep.tasks.day_index import DayIndex
from engine.upkeep.tasks.days_ahead import DaysAhead
from engine.upkeep.tasks.policies import Policies
from engine.upkeep.tasks.retention import BeforeDrop, Retention
from engine.upkeep.tasks.rewriting import Rewriting
from engine.upkeep.tasks.row_spans import ForgetRowSpans
from engine.upkeep.tasks.sizes import Sizes
from engine.upkeep.tasks.venue_retention import VenueRetention

BEFORE_DROP: Final[tuple[BeforeDrop, ...]] = (bars_are_made, is_archived)
"""All of them must agree, and are asked in this order."""

TASKS: Final[tuple[Callable[[], Task], ...]] = (
    Bars,
    DaysAhead,
    Policies,
    Sizes,
    partial(Retention, BEFORE_DROP),
    partial(ChunkRetention, BEFORE_DROP),
    DayIndex,
    Rewriting,
    ForgetRowSpans,
    partial(VenueRetention, BEFORE_DROP),
)
"""Made once for each database, and run in this order when several are due."""
