"""Advisory locks that more than one room takes. A number keeps its meaning: engines of another
version take the same.
"""

from typing import Final

STREAMS: Final = 0x66747303
"""Who adds instruments and streams."""
PARTITIONS: Final = 0x66747302
"""Who makes partitions."""
IMPORTS: Final = 0x66747305
"""Who imports a lake: two that add the same rows would not see each other's."""
