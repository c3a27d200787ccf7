"""What every sink does."""

from collections import Counter
from dataclasses import dataclass, field

from engine.data.kinds import RecordArray, RecordKind


@dataclass(slots=True)
class Taken:
    """What became of a batch, by record kind."""

    rows: Counter[str] = field(default_factory=Counter)
    """Rows of rings; gaps that declare a loss come with them and are not counted."""
    refused: Counter[str] = field(default_factory=Counter)
    inexact_rows: int = 0
    gaps: RecordArray | None = None
    """What was declared for the refused rows."""
    interrupted: frozenset[tuple[RecordKind, int]] = frozenset()
    """Kinds and slots whose last row in this batch was refused."""
