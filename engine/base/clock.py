"""The only place that reads clocks, so that tests can tell time."""

from pathlib import Path
from time import monotonic, monotonic_ns, time_ns
from typing import Final

__all__ = ["DAY_NS", "boot_id", "monotonic_ns", "monotonic_s", "wall_ns"]

DAY_NS: Final = 86_400_000_000_000
"""A day of UTC."""

wall_ns = time_ns
"""Wall clock, int64 nanoseconds since 1970-01-01 UTC. Stamps records; never measures intervals."""

monotonic_s = monotonic
"""Monotonic clock in seconds: intervals, deadlines, backoff."""


def boot_id() -> str:
    """Names the boot of the machine since which the monotonic clock counts; "" where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
