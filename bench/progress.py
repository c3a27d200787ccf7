"""What is being done, while it is done: lines for who waits, past pytest's capture."""

import os
import sys
from typing import Final

VARIABLE: Final = "FTS_BENCH_PROGRESS_FD"
"""Where `bench.suite` tells what it runs to which file to say it."""


def say(text: str) -> None:
    """Say a line; a reader that is gone is no reason to stop."""
    number = os.environ.get(VARIABLE)
    line = f"{text}\n".encode()
    try:
        os.write(int(number) if number else sys.__stderr__.fileno(), line)  # type: ignore[union-attr]
    except (OSError, ValueError):
        return
