"""What is listened to, and up to when: no rows of a table, but what the writer keeps table
`coverage` with.
"""

import numpy as np

from engine.data.kind import Kind

COVERAGE = Kind(
    name="coverage",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("mark", "u1"), ("end", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("carrier", "<i8"), ("at", "<i8"),
            ("since", "<i8"),
        ]
    ),
    columns=(),
    id_field="carrier",
    ring_records=1 << 12,
    newest_shown=0,
)  # fmt: skip
