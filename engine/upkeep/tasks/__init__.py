"""The tasks, each a module and a line in `TASKS`; what must be done with a day before it is dropped
is a line in `BEFORE_DROP`.

Imports `task` and below. Never knows of the process it runs in.
"""

from collections.abc import Callable
from typing import Final

from engine.upkeep.task import Task
from engine.upkeep.tasks.chunk_retention import ChunkRetention
from engine.upkeep.tasks.policies import Policies
from engine.upkeep.tasks.rewriting import Rewriting

TASKS: Final[tuple[Callable[[], Task], ...]] = (Policies, ChunkRetention, Rewriting)
"""Made once for each database, and run in this order when several are due."""
