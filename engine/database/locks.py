"""Advisory locks that more than one room takes. A number keeps its meaning: engines of another
version take the same.
"""

from typing import Final

MIGRATION: Final = 0x66747301
"""Who changes the schema."""
PARTITIONS: Final = 0x66747302
"""Who makes or drops a day, in that transaction."""
STREAMS: Final = 0x66747303
"""Who adds instruments and streams."""
REGISTRY: Final = 0x66747304
"""Who writes the mirror of the wanted streams."""
QUARANTINE: Final = REGISTRY
"""Who sets rows aside or takes them out. The same number since 0.1.0: each holds it for moments."""
IMPORTS: Final = 0x66747305
"""Who imports a lake: two that add the same rows would not see each other's."""
UPKEEP: Final = 0x66747306
"""Who looks after the database: one at a time."""
